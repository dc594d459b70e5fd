"""The run that is served: who may ask, what is asked of the engine, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mio.core.contract.values import TEXT, Decoding
from mio.core.errors import DataError, UserError, nearest
from mio.core.generation.defaults import DEFAULT, decoding_for
from mio.core.generation.engine import answer_room
from mio.core.generation.grammar import Need
from mio.core.generation.model import Model
from mio.core.generation.requests import Request
from mio.core.generation.sampling import SEEDS, check_decoding, item_seed
from mio.core.generation.streaming import AnswerEvent, AnswerStream, Over
from mio.core.tokens.documents import Document
from mio.core.tokens.rendered import Prompt
from mio.serve.abilities import Abilities
from mio.serve.answering import Answer
from mio.serve.conversations import Conversations
from mio.serve.engine_thread import EngineThread
from mio.serve.errors import ApiError, busy, stopping, unsupported
from mio.serve.limits import Limits
from mio.serve.metrics import Metrics
from mio.serve.protocol.fields import Sampling
from mio.serve.receiving import Receiver
from mio.serve.remembered import Remembered
from mio.serve.templates import Questions

T = TypeVar("T")

_KINDS = ("audio", "image", "video")
_VALUES = 50_000
"""Values in the JSON of a request, beside those of token ids."""
_REMEMBERED = 4096
"""Media whose codes are kept, for conversations that go on."""
_SMOOTHING = 0.1
"""What a new answer counts for in the mean of seconds that answers take."""


@dataclass(frozen=True)
class Settings:
    """What the operator chose."""

    name: str
    """What requests call the model."""
    rows: int = 8
    """Answers that are made together."""
    limits: Limits = field(default_factory=Limits)
    key: str = ""
    """What clients have to give; empty: nothing."""
    folder: Path | None = None
    """Whose files requests may name."""
    templates: dict[str, str] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    """Of web pages that may ask."""
    hosts: tuple[str, ...] = ()
    """Names by which the server may be called; empty: any."""


@dataclass(frozen=True)
class Asked:
    """What a request wants of the engine."""

    prompts: Sequence[Prompt]
    """One per answer."""
    decoding: Decoding
    need: Need
    seeds: Sequence[int]
    output: str = ""
    """Modality that the answers are to hold; empty: any."""


@dataclass
class Answers:
    """The answers to a request. To be closed, whatever becomes of them."""

    service: Service
    each: list[Answer] = field(default_factory=list)
    places: int = 0
    """Of those that can be asked for together, how many these take."""
    begun: float = field(default_factory=time.monotonic)

    async def events(self) -> AsyncIterator[tuple[int, AnswerEvent]]:
        """What the answers give out, as it comes, with the number of each. Raises `ApiError`."""
        limit = self.service.settings.limits.answer_timeout
        late = ApiError(504, f"the answer took longer than {limit:g} s", code="timeout")
        timer = asyncio.get_running_loop().call_later(limit, self._fail, late)
        left, first = len(self.each), True
        try:
            async with contextlib.aclosing(self._merged()) as merged:
                async for number, event in merged:
                    if first:
                        first = False
                        self.service.metrics.first_token.observe(time.monotonic() - self.begun)
                    if isinstance(event, Over):
                        left -= 1
                        self.service.over(self, event.reason)
                    yield number, event
                    if not left:
                        return
        finally:
            timer.cancel()

    def _fail(self, error: ApiError) -> None:
        for one in self.each:
            one.fail(error)

    async def _merged(self) -> AsyncGenerator[tuple[int, AnswerEvent]]:
        """The events of all answers, in the order in which they come."""
        if len(self.each) == 1:
            async for event in self.each[0].events():
                yield 0, event
            return
        merged: asyncio.Queue[tuple[int, AnswerEvent] | Exception] = asyncio.Queue()
        tasks = [asyncio.create_task(_forward(number, one, merged)) for number, one in enumerate(self.each)]
        try:
            while True:
                found = await merged.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Calls off what is not over, and makes room for others."""
        self.service.metrics.answer_tokens.inc(sum(len(one.tokens) for one in self.each) if self.places else 0)
        for one in self.each:
            one.cancel()
        self.service.leave(self.places)
        self.places = 0


async def _forward(number: int, answer: Answer, merged: asyncio.Queue[Any]) -> None:
    try:
        async for event in answer.events():
            merged.put_nowait((number, event))
    except Exception as error:
        merged.put_nowait(error)


class Service:
    """What all endpoints share.

    Raises:
        UserError: the settings do not fit the run, or memory does not suffice.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        model.codecs.remembered = _REMEMBERED
        self.created = int(time.time())
        self.metrics = Metrics()
        self.abilities = Abilities.of(model)
        self.questions = Questions(model, self.abilities, settings.templates)
        self.remembered = Remembered()
        self.receiver = Receiver(self.abilities, model.codecs, settings.limits, settings.folder)
        self.context = model.recipe.data.packing.context
        self.values = _VALUES + 4 * self.context
        """Most values in the JSON of a request."""
        self.characters = self.context * _longest_token(model)
        self.conversations = Conversations(model, self.receiver, self.remembered, settings.limits, self.characters)
        self.executor = ThreadPoolExecutor(1, "media")
        self._rendering = ThreadPoolExecutor(1, "prompts")
        self.draining = False
        """Whether the server takes no further requests."""
        self._taken = 0
        self._mean_seconds = 1.0
        self._engine = model.engine(settings.rows, self.context)
        self._thread: EngineThread | None = None

    # its life

    async def start(self) -> None:
        """Has the engine step, and tell the event loop that this is called in."""
        self._thread = EngineThread(self._engine, asyncio.get_running_loop())
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._rendering.shutdown(wait=False, cancel_futures=True)

    @property
    def engine(self) -> EngineThread:
        assert self._thread is not None, "the service was not started"
        return self._thread

    @property
    def alive(self) -> bool:
        """Whether the engine's thread lives."""
        return self._thread is not None and self._thread.alive

    def hurry(self) -> None:
        """Calls off all answers, as the server ends now."""
        if self._thread is not None:
            self._thread.call(lambda: self._engine.abandon(UserError("the server is being stopped")))

    def measure(self) -> None:
        """Brings the figures of the moment up to date."""
        self.metrics.running.set(len(self._engine.running))
        self.metrics.waiting.set(self._engine.waiting)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._taken == 0

    # who may ask

    def check_model(self, name: str | None) -> None:
        """Raises `ApiError` for the name of another model."""
        known = self.settings.name
        if name is not None and name != known:
            raise ApiError(
                404, f"there is no model `{name:.80}` here{nearest(name, [known])}; this server has `{known}`", "model",
                "model_not_found",
            )  # fmt: skip

    def check_free(self, count: int = 1) -> None:
        """Raises `ApiError` where so many answers cannot wait as well, or the server is being stopped."""
        limits = self.settings.limits
        if self.draining:
            raise stopping(limits.grace)
        if self._taken + count > limits.waiting + self.settings.rows:
            waiting = max(0, self._taken - self.settings.rows)
            raise busy(waiting, self._mean_seconds * (waiting + 1) / self.settings.rows)

    def enter(self, count: int) -> Answers:
        """Takes places for so many answers. Raises `ApiError` as `check_free`."""
        self.check_free(count)
        self._taken += count
        return Answers(self, places=count)

    def leave(self, count: int) -> None:
        self._taken -= count

    def over(self, answers: Answers, reason: str) -> None:
        """Counts an answer that has ended."""
        seconds = time.monotonic() - answers.begun
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)
        self.metrics.answers.labels(reason).inc()
        self.metrics.seconds.observe(seconds)

    # what is asked

    async def run(self, function: Callable[[], T]) -> T:
        """Runs what would hold up the event loop, one such thing after the other: plugins' tokenizers need not be made
        for several threads. What is wrong with what a client sent is an `ApiError`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._rendering, function)
        except UserError as error:
            raise ApiError(400, str(error), code="invalid_value") from error

    async def ask(self, answers: Answers, asked: Asked) -> None:
        """Has the engine make these answers. Raises `ApiError` for what it refuses."""
        self.metrics.prompt_tokens.inc(sum({id(one): len(one.tokens) for one in asked.prompts}.values()))
        for prompt, seed in zip(asked.prompts, asked.seeds, strict=True):
            request = Request(prompt, asked.decoding, asked.need, seed, self._budget(prompt, asked))
            stream = AnswerStream(self.model, request, asked.output)
            one = Answer(stream, self.engine, self.executor)
            answers.each.append(one)
            await self.run(partial(one.submit, request))

    def _budget(self, prompt: Prompt, asked: Asked) -> int:
        try:
            room = answer_room(len(prompt.tokens), self.context, self.model.grammar.least(asked.need))
        except DataError as error:
            raise ApiError(400, str(error), code="context_length_exceeded") from error
        return min(asked.decoding.max_tokens + 1, room)  # OpenAI's limit is without the token that ends the answer

    def prompt(self, document: Document) -> Prompt:
        """The tokens of a document up to the answer. Not for the event loop's thread. Raises `DataError`."""
        prompt = self.model.renderer.prompt(document)
        for item in prompt.items:
            self.metrics.media.labels(item.modality, "read").inc()
        return prompt

    def seeds(self, request: Sampling, count: int) -> list[int]:
        """Seeds of the answers to a request. The first is the request's own, so that one answer is what
        `mio generate` gives."""
        seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed % SEEDS
        return [seed, *(item_seed(seed, "choice", number) for number in range(1, count))]

    def choices(self, count: int | None) -> int:
        """Answers that are asked for. Raises `ApiError`."""
        most = self.settings.limits.choices
        if count is not None and count > most:
            raise unsupported("n", f"`n`: at most {most} answers are given to a request")
        return count or 1

    def decoding(self, request: Sampling, output: str | None, max_tokens: int | None = None) -> Decoding:
        """How answers in a modality are sampled: as the request says, and otherwise as the run's recipe does. Raises
        `ApiError`."""
        limit = self.settings.limits.max_tokens
        wanted = max_tokens if max_tokens is not None else request.max_tokens
        if wanted is not None and wanted > limit:
            raise unsupported("max_tokens", f"`max_tokens`: answers have at most {limit} tokens here")
        said = {one.name: value for one in fields(Decoding) if (value := getattr(request, one.name, None)) is not None}
        recipe = self.model.recipe
        of_recipe = [(recipe.generate.get(name) or {}).get("max_tokens") for name in (DEFAULT, output or DEFAULT)]
        if wanted is not None or not any(of_recipe):
            said["max_tokens"] = limit if wanted is None else wanted
        if said.get("top_k", 0) < 0:
            said["top_k"] = 0
        decoding = decoding_for(recipe, output or "", **said)
        decoding = replace(decoding, max_tokens=min(decoding.max_tokens, limit))
        try:
            check_decoding(decoding, chosen=self.model.grammar.chosen)
        except UserError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        return decoding

    def wanted(self, modalities: Sequence[str] | None) -> str | None:
        """The modality that an answer is to hold; None for any. Raises `ApiError`."""
        if modalities is None:
            return None
        found: list[str] = []
        for number, name in enumerate(modalities):
            where = f"modalities[{number}]"
            if name == TEXT:
                continue
            if name in self.abilities.writes:
                found.append(name)
            elif name in _KINDS:
                found.append(self.abilities.writer(name, None, where))
            else:
                known = [TEXT, *_KINDS, *self.abilities.writes]
                raise unsupported(where, f"`{where}`: unknown modality `{name:.40}`{nearest(name, known)}")
        found = list(dict.fromkeys(found))
        if not found:
            return TEXT
        if len(found) == 1:
            return found[0]
        if set(found) >= set(self.abilities.writes):
            return None
        raise unsupported(
            "modalities",
            f"`modalities`: an answer has text and one kind of media, or all that the run makes "
            f"({', '.join(self.abilities.writes)}); name one, or leave it out",
        )

    def need(self, output: str | None, decoding: Decoding) -> Need:
        """What an answer needs to hold `output`; None: anything."""
        return self.model.need(output or "", only=output is not None, decoding=decoding)


def _longest_token(model: Model) -> int:
    """Characters of the longest text that a token can stand for."""
    text = model.codecs.text
    with contextlib.suppress(Exception):
        return max(len(text.token(index)) for index in range(text.size))
    return 64
