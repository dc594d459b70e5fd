"""`recipe.lock`: what a recipe resolved to and its run folder has to hold, read whenever a run is opened. No torch.

The lock of a run names the checksum of every file that the run's results hang on, and of its records. A file that is
not what the run wrote is refused by name if it would change a result, and reported otherwise.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mio.core.checksums import file_sum, read_summed, write_summed
from mio.core.contract.declared_spans import declared_spans, span_changes
from mio.core.contract.networks import KINDS
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import TextTokenizer
from mio.core.errors import DataError, UserError, VocabularyError
from mio.core.files import locked, waiting
from mio.core.recipe.places import (
    AVERAGE,
    BASE,
    CHECKPOINTS,
    EVALUATION,
    INDEX,
    JOURNAL,
    LOCK,
    LOGGED_SAMPLES,
    METRICS,
    RECIPE,
    SAMPLES,
    SKIPPED,
    SOURCES,
    SUMMARY,
    TOKENIZERS,
    VOCABULARY,
    WEIGHTS,
)
from mio.core.recipe.resolved import fingerprint, load_resolved, stored_fingerprint
from mio.core.recipe.schema import Recipe
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.versions import versions
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenizer_files import FINGERPRINTS, check_tokenizers, save_record, tokenizer_record
from mio.core.tokens.vocabulary import Vocabulary

MEANING = (RECIPE, VOCABULARY, f"{TOKENIZERS}/{FINGERPRINTS}")
"""Files that say what weights mean."""
RESULTS = (WEIGHTS, AVERAGE)
"""What a run leads to; the second only where it is asked for."""

_SEALING = ".sealing"
"""Name of a lock that commands wait for; training holds the folder's own."""
_VERSIONS = ("mio", "python", "packages", "plugins")
_CIRCUMSTANCES = ("code", "machine")
"""Beside versions, what trained a run. Locks of earlier versions of mio, and of runs that were imported, have none."""


def warn(line: str) -> None:
    """Prints a warning of something that changes no result."""
    print(f"warning: {line}", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What a recipe resolved to."""

    recipe: str
    """Its fingerprint."""
    seed: int
    versions: dict[str, Any]
    """Of `mio`, `python`, `packages` and `plugins`, those that trained last, with their `code` and `machine`."""
    vocabulary: str | None = None
    """Its fingerprint; None as long as it is not known."""
    tokenizers: dict[str, str] | None = None
    """Fingerprint by modality."""
    networks: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fingerprints of the networks that plugins supply, by kind and name (see `Networks.fingerprints`)."""
    spans: dict[str, dict[str, str]] = field(default_factory=dict)
    """What is declared of spans (see `declared_spans`). Locks of earlier versions of mio have none."""
    run: str = ""
    """Names this training: its checkpoints have it too."""
    files: dict[str, str] = field(default_factory=dict)
    """Checksum by path in the run folder. Locks of earlier versions of mio have none."""
    history: tuple[dict[str, Any], ...] = ()
    """Versions that trained the run, each with the step that it began after."""
    reproduces: dict[str, Any] = field(default_factory=dict)
    """Of a training from a lock file: its name, its checksum, and the drift that was accepted."""
    start: dict[str, str] = field(default_factory=dict)
    """What the training started from: `name`, checksum of its `weights`, fingerprint of its `vocabulary` (see
    `LockedStart`). Empty where it started from nothing, and in locks of earlier versions of mio."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "recipe": self.recipe,
            "seed": self.seed,
            **self.versions,
            "vocabulary": self.vocabulary,
            "tokenizers": self.tokenizers,
            **{kind: fingerprints for kind, fingerprints in self.networks.items() if fingerprints},
            **({"spans": self.spans} if self.spans else {}),
            **({"reproduces": self.reproduces} if self.reproduces else {}),
            **({"start": self.start} if self.start else {}),
            **({"run": self.run, "files": self.files, "history": list(self.history)} if self.run else {}),
        }

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_summed(path, self.to_json())

    @classmethod
    def read(cls, folder: Path) -> Lock:
        """The lock of a run folder. Raises `DataError` if there is none or it is damaged."""
        path = folder / LOCK
        accept = f"`mio recipe lock {folder} --accept`"
        advice = f"restore it from a copy, or, where {folder} can be trusted, make a new one: {accept}"
        content = read_summed(path, advice)
        try:
            lock = cls(
                recipe=content["recipe"],
                seed=content["seed"],
                versions={key: content[key] for key in _VERSIONS}
                | {key: dict(content[key]) for key in _CIRCUMSTANCES if key in content},
                vocabulary=content["vocabulary"],
                tokenizers=content["tokenizers"],
                networks={kind: content.get(kind, {}) for kind in KINDS},
                spans=content.get("spans", {}),
                run=content.get("run", ""),
                files=content.get("files", {}),
                history=tuple(content.get("history", ())),
                reproduces=dict(content.get("reproduces", {})),
                start=dict(content.get("start", {})),
            )
            texts = [lock.recipe, lock.run, lock.versions["mio"], lock.versions["python"], *lock.files.values()]
            for kind in ("packages", "plugins"):
                texts += lock.versions[kind].values()
            for by_name in (lock.start, lock.tokenizers or {}, *lock.networks.values(), *lock.spans.values()):
                texts += by_name.values()
            sound = all(isinstance(value, str) for value in texts)
        except (KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise DataError(f"{path}: is damaged (it is no lock of a recipe); restore it from a copy")
        return lock

    def sealed(self, folder: Path, names: Iterable[str]) -> Lock:
        """With the checksums of those files that the folder has."""
        sums = {name: file_sum(folder / name) for name in names if (folder / name).is_file()}
        return replace(self, files={**self.files, **sums})

    def unsealed(self) -> Lock:
        """With no more than what weights mean and belong to: for a training that goes on."""
        return replace(self, files={name: self.files[name] for name in self.files if name in (*MEANING, BASE)})

    def going_on(self, step: int, versions: dict[str, Any]) -> Lock:
        """With `versions` as those that train from `step` on."""
        history = self.history or ({"step": 0, **self.versions},)
        if versions != self.versions:
            history = (*history, {"step": step, **versions})
        return replace(self, versions=versions, history=history, run=self.run or uuid.uuid4().hex)


def resolved(
    recipe: Recipe,
    plugins: EnabledPlugins,
    vocabulary: Vocabulary | None = None,
    tokenizers: Mapping[str, str] | None = None,
) -> Lock:
    """The lock of a recipe: versions of mio, its plugins and what they run on, fingerprints, declarations, the seed.

    `vocabulary` and `tokenizers` (modality -> fingerprint) are left out as long as they are not known.
    """
    codecs = Codecs(plugins)
    return Lock(
        recipe=fingerprint(recipe),
        seed=recipe.seed,
        versions=versions(plugins.manager, plugins.names),
        vocabulary=vocabulary.fingerprint if vocabulary is not None else None,
        tokenizers=dict(tokenizers) if tokenizers is not None else None,
        networks=codecs.networks.fingerprints(),
        spans=declared_spans(codecs.modalities.values()),
    )


def same_declarations(folder: Path, codecs: Codecs) -> None:
    """Raises `UserError` if a run's networks, or its spans, are not those of the plugins at hand."""
    lock, here = Lock.read(folder), codecs.networks.fingerprints()
    advice = f"use the plugins, versions and options that {LOCK} and {RECIPE} name, or start a new run from its result"
    for kind, who in KINDS.items():
        was, now = lock.networks.get(kind, {}), here[kind]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                raise UserError(
                    f"{folder}: {who} `{name}` is {now.get(name, 'not supplied by any plugin at hand')}, but the run "
                    f"was made with {was.get(name, 'none')}; {advice}"
                )
    for name, key, old, new in span_changes(lock.spans, declared_spans(codecs.modalities.values())):
        raise UserError(f"{folder}: `{name}` declares `{key}` {new}, but the run was made with {old}; {advice}")


def lock_run(
    folder: Path,
    recipe: Recipe,
    plugins: EnabledPlugins,
    vocabulary: Vocabulary,
    tokenizers: Mapping[str, str],
    earlier: Lock | None = None,
    versions: Mapping[str, Any] | None = None,
    reproduces: Mapping[str, Any] | None = None,
    start: Mapping[str, str] | None = None,
) -> Lock:
    """Writes the lock of a run folder that has everything but its lock; returns it. `earlier` is that of the run where
    it was trained; `versions` are those that train it, where these are more than what is installed."""
    lock = resolved(recipe, plugins, vocabulary, tokenizers)
    lock = replace(lock, reproduces=dict(reproduces or {}), start=dict(start or {}))
    if versions is not None:
        lock = replace(lock, versions=dict(versions))
    if earlier is not None:
        lock = _as_trained(lock, earlier)
    lock = lock.going_on(0, lock.versions).sealed(folder, (*MEANING, BASE, *RESULTS, *records(folder)))
    lock.save(folder / LOCK)
    return lock


def _as_trained(lock: Lock, before: Lock) -> Lock:
    """The lock with what `before` says of the training that a folder holds."""
    own = replace(lock, versions=before.versions, run=before.run, history=before.history, start=before.start)
    return replace(own, reproduces=before.reproduces or lock.reproduces)


def records(folder: Path) -> list[str]:
    """Files of a run folder that report on the run: nothing is computed from them."""
    samples = (f"{SAMPLES}/{path.name}" for path in sorted((folder / SAMPLES).glob("*")) if path.suffix != ".partial")
    items = (f"{EVALUATION}/{path.name}" for path in sorted((folder / EVALUATION).glob("*.jsonl")))
    finished = (name for name in items if not name.endswith(".partial.jsonl"))
    names = (SUMMARY, METRICS, LOGGED_SAMPLES, JOURNAL, SKIPPED, SOURCES, *samples, *finished)
    return [name for name in names if (folder / name).is_file()]


def seal_samples(folder: Path) -> None:
    """Notes samples and evaluated items of a finished run as they now are. One that is trained, which seals its own, is
    left alone, and so is one that cannot be written. Evaluations that end together do so one after the other."""
    one_by_one = waiting(folder, lambda: None, _SEALING)
    with contextlib.suppress(UserError, OSError), one_by_one, locked(folder, "trained"):
        lock = Lock.read(folder)
        if SUMMARY in lock.files:
            evaluated = (f"{SAMPLES}/", f"{EVALUATION}/")
            others = {name: checksum for name, checksum in lock.files.items() if not name.startswith(evaluated)}
            names = [name for name in records(folder) if name.startswith(evaluated)]
            replace(lock, files=others).sealed(folder, names).save(folder / LOCK)


def other_versions(lock: Lock, now: Mapping[str, Any]) -> list[str]:
    """What differs from the versions of a lock, as in `torch 2.11.0 -> 2.11.1`."""
    changes = [(key, lock.versions[key], now[key]) for key in ("mio", "python")]
    for kind, word in (("packages", ""), ("plugins", "plugin ")):
        old, new = lock.versions[kind], now[kind]
        for name in (name for name in new if name in old):
            if lock.run or " " in old[name] or kind == "packages":  # earlier locks have paths of local plugins
                changes.append((f"{word}{name}", old[name], new[name]))
    return [f"{name} {old} -> {new}" for name, old, new in changes if old != new]


def check_run(folder: Path, weights: bool, tell: Callable[[str], None] = warn, base: bool = False) -> Lock:
    """Compares a run folder with its lock.

    Args:
        weights: whether the run's result is compared too. It is read as a whole.
        base: whether the frozen weights beside adapters are, without the result.
        tell: called with a line about each record of the run that is not what the run wrote: no result needs these.

    Raises:
        DataError: the lock is missing or damaged, or a file that a result hangs on is not what the run wrote.
    """
    lock = Lock.read(folder)
    if lock.files:
        for name in MEANING:
            _check_file(folder, name, lock)
    else:
        _check_meaning(folder, lock)
    check_tokenizers(folder / TOKENIZERS)
    if weights and (lock.files or not (folder / WEIGHTS).is_file()):
        _check_file(folder, WEIGHTS, lock)
    if weights and AVERAGE in lock.files:
        _check_file(folder, AVERAGE, lock)
    if BASE in lock.files and (weights or base):
        _check_file(folder, BASE, lock)
    for name in lock.files:
        if name not in (*MEANING, BASE, *RESULTS) and (problem := _problem(folder / name, lock.files[name])):
            tell(f"{folder / name}: {problem}; nothing is computed from it")
    return lock


def _check_file(folder: Path, name: str, lock: Lock) -> None:
    _refuse(folder, name, _problem(folder / name, lock.files.get(name)))


def _refuse(folder: Path, name: str, problem: str) -> None:
    if problem:
        raise DataError(
            f"{folder / name}: {problem}; restore it from a copy, or, where the change is meant, "
            f"`mio recipe lock {folder} --accept` takes the folder as it is"
        )


def _problem(path: Path, recorded: str | None) -> str:
    if not path.is_file():
        return "is missing"
    if recorded is None:
        return f"is not known to {LOCK}: its run did not come to an end"
    try:
        checksum = file_sum(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if checksum == recorded else f"is not what the run wrote ({LOCK} has another checksum)"


def _check_meaning(folder: Path, lock: Lock) -> None:
    """The same by the fingerprints that locks of earlier versions have."""
    for name in MEANING:
        if not (folder / name).is_file():
            _check_file(folder, name, lock)
    record = tokenizer_record(folder / TOKENIZERS)
    fingerprints: tuple[tuple[str, Any, Any], ...] = (
        (RECIPE, stored_fingerprint(folder / RECIPE), lock.recipe),
        (VOCABULARY, Vocabulary.load(folder / VOCABULARY).fingerprint, lock.vocabulary),
        *((f"{TOKENIZERS}/{FINGERPRINTS}", record.get(name), old) for name, old in (lock.tokenizers or {}).items()),
    )
    for name, actual, recorded in fingerprints:
        if actual != recorded:
            _refuse(folder, name, f"is not what the run wrote ({LOCK} has another fingerprint)")


def same_vocabulary(folder: Path, text: TextTokenizer, plugins: EnabledPlugins) -> Vocabulary:
    """The vocabulary of a run folder. Raises `VocabularyError` if the plugins at hand make another one of it."""
    saved = Vocabulary.load(folder / VOCABULARY)
    problem = f"{folder / VOCABULARY}: the run was made with another vocabulary"
    advice = f"use the versions and options that {LOCK} and {RECIPE} name, or start a new run from its result"
    try:
        vocabulary = Vocabulary.build(text, plugins.modalities(), plugins.control_tokens(), base=saved)
    except VocabularyError as error:
        raise VocabularyError(f"{problem}: {error}; {advice}") from error
    if vocabulary.fingerprint != saved.fingerprint:
        new = ", ".join(f"`{block.name}`" for block in vocabulary.blocks[len(saved.blocks) :])
        raise VocabularyError(f"{problem}: the plugins at hand declare what the run does not have: {new}; {advice}")
    return vocabulary


def accept_changes(folder: Path, manager: PluginManager) -> list[str]:
    """Writes a new lock for a run folder, which then counts as it is; returns what differs from the lock before.

    Raises `UserError` where the folder's parts contradict each other, or a process trains in it.
    """
    with locked(folder, f"{folder}: a process trains in it"):
        recipe = load_resolved(folder / RECIPE, manager)
        plugins = manager.enable(recipe.plugins)
        codecs = Codecs(plugins)
        codecs.attach(folder / TOKENIZERS, trusted=True)
        save_record(folder / TOKENIZERS, codecs.fingerprints())
        vocabulary = same_vocabulary(folder, codecs.text, plugins)
        lock = resolved(recipe, plugins, vocabulary, codecs.fingerprints())
        try:
            before = Lock.read(folder)
        except DataError as error:
            changes = [str(error)]
            if last := latest(folder / CHECKPOINTS):
                lock = replace(lock, run=str(read_summed(last / INDEX, f"delete {last}").get("run", "")))
        else:
            changes = [f"{name} changed" for name, old in before.files.items() if _problem(folder / name, old)]
            changes += [
                f"`{key}` of `{name}`: {old} -> {new}" for name, key, old, new in span_changes(before.spans, lock.spans)
            ]
            lock = _as_trained(lock, before)
        lock = lock.going_on(0, lock.versions).sealed(folder, (*MEANING, BASE, *RESULTS))
        if (folder / SUMMARY).is_file():
            lock = lock.sealed(folder, records(folder))
        lock.save(folder / LOCK)
    return changes
