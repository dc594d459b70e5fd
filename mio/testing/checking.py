"""The checks of one plugin, made one after the other, each by itself and in surroundings that are watched."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mio.core.contract.discovery import discover
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.requires import completed
from mio.core.contract.values import TEXT
from mio.core.errors import MioError, UserError
from mio.testing.adapters import AdapterChecks
from mio.testing.codecs import CodecChecks
from mio.testing.controls import ControlChecks
from mio.testing.corpora import Furnished
from mio.testing.declarations import DeclarationChecks
from mio.testing.elsewhere import ElsewhereChecks
from mio.testing.encoders import EncoderChecks
from mio.testing.heads import HeadChecks
from mio.testing.outcomes import FAILED, PASSED, SKIPPED, Check, Result, SkippedCheckError
from mio.testing.report import Report
from mio.testing.scans import Scans
from mio.testing.shards import ShardChecks
from mio.testing.sources import SourceChecks
from mio.testing.spans import SpanChecks
from mio.testing.subject import Subject
from mio.testing.surroundings import GlobalState, no_network, package_of, unusual_numbers
from mio.testing.tasks import TaskChecks

Beside = Sequence[str] | Mapping[str, Mapping[str, Any]]

_QUICK_TEXT: Mapping[str, Any] = {"tokenizer": "bytes"}
"""Options of the built-in text plugin with which it is there without training."""


def conformance(
    name: str,
    options: Mapping[str, Any] | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
    beside: Beside = (),
    manager: PluginManager | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    tell: Callable[[Result], None] = lambda _: None,
) -> Report:
    """Checks a plugin against the contract.

    Text is there by itself, as bytes, where no plugin given here declares it.

    Args:
        name: the plugin, installed or known to `manager`.
        options: what a recipe would give it.
        samples: for each modality, media as its tokenizer takes them (text: strings). Without, those of the
            plugins' sources are taken; a check that finds no media is skipped.
        beside: plugins that this one needs beside it, with options where they need some.
        manager: default: everything that is installed.
        sources: options of corpora, by the name of the corpus, as a recipe gives them under `options`.
        tell: called with each result as soon as it is there.

    Raises:
        UserError: `sources` names a corpus that none of these plugins ships.
    """
    manager = manager or PluginManager(discover())  # a broken one is a result
    run = _Run(tell)
    report = partial(Report.of, manager, name, dict(options or {}))
    with no_network() as asked, unusual_numbers(), tempfile.TemporaryDirectory() as folder:
        if run.check("loads", lambda: manager.candidate(name).plugin).outcome == FAILED:
            return report(None, run.results)
        found: list[EnabledPlugins] = []
        run.check("declarations are valid", lambda: found.append(_enabled(manager, name, dict(options or {}), beside)))
        if found:
            run.own = package_of(manager.candidate(name).target)
            run.others = [other for other in found[0].names if other != name]
            subject = Subject(name, Furnished(found[0], sources or {}), dict(samples or {}), Path(folder))
            elsewhere = ElsewhereChecks(subject)
            for check, function in _checks(subject, elsewhere):
                run.check(check, function)
            run.check("no network is asked for", lambda: _nothing(dict.fromkeys((*asked, *elsewhere.network()))))
            run.check("global state is left as it was", lambda: _nothing(run.changed))
        return report(found[0] if found else None, run.results)


def check_plugin(
    name: str,
    options: Mapping[str, Any] | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
    beside: Beside = (),
    manager: PluginManager | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Runs every check (see `conformance`). Raises `AssertionError` that lists the failed ones."""
    report = conformance(name, options, samples, beside, manager, sources)
    failed = [f"{result.check}: {result.detail}" for result in report.failed]
    assert not failed, f"plugin `{name}` does not conform:\n" + "\n".join(failed)
    return report


def _enabled(manager: PluginManager, name: str, options: Mapping[str, Any], beside: Beside) -> EnabledPlugins:
    """The plugin with those beside it, and text."""
    others = {other: dict(own or {}) for other, own in _beside(manager, name, options, beside).items()}
    plugins = manager.enable({**others, name: options})
    if any(modality.text for _, modality in plugins.modalities()) or name == TEXT:
        return plugins
    if TEXT not in manager.candidates:  # of a test that knows its own plugins alone
        known = [one for one in discover() if one.name == TEXT]
        manager = PluginManager([*known, *manager.candidates.values()])
    if TEXT in manager.candidates and TEXT not in others:
        with contextlib.suppress(UserError):  # another package's text, which has other options
            plugins = manager.enable({TEXT: _QUICK_TEXT, **others, name: options})
            plugins.modalities()
    return plugins


def _beside(
    manager: PluginManager, name: str, options: Mapping[str, Any], beside: Beside
) -> dict[str, Mapping[str, Any]]:
    """Plugins that are enabled beside one, with their options: those that are given, and what the plugins need."""
    given = dict(beside) if isinstance(beside, Mapping) else {other: {} for other in beside}
    needed = completed(manager, {**given, name: options})
    others = {other: own for other, own in needed.items() if other in given or other not in (name, TEXT)}
    return {other: own or (_QUICK_TEXT if other == TEXT else {}) for other, own in others.items()}


def _checks(subject: Subject, elsewhere: ElsewhereChecks) -> Iterator[Check]:
    declarations, scans = DeclarationChecks(subject), Scans(subject)
    yield from declarations.all()
    for modality in subject.coded():
        yield from CodecChecks(subject, modality).all()
        yield from SpanChecks(subject, modality).all()
    for name in subject.encoded():
        yield from EncoderChecks(subject.plugins, name, partial(subject.media, name)).all()
    for name in subject.made():
        yield from HeadChecks(subject.plugins, name, partial(subject.media, name)).all()
    if subject.adapts():
        yield from AdapterChecks(subject.plugins, subject.name).all()
    yield from SourceChecks(subject, scans).all()
    yield from ControlChecks(subject).all()
    yield from ShardChecks(subject).all()
    yield from elsewhere.all()
    yield from TaskChecks(subject, scans).all()
    yield from declarations.fingerprints()


def _nothing(found: Mapping[str, Any]) -> None:
    assert not found, "; ".join(f"{what} ({where})" if where else what for what, where in found.items())


class _Run:
    """Makes checks, and keeps their results and what they change around them."""

    def __init__(self, tell: Callable[[Result], None]) -> None:
        self.results: list[Result] = []
        self.changed: dict[str, str] = {}
        """What was changed of the state of the process, and in which check first."""
        self.own = ""
        self.others: Sequence[str] = ()
        """Plugins in use beside the one that is checked."""
        self._tell = tell

    def check(self, name: str, function: Callable[[], Any]) -> Result:
        state, start = GlobalState(self.own), time.perf_counter()
        outcome, detail = _outcome(function)
        if outcome == FAILED and detail.startswith(tuple(f"plugin `{other}`" for other in self.others)):
            outcome = SKIPPED  # what another plugin lacks is not this one's fault
        result = Result(name, outcome, detail, time.perf_counter() - start)
        for what in state.changes():
            self.changed.setdefault(what, f"by `{name}`")
        self.results.append(result)
        self._tell(result)
        return result


def _outcome(function: Callable[[], Any]) -> tuple[str, str]:
    try:
        returned = function()
    except SkippedCheckError as reason:
        return SKIPPED, str(reason)
    except (AssertionError, MioError) as error:
        return FAILED, " ".join(str(error).split())
    except Exception as error:  # whatever a plugin's code raises is a finding about the plugin
        return FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return PASSED, returned if isinstance(returned, str) else ""
