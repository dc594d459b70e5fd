"""What differs between a lock file and what is here: all of it at once, in groups, each with what to do.

Before anything is trained, all is compared that is known without training; what training makes (vocabulary, trained
tokenizers, weights) is compared as soon as it is there.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mio
from mio.core.checksums import file_sum, json_sum
from mio.core.contract.declared_spans import Spans, declared_spans, span_changes
from mio.core.contract.networks import KINDS
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import TEXT, Trainable
from mio.core.errors import PluginError, UserError, nearest
from mio.core.recipe.chain import starting_folder
from mio.core.recipe.lock_file import LockedSource, LockedStage, LockedStart, LockFile, same_recipe
from mio.core.recipe.places import BASE, INDEX, RECIPE, TOKENIZERS, VOCABULARY, WEIGHTS, is_file, run_of_checkpoint
from mio.core.recipe.resolved import diff
from mio.core.recipe.schema import Recipe
from mio.core.runs.lock import Lock
from mio.core.runs.machine import machine
from mio.core.runs.run import Run
from mio.core.runs.source_code import code
from mio.core.runs.versions import versions
from mio.core.stages.provenance import source_changes, sources_at_hand
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.vocabulary import Vocabulary

NOWHERE = "not here"


@dataclass(frozen=True)
class Group:
    """Kinds of drift that are mended alike."""

    advice: str
    acceptable: bool = False
    """Whether a training may go on knowingly: what it computes is still the same, but for rounding."""


GROUPS = {
    "versions": Group("install those of the lock", acceptable=True),
    "code": Group("check out that commit, or install that version", acceptable=True),
    "machine": Group("train on such a machine, with as many devices and threads", acceptable=True),
    "shards": Group("give `mio tokenize {lock}` first, or delete shards that it had not", acceptable=True),
    "plugins": Group("install the plugins' packages, or give them by `--plugin`"),
    "recipe": Group("leave the overrides out, or train `mio recipe show {lock}` as a recipe of its own"),
    "lock": Group("restore the lock from a copy, or make a new one"),
    "parent": Group("put the run that it starts from there, or name its place with `start_from=FOLDER`"),
    "model": Group("use the options, tokenizers and files that the lock was made with"),
    "data": Group("restore what the sources were, or make a new lock"),
}
"""By the name that `--drift` takes, of those that are acceptable."""


@dataclass(frozen=True)
class Drift:
    """Something that differs."""

    group: str
    what: str


def check_accepted(names: Iterable[str]) -> list[str]:
    """Names of groups that `--drift` may name, each once. Raises `UserError` for others."""
    known = [name for name, group in GROUPS.items() if group.acceptable]
    for name in names:
        if name not in known:
            why = "; what it stands for cannot differ" if name in GROUPS else nearest(name, known)
            raise UserError(f"--drift {name}: is none of {', '.join(known)}{why}")
    return list(dict.fromkeys(names))


def drifts(lock: LockFile, recipes: Sequence[Recipe], manager: PluginManager, devices: int = 0) -> list[Drift]:
    """What of a lock differs here, as far as nothing has to be trained to know it.

    Args:
        recipes: those of its stages, overrides applied.
        devices: those of a launcher; 0: the recipe's.
    """
    found: list[Drift] = []
    base: Vocabulary | None = None
    folder = starting_folder(recipes[0])
    if lock.stages[0].start is not None:
        found += _of_start(lock.stages[0].start, folder)
    elif folder is not None:
        found.append(Drift("recipe", f"starts from nothing -> {folder}"))
    start = (run_of_checkpoint(folder) or folder) if folder and not found else None
    if start is not None:
        base = Vocabulary.load(start / VOCABULARY)
    for stage, recipe in zip(lock.stages, recipes, strict=True):
        where = f"stage `{stage.name}`: " if len(lock.stages) > 1 else ""
        found += _of_recipe(stage, recipe, where)
        found += _of_versions(stage, recipe, manager)
        found += _of_machine(stage, recipe, devices)
        try:
            plugins = manager.enable(recipe.plugins)
        except PluginError:  # told with the plugins
            continue
        texts: list[str] = []
        base = _compare_model(stage, plugins, start, base, texts)
        found += [Drift("model", f"{where}{text}") for text in texts]
        found += _of_sources(stage, sources_at_hand(recipe, plugins), where)
    return list(dict.fromkeys(found))


def refuse(origin: str, found: Sequence[Drift], accepted: Collection[str] = ()) -> list[str]:
    """The drift that is accepted, as it is recorded. Raises `UserError` with all else, group by group."""
    told = []
    for name, group in GROUPS.items():
        texts = [drift.what for drift in found if drift.group == name]
        if texts and name not in accepted:
            further = f", or go on knowingly with `--drift {name}`" if group.acceptable else ""
            told.append(f"[{name}] {'; '.join(texts)} ({group.advice.format(lock=origin)}{further})")
    if told:
        raise UserError(f"{origin} cannot be reproduced here, since it has drifted: {' '.join(told)}")
    return [f"{drift.group}: {drift.what}" for drift in found]


def _changed(what: str, old: Any, new: Any) -> str:
    return f"{what} {old} -> {new}"


def _of_recipe(stage: LockedStage, recipe: Recipe, where: str) -> Iterator[Drift]:
    if not same_recipe(stage):
        yield Drift("lock", f"{where}its recipe was changed after it was locked")
    for line in diff(stage.made, recipe):
        if line.split(":")[0] not in ("name", "start_from"):
            yield Drift("recipe", f"{where}{line}")


def _of_versions(stage: LockedStage, recipe: Recipe, manager: PluginManager) -> Iterator[Drift]:
    at_hand = [name for name in recipe.plugins if name in manager.candidates]
    here = versions(manager, at_hand)
    for name, old, new in (("mio", stage.mio, mio.__version__), ("python", stage.python, platform.python_version())):
        if old != new:
            yield Drift("versions", _changed(name, old, new))
    for name, old in stage.packages.items():
        installed = _installed(name)
        if installed not in (old, None):  # what is not installed is missed where it is needed
            yield Drift("versions", _changed(name, old, installed))
    for name in recipe.plugins:
        old = stage.plugins.get(name, "unknown")
        if name not in at_hand:
            yield Drift("plugins", _changed(f"plugin {name}", old, NOWHERE))
        elif problem := manager.candidate(name).problem:
            yield Drift("plugins", f"plugin {name}: {problem}")
        elif old != here["plugins"][name]:
            yield Drift("versions", _changed(f"plugin {name}", old, here["plugins"][name]))
    now = code(manager, at_hand)
    for name, before in stage.code.items():
        if name in now and before.get("files") != now[name]["files"]:
            yield Drift("code", _changed(f"code of {name}", *_revisions(before, now[name])))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _revisions(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str]:
    """How two states of code are called: by their commits, unless these are the same or not known."""
    if "commit" in old and "commit" in new and old["commit"] != new["commit"]:
        first, second = (
            f"{str(one['commit'])[:12]}{' with changes' if one.get('dirty') else ''}" for one in (old, new)
        )
        return f"commit {first}", f"commit {second}"
    at = f" at commit {str(old['commit'])[:12]}" if "commit" in old and "commit" in new else ""
    return f"files {str(old.get('files'))[:12]}", f"files {str(new['files'])[:12]}{at}"


def _of_machine(stage: LockedStage, recipe: Recipe, devices: int) -> Iterator[Drift]:
    try:
        here = machine(recipe.runtime, devices)
    except UserError as error:
        yield Drift("machine", str(error))
        return
    for name, old in stage.machine.items():
        if old != here.get(name, old):
            yield Drift("machine", _changed(name, old, here[name]))


def start_of(folder: Path) -> LockedStart:
    """A run, or a checkpoint of one, that a stage starts from. Raises `UserError` or `OSError` for a missing part."""
    run = run_of_checkpoint(folder)
    files = [folder / INDEX] if run else [folder / name for name in (WEIGHTS, BASE) if (folder / name).is_file()]
    weights = json_sum({file.name: file_sum(file) for file in files}) if files else ""
    return LockedStart((run or folder).name, weights, Vocabulary.load((run or folder) / VOCABULARY).fingerprint)


def started_from(parent: Run) -> LockedStart:
    """As `start_of`, of a run that is open: its files have been compared with its lock, which has their checksums."""
    sums = parent.weight_sums()
    if not parent.finished:
        sums = {INDEX: next(iter(sums.values()))}
    return LockedStart(parent.folder.name, json_sum(sums), parent.stored_vocabulary.fingerprint)


def _of_start(locked: LockedStart, folder: Path | None) -> Iterator[Drift]:
    if folder is None or not (is_file(folder / RECIPE) or run_of_checkpoint(folder)):
        where = f"{folder} is {NOWHERE}" if folder else "starts from nothing"
        yield Drift("parent", f"run {locked.name}, weights {locked.weights[:12]} -> {where}")
        return
    try:
        here = start_of(folder)
    except (UserError, OSError) as error:
        yield Drift("parent", str(error))
        return
    for what in ("weights", "vocabulary"):
        old, new = getattr(locked, what), getattr(here, what)
        if old != new:
            yield Drift("parent", _changed(f"{what} of {folder}", old[:12], new[:12] or NOWHERE))


def _compare_model(
    stage: LockedStage, plugins: EnabledPlugins, start: Path | None, base: Vocabulary | None, found: list[str]
) -> Vocabulary | None:
    """Adds what differs of networks, of tokenizers that are not trained, and of the vocabulary where these are all that
    it needs; returns that.

    Args:
        start: the run that the chain starts from, which has the tokenizers that were trained before.
        base: vocabulary of the stage before; None: there is none, or it is not known.
    """
    codecs = Codecs(plugins)
    try:
        found += _networks(stage, codecs.networks.fingerprints())
        found += _spans(stage, declared_spans(codecs.modalities.values()))
        if start is not None:
            codecs.attach(start / TOKENIZERS)
        names = [name for name in stage.tokenizers or {} if name in codecs.modalities]
        made = {
            name: codecs.tokenizer(name).fingerprint
            for name in names
            if start is not None or not isinstance(codecs.tokenizer(name), Trainable)
        }
        found += _tokenizers(stage, made)
        if TEXT not in made or (stage.recipe.get("start_from") and base is None):
            return None
        vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens(), base=base)
    except UserError as error:
        found.append(str(error))
        return None
    found += _vocabulary(stage, vocabulary.fingerprint)
    return vocabulary


def _networks(stage: LockedStage, here: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for kind, who in KINDS.items():
        old, new = stage.networks.get(kind, {}), here.get(kind, {})
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield _changed(f"{who} {name}", old.get(name, "none"), new.get(name, "none"))


def _spans(stage: LockedStage, here: Spans) -> Iterator[str]:
    for name, key, old, new in span_changes(stage.spans, here):
        yield _changed(f"{key} of {name}", old, new)


def _tokenizers(stage: LockedStage, here: Mapping[str, str]) -> Iterator[str]:
    for name, old in (stage.tokenizers or {}).items():
        if here.get(name, old) != old:
            yield _changed(f"tokenizer of {name}", old, here[name])


def _vocabulary(stage: LockedStage, here: str | None) -> Iterator[str]:
    if None not in (stage.vocabulary, here) and stage.vocabulary != here:
        yield _changed("vocabulary", str(stage.vocabulary)[:12], str(here)[:12])


def _of_sources(
    stage: LockedStage, here: Iterable[tuple[str, LockedSource | UserError]], where: str
) -> Iterator[Drift]:
    if stage.sources is None:
        return
    for label, now in here:
        locked = stage.sources.get(label)
        if locked is None:
            yield Drift("data", f"{where}source {label} is not in the lock")
        elif isinstance(now, UserError):
            if not locked.shards:  # which may be all that is at hand
                yield Drift("data", f"{where}source {label}: {now}")
        elif change := source_changes(locked, now):
            yield Drift("data", f"{where}source {label}: {change}")
        elif locked.shards != now.shards:
            old, new = (one.shards[:12] or "the source itself" for one in (locked, now))
            yield Drift("shards", _changed(f"{where}shards of {label}", old, new))


@dataclass(frozen=True)
class Reproduction:
    """A stage that is trained as a lock says, and what has been accepted."""

    origin: str
    """The lock file, as it was named."""
    checksum: str
    stage: LockedStage
    accepted: tuple[str, ...] = ()
    """Groups of drift."""
    drift: tuple[str, ...] = ()
    """What of them has drifted."""

    def record(self) -> dict[str, Any]:
        """For the lock of the run."""
        return {"lock": Path(self.origin).name, "checksum": self.checksum, "drift": list(self.drift)}

    def check_made(self, lock: Lock) -> None:
        """Raises `UserError` if the vocabulary, a tokenizer or a network is not the lock's, now that they are made."""
        texts = [
            *_vocabulary(self.stage, lock.vocabulary),
            *_tokenizers(self.stage, lock.tokenizers or {}),
            *_networks(self.stage, lock.networks),
        ]
        refuse(self.origin, [Drift("model", text) for text in texts], self.accepted)

    def check_sources(self, now: Mapping[str, LockedSource]) -> None:
        """Raises `UserError` if sources, or the shards that they are read from, are not the lock's."""
        found = list(_of_sources(self.stage, now.items(), ""))
        for label in self.stage.sources or ():
            if label not in now:
                found.append(Drift("data", f"source {label} is no longer read"))
        refuse(self.origin, found, self.accepted)

    def result(self, folder: Path) -> str:
        """Whether the trained weights are the lock's: `same`, `other`, or `unknown` where it has none."""
        if self.stage.weights is None:
            return "unknown"
        return "same" if weights_sum(folder) == self.stage.weights else "other"

    def check_result(self, folder: Path, tell: Callable[[str], None]) -> None:
        """Tells whether the trained weights are the lock's. Raises `UserError` if they are not and nothing that was
        accepted may be why."""
        result = self.result(folder)
        if result == "same":
            tell(f"{folder}: the weights are those of {self.origin}, bit for bit")
        elif result == "unknown":
            tell(f"{folder}: {self.origin} was made before it was trained, and has no weights to compare these with")
        elif self.drift:
            tell(f"{folder}: the weights are not those of {self.origin}, bit for bit, as was to be expected")
        else:
            raise UserError(
                f"{self.origin}: the weights of `{self.stage.name}` in {folder} are not those that were locked "
                f"({_changed('weights', str(self.stage.weights)[:12], weights_sum(folder)[:12])}), though nothing that "
                "is known has drifted: the machine computes otherwise, or a plugin depends on more than its options "
                "and files. The run is whole, and can be used"
            )


def weights_sum(folder: Path) -> str:
    """Checksum of the trained weights of a run, in the form of `start_of`."""
    return start_of(folder).weights
