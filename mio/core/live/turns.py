"""Whose turn it is: queries are asked of the engine, and what it tells becomes events of the conversation.

Knows nothing of who steps the engine, nor of what else that answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from mio.core.contract.controls import INTERRUPT, SILENCE
from mio.core.contract.sessions import MODEL, SessionPolicy
from mio.core.errors import DataError
from mio.core.generation import requests
from mio.core.generation.engine import Engine
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader, Piece
from mio.core.generation.requests import Event, Finished, MadeMedia, Request, Ticket, Token
from mio.core.generation.sampling import item_seed
from mio.core.generation.stopping import StopStrings
from mio.core.live import events
from mio.core.live.clock import Clock
from mio.core.live.history import Exchange, Query, Turn, prompt_of, turn_of
from mio.core.live.playing import Player, Span
from mio.core.live.sentences import SentenceCutter
from mio.core.tokens.visitor import codes_in, control_of, media_in, text_of

SEQUENCES = 2
"""Of one conversation: one answers while the other listens."""

_LISTENS, _ANSWERS = 0, 1
"""Orders of tickets: what one that listens says may end an answer in the same step."""


class _Answer:
    """An answer while it is made."""

    def __init__(self, exchange: Exchange, sentences: SentenceCutter) -> None:
        self.exchange, self.sentences = exchange, sentences
        self.stops = StopStrings(exchange.query.settings.decoding.stop)
        self.decided = False
        """Whether the query is known to be meant for the model; until then this sequence listens."""
        self.made = False
        """Whether all of it is generated; it may still be playing."""
        self.media: Span | None = None
        """Of the span that is open."""

    @property
    def number(self) -> int:
        return self.exchange.number

    @property
    def ticket(self) -> Ticket:
        assert self.exchange.ticket is not None
        return self.exchange.ticket

    @property
    def waits(self) -> bool:
        """Whether it goes on only when the answer that is given is over."""
        return self.ticket.paused


class Turns:
    """The answers of one conversation.

    Args:
        tell: called with kind, number of the query and further fields of each event.
        told: called when the engine has told something, in the thread that steps it, or a worker has made something.
        workers: see `Player`.
    """

    def __init__(
        self,
        model: Model,
        policy: SessionPolicy,
        engine: Engine,
        clock: Clock,
        seed: int,
        tell: Callable[..., None],
        told: Callable[[], None],
        workers: Executor | None,
    ) -> None:
        self._model, self._policy, self._engine, self._clock, self._seed = model, policy, engine, clock, seed
        self._tell, self._told = tell, told
        self._controls = model.vocabulary.controls.tokens
        self.player = Player(model, policy, tell, workers, told)
        self.steps = 0
        """Steps of the engine in which this conversation was told something."""
        self._last = -1
        """Number of the last of these."""
        self.queries: deque[Exchange] = deque()
        """Those that no sequence has read yet."""
        self._past: list[Exchange] = []
        self._answers: list[_Answer] = []
        """Those that are being made."""
        self._given: _Answer | None = None
        """The one that is being given."""

    # for whoever steps the engine

    @property
    def busy(self) -> bool:
        """Whether `attend`, or the engine's next step, would do something."""
        return (
            self.player.ready or self._over() or self._can_listen or any(not answer.waits for answer in self._answers)
        )

    @property
    def unfinished(self) -> bool:
        return bool(self._answers or self.queries) or self.player.pending

    @property
    def given(self) -> Exchange | None:
        """The query whose answer is being made or played."""
        return self._given.exchange if self._given is not None and not self._over() else None

    def attend(self) -> None:
        """Does what can be done between two steps: tells what was made, gives the turn on, and has queries read."""
        self.player.flush(self._clock.now())
        self._let_go_on()
        self._listen()

    def ask(self, query: Query) -> Exchange:
        """Has a query answered, when its time comes."""
        exchange = Exchange(query, AnswerReader(self._model.vocabulary, self._model.codecs.text))
        self.queries.append(exchange)
        return exchange

    def cancel(self, exchange: Exchange) -> None:
        """Calls an answer off, also one that is being played. Nothing where it is over."""
        given = self._given
        for answer in [*self._answers, *([given] if given is not None and not self._over() else [])]:
            if answer.exchange is exchange:
                self._stop(answer, -1)
                self._given = None if answer is given else given
                return
        if exchange in self.queries:
            self.queries.remove(exchange)
            self._tell(events.INTERRUPTED, exchange.number)

    # listening

    @property
    def _can_listen(self) -> bool:
        """Whether a query waits for a sequence, and there is one for it."""
        return bool(self.queries) and len(self._answers) < SEQUENCES and all(one.decided for one in self._answers)

    def _listen(self) -> None:
        """Has a sequence that is free read the next query, unless one is still deciding about another."""
        while self._can_listen:
            exchange = self.queries.popleft()
            answer = _Answer(exchange, SentenceCutter(self._policy.marks, self._policy.least))
            try:
                exchange.ticket = self._engine.submit(
                    self._request(exchange.query), partial(self._hear, answer), _LISTENS
                )
            except DataError as error:
                exchange.left_out = True
                self._tell(events.IGNORED, exchange.number, reason=str(error))
                continue
            self._answers.append(answer)
            if exchange.query.settings.answers != MODEL:
                self._decide(answer, INTERRUPT)

    def _request(self, query: Query) -> Request:
        settings = query.settings
        need = self._model.need(settings.output, only=True, decoding=settings.decoding)
        prompt, budget = prompt_of(
            self._model, self._policy, self._turns_before(query), query, self._model.grammar.least(need)
        )
        return Request(prompt, settings.decoding, need, item_seed(self._seed, "session", query.number), budget)

    def _turns_before(self, query: Query) -> Sequence[Turn]:
        if query.past is not None:
            return query.past()
        return [turn_of(self._policy, one) for one in self._past]

    # what the engine tells

    def _hear(self, answer: _Answer, _: Ticket, event: Event) -> None:
        if answer not in self._answers:
            return  # called off
        if self._engine.steps != self._last:
            self._last = self._engine.steps
            self.steps += 1
            self._clock.stepped()
        before, pieces = answer.exchange.answer.open, self._pieces(answer, event)
        for piece in pieces:
            self._take_piece(answer, piece)
            if answer not in self._answers:
                break
        else:
            if isinstance(event, Token):
                self._grow(answer, before, event.id)
            elif isinstance(event, Finished):
                self._finish(answer, event)
        self._told()

    def _pieces(self, answer: _Answer, event: Event) -> list[Piece]:
        reader = answer.exchange.answer
        if isinstance(event, Token):
            return [] if event.id == self._model.grammar.stop else reader.push(event.id)
        return reader.made(event.media) if isinstance(event, MadeMedia) else reader.finish()

    def _grow(self, answer: _Answer, before: str, token: int) -> None:
        """Takes a token of a span that is open, or opens one; `before` is the modality that was open."""
        opened = answer.exchange.answer.open
        if opened and not before:
            answer.media = self.player.open(opened)
        elif answer.media is not None and opened:
            self.player.grow(answer.number, answer.media, token, self._clock.now())

    def _finish(self, answer: _Answer, event: Finished) -> None:
        if event.reason == requests.FAILED:
            self.player.tell(events.FAILED, answer.number, reason=str(event.error))
            self._leave(answer)
        elif answer.decided:
            self._end(answer)
        else:
            self._fall_silent(answer)  # it has said nothing at all

    def _take_piece(self, answer: _Answer, piece: Piece) -> None:
        if (control := control_of(piece)) is not None:
            self._obey(answer, control.name)
            return
        if not answer.decided:
            self._decide(answer, INTERRUPT)
        text = text_of(piece)
        self._write(answer, answer.stops.push(text) if text is not None else answer.stops.flush())
        for codes in codes_in((piece,)):
            if answer.media is not None:
                self.player.close(answer.number, answer.media, codes, self._clock.now())
        for media in media_in((piece,)):
            self.player.show(answer.number, media, self._clock.now())

    def _write(self, answer: _Answer, text: str) -> None:
        if text:
            self.player.tell(events.TEXT, answer.number, text=text)
            self._say(answer, answer.sentences.push(text))

    def _say(self, answer: _Answer, sentences: Sequence[str]) -> None:
        if answer.exchange.query.settings.speaks:
            for sentence in sentences:
                self.player.say(answer.number, sentence, self._clock.now())

    def _obey(self, answer: _Answer, name: str) -> None:
        """Does what the action of a control token says."""
        action = self._controls[name].action
        self._teller(answer)(events.CONTROL, answer.number, control=name)
        if action == SILENCE:
            self._fall_silent(answer)
        elif not answer.decided:
            self._decide(answer, action)

    def _teller(self, answer: _Answer) -> Callable[..., None]:
        """What tells events of an answer: those of the one that is given come in the order in which they were said."""
        return self.player.tell if answer is self._given else self._tell

    # turns

    def _decide(self, answer: _Answer, action: str) -> None:
        """The query is meant for the model: the roles of the sequences swap, or it waits for its turn."""
        answer.decided, answer.ticket.order = True, _ANSWERS
        if self._given is None or self._over():
            self._give(answer)
        elif action == INTERRUPT and answer.exchange.query.settings.interrupts:
            self._stop(self._given, answer.number)
            self._give(answer)
        else:
            answer.ticket.paused = True

    def _give(self, answer: _Answer) -> None:
        self._given, answer.ticket.paused = answer, False
        self._past = [*self._past, answer.exchange][-self._policy.history :] if self._policy.history else []

    def _stop(self, answer: _Answer, by: int) -> None:
        self._tell(events.INTERRUPTED, answer.number, by=by)
        if answer is self._given:
            self.player.stop(answer.number)
        if not answer.made:
            self._release(answer)

    def _fall_silent(self, answer: _Answer) -> None:
        self._teller(answer)(events.SILENCE, answer.number)
        self._leave(answer)

    def _leave(self, answer: _Answer) -> None:
        """The answer is none: later queries are not told of it."""
        self._release(answer)
        answer.exchange.left_out = True
        if self._given is answer:
            self._given = None
            self._past = [one for one in self._past if one is not answer.exchange]

    def _end(self, answer: _Answer) -> None:
        self._write(answer, answer.stops.flush())
        self._say(answer, answer.sentences.flush())
        self.player.tell(events.DONE, answer.number)
        answer.made = True
        self._release(answer)
        self._let_go_on()

    def _release(self, answer: _Answer) -> None:
        if answer.ticket.finished is None:
            self._engine.cancel(answer.ticket)
        self._answers.remove(answer)

    def _over(self) -> bool:
        """Whether the answer that was being given is made and played."""
        given, player = self._given, self.player
        return given is not None and given.made and not player.pending and self._clock.now() >= player.until

    def _let_go_on(self) -> None:
        """Has the answer that waits take its turn where the one before it is over."""
        if self._over():
            self._given = None
        if self._given is None:
            for answer in self._answers:
                if answer.waits:
                    self._give(answer)
                    return
