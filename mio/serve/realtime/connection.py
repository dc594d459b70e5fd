"""`/v1/realtime`: live conversations over WebSocket, as OpenAI's realtime API has them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from mio.core.errors import UserError
from mio.core.generation.sampling import SEEDS
from mio.core.live.clock import RealClock
from mio.core.live.session import Session
from mio.serve.errors import ApiError
from mio.serve.http import failure
from mio.serve.realtime.audio import InputBuffer, pcm_of
from mio.serve.realtime.conversation import Conversation
from mio.serve.realtime.items import ItemReader
from mio.serve.realtime.protocol import (
    BufferAppend,
    BufferClear,
    BufferCommit,
    ClientEvent,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
    client_event,
    event_id_of,
)
from mio.serve.realtime.responses import Outgoing
from mio.serve.realtime.settings import Choices, Ground
from mio.serve.service import Answers, Service

SUBPROTOCOL = "realtime"
"""What browsers offer beside their key."""
SESSIONS = 64
"""Conversations at a time."""
IDLE = 900.0
"""Seconds without an event of the client after which its connection is closed."""
LASTS = 3600.0
"""Seconds that a session lasts."""
UNSENT = 4096
"""Events that a client may leave unread."""
_KEPT = 2
"""Times the bytes of a body of a request that the media of a conversation may take."""
_LOOK = 0.25
"""Seconds between two looks at what ends a connection."""
_GOING_AWAY, _POLICY, _TRY_LATER = 1001, 1008, 1013
_SLACK = 0.005
"""Seconds by which one looks later than something is due."""


def router(service: Service) -> APIRouter:
    routes = APIRouter()
    open_now: set[_Connection] = set()
    grounds: list[Ground] = []

    @routes.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        try:
            service.check_model(websocket.query_params.get("model"))
            if len(open_now) >= SESSIONS:
                raise ApiError(429, f"{SESSIONS} conversations are open already; try again in a while",
                               code="rate_limit_exceeded")  # fmt: skip
            if not grounds:
                grounds.append(await service.run(lambda: Ground.of(service.model, service.abilities)))
        except ApiError as error:
            await websocket.send_denial_response(failure(error))
            return
        connection = _Connection(service, grounds[0], websocket)
        open_now.add(connection)
        try:
            await connection.run()
        finally:
            open_now.discard(connection)

    return routes


class _Connection:
    """A client's connection. Reads and writes in the event loop; its conversation lives in the engine's thread."""

    def __init__(self, service: Service, ground: Ground, websocket: WebSocket) -> None:
        self._service, self._ground, self._socket = service, ground, websocket
        self._thread = service.engine
        self._loop = asyncio.get_running_loop()
        limits, model = service.settings.limits, service.model
        system = model.recipe.data.system.get("default", "")
        self._choices = Choices(ground, service, system, LASTS)
        self._reader = ItemReader(service.receiver, limits, ground.listens, service.characters)
        self._buffer = InputBuffer(limits.seconds)
        self._out: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._numbers = itertools.count()
        self._conversation: Conversation | None = None
        self._due = False
        """Whether the conversation is to be attended to before the next step."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ended = False
        self._began = self._heard = self._loop.time()
        self._place: Answers | None = None
        """Of the response that is being made, among all answers."""

    async def run(self) -> None:
        """Serves the client until it leaves, or may stay no longer."""
        offered = self._socket.scope.get("subprotocols", ())
        await self._socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        tasks = []
        try:
            self._conversation = await self._service.run(self._made)
            self._buffer.listen(self._choices.segmenter)
            self._send({"type": "session.created", "session": self._choices.wire()})
            tasks = [asyncio.create_task(one) for one in (self._read(), self._write(), self._watch())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        except (WebSocketDisconnect, TimeoutError):
            pass
        except ApiError as error:
            await self._say_last(error)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._end()
            if self._socket.application_state == WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                    await asyncio.wait_for(self._socket.close(), self._service.settings.limits.write_timeout)

    def _made(self) -> Conversation:
        session = Session(
            self._service.model, self._ground.policy, clock=RealClock(), engine=self._thread.engine, told=self._told,
            workers=self._service.executor, seed=secrets.randbelow(SEEDS),
        )  # fmt: skip
        ground = self._ground
        return Conversation(
            session, ground.listens, ground.writes, partial(ground.decoding, self._service.model),
            self._choices.manner, self._send_from_engine, self._service.check_free,
            _KEPT * self._service.settings.limits.body,
        )  # fmt: skip

    @property
    def _talk(self) -> Conversation:
        assert self._conversation is not None
        return self._conversation

    def _end(self) -> None:
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        if self._place is not None:
            self._place.close()
        if self._conversation is not None:
            self._thread.call(self._conversation.answers.close)

    # what comes in

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._heard = self._loop.time()
            text = message.get("text")
            text = message.get("bytes") or b"" if text is None else text
            try:
                event = client_event(text)
            except ApiError as error:
                self._wrong(error, event_id_of(text))
                continue
            try:
                await self._take(event)
            except ApiError as error:
                self._wrong(error, event.event_id)
            except UserError as error:
                self._wrong(ApiError(400, str(error), code="invalid_value"), event.event_id)

    def _wrong(self, error: ApiError, event_id: str | None) -> None:
        self._do(partial(self._talk.answers.error, error, event_id))

    def _do(self, function: Callable[[], None], event_id: str | None = None) -> None:
        """Has something done by the conversation, one after the other."""

        def call() -> None:
            self._talk.guarded(function, event_id)
            self._plan()

        self._thread.call(call)

    async def _take(self, event: ClientEvent) -> None:
        talk, name = self._talk, event.event_id
        if isinstance(event, BufferAppend):
            pcm = pcm_of(event.audio, "audio")
            heard = await asyncio.to_thread(self._buffer.append, pcm)
            if heard:
                self._do(partial(talk.hear, heard, True), name)
        elif isinstance(event, BufferCommit):
            if not self._ground.listens:
                raise ApiError(400, "this run reads no sound", code="unsupported_modality")
            self._do(partial(talk.hear, self._buffer.commit(), False), name)
        elif isinstance(event, BufferClear):
            self._buffer.clear()
            self._do(talk.clear_input, name)
        elif isinstance(event, SessionUpdate):
            self._update(event)
        elif isinstance(event, ItemCreate):
            item = await asyncio.to_thread(self._reader.item, event.item)
            self._do(partial(talk.add_item, item, event.previous_item_id), name)
        elif isinstance(event, ItemRetrieve):
            self._do(partial(talk.retrieve_item, event), name)
        elif isinstance(event, ItemDelete):
            self._do(partial(talk.delete_item, event), name)
        elif isinstance(event, ItemTruncate):
            self._do(partial(talk.truncate_item, event), name)
        elif isinstance(event, ResponseCreate):
            if event.response is not None:
                self._choices.check(event.response)
            self._do(partial(talk.create_response, event.response), name)
        elif isinstance(event, ResponseCancel):
            self._do(partial(talk.cancel_response, event), name)
        else:
            self._do(talk.answers.clear_output, name)

    def _update(self, event: SessionUpdate) -> None:
        before = self._choices.turns
        self._choices.update(event.session)
        if self._choices.turns != before:
            self._buffer.listen(self._choices.segmenter)
        wire = {"type": "session.updated", "session": self._choices.wire()}
        self._do(partial(self._talk.change, self._choices.manner, wire), event.event_id)

    # what goes out

    def _send(self, event: Outgoing) -> None:
        self._out.put_nowait(event)

    def _send_from_engine(self, event: Outgoing) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._send, event)

    async def _write(self) -> None:
        while True:
            event: Any = await self._out.get()
            if callable(event):
                event = await asyncio.to_thread(event)
            if event is None:
                continue
            if event["type"] == "response.created":
                self._enter()
            text = json.dumps({"event_id": f"event_{next(self._numbers)}", **event}, ensure_ascii=False)
            async with asyncio.timeout(self._service.settings.limits.write_timeout):
                await self._socket.send_text(text)
            if event["type"] == "response.done":
                self._leave(event["response"]["status"])

    def _enter(self) -> None:
        """A response counts as an answer of the server, which ends no sooner."""
        if self._place is None:
            with contextlib.suppress(ApiError):
                self._place = self._service.enter(1)

    def _leave(self, status: str) -> None:
        """Raises `ApiError` where it was the last one."""
        if self._place is not None:
            self._service.over(self._place, status)
            if self._service.draining:
                raise _stopping()
            self._place.close()
            self._place = None

    async def _say_last(self, error: ApiError) -> None:
        """Tells why the connection ends."""
        content = {"type": "error", "event_id": f"event_{next(self._numbers)}", **error.content}
        code = {503: _GOING_AWAY, 429: _TRY_LATER}.get(error.status, _POLICY)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(self._service.settings.limits.write_timeout):
                await self._socket.send_text(json.dumps(content))
                await self._socket.close(code, error.message[:120])

    async def _watch(self) -> None:
        """Raises `ApiError` when the connection has to end."""
        while True:
            await asyncio.sleep(_LOOK)
            now = self._loop.time()
            if self._service.draining and self._place is None:
                raise _stopping()
            if now - self._began > LASTS:
                raise ApiError(400, f"a session lasts {LASTS / 60:g} minutes", code="session_expired")
            if now - self._heard > IDLE and self._place is None:
                raise ApiError(400, f"nothing came for {IDLE / 60:g} minutes", code="session_idle")
            if self._out.qsize() > UNSENT:
                raise ApiError(400, "the client leaves too much unread", code="too_slow")

    # time

    def _told(self) -> None:
        """The engine has told the session something. In the engine's thread, within a step."""
        if not self._due:
            self._due = True
            self._thread.call(self._attend)

    def _attend(self) -> None:
        self._due = False
        self._talk.guarded(self._talk.answers.attend)
        self._plan()

    def _plan(self) -> None:
        """What happens when the engine tells nothing. In the engine's thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set_timers, self._talk.answers.next, self._talk.quiet)

    def _set_timers(self, following: float | None, quiet: bool) -> None:
        if self._ended:
            return
        self._set("attend", following, lambda: self._thread.call(self._attend))
        turns = self._choices.turns
        patience = turns.idle_timeout_ms if turns is not None else None
        if not quiet or patience is None:
            self._set("patience", None, self._go_on)
        elif "patience" not in self._timers:
            self._set("patience", patience / 1000, self._go_on)

    def _set(self, name: str, seconds: float | None, function: Callable[[], Any]) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        if seconds is not None:
            self._timers[name] = self._loop.call_later(seconds + _SLACK, function)

    def _go_on(self) -> None:
        """The user has said nothing for as long as the client wants to wait."""
        self._timers.pop("patience", None)
        self._do(partial(self._talk.wait_no_longer, self._buffer.recent()))


def _stopping() -> ApiError:
    return ApiError(503, "the server is being stopped", code="server_stopping")
