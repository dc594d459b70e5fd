"""README and docs say what the software does: hooks, fields, commands, paths, examples and links."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, fit
from typer.core import TyperGroup
from typer.main import get_command

import mio
from mio.cli.app import app
from mio.core.contract.discovery import HOOKS, discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import chain
from mio.core.stages.check import check

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "tests/packages/mio-melody/mio_melody.py"
ENCODED = ROOT / "tests/packages/mio-gesture/mio_gesture.py"
MADE = ROOT / "tests/packages/mio-swatch/mio_swatch.py"
PLACES = (ROOT, ROOT / "docs")
PAGES = {str(path.relative_to(ROOT)): path for place in PLACES for path in sorted(place.glob("*.md"))}
PAGES |= {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "examples").glob("*/README.md"))}
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return COMMENT.sub("", PAGES[page].read_text(encoding="utf-8"))


def blocks(page: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text_of(page)) if found == language]


def section(page: str, heading: str) -> str:
    """Text below a heading, up to the next of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = f"\n{text_of(page)}".partition(f"\n{heading}\n")
    assert found, f"{page} has no heading `{heading}`"
    return re.split(rf"^#{{1,{level}}} ", FENCE.sub("", rest), maxsplit=1, flags=re.MULTILINE)[0]


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: str) -> Iterator[list[str]]:
    """Words of every `mio` command line: indented, in plain fences, and between backticks."""
    text = text_of(page)
    plain = "\n".join(body for language, body in FENCE.findall(text) if not language)
    lines = re.findall(r"^    (mio .*)$", FENCE.sub("", text), re.MULTILINE)
    lines += re.findall(r"^(mio .*)$", plain, re.MULTILINE)
    lines += re.findall(r"(?<!`)`(mio [^`\n]+)`(?!`)", FENCE.sub("", text))
    yield from (shlex.split(line, comments=True) for line in lines)


# --- the reference of hooks and values


def test_every_hook_has_a_heading_with_its_arguments():
    headings = dict(re.findall(r"^### `(mio_\w+)\((.*)\)`$", text_of("docs/plugins.md"), re.MULTILINE))
    assert headings == {name: ", ".join(inspect.signature(hook).parameters) for name, hook in HOOKS.items()}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_with_arguments_that_it_has(hook):
    implemented = [
        node
        for body in blocks("docs/plugins.md", "python")
        for node in ast.parse(body).body
        if isinstance(node, ast.FunctionDef) and node.name == hook
    ]
    assert implemented
    for function in implemented:
        assert {argument.arg for argument in function.args.args} <= set(inspect.signature(HOOKS[hook]).parameters)
        assert any("mio.hookimpl" in ast.unparse(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize(
    "value",
    [
        "Modality",
        "DataModule",
        "Template",
        "Task",
        "Decoding",
        "Sample",
        "LoggedStep",
        "LoggedRun",
        "ControlToken",
        "ControlTokens",
        "ModelLayout",
    ],
)
def test_every_field_of_the_values_is_described(value):
    rows = re.findall(r"^\| (`.*?) \|", section("docs/plugins.md", f"### {value}"), re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert described == [field.name for field in dataclasses.fields(getattr(mio, value))]


@pytest.mark.parametrize(
    ("example", "heading", "next_heading"),
    [
        (EXAMPLE, "## A worked example\n", "## A worked example of an encoder\n"),
        (ENCODED, "## A worked example of an encoder\n", "## A worked example of an adapter and a head\n"),
        (MADE, "## A worked example of an adapter and a head\n", "## Where plugins come from\n"),
    ],
)
def test_the_worked_examples_are_the_packages_that_are_tested(example, heading, next_heading):
    text = text_of("docs/plugins.md").split(heading)[1].split(next_heading)[0]
    package = example.read_text(encoding="utf-8")
    shown = [body for language, body in FENCE.findall(text) if language == "python"]
    assert all(body in package for body in shown)
    assert all(f"def {hook}(" in "".join(shown) for hook in HOOKS if f"def {hook}(" in package)


# --- examples


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_compile(page):
    for body in blocks(page, "python"):
        compile(body, page, "exec")


@pytest.mark.parametrize(("page", "name"), [("README.md", "mine"), ("docs/plugins.md", "melody"),
                                            ("docs/plugins.md", "gesture"), ("docs/plugins.md", "words"),
                                            ("docs/plugins.md", "swatch")])  # fmt: skip
def test_whole_recipes_pass_every_check(page, name, tmp_path):
    [body] = [body for body in blocks(page, "yaml") if f"\nname: {name}\n" in f"\n{body}"]
    recipe = tmp_path / f"{name}.yaml"
    recipe.write_text(body.replace("start_from: runs/words\n", ""), encoding="utf-8")  # which is trained first
    named = {"melody": EXAMPLE, "gesture": ENCODED, "swatch": MADE}
    manager = PluginManager([*discover(), *(local(f"{plugin}={path}") for plugin, path in named.items())])
    for stage in chain([str(recipe)], [], manager):
        check(stage, manager.enable(stage.plugins))


def test_the_example_of_a_trainable_tokenizer_follows_the_contract(tmp_path):
    import numpy as np

    from mio.core.contract.values import Tokenizer, Trainable

    [body] = [body for body in blocks("docs/plugins.md", "python") if "class Palette" in body]
    space: dict = {}
    exec(body, space)
    fitted, loaded = space["Palette"](4), space["Palette"](4)
    items = [mio.Media("palette", np.linspace(0, 1, 400), key="ramp")]
    assert fitted.fit(items, seed=0) == {"values": 400.0}
    fitted.save_weights(tmp_path)
    loaded.load(tmp_path)
    assert isinstance(fitted, Tokenizer)
    assert isinstance(fitted, Trainable)
    assert loaded.fingerprint == fitted.fingerprint != ""
    [codes] = loaded.encode([np.array([0.05, 0.3, 0.6, 0.95])])
    assert codes.tolist() == [[0, 1, 2, 3]]
    assert loaded.frames(np.zeros(7)) == 7


def test_the_example_of_a_stream_gives_what_decode_gives():
    import numpy as np

    from mio.core.contract.streams import joined

    [body] = [body for body in blocks("docs/plugins.md", "python") if "class Humming" in body]
    space: dict = {}
    exec(body, space)
    detokenizer = space["Humming"]()
    assert isinstance(detokenizer, mio.Streamable)
    codes = np.array([[3, 1, 4, 1, 5]])
    stream = detokenizer.stream()
    assert stream.push(codes[:, :1]) is None
    pieces = [stream.push(codes[:, 1:4]), stream.push(codes[:, 4:]), stream.finish()]
    samples, rate = detokenizer.decode(codes)
    assert (len(samples), rate) == (5 * 160, 8000)
    assert np.array_equal(joined(pieces)[0], samples)


# --- names and places


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page):
    for words in commands(page):
        command = get_command(app)
        rest = words[1:]
        while rest and isinstance(command, TyperGroup) and not rest[0].startswith("-"):
            names = rest[0].split("|")
            assert all(name in command.commands for name in names), f"{page}: no command `{' '.join(words)}`"
            command, rest = command.commands[names[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = {word for word in rest if word.startswith("--")} - known
        assert not unknown, f"{page}: `{' '.join(words)}` has no option {unknown}"


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = PAGES[page].parent / name if name else PAGES[page]
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_the_repository_exist(page):
    named = re.findall(r"(?<![\w/.-])((?:recipes|mio|tests|docs|benchmarks)/[\w/.-]+\.\w+)", text_of(page))
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^    )make (\w+)", text_of(page), re.MULTILINE)
    assert set(named) <= targets


def test_the_readme_lists_the_demos_tasks():
    manager = PluginManager.discover()
    stage = chain([str(ROOT / "recipes/stage4.yaml")], [], manager)[-1]
    listed = re.findall(r"^\| `(\w+)` \|", text_of("README.md"), re.MULTILINE)
    plugins = stage.plugins | {"vita": {}}  # for the tasks of conversations, which rest without it
    assert listed == [name for name in manager.enable(plugins).tasks() if name in listed]
    assert set(listed) >= set(stage.evaluate.tasks)


# --- architecture


def test_the_folders_of_the_core_are_listed_in_the_order_of_their_layers():
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = re.findall(r"^\| `([\w.]+)/?` \|", section("docs/architecture.md", "## Folders"), re.MULTILINE)
    flat = [name for layer in reversed(layers) for name in layer.split(" : ")]
    assert [name.removesuffix(".py") for name in listed] == [*flat[:2], *sorted(flat[2:5]), *flat[5:]]
    there = {path.name for path in (ROOT / "mio/core").iterdir() if path.name[0] != "_"}
    assert set(listed) == there


def test_every_invariant_names_tests_that_exist():
    rows = re.findall(r"^\| (\d) \|.*$", section("docs/architecture.md", "## Invariants"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 9)]
    for line in section("docs/architecture.md", "## Invariants").splitlines():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", line)
        assert named or not re.match(r"\| \d", line), line
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_the_run_folder_is_listed_as_it_is_written():
    from mio.core.recipe import places

    listed = section("docs/architecture.md", "## A stage")
    names = (
        places.RECIPE,
        places.LOCK,
        places.VOCABULARY,
        places.TOKENIZERS,
        places.WEIGHTS,
        places.SUMMARY,
        places.CHECKPOINTS,
        places.JOURNAL,
        places.SKIPPED,
        places.SAMPLES,
        places.SOURCES,
        places.METRICS,
    )
    assert not [name for name in names if f"`{name}" not in listed]


@pytest.mark.parametrize("script", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda path: path.name)
def test_what_a_benchmark_imports_of_mio_is_there(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mio":
            module = importlib.import_module(node.module)
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            submodules = [name for name in missing if importlib.util.find_spec(f"{node.module}.{name}")]
            assert missing == submodules, f"{script.name}:{node.lineno}: {node.module}"


def test_the_walk_is_drawn_by_the_code_as_it_is():
    spec = importlib.util.spec_from_file_location("walk", ROOT / "docs/walk.py")
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    assert walk.drawn() == walk.PICTURE.read_text(encoding="utf-8"), "draw it anew: python docs/walk.py"


def test_every_extra_is_described():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cells = re.findall(r"^\| (`[^|]*`) \|", section("docs/using.md", "## Extras"), re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(names) == sorted(project["optional-dependencies"])


def test_every_column_of_the_metrics_is_described(tunes):
    fit("runs", *TINY, "runtime.log_every=2")
    table, described = section("docs/training.md", "## Loggers"), section("docs/training.md", "## Validation")
    cells = re.findall(r"^\| (`[^|]*`) \|", table + described, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    patterns = [re.sub(r"GROUP|NAME|RULE", ".+", name).replace("codebook0", r"codebook\d+") for name in names]
    columns = (tunes / "runs/tunes/metrics.csv").read_text().splitlines()[0].split(",")
    assert len(columns) > 15
    assert not [one for one in columns if one != "step" and not any(re.fullmatch(form, one) for form in patterns)]


def test_the_gallery_is_what_the_packages_declare():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs/gallery.py")
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    page = gallery.page()
    assert page == gallery.PAGE.read_text(encoding="utf-8"), "write it anew: python docs/gallery.py"
    # independent of how the script finds them: what the manager finds, and every package that has an entry point
    built_in = {one.name for one in discover() if one.origin == f"mio {mio.__version__}"}
    assert {"text"} <= built_in <= set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    for file in [*ROOT.glob("examples/*/pyproject.toml"), *ROOT.glob("tests/packages/*/pyproject.toml")]:
        if "[project.entry-points.mio]" in file.read_text(encoding="utf-8"):
            assert f"in `{file.parent.relative_to(ROOT)}`" in page


def test_the_gallery_loads_no_torch():
    script = (
        "import sys; sys.path.insert(0, 'docs'); import gallery; gallery.page(); "
        "print([name for name in ('torch', 'lightning', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
