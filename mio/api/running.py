"""Answers of one model, made together: any number of callers, in any number of threads, share one engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from mio.core.errors import UserError
from mio.core.generation.engine import Engine
from mio.core.generation.generate import Asked
from mio.core.generation.model import Model
from mio.core.generation.requests import FAILED, Event, Ticket, unheard
from mio.core.generation.rows import NoRoom

_AHEAD = 2
"""Questions that are ready, for each answer that is being made."""


class Pending(NamedTuple):
    """A question that is being answered."""

    asked: Asked
    ticket: Ticket
    engine: Engine


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

    def submit(self, asked: Asked, tell: Callable[[Ticket, Event], None] = unheard) -> Pending:
        """Has a question answered while somebody steps. `tell` is called in the thread that does. Raises `UserError` if
        memory does not suffice."""
        request = asked.request
        needed = len(request.prompt.tokens) + request.budget - 1
        with self._stepping:
            if needed > self._model.recipe.data.packing.context:  # beyond it, by itself: others would take as much
                engine = self._model.engine(1, needed)
            else:
                engine = self._engine = self._engine or self._model.engine(self._rows)
            pending = Pending(asked, engine.submit(request, tell), engine)
            self._pending = [one for one in self._pending if one.ticket.finished is None] + [pending]
        return pending

    def step(self, pending: Pending) -> None:
        """Has a question, and those beside it, go on by a token, unless it is answered. Whatever ends a step ends the
        answers that were being made. Raises `UserError` if memory does not suffice."""
        with self._stepping:
            if pending.ticket.finished is not None:
                return
            try:
                pending.engine.step()
            except (torch.OutOfMemoryError, NoRoom) as error:
                told = UserError(
                    f"{self._rows} answers with their prompts do not fit into memory; open the run with fewer `rows`"
                )
                self._give_up(pending.engine, told)
                raise told from error
            except BaseException:  # an interruption too leaves what a row holds unknown
                self._give_up(pending.engine, UserError("given up: an answer beside it failed, or was interrupted"))
                raise

    def _give_up(self, engine: Engine, error: UserError) -> None:
        if engine is self._engine:
            self._engine = None
        for one in self._pending:
            if one.engine is engine and one.ticket.finished is None:
                one.ticket.finish(FAILED, error)

    def cancel(self, pending: Pending) -> None:
        """Calls an answer off, if there is none yet."""
        if pending.ticket.finished is None:
            pending.engine.cancel(pending.ticket)

    def answers(self, asked: Iterable[tuple[int, Asked]]) -> Iterator[tuple[int, Pending]]:
        """Answered questions by their number, as they are ready. Questions are taken a few at a time. An answer that
        could not go on has its error in `finished`. Raises `UserError` if memory does not suffice."""
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
                done = [number for number, one in going.items() if one.ticket.finished is not None]
                for number in done:
                    yield number, going.pop(number)
                if going and not done:
                    self.step(next(iter(going.values())))
        finally:
            for pending in going.values():
                self.cancel(pending)
