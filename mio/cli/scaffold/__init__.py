"""Packages with a plugin that works, for a new author to change: one for each kind of thing that plugins supply."""

from __future__ import annotations

import importlib.util
import itertools
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import mio
from mio.core.contract.validation import NAME
from mio.core.errors import UserError, nearest

LONGEST = 20
"""Letters of a name: the longest with which every line of a template keeps its place."""
RESERVED = ("text", "control", "messages", "parts", "image", "shape", "side", "sum", "result")
"""Names of the core's and of the templates' records."""
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off")
"""What a recipe that names a plugin, or some reader of it, takes for something else."""

EVERYWHERE = {
    "pyproject.toml": "shared/pyproject.toml.txt",
    "README.md": "shared/README.md.txt",
    ".github/workflows/tests.yml": "shared/ci.yml.txt",
}
"""Path in the new package -> template below `files`; `__NAME__` stands for the name in both."""
ADDED = """\
In the digits world, which `make demo` of mio trains as `runs/stage4`:

    mio fit __NAME__/added start_from=runs/stage4
    mio evaluate runs/__NAME__-added {} caption draw"""
"""What a README says of adding a kind to a trained model, and of its tasks beside those of the demo."""
READ, DRAW = "__NAME___read", "__NAME___draw"


@dataclass(frozen=True)
class Kind:
    """What a package is an example of."""

    summary: str
    demo: str
    """How it is used on the demo's run."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Templates beside those of every kind and its own plugin, recipe and test."""


KINDS: dict[str, Kind] = {
    "codes": Kind(
        "The modality `__NAME__`, curves of numbers as codes, to be read and drawn",
        ADDED.format(f"{READ} {DRAW}"),
    ),
    "encoded": Kind(
        "The modality `__NAME__`, curves of numbers, read by a network inside the model",
        ADDED.format(READ),
        {"mio___NAME__/network.py": "encoded/network.py.txt"},
    ),
    "head": Kind(
        "The modality `__NAME__`, curves of numbers, made by a network on top of the model",
        ADDED.format(DRAW),
        {"mio___NAME__/network.py": "head/network.py.txt"},
    ),
    "corpus": Kind(
        "A corpus of drawings with captions, and two tasks on it",
        ADDED.format(f"{READ} {DRAW}"),
    ),
    "task": Kind(
        "A task, sums in words, with two figures",
        "Of the digits world, which `make demo` of mio trains as `runs/stage4`:\n\n"
        "    mio evaluate runs/stage4 __NAME__ plugins.__NAME__={}",
    ),
}


def write_package(name: str, kind: str, folder: Path, taken: Mapping[str, str]) -> Path:
    """Writes the package `mio-NAME` of a kind of `KINDS` into `folder` and returns its path.

    Dashes of a name become `_`. Raises `UserError` for an unknown kind, a name that cannot be a plugin's or is one of
    `taken`, with what has it and the nearest that is free, and if there is something where the package's folder would
    be.
    """
    if kind not in KINDS:
        raise UserError(f"`--kind {kind}`: there is no such kind{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    name = checked_name(name, taken)
    package = folder / f"mio-{name.replace('_', '-')}"
    try:
        package.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{package} exists already, and nothing is overwritten; take another name or `--dir`") from None
    templates, chosen = resources.files(__name__) / "files", KINDS[kind]
    own = {
        "mio___NAME__/__init__.py": f"{kind}/plugin.py.txt",
        "mio___NAME__/recipe.yaml": f"{kind}/recipe.yaml.txt",
        "tests/test___NAME__.py": f"{kind}/test_plugin.py.txt",
    }
    if kind != "task":
        own["mio___NAME__/added.yaml"] = f"{kind}/added.yaml.txt"
    for path, template in {**EVERYWHERE, **own, **chosen.more}.items():
        target = package / path.replace("__NAME__", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / template).read_text(encoding="utf-8")
        for mark, value in (
            ("__SUMMARY__", chosen.summary),
            ("__DEMO__", chosen.demo),
            ("__PACKAGE__", package.name),
            ("__MIO__", _own_versions()),
            ("__NAME__", name),
        ):
            text = text.replace(mark, value)
        target.write_text(text, encoding="utf-8")
    return package


def _own_versions() -> str:
    """Versions of mio that a package written by this one can take: before 1.0 each minor version may change names.
    Without an upper bound, pip would take PyPI's `mio`, which is another project's and has higher numbers."""
    major, minor = map(int, mio.__version__.split(".")[:2])
    return f"mio>={major}.{minor},<{major}.{minor + 1}"


def checked_name(name: str, taken: Mapping[str, str]) -> str:
    """The name of a plugin, with `_` for dashes. Raises `UserError` with the nearest name that is free."""
    given = name.replace("-", "_")
    if not NAME.fullmatch(given) or _is_word(given) or len(given) > LONGEST:
        rule = f"at most {LONGEST} lower case letters, digits, `_` and `-`, a letter first, no word of Python or YAML"
        raise UserError(f"`{name}` cannot name a plugin; take {rule}: `{free_name(given, taken)}` is free")
    if holder := _holder(given, taken):
        raise UserError(f"the name `{given}` is taken by {holder}; `{free_name(given, taken)}` is free")
    return given


def free_name(name: str, taken: Mapping[str, str]) -> str:
    """A name that a plugin can have, as near to `name` as may be."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    stem = re.sub(r"^[0-9_]+", "", "_".join(words))[:LONGEST].rstrip("_") or "mine"
    if not _holder(stem, taken) and not _is_word(stem):
        return stem
    mark = "_" if stem[-1].isdigit() else ""
    endings = (f"{mark}{number}" for number in itertools.count(2))
    more = (f"{stem[: LONGEST - len(ending)]}{ending}" for ending in endings)
    return next(one for one in more if not _holder(one, taken))


def _is_word(name: str) -> bool:
    """Whether the name is a word of Python or YAML."""
    return keyword.iskeyword(name) or name in YAML_WORDS


def _holder(name: str, taken: Mapping[str, str]) -> str:
    """What has the name: one of `taken`, a field of records, or a module that can be imported; empty where nothing
    has."""
    if name in taken:
        return taken[name]
    if name in RESERVED:
        return "a field of records"
    return f"the module `mio_{name}`" if importlib.util.find_spec(f"mio_{name}") is not None else ""
