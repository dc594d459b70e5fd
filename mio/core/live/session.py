"""A live conversation: one object that takes timed events in, gives timed events out, and holds all state between."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.controls import INTERRUPT, SILENCE
from mio.core.contract.heads import Head
from mio.core.contract.plugins import PluginManager
from mio.core.contract.sessions import MODEL, Synthesiser, Utterance
from mio.core.contract.values import Detokenizer, Media, Value
from mio.core.errors import DataError, UserError
from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader, Piece
from mio.core.generation.sampling import check_decoding, item_seed
from mio.core.live import events, inbox
from mio.core.live.clock import Clock, SimulatedClock
from mio.core.live.duplex import Duplex
from mio.core.live.events import SessionEvent
from mio.core.live.history import Exchange, Query, prompt_of
from mio.core.live.inbox import Inbox
from mio.core.live.playing import Player
from mio.core.live.policy import policy_of
from mio.core.live.sentences import SentenceCutter
from mio.core.runs.run import Run
from mio.core.tokens.visitor import codes_in, control_of, media_in, text_of

_KEYS = itertools.count()
"""Numbers in the keys of media that come in: no two of a process have one key."""


class _Answer:
    """One of the two sequences, while an answer is made on it."""

    def __init__(self, exchange: Exchange, growing: GrowingAnswer, row: int, sentences: SentenceCutter) -> None:
        self.exchange, self.growing, self.row, self.sentences = exchange, growing, row, sentences
        self.decided = False
        """Whether the model has said that the query is meant for it; until then this sequence listens."""
        self.waits = False
        """Whether it goes on only when the answer that is given is over."""
        self.made = False
        """Whether all of it is generated; it may still be playing."""

    @property
    def number(self) -> int:
        return self.exchange.query.number


class Session:
    """A conversation with the model of a run.

        session = mio.Session("runs/vita")
        session.show("sketch", "three.svg")
        session.push((samples, 16000), time=0.5)
        for event in session.advance(2.0):
            print(event.time, event.kind, event.text)

    Args:
        run: run folder, or its `Model`.
        policy: plugin whose `mio_session` says how the conversation goes; default: the first of the run that has one.
        options: options of the conversation, in place of those under `session` of this plugin in the run's recipe.
        clock: default: a `SimulatedClock`; with a `RealClock`, call `step` in a loop, or use `mio.core.live.realtime`.
        seed: of the sampling.
        plugins: plugins that are not installed, as `--plugin` takes them.

    Raises:
        UserError: the run, its plugins or the options do not allow a conversation.
    """

    def __init__(
        self,
        run: str | Path | Model,
        policy: str = "",
        options: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        device: str = "cpu",
        precision: str = "",
        plugins: Sequence[str] = (),
    ) -> None:
        manager = run.plugins.manager if isinstance(run, Model) else PluginManager.discover(plugins)
        self.model = run if isinstance(run, Model) else Model.of(Run.open(run, manager), device, precision, let_go=True)
        self.policy = policy_of(self.model, policy, options or {})
        self.clock: Clock = clock or SimulatedClock()
        self.steps = 0
        """Steps of the engine so far."""
        self._seed = seed
        check_decoding(self.policy.decoding, seed)
        self._need = self.model.need(self.policy.output, only=True, decoding=self.policy.decoding)
        self._controls = self.model.vocabulary.controls.tokens
        if self.policy.answers == MODEL and not self._controls:
            raise UserError(
                f"{self.model.folder}: its model has no control tokens, with which it would say what is meant for it; "
                "train with a plugin that has some, or have everything answered with the option `answers=all`"
            )
        self._player = Player(self.model, self.policy, self._tell)
        self._segmenter = self.policy.stream.segmenter() if self.policy.stream else None
        context = self.model.recipe.data.packing.context
        self.engine = Duplex(
            self.model.transformer, self.model.grammar, self.model.codecs, self.policy.decoding, context + 1
        )
        self._inbox = Inbox()
        self._events: list[SessionEvent] = []
        self._queries: deque[Query] = deque()
        """Those that no sequence has read yet."""
        self._asked = 0
        self._shown: list[Value] = []
        self._shown_used = False
        """Whether a query was asked since something was shown."""
        self._past: list[Exchange] = []
        self._answers: list[_Answer] = []
        """Those that are being made."""
        self._given: _Answer | None = None
        """The one that is being given."""

    # what comes in

    def push(self, chunk: Any, time: float | None = None) -> None:
        """A chunk of the stream, heard whole at `time` (default: now). Raises `UserError` if nothing is listened to."""
        if self._segmenter is None:
            raise UserError("this conversation listens to no stream: its policy has none; type, or show media")
        self._inbox.put(self._time(time), inbox.CHUNK, chunk)

    def end(self, time: float | None = None) -> None:
        """The stream ends: what is being said in it is over."""
        if self._segmenter is not None:
            self._inbox.put(self._time(time), inbox.END)

    def show(self, modality: str, content: Any, time: float | None = None) -> None:
        """Media that the next queries are about: a file, or what the modality's tokenizer takes."""
        self._inbox.put(self._time(time), inbox.SHOWN, self.media(modality, content))

    def say(self, *values: Value, time: float | None = None) -> None:
        """A query of text, or of text and media, that is complete."""
        if not values:
            raise UserError("a query is empty")
        self._inbox.put(self._time(time), inbox.SAID, values)

    def media(self, modality: str, content: Any) -> Media:
        """An item as `show` and `say` take it. Raises `UserError` for an unknown modality."""
        if modality not in self.model.codecs.modalities:
            known = ", ".join(sorted(self.model.codecs.modalities))
            raise UserError(f"no modality `{modality}` in this run; it has {known}")
        data = Path(content) if isinstance(content, str) else content
        return Media(modality, data, f"live/{next(_KEYS)}")

    def _time(self, time: float | None) -> float:
        now = self.clock.now()
        if time is not None and not math.isfinite(time):
            raise UserError(f"an input cannot come at {time} s")
        return now if time is None else max(float(time), now)

    # what comes out

    @property
    def busy(self) -> bool:
        """Whether `step` would compute something, now or because something that has come in was not looked at."""
        if self._due(self.clock.now()) or self._over():
            return True
        return self._can_listen or any(not answer.waits for answer in self._answers)

    @property
    def unfinished(self) -> bool:
        """Whether something that was given to the session is not answered yet."""
        return self.busy or self._inbox.next is not None or bool(self._answers or self._queries)

    def step(self) -> list[SessionEvent]:
        """Looks at what has come in, and computes one step of the engine if there is something to compute."""
        for one in self._inbox.due(self.clock.now()):
            self._take_input(one)
        self._let_go_on()
        self._listen()
        going = [answer for answer in self._answers if not answer.waits]
        if going:
            self._compute(going)
        given, self._events = self._events, []
        return given

    def advance(self, until: float) -> list[SessionEvent]:
        """Lets a simulated clock run to a time; what happens until then."""
        clock = self._simulated()
        happened: list[SessionEvent] = []
        while clock.now() < until or self._due(until):
            happened += self._step_or_wait(clock, until)
        return happened

    def finish(self) -> list[SessionEvent]:
        """Lets a simulated clock run until everything that was given to the session is answered, and played."""
        clock = self._simulated()
        happened: list[SessionEvent] = []
        while self.unfinished:
            happened += self._step_or_wait(clock, float("inf"))
        clock.go_to(self._player.until)
        return happened

    def _simulated(self) -> SimulatedClock:
        if not isinstance(self.clock, SimulatedClock):
            raise UserError("only a simulated clock can be advanced; the world's advances by itself")
        return self.clock

    def _due(self, until: float) -> bool:
        return self._inbox.next is not None and self._inbox.next <= until

    def _step_or_wait(self, clock: SimulatedClock, until: float) -> list[SessionEvent]:
        if self.busy:
            return self.step()
        waits = [time for time in (self._inbox.next, self._player.until) if time is not None and time > clock.now()]
        clock.go_to(min([*waits, until]))
        return []

    # inputs

    def _take_input(self, one: inbox.Input) -> None:
        if one.kind == inbox.SHOWN:
            if self._shown_used or not self._shown:
                self._shown, self._shown_used = [], False
            self._shown.append(one.content)
        elif one.kind == inbox.SAID:
            self._ask(one.content)
        else:
            self._hear(one)

    def _hear(self, one: inbox.Input) -> None:
        """A chunk of the stream, or its end."""
        assert self._segmenter is not None
        assert self.policy.stream is not None
        try:
            utterances = self._segmenter.close() if one.kind == inbox.END else self._segmenter.push(one.content)
        except DataError as error:
            self._ignore(str(error))
            return
        for utterance in utterances:
            self._take_utterance(utterance, self.policy.stream.modality)

    def _take_utterance(self, utterance: Utterance, modality: str) -> None:
        if utterance.ignored:
            self._ignore(utterance.ignored, start=utterance.start, end=utterance.end)
            return
        self._tell(events.HEARD, self._asked, start=utterance.start, end=utterance.end)
        self._ask((self.media(modality, utterance.data),))

    def _ask(self, said: Sequence[Value]) -> None:
        self._queries.append(Query(self._asked, tuple(self._shown), tuple(said)))
        self._asked += 1
        self._shown_used = True
        if not self.policy.shown_stays:
            self._shown = []

    def _ignore(self, reason: str, query: int = -1, **where: float) -> None:
        self._tell(events.IGNORED, query, reason=reason, **where)

    def _tell(self, kind: str, query: int, **fields: Any) -> None:
        self._events.append(SessionEvent(kind, self.clock.now(), self.steps, query, **fields))

    def saver(self, event: SessionEvent) -> Detokenizer | Head | Synthesiser:
        """What writes the media of an event to a file."""
        return self._player.saver(event.modality)

    # the two sequences

    @property
    def _can_listen(self) -> bool:
        """Whether a query waits for a sequence, and there is one for it."""
        return bool(self._queries and self.engine.free) and all(answer.decided for answer in self._answers)

    def _listen(self) -> None:
        """Has a sequence that is free read the next query, unless one is still deciding about another."""
        while self._can_listen:
            query = self._queries.popleft()
            least = self.model.grammar.least(self._need)
            seed = item_seed(self._seed, "session", query.number)
            try:
                prompt, budget = prompt_of(self.model, self.policy, self._past, query, least)
                growing = GrowingAnswer(self.model.grammar, self._need, budget, seed, self.policy.decoding)
                row = self.engine.read(prompt, growing)
            except DataError as error:
                self._ignore(str(error), query.number)
                continue
            reader = AnswerReader(self.model.vocabulary, self.model.codecs.text)
            sentences = SentenceCutter(self.policy.marks, self.policy.least)
            answer = _Answer(Exchange(query, reader), growing, row, sentences)
            self._answers.append(answer)
            if self.policy.answers != MODEL:
                self._decide(answer, INTERRUPT)

    def _compute(self, going: list[_Answer]) -> None:
        """One token of each sequence. One that listens comes first: what it says may end the other."""
        chosen = self.engine.choose([answer.row for answer in going])
        self.clock.stepped()
        self.steps += 1
        for answer in sorted(going, key=lambda one: one.decided):
            if answer in self._answers:
                self._take_token(answer, chosen[answer.row])
        if going := [answer for answer in going if answer in self._answers]:
            made = self.engine.feed({answer.row: chosen[answer.row] for answer in going})
            for answer in going:
                if answer.row in made and answer in self._answers:
                    for piece in answer.exchange.answer.made(made[answer.row]):
                        self._take_piece(answer, piece)

    def _take_token(self, answer: _Answer, token: int) -> None:
        answer.growing.advance(token)
        reader = answer.exchange.answer
        pieces = [] if token == self.model.grammar.stop else reader.push(token)
        for piece in [*pieces, *(reader.finish() if answer.growing.done else ())]:
            self._take_piece(answer, piece)
            if answer not in self._answers:
                return
        if not answer.growing.done:
            return
        if answer.decided:
            self._end(answer)
        else:
            self._fall_silent(answer)  # it has said nothing at all

    def _take_piece(self, answer: _Answer, piece: Piece) -> None:
        if (control := control_of(piece)) is not None:
            self._obey(answer, control.name)
            return
        if not answer.decided:
            self._decide(answer, INTERRUPT)
        if (text := text_of(piece)) is not None:
            self._tell(events.TEXT, answer.number, text=text)
            for sentence in answer.sentences.push(text):
                self._player.say(answer.number, sentence, self.clock.now())
        for codes in codes_in((piece,)):
            self._player.decode(answer.number, codes, self.clock.now())
        for media in media_in((piece,)):
            self._player.show(answer.number, media, self.clock.now())

    def _obey(self, answer: _Answer, name: str) -> None:
        """Does what the action of a control token says."""
        action = self._controls[name].action
        self._tell(events.CONTROL, answer.number, control=name)
        if action == SILENCE:
            self._fall_silent(answer)
            return
        if not answer.decided:
            self._decide(answer, action)

    def _decide(self, answer: _Answer, action: str) -> None:
        """The query is meant for the model: the roles of the sequences swap, or it waits for its turn."""
        answer.decided = True
        if self._given is None or self._over():
            self._give(answer)
        elif action == INTERRUPT:
            self._interrupt(self._given, answer)
            self._give(answer)
        else:
            answer.waits = True

    def _give(self, answer: _Answer) -> None:
        self._given, answer.waits = answer, False
        self._past = [*self._past, answer.exchange][-self.policy.history :] if self.policy.history else []

    def _interrupt(self, answer: _Answer, by: _Answer) -> None:
        self._tell(events.INTERRUPTED, answer.number, by=by.number)
        self._player.stop()
        if not answer.made:
            self._release(answer)

    def _fall_silent(self, answer: _Answer) -> None:
        self._tell(events.SILENCE, answer.number)
        self._release(answer)
        if self._given is answer:
            self._given = None
            self._past = [one for one in self._past if one is not answer.exchange]

    def _end(self, answer: _Answer) -> None:
        for sentence in answer.sentences.flush():
            self._player.say(answer.number, sentence, self.clock.now())
        self._tell(events.DONE, answer.number)
        answer.made = True
        self._release(answer)
        self._let_go_on()

    def _release(self, answer: _Answer) -> None:
        self.engine.release(answer.row)
        self._answers.remove(answer)

    def _over(self) -> bool:
        """Whether the answer that was being given is made and played."""
        return self._given is not None and self._given.made and self.clock.now() >= self._player.until

    def _let_go_on(self) -> None:
        """Has the answer that waits take its turn where the one before it is over."""
        if self._over():
            self._given = None
        if self._given is None:
            for answer in self._answers:
                if answer.waits:
                    self._give(answer)
                    return
