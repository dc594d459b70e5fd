"""The command line: exit codes, one-line errors, what is printed, and what is not imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

import mio
from mio.cli import app
from mio.core.errors import Interrupted
from mio.core.recipe.compose import compose
from mio.core.recipe.resolved import fingerprint
from mio.core.stages import check_chain

RECIPE = """
name: tiny
plugins: {text: {tokenizer: bytes}}
data: {groups: {words: {sources: {a: {dataset: jsonl, options: {path: a.jsonl}, templates: text}}}}}
mixture: {ratios: {words: 1}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


def failing(capsys, *arguments):
    """The one line that a user's mistake is told in."""
    assert app.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def printed(capsys, *arguments):
    assert app.run(arguments) == 0
    return capsys.readouterr().out


def test_an_interruption_while_commands_are_imported_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "mio", "--help"], check=False, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (130, "interrupted: nothing was begun\n")


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom mio.cli.app import run\ncode = run(['--help'])\n"
        "heavy = [name for name in ('torch', 'lightning', 'datasets', 'transformers', 'sklearn', 'scipy', 'omegaconf')"
        " if name in sys.modules]\nprint(heavy, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
    for command in ("fit", "generate", "evaluate", "plan", "plugins", "recipe"):
        assert re.search(rf"\b{command}\b", done.stdout)


COMMANDS = '''
import mio

def count(path: str, twice: bool = False) -> None:
    """Counts the letters of a word."""
    if not path.isalpha():
        raise mio.UserError(f"`{path}` is no word")
    if path == "defect":
        1 / 0
    print(len(path) * (1 + twice))

@mio.hookimpl
def mio_commands():
    return {"count": count}
'''


def test_plugins_bring_commands_of_their_own(folder, capsys, monkeypatch):
    (folder / "counting_plugin.py").write_text(COMMANDS)
    (folder / "fitting_plugin.py").write_text(COMMANDS)
    (folder / "odd_plugin.py").write_text(COMMANDS.replace('"count": count', '"Count it": count'))
    places = (f"counter={folder}/counting_plugin.py", f"fit={folder}/fitting_plugin.py", f"odd={folder}/odd_plugin.py")
    monkeypatch.setenv("MIO_PLUGINS", ":".join(places))
    assert printed(capsys, "counter", "count", "hello", "--twice") == "10\n"
    assert failing(capsys, "counter", "count", "2") == "error: plugin `counter`: `2` is no word"
    with pytest.raises(ZeroDivisionError) as defect:
        app.run(["counter", "count", "defect"])
    assert defect.value.__notes__ == ["raised by plugin `counter` in `mio counter count`"]
    assert "No such command 'cont'" in failing(capsys, "counter", "cont")
    assert "plugin `odd`, hook `mio_commands`, answer: the name 'Count it' must be" in failing(capsys, "odd", "count")
    own = printed(capsys, "counter", "--help")
    assert "--help" in own
    assert "completion" not in own
    listed = printed(capsys, "--help")
    assert re.search(r"counter +Commands of the plugin `counter`", listed)
    assert len(re.findall(r"^\W+fit\b", listed, re.MULTILINE)) == 1
    assert "Missing argument 'RECIPE" in failing(capsys, "fit")


def test_a_plugins_command_says_how_one_that_is_not_installed_is_given(folder, capsys, monkeypatch):
    (folder / "counting.py").write_text(COMMANDS)
    told = "commands of plugins take no `--plugin`: put `MIO_PLUGINS=counting.py` before `mio`"
    for given in (["--plugin", "counting.py"], ["--plugin=counting.py"]):
        line = failing(capsys, "counting", "count", "hello", *given)
        assert line == f"error: No such command 'counting'; {told}"
    monkeypatch.setenv("MIO_PLUGINS", "counting.py")
    assert failing(capsys, "counting", "count", "a", *given) == f"error: No such option: --plugin; {told}"
    assert printed(capsys, "counting", "count", "hello") == "5\n"
    assert told not in failing(capsys, "recipe", "chekc", "--plugin", "counting.py")


def test_a_plugin_that_somebody_names_and_that_does_not_work_is_an_error(folder, capsys, monkeypatch):
    (folder / "unmade.py").write_text("import nowhere")
    (folder / "unshipped.py").write_text(
        "import mio\n@mio.hookimpl\ndef mio_recipes():\n    return {'odd': 'gone.yaml'}\n"
    )
    told = "error: plugin `unmade` (unmade.py) does not work: import failed: ModuleNotFoundError: No module named 'no"
    for command in (["recipe", "check", "tiny.yaml"], ["fit", "words"], ["plugins", "check", "text"]):
        line = failing(capsys, *command, "--plugin", "unmade.py")
        assert line.startswith(told)
        assert line.endswith("; mend it, or leave it out of `--plugin` and MIO_PLUGINS")
    line = failing(capsys, "recipe", "check", "tiny.yaml", "--plugin", "nosuch.py", "--plugin", "b=unmade.py")
    assert f"plugin `nosuch` (nosuch.py) does not work: {folder}/nosuch.py: no such file" in line
    assert "plugin `b` (unmade.py) does not work: import failed" in line
    line = failing(capsys, "recipe", "check", "odd", "--plugin", "unshipped.py")
    assert "plugin `unshipped`, hook `mio_recipes`, recipe `odd`: 'gone.yaml' is no file" in line
    assert app.run(["plugins", "check", "unmade", "--plugin", "unmade.py"]) == 1
    assert re.search(r"loads +failed .*No module named 'nowhere'", capsys.readouterr().out)
    monkeypatch.setenv("MIO_PLUGINS", "unmade.py")
    for command in (["recipe", "check", "tiny.yaml"], ["unmade", "count"]):
        assert failing(capsys, *command).startswith(told)
    assert "Commands" in printed(capsys, "--help")
    assert "broken: import failed" in printed(capsys, "plugins", "list")


@pytest.mark.parametrize("arguments", [[], ["plugins"], ["recipe"]])
def test_a_group_without_a_command_prints_its_help_alone(folder, capsys, arguments):
    del folder
    assert app.run(arguments) == 2
    shown = capsys.readouterr()
    assert "Usage: mio" in shown.out + shown.err
    assert "error" not in shown.err


def test_paths_may_hold_an_equals_sign(folder, capsys):
    within = folder / "lr=3e-4"
    within.mkdir()
    for place in ("a=b.yaml", "lr=3e-4/mine.yaml"):
        (folder / place).write_text(RECIPE)
    (folder / "a.jsonl").write_text('{"text": "la"}\n')
    for place in ("a=b.yaml", "lr=3e-4/mine.yaml", str(within / "mine.yaml")):
        assert "tiny: ok, 7 steps" in printed(capsys, "recipe", "check", place, "train.steps=7")
    assert "tiny.lock" in printed(capsys, "recipe", "lock", "a=b.yaml")
    (within / "recipe.yaml").write_text(RECIPE)
    assert "is a run folder; its recipe is lr=3e-4/recipe.yaml" in failing(capsys, "recipe", "check", "lr=3e-4")
    line = failing(capsys, "recipe", "check", "c=d.yaml")
    assert "give at least one recipe before key=value; there is no file `c=d.yaml`" in line
    (within / "tallying.py").write_text(COMMANDS)
    shown = printed(capsys, "plugins", "show", "tallying", "--plugin", "lr=3e-4/tallying.py")
    assert shown.split() == ["command", "mio", "tallying", "count"]


def test_a_recipe_without_a_key_is_said_to_be_empty(folder, capsys):
    for text in ("", "\n \n", "# later\n"):
        (folder / "empty.yaml").write_text(text)
        line = failing(capsys, "recipe", "check", "empty.yaml")
        assert line.startswith("error: empty.yaml: is empty, or holds nothing but comments")
    (folder / "some.yaml").write_text(f"include: [empty.yaml]\n{RECIPE}")
    (folder / "a.jsonl").write_text('{"text": "la"}\n')
    assert "tiny: ok" in printed(capsys, "recipe", "check", "some.yaml")


def test_recipes_that_do_not_differ_are_said_not_to(folder, capsys):
    (folder / "other.yaml").write_bytes(RECIPE.replace("\n", "\r\n").encode())
    assert app.run(["recipe", "diff", "tiny.yaml", "other.yaml"]) == 0
    assert capsys.readouterr() == ("", "tiny.yaml and other.yaml do not differ\n")
    assert app.run(["recipe", "diff", "tiny.yaml", "other.yaml", "--json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")


def test_a_recipe_that_there_is_not_is_told_where_recipes_are(folder, capsys):
    line = failing(capsys, "recipe", "check", "qqqqqq")
    assert re.search(r"no recipe qqqqqq; plugins ship .*\bstage1, .* and \d+ more: `mio plugins show PLUGIN` ", line)
    assert len(line) < 250
    rest = f"{'a' * 40}:recipes/x.yaml"
    for place, meant in (
        (f"{folder}@{rest}", f"`git+file://{folder}@{rest}`"),
        (f"https://host/a/b@{rest}", f"`git+https://host/a/b@{rest}`"),
        (f"mine/model@{rest}", f"of the Hub it is `hf:mine/model@{rest}`, of Git `git+https://HOST/mine/model@{rest}`"),
        (f"git@host:a/b@{rest}", "a pinned place is `git+https://HOST/REPOSITORY@COMMIT:FILE` or `hf:OWNER/NAME@COMM"),
    ):
        line = failing(capsys, "recipe", "check", place)
        assert line.startswith(f"error: no recipe {place}; ")
        assert meant in line


def test_recipes_are_checked_without_torch(folder):
    code = (
        "import sys\nfrom mio.cli.app import run\n"
        "code = run(['recipe', 'check', 'stage4'])\nprint('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.splitlines()[-1] == "False 0"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mio", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"mio \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe", "check", "tyni.yaml"], "no recipe tyni.yaml; did you mean `tiny.yaml`?"),
        (["recipe", "check", "tiny.yaml", "train.stepz=1"], "unknown key `train.stepz`; did you mean `train.steps`?"),
        (["recipe", "check", "tiny.yaml", "train.steps=0"], "`train.steps` is 0; it must be at least 1"),
        (["recipe", "check", "tiny.yaml", "plugins.txet={}"], "no plugin `txet` is installed; did you mean `text`?"),
        (["recipe", "check", "train.steps=1"], "give at least one recipe before key=value"),
        (["fit", "tyni.yaml"], "no recipe tyni.yaml; did you mean `tiny.yaml`?"),
        (["fit"], "Missing argument"),
        (["recpie"], "No such command"),
        (["plan", "tyni.yaml"], "no recipe tyni.yaml; did you mean `tiny.yaml`?"),
        (["plan", "tiny.yaml", "gpu=h10"], "`gpu=h10` is not known; did you mean `h100`?"),
        (["plan", "tiny.yaml", "network=carrier"], "`network=carrier` is not known"),
        (
            ["plan", "tiny.yaml", "world=12"],
            "`world=12` is no multiple of the 8 GPUs of a node; give world=8 or world=16",
        ),
        (["plan", "tiny.yaml", "world=many"], "`world=many`: `world` must be a whole number"),
        (["plan", "tiny.yaml", "price=-1"], "`price=-1`: `price` must be above 0"),
        (["plan", "tiny.yaml", "efficiency=55"], "`efficiency=55` is a share of the GPU's peak, at most 1"),
        (["plan", "tiny.yaml", "world=16"], "`train.rows` is 8, which 16 devices cannot share equally; set it to 16"),
        (["plan", "tiny.yaml", "worlds=16"], "unknown key `worlds`"),
        (["generate", "nowhere", "hello"], "nowhere: no such run folder"),
        (["evaluate", "nowhere"], "nowhere: no such run folder"),
        (["plugins", "new", "My-Thing"], "`My-Thing` cannot name a plugin"),
        (["plugins", "check", "txet"], "no plugin `txet` is installed; did you mean `text`?"),
        (["plugins", "check", "text", "--report", "text.html"], "give a file that ends in .md or .json"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    del folder
    assert message in failing(capsys, *arguments)


def test_a_plugin_is_checked_with_a_report_and_a_code_for_scripts(folder, capsys):
    (folder / "torn.py").write_text("raise ValueError('a page is missing')\n")
    assert app.run(["plugins", "check", "torn", "--plugin", str(folder / "torn.py")]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert "a page is missing" in printed[1]
    assert printed[2].startswith("plugin `torn`: 1 failed, in ")
    assert app.run(["plugins", "check", "text", "tokenizer=bytes", "--report", str(folder / "text.md")]) == 0
    assert app.run(["plugins", "check", "text", "tokenizer=bytes", "--report", str(folder / "text.json")]) == 0
    out = capsys.readouterr().out
    assert f"report: {folder / 'text.json'}" in out
    written = (folder / "text.md").read_text()
    assert written.startswith("# Plugin `text` conforms to mio's contract\n")
    assert '| options | {"tokenizer": "bytes"} |' in written
    assert "| modality | text | text |" in written
    content = json.loads((folder / "text.json").read_text())
    assert content["conforms"]
    assert content["plugin"] == "text"
    assert content["versions"]["mio"] == mio.__version__
    checks = {one["check"]: one for one in content["checks"]}
    assert checks["text: text tokenizer returns the text"]["outcome"] == "passed"
    assert checks["tasks' prompts can be filled"]["detail"] == "the plugin has no tasks"
    assert all(f"| {name} | {one['outcome']} |" in written for name, one in checks.items())


def test_several_problems_are_told_in_one_line(folder, capsys):
    del folder
    line = failing(capsys, "recipe", "check", "tiny.yaml", "train.stepz=1", "seed=x")
    assert "train.stepz" in line
    assert "`seed` must be a whole number" in line


@pytest.mark.parametrize(
    ("command", "error", "line"),
    [
        (["fit"], KeyboardInterrupt(), "interrupted: give the same command again to go on"),
        (["recipe", "check"], KeyboardInterrupt(), "interrupted: the same command starts over"),
        (["fit"], Interrupted("stopped after step 7;\nthe same command goes on"),
         "interrupted: stopped after step 7; the same command goes on"),
    ],
)  # fmt: skip
def test_an_interruption_is_one_line_that_says_how_to_go_on(folder, capsys, monkeypatch, command, error, line):
    del folder

    def interrupt(*_):
        raise error

    monkeypatch.setattr(check_chain, "links", interrupt)
    assert app.run([*command, "tiny.yaml"]) == 130
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_defect_keeps_its_traceback(folder, monkeypatch):
    del folder

    def crash(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(check_chain, "links", crash)
    with pytest.raises(ZeroDivisionError):
        app.run(["recipe", "check", "tiny.yaml"])


def test_recipe_show_prints_a_recipe_that_composes_to_the_same(folder, capsys):
    shown = printed(capsys, "recipe", "show", "tiny.yaml", "seed=5")
    assert yaml.safe_load(shown)["seed"] == 5
    (folder / "shown.yaml").write_text(shown)
    assert printed(capsys, "recipe", "show", "shown.yaml") == shown
    assert printed(capsys, "recipe", "diff", "tiny.yaml", "shown.yaml") == "stage\n  seed: 0 -> 5\n"
    as_json = json.loads(printed(capsys, "recipe", "diff", "tiny.yaml", "shown.yaml", "--json"))
    assert as_json == [{"title": "stage", "differences": [{"what": "seed", "before": "0", "after": "5"}]}]


def test_recipe_check_goes_through_the_chain(folder, capsys):
    (folder / "two.yaml").write_text("include: [tiny.yaml]\nname: two\nstart_from: tiny.yaml")
    lines = printed(capsys, "recipe", "check", "two.yaml", "train.steps=3").splitlines()
    assert lines == [
        "tiny: ok, 3 steps of 8 x 256 positions, words 1 by tokens",
        "two: ok, 3 steps of 8 x 256 positions, words 1 by tokens",
    ]


def test_recipe_lock_freezes_versions_fingerprints_and_seed(folder, capsys):
    told = printed(capsys, "recipe", "lock", "tiny.yaml", "seed=5").splitlines()
    assert told[0].startswith("tiny: sources are left open: words/a: a.jsonl: no such file")
    assert told[1:] == ["tiny.lock"]
    (stage,) = yaml.safe_load((folder / "tiny.lock").read_text())["stages"]
    made = compose(["tiny.yaml"], ["seed=5"], app_manager())
    assert stage["fingerprint"] == fingerprint(made)
    assert (stage["recipe"]["seed"], list(stage["plugins"])) == (5, ["text"])
    assert re.fullmatch(r"2\.\d+.*", stage["packages"]["torch"])
    assert isinstance(stage["vocabulary"], str)
    open_text = "plugins.text={_replace_: true, tokenizer: bpe}"
    out = printed(capsys, "recipe", "lock", "tiny.yaml", "--out", "other.lock", open_text)
    assert "the vocabulary is left open" in out
    assert yaml.safe_load((folder / "other.lock").read_text())["stages"][0]["vocabulary"] is None


def app_manager():
    from mio.core.contract.plugins import PluginManager

    return PluginManager.discover()


def test_plugins_list_tells_what_works_and_why_not(folder, capsys):
    (folder / "broken_codec.py").write_text("import a_library_that_is_not_there")
    out = " ".join(printed(capsys, "plugins", "list", "--plugin", "broken_codec.py").split())
    assert "broken: import failed: ModuleNotFoundError" in out
    assert "text mio 0." in out
