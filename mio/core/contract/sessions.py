"""What a plugin supplies for a live conversation: how a stream becomes utterances, what is asked, how answers sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mio.core.contract.ranges import number, one_of
from mio.core.contract.values import Decoding, Value

SESSION = "session"
"""Key of a plugin's options under which those of its conversations are."""

MODEL, ALL = "model", "all"
"""Who says whether an utterance is answered: the model, by its control tokens; or all are."""


@dataclass(frozen=True)
class Utterance:
    """A piece of a stream that stands for itself: what was said between two silences."""

    data: Any
    """What the tokenizer or encoder of the stream's modality takes."""
    start: float
    end: float
    """Where it begins and ends in the stream, in seconds of the stream."""
    ignored: str = ""
    """Why nobody is asked about it: it is too short. The session reports it; empty: it is a query."""


@runtime_checkable
class Segmenter(Protocol):
    """Cuts one stream into utterances as it comes in. Made once per session; how the stream is cut into chunks changes
    nothing but when an utterance is known to be over.

    It may have an attribute `onset`: where in the stream the utterance began that is not over yet, in seconds; None
    while there is none. A server then tells its clients that something is being said.
    """

    def push(self, chunk: Any) -> Sequence[Utterance]:
        """Utterances that have ended within the stream so far and were not returned before. Raises `DataError` for a
        chunk that is no part of such a stream."""

    def close(self) -> Sequence[Utterance]:
        """The stream ends here, and with it what is being said. A next chunk begins a new stream."""


@dataclass(frozen=True, kw_only=True)
class TurnDetection:
    """By what a segmenter finds utterances, where clients of a server may choose it."""

    threshold: float
    """From 0 to 1: how likely it must be that something is said."""
    silence: float
    """Seconds of silence that end an utterance."""
    padding: float
    """Seconds in front of what is said that belong to it."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What comes in piece by piece."""

    modality: str
    """Whose items the utterances are."""
    segmenter: Callable[[], Segmenter]
    open: Callable[[Path], Iterable[tuple[float, Any]]]
    """A file as a stream: its chunks, each with the seconds from the beginning at which it has been heard whole. Raises
    `DataError` for a file that is none."""
    detection: TurnDetection | None = None
    """By what its segmenter finds utterances; None: by something else."""
    detect: Callable[[TurnDetection], Segmenter] | None = None
    """Makes a segmenter that finds them by this; None: it cannot be chosen."""


@runtime_checkable
class Synthesiser(Protocol):
    """Text to media of one modality, for answers of text."""

    def say(self, text: str) -> Any:
        """Media that say `text`, a sentence or a part of one; None where it holds nothing to say."""

    def save(self, media: Any, stem: Path) -> Path:
        """Writes media to `stem` plus the format's suffix; returns the path written."""


def _after_media(waiting: Sequence[Value], said: Sequence[Value]) -> Sequence[Value]:
    return [*waiting, *said]


@dataclass(frozen=True, kw_only=True)
class SessionPolicy:
    """How a live conversation goes: what a plugin answers to `mio_session`."""

    stream: Stream | None = None
    """None: nothing but text and whole media comes in."""
    compose: Callable[[Sequence[Value], Sequence[Value]], Sequence[Value]] = _after_media
    """Content of a query, of media that were shown since the last one and of what was said or typed. Default: one after
    the other."""
    answers: str = one_of(MODEL, MODEL, ALL)
    """What is answered: `model`: what the model does not call silent, by its control tokens; `all`: every query."""
    history: int = number(1, 0, 1000)
    """Earlier queries that a query is asked with, with their answers as far as they were given. Only in chat form."""
    older_media: bool = False
    """Whether earlier queries keep their media; otherwise their text and answers alone are kept."""
    control_in_history: bool = True
    """Whether earlier answers keep their control tokens, as documents of several turns have them in training."""
    shown_stays: bool = True
    """Whether media that were shown are part of every query until others are shown; otherwise of the next query alone.
    """
    output: str = ""
    """Modality that answers consist of; empty: text, and spans where the model opens one."""
    speaks: str = ""
    """Modality in which the text of answers is said as well, by the synthesiser that a plugin supplies for it."""
    seconds: Callable[[str, Any], float] | None = None
    """How long media of an answer last when they are played, by modality and media: an answer that is still being
    played can be interrupted. Default: no time."""
    marks: str = ".,;:!?\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u3001\n"
    """Characters behind which text is cut for the synthesiser."""
    least: int = number(5, 1, 10_000)
    """Characters that a piece for the synthesiser has at least."""
    decoding: Decoding = field(default_factory=Decoding)


def changed_options(options: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some of them changed, those inside of others too."""
    changed = dict(options)
    for name, value in change.items():
        inner = changed.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        changed[name] = changed_options(inner or {}, value) if both else value
    return changed
