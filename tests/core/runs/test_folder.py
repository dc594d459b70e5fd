"""Run folders: compared with their lock whenever they are opened, held while they train, untouched by a refusal."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
import xxhash
import yaml
from conftest import MELODY, ROOT, TINY
from rich.console import Console

import mio
from mio.api.loaded import Loaded
from mio.cli import app
from mio.core.checksums import file_sum, read_summed, write_summed
from mio.core.contract.plugins import PluginManager
from mio.core.data.journal import read
from mio.core.errors import DataError, UserError
from mio.core.files import locked
from mio.core.generation.model import Model
from mio.core.recipe.resolved import diff, load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import Lock, check_run, lock_run, seal_samples
from mio.core.runs.run import Run
from mio.core.stages.fit import fit_chain
from mio.core.training.callbacks import Checkpoints


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
    return PluginManager.discover()


@pytest.fixture
def run(tunes, finished):
    """A finished run of four steps, and in the working directory what made it."""
    shutil.copytree(finished, tunes / "runs/tunes")
    shutil.copy(finished.parents[1] / "names.jsonl", tunes / "names.jsonl")
    return tunes / "runs/tunes"


@pytest.fixture
def unfinished(run):
    """The same as a process that ended just after its last checkpoint leaves it."""
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()
    lock = Lock.read(run)
    lock.unsealed().save(run / "recipe.lock")
    return run


def fit(*overrides, file="tunes.yaml"):
    """Trains in this process; returns what was printed."""
    printed = io.StringIO()
    fit_chain([file], [*TINY, *overrides], PluginManager.discover(), Console(file=printed, width=400))
    return printed.getvalue()


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def edited(path, change):
    """Changes the content of a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def old_lock(folder):
    """The lock as earlier versions wrote it: without checksums of files."""
    edited(folder / "recipe.lock", lambda lock: [lock.pop(key) for key in ("run", "files", "history", "checksum")])
    fingerprints = {name: entry["fingerprint"] for name, entry in record_of(folder).items()}
    (folder / "tokenizers/tokenizers.json").write_text(json.dumps(fingerprints))


def record_of(folder):
    return read_summed(folder / "tokenizers/tokenizers.json", "")


# what is there is what was written


def test_whatever_is_done_to_a_file_is_refused_by_name_or_changes_nothing(finished, tmp_path, manager, capsys):
    """A part of what benchmarks/run_folders.py tries."""
    spec = importlib.util.spec_from_file_location("run_folders", ROOT / "benchmarks/run_folders.py")
    run_folders = importlib.util.module_from_spec(spec)
    sys.modules["run_folders"] = run_folders
    spec.loader.exec_module(run_folders)
    other = tmp_path / "other"
    shutil.copytree(finished, other)  # a run like it, with other content in every file that a swap could bring
    for path in [path for path in other.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))

    def answer():
        opened = Loaded(Model.of(Run.open(tmp_path / "tunes", manager)))
        return opened.generate("hello", "text", max_tokens=6).to_json()

    def made():
        shutil.rmtree(tmp_path / "tunes", ignore_errors=True)
        shutil.copytree(finished, tmp_path / "tunes")
        return list(run_folders.attacks(tmp_path / "tunes", other, random.Random(0), 1, "checkpoints"))

    count, verdicts = len(made()), {}
    truth = answer()
    for index in random.Random(1).sample(range(count), 24):
        attack = made()[index]
        verdict, said = run_folders.judge(attack, answer, truth)
        assert verdict in ("refused", "told"), (attack.file, attack.kind, verdict, said)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    assert verdicts["refused"] > verdicts["told"] > 0
    capsys.readouterr()


def test_tokenizers_that_are_gone_are_not_trained_anew_under_the_rows_of_the_old_ones(run, tunes, capsys):
    shutil.rmtree(run / "tokenizers")
    (tunes / "second.yaml").write_text("include: [tunes.yaml]\nname: second\nstart_from: runs/tunes\n")
    assert app.run(["fit", "second.yaml", *TINY]) == 2
    assert "runs/tunes/tokenizers/tokenizers.json: is missing; restore it" in capsys.readouterr().err
    assert not (tunes / "runs/second/model.safetensors").exists()


@pytest.mark.parametrize("old", [False, True])
def test_names_of_two_tokens_that_were_exchanged_are_noticed(run, manager, old):
    if old:
        old_lock(run)
        Run.open(run, manager)
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    first, second = [block for block in vocabulary["blocks"] if block["kind"] == "special"][:2]
    first["name"], second["name"] = second["name"], first["name"]
    (run / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(DataError, match=r"vocabulary\.json: is not what the run wrote"):
        Run.open(run, manager)


@pytest.mark.parametrize("old", [False, True])
def test_a_recipe_that_was_cut_is_refused_wherever_it_still_loads(run, manager, old):
    if old:
        old_lock(run)
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    outside = next(at for at, line in enumerate(lines) if line.startswith("generate:"))
    for cut in range(3, outside if old else len(lines), 7):  # how a run is carried out has no part in a fingerprint
        (run / "recipe.yaml").write_text("".join(lines[:cut]))
        with pytest.raises(UserError, match=r"recipe\.yaml"):
            Run.open(run, manager)


def test_a_checkpoint_of_another_run_is_refused(run, manager, tmp_path):
    path = latest(run / "checkpoints")
    Run.open(path, manager)
    shutil.copytree(run, tmp_path / "other")
    lock = Lock.read(run)
    loaded = load_resolved(run / "recipe.yaml")
    opened = Run.open(run, manager)
    lock_run(tmp_path / "other", loaded, opened.plugins, opened.vocabulary, lock.tokenizers)
    with pytest.raises(DataError, match=r"step-00000004: is a checkpoint of another run"):
        Run.open(tmp_path / "other" / path.relative_to(run), manager)


def test_a_folder_without_a_lock_is_refused_until_it_is_taken_as_it_is(run, manager, capsys):
    (run / "recipe.lock").unlink()
    with pytest.raises(DataError, match=rf"recipe\.lock: no such file; .*`mio recipe lock {run} --accept`"):
        Run.open(run, manager)
    assert app.run(["recipe", "lock", str(run), "--accept"]) == 0
    Run.open(run, manager)
    Run.open(latest(run / "checkpoints"), manager)  # whose run it still is
    before = Lock.read(run)
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"model\.safetensors: is not what the run wrote"):
        Run.open(run, manager)
    capsys.readouterr()
    assert app.run(["recipe", "lock", str(run), "--accept"]) == 0
    assert "model.safetensors changed" in capsys.readouterr().out
    Run.open(run, manager)
    assert Lock.read(run).run == before.run


def test_weights_of_another_shape_are_told_even_where_the_lock_allows_them(run, manager):
    from safetensors.torch import load_file, save_file

    old_lock(run)
    weights = load_file(run / "model.safetensors")
    weights["layers.0.attention.output.weight"] = weights["layers.0.attention.output.weight"][:8].clone()
    save_file(weights, run / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: does not fit recipe\.yaml.*output\.weight` is \[8, 64\]"):
        _ = Run.open(run, manager).transformer


def test_plugins_that_declare_more_than_the_run_has_are_refused(run, tmp_path, monkeypatch):
    text, old = (MELODY / "mio_melody.py").read_text(), "codebooks=(len(NOTES),)"
    assert text.count(old) == 1
    (tmp_path / "richer_melody.py").write_text(text.replace(old, f'{old}, specials=("<rest>",)'))
    monkeypatch.setenv("MIO_PLUGINS", f"melody={tmp_path / 'richer_melody.py'}")
    told = []
    opened = Run.open(run, PluginManager.discover(), told.append)
    with pytest.raises(UserError, match="declare what the run does not have: `<rest>`"):
        _ = opened.vocabulary
    assert re.search(r"made by other versions: plugin melody mio_melody\.py \w+ -> richer_melody\.py \w+", told[0])


# a refused resume leaves the folder as it was


@pytest.mark.parametrize("state", ["run", "unfinished"])
def test_plugins_in_another_order_are_another_recipe(state, request, tunes, capsys):
    folder = request.getfixturevalue(state)
    text = (tunes / "tunes.yaml").read_text()
    (tunes / "order.yaml").write_text(
        text.replace("{text: {tokenizer: bytes}, melody: {}}", "{melody: {}, text: {tokenizer: bytes}}")
    )
    before = digests(folder)
    assert app.run(["fit", "order.yaml", *TINY]) == 2
    assert "order of plugins: text, melody -> melody, text" in capsys.readouterr().err
    assert digests(folder) == before
    assert app.run(["recipe", "diff", "tunes.yaml", "order.yaml"]) == 0
    assert capsys.readouterr().out == "vocabulary\n  order of plugins: text, melody -> melody, text\n"


def test_the_order_of_options_decides_nothing():
    first, second = (yaml.safe_load(text) for text in ("{a: {x: 1, y: 2}, b: {}}", "{a: {y: 2, x: 1}, b: {}}"))
    made = [Recipe(name="a", plugins=plugins) for plugins in (first, second)]
    assert diff(*made) == []


def test_a_resume_that_is_refused_late_leaves_the_folder_as_it_was(unfinished, tunes):
    (unfinished / "checkpoints/step-00000009.partial-earlier").mkdir()
    before = digests(unfinished)
    (tunes / "names.jsonl").write_text('{"text": "do re mi"}\n{"text": "fa"}')
    with pytest.raises(DataError, match="data have changed since it began"):
        fit("train.steps=4")
    assert digests(unfinished) == before


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("journal.csv", r"journal\.csv(, line \d)?: is "),
        ("vocabulary.json", r"vocabulary\.json: is not"),
        ("checkpoints/step-00000004/index.json", r"index\.json: is damaged"),
        ("checkpoints/step-00000004/state.json", r"state\.json: is damaged"),
    ],
)
def test_damage_is_told_before_anything_is_written(unfinished, file, problem):
    content = bytearray((unfinished / file).read_bytes())
    content[len(content) // 2] ^= 1
    (unfinished / file).write_bytes(content)
    before = digests(unfinished)
    with pytest.raises(UserError, match=problem):
        fit()
    assert digests(unfinished) == before


def test_a_lost_journal_and_damaged_figures_are_told_and_the_run_goes_on(unfinished, finished, capsys):
    (unfinished / "journal.csv").unlink()
    (unfinished / "metrics.csv").write_bytes(b"step,loss\n\xff,1\n\0")
    printed = fit("runtime.log_every=1")
    assert "journal.csv is missing" in printed
    assert "metrics.csv" not in printed  # four steps of a run that logs every tenth: there was no row to lose
    assert (unfinished / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert app.run(["recipe", "verify", "runs/tunes"]) == 2
    assert "journal.csv" in capsys.readouterr().err


def test_other_versions_are_told_and_both_are_kept(unfinished, monkeypatch):
    assert [entry["step"] for entry in Lock.read(unfinished).history] == [0]
    (unfinished / "checkpoints/step-00000004").rename(unfinished / "checkpoints/step-00000004.aside")
    shutil.rmtree(unfinished / "checkpoints/step-00000004.aside")
    fit_until(2)
    monkeypatch.setattr(mio, "__version__", "9.9")
    printed = fit()
    assert re.search(r"trained with other versions up to step 2: mio \S+ -> 9\.9; recipe\.lock keeps both", printed)
    history = Lock.read(unfinished).history
    assert [(entry["step"], entry["mio"]) for entry in history[-1:]] == [(2, "9.9")]
    assert history[0]["mio"] != "9.9"


def fit_until(step, *overrides):
    """Trains and ends after a step that was saved, as a crash does."""
    whole = Checkpoints.on_train_batch_end

    def ending(self, trainer, module, outputs, batch, index):
        whole(self, trainer, module, outputs, batch, index)
        if trainer.global_step == step:
            trainer.strategy.writer.wait()
            raise RuntimeError("stopped")

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(RuntimeError):
        patch.setattr(Checkpoints, "on_train_batch_end", ending)
        fit("runtime.checkpoint_every=2", *overrides)


# one process at a time, and what can happen to it


def test_two_processes_cannot_train_in_one_folder(tunes, capsys):
    (tunes / "runs/tunes").mkdir(parents=True)
    with locked(tunes / "runs/tunes", "busy"):
        assert app.run(["fit", "tunes.yaml", *TINY]) == 2
        assert "runs/tunes: another process trains in it" in capsys.readouterr().err
        assert not (tunes / "runs/tunes/recipe.yaml").exists()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    reading, writing = os.pipe()
    with locked(tmp_path, "busy"):
        child = os.fork()
        if not child:
            os.write(writing, b"!")
            time.sleep(30)
            os._exit(0)
        os.read(reading, 1)
        with pytest.raises(UserError, match="busy"), locked(tmp_path, "busy"):
            pass
    try:
        with locked(tmp_path, "still held by the child"):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_deleted_while_it_is_trained_is_no_finished_run(tunes, monkeypatch, again):
    whole = Checkpoints.on_train_batch_end

    def deleting(self, trainer, *arguments):
        if trainer.global_step == 2:
            shutil.rmtree(tunes / "runs/tunes")
            if again:
                (tunes / "runs/tunes").mkdir()
        whole(self, trainer, *arguments)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", deleting)
    with pytest.raises(UserError, match="runs/tunes was deleted or replaced while it was trained"):
        fit()


def test_a_write_that_fails_at_any_point_bricks_no_run(tunes, finished, monkeypatch):
    """Each start fails one replacement of a file later than the one before; the last one fails nowhere."""
    shutil.copy(finished.parents[1] / "names.jsonl", tunes / "names.jsonl")
    replaced, counted = os.replace, 0

    def failing(source, target):
        nonlocal counted
        counted -= 1
        if counted == 0:
            raise OSError(28, "No space left on device", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", failing)
    told = []
    for point in range(1, 40):
        counted = point
        try:
            fit()
            break
        except UserError as error:
            told.append(str(error))
    assert len(told) > 8
    assert all("No space left on device" in line and "same command" in line for line in told), told
    assert (tunes / "runs/tunes/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert read(tunes / "runs/tunes/journal.csv") == read(finished / "journal.csv")
    check_run(tunes / "runs/tunes", weights=True, tell=pytest.fail)


LAUNCHER = """
import sys
from mio.core.distributed.launch import launch
child = "from mio.core.distributed.launch import follow_launcher; import os, time; follow_launcher(); os.write(1, f'{os.getpid()}{chr(10)}'.encode()); time.sleep(60)"
launch([sys.executable, "-c", child], 2, 0)
"""  # noqa: E501


def test_processes_end_with_their_launcher_however_it_ends():
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True)
    children = [int(launcher.stdout.readline()) for _ in range(2)]
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 10
    while any(_runs(child) for child in children):
        assert time.monotonic() < deadline, "a process outlives its launcher"
        time.sleep(0.02)
    launcher.stdout.close()


ENDED = """
import os, signal, sys
from mio.core.distributed.launch import launch
child = "import os, signal, time; os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(60)"
sys.exit(launch([sys.executable, "-c", child], 2, 0))
"""


def test_a_process_that_was_killed_is_told_of():
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: a process was ended by SIGKILL; the same command goes on from the last checkpoint"
    ]


def test_a_signal_before_the_processes_listen_is_an_interruption():
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER.replace("launch([", "code = launch([") + "sys.exit(code)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        launcher.stdout.readline()
    launcher.terminate()
    _, err = launcher.communicate(timeout=20)
    assert launcher.returncode == 130
    assert err == "interrupted: give the same command again to go on\n"


def _runs(process):
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# the journal is as long as the run


def test_verify_wants_every_step_of_a_finished_run(run, capsys):
    lines = (run / "journal.csv").read_bytes().splitlines(keepends=True)
    assert app.run(["recipe", "verify", "runs/tunes"]) == 0
    for kept, problem in (
        (lines[:3], "2 steps are missing (3, 4)"),
        (lines[:1], "4 steps are missing (1, 2, 3, 4)"),
        ([*lines[:4], lines[4][:9]], "1 steps are missing (4)"),
        (None, "there is no journal"),
    ):
        (run / "journal.csv").unlink()
        if kept is not None:
            (run / "journal.csv").write_bytes(b"".join(kept))
        capsys.readouterr()
        assert app.run(["recipe", "verify", "runs/tunes"]) == 2
        assert problem in capsys.readouterr().err


def test_verify_of_a_run_that_has_not_begun_says_so(run, capsys):
    for path in sorted(run.rglob("*"), reverse=True):
        if path.name != "recipe.yaml":
            path.rmdir() if path.is_dir() else path.unlink()
    assert app.run(["recipe", "verify", "runs/tunes"]) == 2
    assert "training has not begun" in capsys.readouterr().err


def test_verify_wants_the_steps_of_the_last_checkpoint_of_an_unfinished_run(unfinished, capsys):
    lines = (unfinished / "journal.csv").read_bytes().splitlines(keepends=True)
    assert app.run(["recipe", "verify", "runs/tunes"]) == 0
    (unfinished / "journal.csv").write_bytes(b"".join(lines[:4]))
    capsys.readouterr()
    assert app.run(["recipe", "verify", "runs/tunes"]) == 2
    assert "1 steps are missing (4)" in capsys.readouterr().err


# checksums


def test_sums_tell_every_difference(tmp_path, monkeypatch):
    path = tmp_path / "a"
    content = bytes(random.Random(0).randbytes(10_000))
    seen = set()
    for block in (64 << 20, 1000, 999):  # one block, and many
        monkeypatch.setattr("mio.core.checksums._BLOCK", block)
        for changed in (content, content[:-1], content + b"\0", content[1:] + content[:1], b"", content[::-1]):
            path.write_bytes(changed)
            sums = [xxhash.xxh3_128_digest(changed[at : at + block]) for at in range(0, len(changed), block)]
            whole = xxhash.xxh3_128_hexdigest(len(changed).to_bytes(8, "little") + b"".join(sums))
            assert file_sum(path) == whole
            seen.add((block, whole))
        halves = content[: block % 10_000], content[block % 10_000 :]
        path.write_bytes(halves[1] + halves[0])
        seen.add((block, file_sum(path)))
    assert len(seen) >= 20
    write_summed(tmp_path / "b.json", {"x": 1, "y": [0.1, None]})
    assert read_summed(tmp_path / "b.json", "") == {"x": 1, "y": [0.1, None]}
    edited(tmp_path / "b.json", lambda content: content.update(x=2))
    with pytest.raises(DataError, match=r"b\.json: is damaged \(its checksum is another\); mend it"):
        read_summed(tmp_path / "b.json", "mend it")


def test_evaluations_that_end_together_are_all_sealed(run):
    """One that is noted while another is waits for it."""
    (run / "evaluation").mkdir()
    (run / "evaluation/late.jsonl").write_text("{}\n")
    held = locked(run, "busy", ".sealing")
    with held:
        waiting = threading.Thread(target=seal_samples, args=(run,))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert "evaluation/late.jsonl" not in Lock.read(run).files
    waiting.join()
    assert Lock.read(run).files["evaluation/late.jsonl"] == file_sum(run / "evaluation/late.jsonl")
