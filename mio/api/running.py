"""Answers of one model, made together: any number of callers, in any number of threads, share one engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from mio.core.errors import UserError
from mio.core.generation.engine import Engine
from mio.core.generation.generate import Asked
from mio.core.generation.model import Model
from mio.core.generation.requests import FAILED, Event, Ticket
from mio.core.generation.rows import NoRoom
from mio.core.generation.streaming import AnswerEvent, AnswerStream, Over

if TYPE_CHECKING:
    from mio.core.live.events import SessionEvent
    from mio.core.live.session import Session

T = TypeVar("T")

_AHEAD = 2
"""Questions that are ready, for each answer that is being made."""


class Pending:
    """A question that is being answered.

    The engine may be stepped by anybody; what it tells is read, and media decoded, where `take` is called.
    """

    def __init__(self, model: Model, asked: Asked, engine: Engine) -> None:
        self.asked, self.engine = asked, engine
        self.stream = AnswerStream(model, asked.request, asked.question.output)
        self.over: Over | None = None
        """How it ended, once that is read."""
        self.problem: Exception | None = None
        """Why it cannot be read."""
        self._events: deque[Event] = deque()
        self.ticket = engine.submit(asked.request, self._hear)

    def _hear(self, ticket: Ticket, event: Event) -> None:  # noqa: ARG002
        self._events.append(event)

    def take(self) -> list[AnswerEvent]:
        """What there is to be told since the last time. Raises `DataError` for codes that no media can be made of."""
        told: list[AnswerEvent] = []
        while self._events:
            told += self.stream.take(self._events.popleft())
            if self.stream.stopped:
                self.cancel()
        if told and isinstance(told[-1], Over):
            self.over = told[-1]
        return told

    def read(self) -> bool:
        """Takes what there is to be told, for the end alone. Returns whether that is there."""
        try:
            self.take()
        except Exception as error:  # of one answer, which ends no other
            self.problem = error
            self.cancel()
        return self.over is not None or self.problem is not None

    def cancel(self) -> None:
        """Calls the answer off, if there is none yet."""
        if self.ticket.finished is None:
            self.engine.cancel(self.ticket)


class Running:
    """The engine of a model, made when it is first asked.

    Args:
        rows: answers that are made together.
    """

    def __init__(self, model: Model, rows: int) -> None:
        self._model, self._rows = model, rows
        self._engine: Engine | None = None
        self._pending: list[Pending] = []
        """Those that were not answered when the last one came."""
        self._stepping = threading.RLock()

    def submit(self, asked: Asked) -> Pending:
        """Has a question answered while somebody steps. Raises `UserError` if memory does not suffice."""
        needed = len(asked.request.prompt.tokens) + asked.request.budget - 1
        with self._stepping:
            if needed > self._model.recipe.data.packing.context:  # beyond it, by itself: others would take as much
                engine = self._model.engine(1, needed)
            else:
                engine = self._engine = self._engine or self._model.engine(self._rows)
            pending = Pending(self._model, asked, engine)
            self._pending = [one for one in self._pending if one.ticket.finished is None] + [pending]
        return pending

    def step(self, pending: Pending) -> None:
        """Has a question, and those beside it, go on by a token, unless it is answered. Whatever ends a step ends the
        answers that were being made. Raises `UserError` if memory does not suffice."""
        with self._stepping:
            if pending.ticket.finished is None:
                self._stepped(pending.engine, pending.engine.step)

    @contextmanager
    def shared(self) -> Iterator[Engine]:
        """The engine, which nobody else steps meanwhile: for live sessions that it answers as well (see `attend`)."""
        with self._stepping:
            self._engine = self._engine or self._model.engine(self._rows)
            yield self._engine

    def attend(self, session: Session) -> list[SessionEvent]:
        """Has a live session that was given the shared engine look at what has come in, and all answers go on by a
        token if there is one to compute. Returns what has happened in it. Raises as `step`, and `UserError` where the
        engine was given up since the session began."""
        with self._stepping:
            if session.engine is not self._engine:
                raise UserError("the engine was given up, as an answer beside this conversation failed; begin again")
            return self._stepped(session.engine, session.step)

    def _stepped(self, engine: Engine, step: Callable[[], T]) -> T:
        try:
            return step()
        except (torch.OutOfMemoryError, NoRoom) as error:
            told = UserError(
                f"{self._rows} answers with their prompts do not fit into memory; open the run with fewer `rows`"
            )
            self._give_up(engine, told)
            raise told from error
        except BaseException:  # an interruption too leaves what a row holds unknown
            self._give_up(engine, UserError("given up: an answer beside it failed, or was interrupted"))
            raise

    def _give_up(self, engine: Engine, error: UserError) -> None:
        if engine is self._engine:
            self._engine = None
        for one in self._pending:
            if one.engine is engine and one.ticket.finished is None:
                one.ticket.finish(FAILED, error)

    def events(self, asked: Asked) -> Iterator[tuple[Pending, AnswerEvent]]:
        """What an answer gives out while it is made, its end last. Whoever takes no more has it called off. Raises as
        `step` and `Pending.take`."""
        pending = self.submit(asked)
        try:
            while pending.over is None:
                self.step(pending)
                for event in pending.take():
                    yield pending, event
        finally:
            pending.cancel()

    def answers(self, asked: Iterable[tuple[int, Asked]]) -> Iterator[tuple[int, Pending]]:
        """Answered questions by their number, as they are ready. Questions are taken a few at a time. Raises as `step`;
        an answer that cannot be read has a `problem`."""
        questions = iter(asked)
        going: dict[int, Pending] = {}
        more = True
        try:
            while more or going:
                while more and len(going) < _AHEAD * self._rows:
                    if (one := next(questions, None)) is None:
                        more = False
                    else:
                        going[one[0]] = self.submit(one[1])
                done = [number for number, pending in going.items() if pending.read()]
                for number in done:
                    yield number, going.pop(number)
                if going and not done:
                    self.step(next(iter(going.values())))
        finally:
            for pending in going.values():
                pending.cancel()
