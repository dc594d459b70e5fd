"""A run keeps to the spans that it was trained on: automaton, lengths, layout and parts of its modalities."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from conftest import MELODY, TINY
from rich.console import Console

import mio
from mio.cli import app
from mio.core.contract.declared_spans import declared_spans, span_changes
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.recipe.lock_file import LockFile
from mio.core.runs.lock import Lock
from mio.core.runs.run import Run
from mio.core.stages.check_chain import check_chain
from mio.core.stages.drift import drifts
from mio.core.stages.fit import fit_chain

FRAMES = "frames=mio.Frames(minimum=1, maximum=8)"
PAIRS = """automaton=mio.Automaton(
    start=0, arcs={0: [mio.Arc(range(8), 1)], 1: [mio.Arc(range(8), 0)]}, final=[0]
)"""
OTHER = {
    "shorter": (f"{FRAMES},", "frames=mio.Frames(minimum=1, maximum=6),", "`frames` 1 to 6", "1 to 8"),
    "pairs": (f"{FRAMES},", f"{FRAMES}, {PAIRS},", "`automaton` ", "none"),
}
"""What the plugin declares instead, what that is, and what it was."""


@pytest.fixture
def run(tunes, finished):
    """A finished run of four steps, and in the working directory what made it."""
    shutil.copytree(finished, tunes / "runs/tunes")
    shutil.copy(finished.parents[1] / "names.jsonl", tunes / "names.jsonl")
    return tunes / "runs/tunes"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """A folder with the plugins: a process imports a module from one place."""
    folder, text = tmp_path_factory.mktemp("plugins"), (MELODY / "mio_melody.py").read_text()
    for name, (old, new, *_) in OTHER.items():
        assert text.count(old) == 1
        (folder / f"melody_{name}.py").write_text(text.replace(old, new))
    return folder


@pytest.fixture(params=OTHER)
def other(request, plugins, monkeypatch):
    """The plugin declares its spans in another way from now on; what that is, and what it was."""
    monkeypatch.setenv("MIO_PLUGINS", f"melody={plugins / f'melody_{request.param}.py'}")
    return OTHER[request.param][2:]


def fit(*overrides):
    fit_chain(["tunes.yaml"], [*TINY, *overrides], PluginManager.discover(), Console(file=io.StringIO()))


def test_a_finished_run_is_not_used_with_other_spans(run, other, capsys):
    now, was = other
    opened = Run.open(run, PluginManager.discover())
    for part in ("renderer", "transformer"):
        with pytest.raises(UserError, match=rf"`melody` declares {now}.*, but the run was made with {was};"):
            getattr(opened, part)
    assert app.run(["recipe", "lock", str(run), "--accept"]) == 0
    assert f"{now.split()[0]} of `melody`: {was} -> " in capsys.readouterr().out
    assert Run.open(run, PluginManager.discover()).transformer is not None


def test_an_interrupted_run_does_not_go_on_with_other_spans(run, other):
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()
    Lock.read(run).unsealed().save(run / "recipe.lock")
    with pytest.raises(UserError, match=rf"`melody` declares {other[0]}.*, but the run was made with {other[1]};"):
        fit("train.steps=4")


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [(f"{FRAMES},", f'{FRAMES}, specials=("<bar>", "<rest>"),', 2), ('begin="<melody>"', 'begin="<tune>"', 1)],
    ids=["specials", "begin"],
)
def test_a_stage_may_declare_more_than_its_parent(run, plugins, monkeypatch, old, new, more):
    text = (MELODY / "mio_melody.py").read_text()
    assert text.count(old) == 1
    (plugins / f"melody_{more}.py").write_text(text.replace(old, new))
    monkeypatch.setenv("MIO_PLUGINS", f"melody={plugins / f'melody_{more}.py'}")
    fit(f"name=more{more}", f"start_from={run}", "train.steps=1")
    child = Run.open(run.parent / f"more{more}", PluginManager.discover())
    had = child.stored_vocabulary.size - more
    assert had == json.loads((run / "vocabulary.json").read_text())["blocks"][-1]["start"] + 8


def test_a_stage_whose_tokenizer_is_another_is_refused_before_it_trains(run, plugins, monkeypatch):
    text = (MELODY / "mio_melody.py").read_text()
    assert text.count('"melody-1"') == 1
    (plugins / "melody_two.py").write_text(text.replace('"melody-1"', '"melody-2"'))
    monkeypatch.setenv("MIO_PLUGINS", f"melody={plugins / 'melody_two.py'}")
    with pytest.raises(UserError, match=r"tokenizer of `melody` is melody-2, in .* melody-1: its codes mean something"):
        check_chain(["tunes.yaml"], ["name=two", f"start_from={run}"], PluginManager.discover())


def test_a_stage_may_change_the_spans_of_its_parent_and_says_so(run, tunes, other):
    assert run.is_dir()
    text = (tunes / "tunes.yaml").read_text()
    (tunes / "more.yaml").write_text(text.replace("name: tunes", "name: more\nstart_from: runs/tunes"))
    [stage] = check_chain(["more.yaml"], [], PluginManager.discover())
    now, was = other
    [note] = [note for note in stage.notes if "`melody` declares" in note]
    assert note.startswith(f"`melody` declares {now}")
    assert note.endswith(f", in runs/tunes {was}: its spans are learnt and written as is declared now")


def test_a_locked_recipe_is_not_trained_with_other_spans(tunes, other):
    (tunes / "names.jsonl").write_text('{"text": "do re mi"}')
    theirs = PluginManager.discover()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
        assert app.run(["recipe", "lock", "tunes.yaml", "--out", "tunes.lock"]) == 0
    lock = LockFile.read(tunes / "tunes.lock", theirs)
    found = [drift.what for drift in drifts(lock, [lock.stages[0].made], theirs) if drift.group == "model"]
    [told] = found
    assert told.startswith(f"{other[0].split('`')[1]} of melody {other[1]} -> ")


def test_a_run_of_an_earlier_version_has_nothing_to_compare(run, other):
    assert other
    lock = Lock.read(run)
    Lock(**{**vars(lock), "spans": {}}).save(run / "recipe.lock")
    assert "spans" not in (run / "recipe.lock").read_text()
    assert Run.open(run, PluginManager.discover()).renderer is not None


def test_what_is_the_same_is_declared_in_the_same_words():
    def declared(**fields):
        return declared_spans([mio.Modality(name="a", codebooks=(4, 4), begin="<a>", end="</a>", **fields)])

    def automaton(name):
        arcs = {name: [mio.Arc(range(2), 1), mio.Arc((2, 3), 1)], 1: [mio.Arc(range(4), name)]}
        return mio.Automaton(start=name, arcs=arcs, final=[name])

    plain = declared(layout="frame_major", automaton=automaton("first"))
    assert declared(layout="frame_major", automaton=automaton("a")) == plain
    assert declared(layout="frame_major", automaton=automaton("a"), views={"understand": (0, 1)}) == plain
    assert declared(layout="frame_major", automaton=automaton("a"), frames=mio.Frames(step=2)) != plain
    for fields, changed in (
        ({"layout": "delayed"}, {("layout", "frame_major", "delayed"), ("automaton", plain["a"]["automaton"], "none")}),
        ({"layout": "frame_major", "views": {"understand": (0,)}},
         {("views.understand", "0 1", "0"), ("automaton", plain["a"]["automaton"], "none")}),
    ):  # fmt: skip
        assert {change[1:] for change in span_changes(plain, declared(**fields))} == changed
    parts = [declared_spans([mio.Modality(name="v", parts=one)]) for one in ("a", ("a",), ("a", "b"))]
    assert len({str(one) for one in parts}) == 3
    assert declared_spans([mio.Modality(name="text", text=True)]) == {}
