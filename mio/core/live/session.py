"""A live conversation: one object that takes timed events in, gives timed events out, and holds all state between."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.plugins import PluginManager
from mio.core.contract.sessions import MODEL, SessionPolicy, Synthesiser, Utterance
from mio.core.contract.values import Detokenizer, Media, Value
from mio.core.errors import DataError, UserError
from mio.core.generation.engine import Engine
from mio.core.generation.model import Model
from mio.core.generation.sampling import check_decoding
from mio.core.live import events, inbox
from mio.core.live.clock import Clock, SimulatedClock
from mio.core.live.events import SessionEvent
from mio.core.live.history import AnswerSettings, Exchange, Query, Turn
from mio.core.live.inbox import Inbox
from mio.core.live.policy import policy_of
from mio.core.live.turns import SEQUENCES, Turns
from mio.core.runs.run import Run

_KEYS = itertools.count()
"""Numbers in the keys of media that come in: no two of a process have one key."""


class Session:
    """A conversation with the model of a run.

        session = mio.Session("runs/vita")
        session.show("sketch", "three.svg")
        session.push((samples, 16000), time=0.5)
        for event in session.advance(2.0):
            print(event.time, event.kind, event.text)

    Args:
        run: run folder, or its `Model`.
        policy: plugin whose `mio_session` says how the conversation goes, or what it would say; default: the first of
            the run that has one.
        options: options of the conversation, in place of those under `session` of this plugin in the run's recipe.
        clock: default: a `SimulatedClock`; with a `RealClock`, call `step` in a loop, or use `mio.core.live.realtime`.
        engine: what answers, if it answers others as well (see `attend`); default: one of its own, with two rows.
        told: called whenever there is something to attend to: in the thread that steps the engine when it has told this
            session something, and in that of a worker when it has made something.
        workers: where media of answers are made, one after the other (an executor of one thread), so that the engine
            does not wait for that; default: in the thread that steps it.
        seed: of the sampling.
        plugins: plugins that are not installed, as `--plugin` takes them.

    Raises:
        UserError: the run, its plugins or the options do not allow a conversation.
    """

    def __init__(
        self,
        run: str | Path | Model,
        policy: str | SessionPolicy = "",
        options: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        engine: Engine | None = None,
        told: Callable[[], None] = lambda: None,
        workers: Executor | None = None,
        seed: int = 0,
        device: str = "cpu",
        precision: str = "",
        plugins: Sequence[str] = (),
    ) -> None:
        manager = run.plugins.manager if isinstance(run, Model) else PluginManager.discover(plugins)
        self.model = run if isinstance(run, Model) else Model.of(Run.open(run, manager), device, precision)
        self.policy = policy if isinstance(policy, SessionPolicy) else policy_of(self.model, policy, options or {})
        self.clock: Clock = clock or SimulatedClock()
        check_decoding(self.policy.decoding, seed)
        self.settings = AnswerSettings.of(self.model, self.policy)
        """How queries are answered that come without settings of their own."""
        self.model.need(self.policy.output, only=True, decoding=self.policy.decoding)
        if self.policy.answers == MODEL and not self.model.vocabulary.controls.tokens:
            raise UserError(
                f"{self.model.folder}: its model has no control tokens, with which it would say what is meant for it; "
                "train with a plugin that has some, or have everything answered with the option `answers=all`"
            )
        if engine is not None and engine.transformer is not self.model.transformer:
            raise UserError(f"{self.model.folder}: the engine of this conversation is that of another model")
        self.engine = engine or self.model.engine(SEQUENCES)
        self._turns = Turns(self.model, self.policy, self.engine, self.clock, seed, self._tell, told, workers)
        self._segmenter = self.policy.stream.segmenter() if self.policy.stream else None
        self._inbox = Inbox()
        self._events: list[SessionEvent] = []
        self._asked = 0
        self._shown: list[Value] = []
        self._shown_used = False
        """Whether a query was asked since something was shown."""

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
        """Whether `step` would compute or tell something, also because something that came in was not looked at."""
        return self._due(self.clock.now()) or bool(self._events) or self._turns.busy

    @property
    def unfinished(self) -> bool:
        """Whether something that was given to the session is not answered yet."""
        return self.busy or self._inbox.next is not None or self._turns.unfinished

    @property
    def steps(self) -> int:
        """Steps of the engine so far in which it did something for this session."""
        return self._turns.steps

    def attend(self) -> list[SessionEvent]:
        """Looks at what has come in, and asks the engine for answers, without stepping it. Returns what has happened
        since the last call. For who steps an engine that several share: before each step, or whenever `told` was
        called, and at `next`."""
        for one in self._inbox.due(self.clock.now()):
            self._take_input(one)
        self._turns.attend()
        return self._happened()

    def step(self) -> list[SessionEvent]:
        """Looks at what has come in, and computes one step of the engine if there is something to compute."""
        happened = self.attend()
        if self.engine.busy:
            self.engine.step()
        return [*happened, *self._happened()]

    @property
    def next(self) -> float | None:
        """When something happens by itself if the engine tells nothing: an input comes, or an answer has been played.
        None: nothing does."""
        now = self.clock.now()
        return min((time for time in (self._inbox.next, self._turns.player.until) if time and time > now), default=None)

    def _happened(self) -> list[SessionEvent]:
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
        clock.go_to(self._turns.player.until)
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
        if self._turns.player.pending:
            self._turns.player.wait()
            return []
        following = self.next
        clock.go_to(until if following is None else min(following, until))
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
        self.ask(said, self._shown)
        self._shown_used = True
        if not self.policy.shown_stays:
            self._shown = []

    def ask(
        self,
        said: Sequence[Value],
        shown: Sequence[Value] = (),
        settings: AnswerSettings | None = None,
        past: Callable[[], Sequence[Turn]] | None = None,
    ) -> Exchange:
        """A query of its own, now: for programs that keep the conversation themselves.

        Args:
            said, shown: what the policy's `compose` makes a message of.
            past: called for what went before when the query is read; default: what the session remembers.
        """
        query = Query(self._asked, tuple(shown), tuple(said), settings or self.settings, past)
        self._asked += 1
        return self._turns.ask(query)

    def cancel(self, exchange: Exchange) -> None:
        """Calls an answer off, also one that is still being played; nothing where it is over. Within a step, before its
        next token is computed."""
        self._turns.cancel(exchange)

    @property
    def given(self) -> Exchange | None:
        """The query whose answer is being made or played."""
        return self._turns.given

    def _ignore(self, reason: str, query: int = -1, **where: float) -> None:
        self._tell(events.IGNORED, query, reason=reason, **where)

    def _tell(self, kind: str, query: int, **fields: Any) -> None:
        self._events.append(SessionEvent(kind, self.clock.now(), self.steps, query, **fields))

    def saver(self, event: SessionEvent) -> Detokenizer | Head | Synthesiser:
        """What writes the media of an event to a file."""
        return self._turns.player.saver(event.modality)
