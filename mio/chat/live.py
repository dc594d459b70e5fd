"""Live conversations of the page: a WebSocket brings what a microphone hears, and takes what the model says.

A client sends binary frames, samples of 32 bits of one channel, and JSON: `{"start": {"rate": 48000, "output": ""}}`
first, then `{"say": TEXT}`, `{"show": NAME, "data": BASE64}` and `{"end": true}`. It is sent JSON, as `_wire` has it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from mio.api import forms
from mio.chat.host import Host
from mio.chat.media import MediaFolder, modality_of
from mio.chat.view import media_html
from mio.core.contract.sessions import SessionPolicy
from mio.core.errors import MioError, UserError
from mio.core.generation.sampling import SEEDS
from mio.core.live import events
from mio.core.live.clock import RealClock
from mio.core.live.events import SessionEvent
from mio.core.live.policy import policy_of
from mio.core.live.session import Session

PATH = "/mio/live"
TALKS = 16
"""Conversations at a time."""
UNSENT = 4096
"""Events that a client may leave unread."""
_PATIENCE = 0.25
"""Seconds between two looks at what happens by itself."""
_RATES = range(4000, 384_001)
_POLICY, _TRY_LATER = 1008, 1013
_log = logging.getLogger("mio.chat")

Do = Callable[["Talk", Session], None]


def live_policy(host: Host, plugin: str = "", options: Mapping[str, Any] | None = None) -> SessionPolicy | None:
    """How live conversations of the run go, in which something is heard; None where it has none.

    Raises:
        UserError: a plugin or options were named with which the run has none.
    """
    try:
        policy = policy_of(host.run.model, plugin, options or {})
        with host.run.running.shared() as engine:
            Session(host.run.model, policy, clock=RealClock(), engine=engine)
        if policy.stream is None:
            raise UserError("live conversations of this run listen to nothing; leave --policy and --set out")
    except UserError:
        if plugin or options:
            raise
        return None
    return policy


class Lives:
    """All live conversations of a host.

    Args:
        policy: how they go; None: there are none.
    """

    def __init__(self, host: Host, policy: SessionPolicy | None) -> None:
        self._host, self._policy = host, policy
        self._open: set[Talk] = set()

    def router(self) -> APIRouter:
        """The WebSocket."""
        routes = APIRouter()

        @routes.websocket(PATH)
        async def live(socket: WebSocket) -> None:
            origin = urlsplit(socket.headers.get("origin", "")).netloc
            if self._policy is None or (origin and origin.lower() != socket.headers.get("host", "").lower()):
                await socket.close(_POLICY)  # another page
                return
            await socket.accept()
            if len(self._open) >= TALKS:
                await socket.send_json({"event": "over", "reason": f"{TALKS} people talk already; try again later"})
                await socket.close(_TRY_LATER)
                return
            await self._serve(socket, self._policy)

        return routes

    async def _serve(self, socket: WebSocket, policy: SessionPolicy) -> None:
        out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(told: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(out.put_nowait, told)

        talk = Talk(self._host, policy, tell)
        self._open.add(talk)
        tasks = [asyncio.create_task(_read(socket, talk)), asyncio.create_task(_write(socket, out))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            talk.close()
            self._open.discard(talk)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client is gone already
                await socket.close()


async def _read(socket: WebSocket, talk: Talk) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                talk.take(message.get("bytes"), message.get("text"))
            except MioError as error:
                talk.tell({"event": "problem", "reason": str(error)})


async def _write(socket: WebSocket, out: asyncio.Queue[dict[str, Any]]) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while out.qsize() < UNSENT:
            told = await out.get()
            await socket.send_json(told)
            if told["event"] == "over":
                return


class Talk:
    """One live conversation, in a thread of its own. It is answered by the engine that all share.

    Args:
        tell: takes what the client is to be told, in that thread.
    """

    def __init__(self, host: Host, policy: SessionPolicy, tell: Callable[[dict[str, Any]], None]) -> None:
        self._host, self._policy, self.tell = host, policy, tell
        self._inputs: queue.Queue[Do] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._rate = 0
        self._closed = False
        self._folder = host.new_folder()
        self._media = MediaFolder(self._folder, host.run.model.codecs, host.media_types)
        self._chunked: set[int] = set()
        """Queries of whose answers pieces of sound were given out."""

    def close(self) -> None:
        """The client is gone."""
        self._closed = True
        self._inputs.put(_nothing)
        if self._thread is None:
            self._host.forget(self._folder)

    # what the client sends

    def take(self, chunk: bytes | None, frame: str | None) -> None:
        """Takes a frame. Raises `UserError` for one that makes no sense."""
        if chunk is not None:
            self._hear(chunk)
            return
        try:
            said = json.loads(frame or "")
        except ValueError:
            said = None
        if not isinstance(said, dict) or len(said.keys() & {"start", "say", "show", "end"}) != 1:
            raise UserError("a frame must be sound, or an object with `start`, `say`, `show` or `end`")
        if "start" in said:
            self._start(said["start"])
        elif self._thread is None:
            raise UserError("the first frame must be `start`")
        elif "say" in said:
            text = str(said["say"])
            if not text.strip():
                raise UserError("a query is empty")
            self._inputs.put(lambda _, session: session.say(text))
        elif "show" in said:
            self._show(str(said["show"]), str(said.get("data", "")))
        else:
            self._inputs.put(lambda _, session: session.end())

    def _start(self, wanted: Any) -> None:
        rate = wanted.get("rate", 0) if isinstance(wanted, dict) else 0
        output = wanted.get("output", "") if isinstance(wanted, dict) else ""
        if self._thread is not None:
            raise UserError("the conversation has begun already")
        if not isinstance(rate, int) or rate not in _RATES:
            raise UserError("`rate` must be samples a second, from 4000 to 384000")
        if output not in self._host.outputs:
            raise UserError(f"`output`: the run makes no `{output!s:.40}`")
        self._rate = rate
        self._thread = threading.Thread(target=self._run, args=(str(output),), name="live talk", daemon=True)
        self._thread.start()

    def _hear(self, chunk: bytes) -> None:
        if self._thread is None or len(chunk) % 4 or len(chunk) > 4 * self._rate * 10:
            raise UserError("sound comes behind `start`, in samples of 32 bits, at most ten seconds in a frame")
        samples = np.nan_to_num(np.frombuffer(chunk, "<f4").astype(np.float32)).clip(-1, 1)
        self._inputs.put(lambda _, session: session.push((samples, self._rate)))

    def _show(self, name: str, content: str) -> None:
        path = self._folder / f"shown-{secrets.token_hex(4)}{Path(name).suffix.lower()}"
        modality = modality_of(path, self._host.suffixes)
        try:
            path.write_bytes(base64.b64decode(content, validate=True))
        except ValueError:
            raise UserError(f"{name}: its content is no base64") from None

        def show(talk: Talk, session: Session) -> None:
            with talk._host.working:
                media = talk._media.given(modality, path)
                session.model.codecs.opened(session.media(modality, path))
            session.show(modality, path)
            talk.tell({"event": "shown", "html": media_html(media)})

        self._inputs.put(show)

    # the conversation, in its thread

    def _run(self, output: str) -> None:
        try:
            session = self._session(output)
            self.tell({"event": "ready"})
            while not self._closed:
                self._take_inputs(session)
                with self._host.working:
                    for event in self._host.run.running.attend(session):
                        for told in self._wire(event):
                            self.tell(told)
        except Exception as error:
            if not isinstance(error, MioError):
                _log.exception("a live conversation failed")
            self.tell({"event": "over", "reason": str(error) or type(error).__name__})
        finally:
            self._host.forget(self._folder)

    def _session(self, output: str) -> Session:
        run, seed = self._host.run, self._host.seed
        policy = replace(self._policy, output=output) if output else self._policy
        with run.running.shared() as engine:
            return Session(
                run.model,
                policy,
                clock=RealClock(),
                engine=engine,
                told=lambda: self._inputs.put(_nothing),
                seed=secrets.randbelow(SEEDS) if seed is None else seed,
            )

    def _take_inputs(self, session: Session) -> None:
        """What has come; waits for it where there is nothing to compute."""
        wait = 0.0
        if not session.busy:
            due = session.next
            wait = _PATIENCE if due is None else min(_PATIENCE, max(0.001, due - session.clock.now()))
        with contextlib.suppress(queue.Empty):
            self._try(self._inputs.get(timeout=wait) if wait else self._inputs.get_nowait(), session)
            while True:
                self._try(self._inputs.get_nowait(), session)

    def _try(self, do: Do, session: Session) -> None:
        try:
            do(self, session)
        except MioError as error:  # a wrong file ends no conversation
            self.tell({"event": "problem", "reason": str(error).replace(f"{self._folder}/", "")})

    def _wire(self, event: SessionEvent) -> list[dict[str, Any]]:
        """An event as the client is told it; sound that is to be played at once with its samples."""
        told = event.to_json()
        if event.kind not in (events.CHUNK, events.MEDIA):
            return [told]
        sound = self._host.media_types.get(event.modality) == forms.AUDIO
        if sound and (event.kind == events.CHUNK or event.query not in self._chunked):
            told |= _samples(event.content)
        if event.kind == events.CHUNK:
            self._chunked.add(event.query)
            return [told] if sound else []
        return [{**told, "html": media_html(self._media.saved(event.modality, event.content))}]


def _nothing(talk: Talk, session: Session) -> None:
    """Wakes up who waits."""


def _samples(content: tuple[Any, int]) -> dict[str, Any]:
    """Sound as base64 of samples of 16 bits, one channel."""
    samples, rate = content
    samples = np.asarray(samples)
    if samples.ndim == 2:
        samples = samples.mean(1)
    return {"rate": int(rate), "pcm": base64.b64encode(forms.to_pcm(samples).tobytes()).decode("ascii")}
