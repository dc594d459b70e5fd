"""Lock files (`NAME.lock`): resolved recipes of a whole chain with all that decides their bits, to be passed on.

YAML, written by `mio recipe lock`, read like a recipe: within the same bounds, nothing in it is executed. `mio fit
NAME.lock` trains its stages where nothing has drifted (see `mio.core.stages.drift`). No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.core.contract.checker import Checker, build, dotted
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.files import write_text
from mio.core.recipe.compose import NAME
from mio.core.recipe.layers import Layer, checker, override_layer, read_layer
from mio.core.recipe.merging import merge
from mio.core.recipe.places import LOCK
from mio.core.recipe.requirements import check_requirements, required_of
from mio.core.recipe.resolved import content_fingerprint
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import LARGEST_FILE, LONGEST_KEY, dump_yaml
from mio.core.terminal import plain

SUFFIX = ".lock"
FORMAT = 1
MOST_FILES = 5_000
"""Files of all sources that a lock names one by one, so that a change can be told by file."""
_HEAD = "# What `mio fit FILE` reproduces, or refuses with everything that differs. Made by `mio recipe lock`.\n"


@dataclass
class LockedSource:
    """What a source consisted of."""

    fingerprint: str = ""
    """Empty where nothing is known of its content."""
    records: int | None = None
    shards: str = ""
    """Digest of the shards that it was read from; empty where the source itself was read."""
    files: dict[str, str] = field(default_factory=dict)
    """Digest by file, as far as each is named."""


@dataclass
class LockedStart:
    """The run that the first stage starts from."""

    name: str = ""
    weights: str = ""
    """Checksum of its weights, or of the checkpoint's record of them."""
    vocabulary: str = ""


@dataclass
class LockedStage:
    """A stage: its recipe, and what it was or would be trained with. What is null was not known yet."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """Resolved, every key."""
    fingerprint: str = ""
    """Of the recipe."""
    mio: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    code: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of mio and plugins: `files`, a digest, and `commit` and `dirty` where git tracks them."""
    machine: dict[str, Any] = field(default_factory=dict)
    """`accelerator`, `processor`, `devices`, `threads`: what of a machine decides bits."""
    start: LockedStart | None = None
    vocabulary: str | None = None
    tokenizers: dict[str, str] | None = None
    networks: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fingerprints by kind and name."""
    spans: dict[str, dict[str, str]] = field(default_factory=dict)
    """What is declared of spans, by modality and field."""
    sources: dict[str, LockedSource] | None = None
    """By `group/source`; splits that validate are called so."""
    weights: str | None = None
    """Checksum of the trained weights."""

    @cached_property
    def made(self) -> Recipe:
        """The recipe. Raises `RecipeError` if it does not fit the schema."""
        literal = checker(literal=True)
        content = literal.check(Recipe, self.recipe)
        if literal.problems:
            raise RecipeError([text for _, text in literal.problems])
        return build(Recipe, content)

    @property
    def name(self) -> str:
        """Of the stage."""
        return str(self.recipe.get("name", ""))


@dataclass
class LockFile:
    """The stages of a chain, the first one first."""

    format: int = FORMAT
    stages: list[LockedStage] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)
    """Names of the stages, as they are saved. It comes last: what is cut short has not all of it."""

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all; without the names of files where they would be too many."""
        content = asdict(replace(self, chain=[stage.name for stage in self.stages]))
        sources = [one for stage in content["stages"] for one in (stage["sources"] or {}).values()]
        named = sum(len(one["files"]) for one in sources)
        for one in sources:
            if named > MOST_FILES or any(len(name) > LONGEST_KEY for name in one["files"]):
                one["files"] = {}
        text = _HEAD + dump_yaml(content)
        if len(text.encode()) > LARGEST_FILE:
            for one in sources:
                one["files"] = {}
            text = _HEAD + dump_yaml(content)
        if len(text.encode()) > LARGEST_FILE:
            most = f"{LARGEST_FILE >> 20} MiB"
            raise UserError(f"{path}: would be larger than {most}, which no lock may be; lock a run alone (--alone)")
        write_text(path, text)

    @classmethod
    def read(cls, path: Path, manager: PluginManager) -> LockFile:
        """Raises `RecipeError` for what is no lock, is cut short or of a later format, or requires what is not at
        hand."""
        layer = read_layer(path)
        stages = layer.content.get("stages")
        for index, stage in enumerate(stages if isinstance(stages, list) else ()):
            inner = stage.get("recipe") if isinstance(stage, dict) else None
            required = required_of(inner, layer.mark, ("stages", str(index), "recipe"))
            check_requirements(list(required), manager)
        if "format" not in layer.content:
            what = "no lock: it has no `format`; `mio recipe lock` makes one"
            if path.name == LOCK:
                what = f"the record of a run; `mio recipe lock {path.parent}` makes a lock of it"
            raise RecipeError([f"{layer.origin}: is {what}"])
        form = layer.content["format"]
        if form != FORMAT:
            raise RecipeError(
                [f"{layer.mark(('format',))}: `format` is {form!s:.40}; this mio reads {FORMAT}: make the lock anew"]
            )
        check = Checker(lambda name, key, known: f"unknown key `{dotted((*key, name))}`")  # noqa: ARG005
        content = check.check(cls, layer.content)
        if check.problems:
            raise RecipeError([f"{layer.mark(key)}: {text}" for key, text in check.problems])
        lock = build(cls, content)
        if not lock.stages:
            raise RecipeError([f"{layer.origin}: has no stages; make the lock anew"])
        for index, one in enumerate(lock.stages):
            try:
                _ = one.made
            except RecipeError as error:
                place = layer.mark(("stages", str(index), "recipe"))
                raise RecipeError([f"{place}: {problem}" for problem in error.problems]) from None
        if problems := list(_gaps(lock, layer)):
            raise RecipeError(problems)
        return lock


def _gaps(lock: LockFile, layer: Layer) -> Iterator[str]:
    """What a lock lacks of what is saved. Nothing would be compared with it."""
    advice = "it is cut short or was changed: restore it from a copy, or make the lock anew"
    if lock.chain != (names := [stage.name for stage in lock.stages]):
        yield f"{layer.origin}: its `chain` is not the names of its stages, {', '.join(names)}; {advice}"
    for index, stage in enumerate(layer.content["stages"]):
        if lacking := [f"`{one.name}`" for one in fields(LockedStage) if one.name not in (stage or ())]:
            yield f"{layer.mark(('stages', str(index)))}: the stage has no {', '.join(lacking)}; {advice}"


def is_lock(name: str) -> bool:
    """Whether what stands for a recipe is a lock file."""
    return Path(name).suffix == SUFFIX


def lock_sum(path: Path) -> str:
    """SHA-256 (hexadecimal) of a lock file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def locked_recipes(lock: LockFile, path: Path, overrides: Sequence[str]) -> list[Recipe]:
    """The recipes of a lock with `key=value` overrides of all stages, but for `start_from`, which is the first one's,
    and `name`, which is the last one's. Raises `RecipeError` for overrides that do not fit the schema."""
    recipes: list[Recipe] = []
    for index, stage in enumerate(lock.stages):
        content: Any = asdict(stage.made)
        for text in overrides:
            layer = override_layer(text)
            own = dict(layer.content)
            if index:
                own.pop("start_from", None)
            if index < len(lock.stages) - 1:
                own.pop("name", None)
            check = checker(literal=True)
            own = check.check(Recipe, own)
            if check.problems:
                raise RecipeError([f"{layer.mark(key)}: {problem}" for key, problem in check.problems])
            content = merge(content, own)
        recipe = build(Recipe, content)
        if given := next((text for text in overrides if text.startswith("start_from=")), ""):
            if not index:  # as the command line means it
                recipe.start_from = str(Path(given.partition("=")[2]).absolute())
        elif index:
            recipe.start_from = f"../{recipes[-1].name}"
        recipes.append(recipe)
    names = [recipe.name for recipe in recipes]
    for name in names:
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise RecipeError([f"{path}: `name` {plain(name)!r:.120} of a stage names no folder of its own"])
    return recipes


def same_recipe(stage: LockedStage) -> bool:
    """Whether the recipe is the one that was locked."""
    return content_fingerprint(stage.recipe) == stage.fingerprint
