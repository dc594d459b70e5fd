"""What a logger is: where the figures of a training go beside `metrics.csv`. See `mio_loggers` in `hookspecs.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer of the model, to be looked at and listened to."""

    name: str
    """Of the task."""
    prompt: str = ""
    answer: str = ""
    """Its text, with control tokens as `[NAME]`."""
    files: tuple[Path, ...] = ()
    """Its media, as detokenizers saved them: what they are is told by their suffixes."""


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """What is logged of one optimizer step."""

    step: int
    """Counted from 1."""
    metrics: Mapping[str, float]
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """The training that is logged."""

    name: str
    """Of the stage."""
    id: str
    """32 hexadecimal digits that name this training, whatever interrupts it: those of `recipe.lock`."""
    group: str
    """The same for all stages of a chain: the name of the first."""
    folder: Path
    """The run folder, where a logger may keep files of its own. It holds no secrets."""
    step: int
    """The training goes on after this step; 0: it is new."""
    recipe: Mapping[str, Any]
    """Every key of the resolved recipe, nested."""
    tags: Mapping[str, str]
    """Versions of mio, plugins and packages, and the fingerprints of recipe and vocabulary."""


@runtime_checkable
class Logger(Protocol):
    """Takes the figures of a training, on its first rank alone.

    What it raises but for `check` does not end the training: it is told once, and after a while, at the latest at the
    end, `begin` is called again with all that was logged until then.
    """

    remote: bool
    """Whether it may wait for a network or a service, and hence is called in a thread of its own."""

    def check(self) -> None:
        """Raises `mio.UserError` where it cannot be used: a package or a login is missing. Called before anything is
        prepared; heavy imports belong here, since data workers are forked later."""

    def begin(self, run: LoggedRun, earlier: Sequence[LoggedStep]) -> str:
        """Opens the run, or goes on with it, and brings it up to `earlier`: all steps logged so far, in order, of which
        it may have some already. Returns a line that says where to look, or nothing."""

    def log(self, step: LoggedStep) -> None:
        """Takes a step. Steps ascend, and none comes twice."""

    def end(self, summary: Mapping[str, Any] | None) -> None:
        """The last call: the run has finished with this summary, or, with None, was interrupted and may go on."""


LoggerFactory = Callable[[Mapping[str, Any]], Logger]
"""`factory(options)` makes a logger and imports nothing heavy. Raises `mio.UserError` for options that it lacks."""
