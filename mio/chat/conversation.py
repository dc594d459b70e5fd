"""A conversation: its turns, the answer that is being given, and what the model has seen and written of it."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.api.answers import Reply
from mio.api.running import Pending
from mio.chat.composing import Composed, Placed, placed
from mio.chat.host import Host, Settings
from mio.chat.media import MediaFile, MediaFolder, modality_of
from mio.core.errors import MioError
from mio.core.generation.generate import Asked, Question
from mio.core.generation.streaming import (
    AnswerEvent,
    MediaChunk,
    MediaComponent,
    Over,
    SaidControl,
    TextPiece,
    WholeMedia,
)

PAUSE = 0.1
"""Seconds between two looks at an answer that grows."""
_log = logging.getLogger("mio.chat")


@dataclass(frozen=True)
class Said:
    """A control token in an answer."""

    name: str


@dataclass(frozen=True)
class Growing:
    """Media that are being made."""

    modality: str
    tokens: int


Shown = str | MediaFile | Said | Growing


@dataclass
class Exchange:
    """A question, and its answer as far as there is one."""

    composed: Composed
    asked: list[str | MediaFile]
    settings: Settings
    answer: list[Shown] = field(default_factory=list)
    reply: Reply | None = None
    """Once the answer is over."""
    seconds: float = 0.0
    seen: Asked | None = None
    """What the model was given."""
    pending: Pending | None = None


class Conversation:
    """What one browser tab talks about. Its methods are called by one thread at a time, but for `stop`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.new_folder()
        self.media = MediaFolder(self.folder, host.run.model.codecs, host.media_types)
        self.exchanges: list[Exchange] = []
        self.problem = ""
        """Why the last question has no answer, in one line."""
        self.refused: Composed | None = None
        """That question, to be changed."""
        self.answering = False
        self._stopped = False

    @property
    def last(self) -> Exchange | None:
        return self.exchanges[-1] if self.exchanges else None

    def ask(self, composed: Composed, settings: Settings, first: bool = False) -> Iterator[None]:
        """Asks a question, and yields whenever there is something new to see. What goes wrong is told by `problem`: a
        question that cannot be asked is `refused`, and no part of the conversation.

        Args:
            first: whether files without a place come before the text.
        """
        if self.answering:  # the page does not let anybody; a second window of a copied tab might
            self.problem = "an answer is being given; stop it first"
            return
        self.problem, self.refused = "", None
        try:
            kept = Composed(composed.text, tuple(self._kept(path) for path in composed.files))
            exchange = Exchange(kept, self._parts(kept, first), settings)
        except Exception as error:
            self.problem, self.refused = self._told(error), composed
            return
        self.exchanges.append(exchange)
        yield from self._answer(exchange)

    def regenerate(self, settings: Settings) -> Iterator[None]:
        """Has the last question answered anew."""
        last = self.last
        if last is None or self.answering:
            return
        self.exchanges[-1] = Exchange(last.composed, last.asked, settings)
        self.problem, self.refused = "", None
        yield from self._answer(self.exchanges[-1])

    def undo(self) -> Composed:
        """Takes the last question and its answer back; returns the question."""
        self.problem, self.refused = "", None
        return self.exchanges.pop().composed if self.exchanges and not self.answering else Composed()

    def clear(self) -> None:
        """Begins anew."""
        self.stop()
        self.exchanges = []
        self.problem, self.refused = "", None

    def stop(self) -> None:
        """Calls the answer off that is being given. From any thread."""
        self._stopped = True
        pending = self.last.pending if self.last else None
        if pending is not None:
            pending.cancel()

    def close(self) -> None:
        """Nobody looks at it any more."""
        self.stop()
        self.host.forget(self.folder)

    def messages(self, until: int | None = None) -> list[dict[str, Any]]:
        """What the model is given for the question `until` (default: the last): turns before it, with answers in the
        codes that they were written as. A question whose answer is empty is left out with it."""
        number = len(self.exchanges) - 1 if until is None else until
        turns: list[dict[str, Any]] = []
        for one in [] if self.exchanges[number].settings.alone else self.exchanges[:number]:
            if one.reply is not None and one.reply.written:
                turns += [
                    {"role": "user", "content": _given(one.asked)},
                    {"role": "assistant", "content": one.reply},
                ]
        return [*turns, {"role": "user", "content": _given(self.exchanges[number].asked)}]

    def _kept(self, path: Path) -> Path:
        """A file in the folder of this conversation, which lasts as long as it."""
        if path.is_relative_to(self.folder):
            return path
        folder = self.folder / f"given-{sum(1 for _ in self.folder.glob('given-*')) + 1}"
        folder.mkdir()
        return Path(shutil.copyfile(path, folder / path.name))

    def _parts(self, composed: Composed, first: bool) -> list[str | MediaFile]:
        return [part if isinstance(part, str) else self._file(part) for part in placed(composed, first)]

    def _file(self, one: Placed) -> MediaFile:
        modality = modality_of(one.path, self.host.suffixes, one.modality)
        with self.host.working:
            return self.media.given(modality, one.path)

    # the answer

    def _answer(self, exchange: Exchange) -> Iterator[None]:
        self._stopped, self.answering = False, True
        begun = time.monotonic()
        try:
            yield None
            yield from self._steps(exchange)
        except GeneratorExit:  # the tab is gone
            raise
        except Exception as error:
            self.problem = self._told(error)
            if exchange in self.exchanges:
                self.exchanges.remove(exchange)
                self.refused = exchange.composed
        finally:
            self.answering = False
            exchange.seconds = time.monotonic() - begun
            if exchange.pending is not None:
                exchange.pending.cancel()
        yield None

    def _steps(self, exchange: Exchange) -> Iterator[None]:
        run, settings = self.host.run, exchange.settings
        question = Question(content=(), output=settings.output, decoding=settings.decoding, seed=settings.seed)
        with self.host.working:
            exchange.seen = run.ask(self.messages(), question)
        pending = exchange.pending = run.running.submit(exchange.seen)
        if self._stopped:
            pending.cancel()
        looked, begun = time.monotonic(), 0
        while pending.over is None:
            run.running.step(pending)
            if not pending.stream.growing:
                begun = len(pending.ticket.answer.tokens)
            with self.host.working:
                told = pending.take()
                for event in told:
                    self._take(exchange, event)
            if pending.over is None and time.monotonic() - looked >= PAUSE:
                self._grow(exchange, pending.stream.growing, len(pending.ticket.answer.tokens) - begun)
                yield None
                looked = time.monotonic()
        with self.host.working:
            exchange.reply = run.reply(pending)
        exchange.answer = [one for one in exchange.answer if not isinstance(one, Growing)]

    def _take(self, exchange: Exchange, event: AnswerEvent) -> None:
        answer = exchange.answer
        if isinstance(event, Over | MediaChunk | MediaComponent):
            return  # pieces of what follows as a whole
        if answer and isinstance(answer[-1], Growing):
            answer.pop()
        if isinstance(event, TextPiece):
            before = answer.pop() if answer and isinstance(answer[-1], str) else ""
            answer.append(f"{before}{event.text}")
        elif isinstance(event, SaidControl):
            answer.append(Said(event.name))
        elif isinstance(event, WholeMedia):
            answer.append(self.media.saved(event.modality, event.content))

    def _grow(self, exchange: Exchange, modality: str, tokens: int) -> None:
        """Shows that media are being made."""
        answer = exchange.answer
        if answer and isinstance(answer[-1], Growing):
            answer.pop()
        if modality:
            answer.append(Growing(modality, tokens))

    def _told(self, error: Exception) -> str:
        """One line about what went wrong."""
        if not isinstance(error, MioError):
            _log.exception("an answer failed")
        text = str(error) if isinstance(error, MioError | OSError) else f"{type(error).__name__}: {error}"
        return " ".join(re.sub(rf"{re.escape(str(self.folder))}/(given-\d+/)?", "", text).split())


def _given(parts: Sequence[str | MediaFile]) -> list[Any]:
    return [part if isinstance(part, str) else {"type": part.modality, "path": str(part.path)} for part in parts]
