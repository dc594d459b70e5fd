"""Answers of a realtime conversation: items become queries of a session, and what the session tells becomes responses.
Everything here runs in the engine's thread, between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mio.core.contract.sessions import ALL
from mio.core.contract.values import TEXT, Decoding
from mio.core.generation import requests
from mio.core.generation.streaming import tokens_by_modality
from mio.core.live import events
from mio.core.live.events import SessionEvent
from mio.core.live.session import Session
from mio.core.tokens.rendered import Prompt
from mio.serve.errors import ApiError
from mio.serve.giving import as_file, data_url
from mio.serve.realtime.items import ASSISTANT, USER, Asked, Item, Items, identifier, is_sound
from mio.serve.realtime.responses import CANCELLED, COMPLETED, FAILED, INCOMPLETE, Form, Outgoing, Response
from mio.serve.receiving import AUDIO

TURN_DETECTED, CLIENT_CANCELLED = "turn_detected", "client_cancelled"
"""Why a response was called off."""
_KEPT = 64
"""Responses that are remembered when they are over: their sound can be truncated."""


@dataclass(frozen=True)
class Manner:
    """What a client chose for its session, as far as answers go."""

    form: Form
    instructions: str | None = None
    """None: the system prompts of the run's recipe."""
    creates: bool = True
    """Whether what is said is answered without being asked for."""
    interrupts: bool = True
    """Whether what is said may stop an answer."""


class Answers:
    """The answers to the items of a conversation.

    Args:
        session: on the engine that all requests share.
        writes: modality of sound that answers consist of where sound is wanted; empty: what the policy says.
        decoding: how answers in a modality are decoded.
        send: takes events for the client.
        check_free: raises `ApiError` where no further answer may be asked for.
    """

    def __init__(
        self,
        session: Session,
        items: Items,
        writes: str,
        decoding: Callable[[str], Decoding],
        send: Callable[[Outgoing], None],
        check_free: Callable[[], None],
    ) -> None:
        self.id = identifier("conv")
        self.session, self._items, self._writes, self._send = session, items, writes, send
        self._decoding, self._check_free = decoding, check_free
        self._responses: dict[int, Response] = {}
        """By number of the query."""
        self._reasons: dict[int, str] = {}
        """Why queries are called off."""
        self._wanted: set[int] = set()
        """Queries that the client has asked for by itself."""

    @property
    def active(self) -> list[Response]:
        """Those that are being made, as far as the client knows of them."""
        return [one for one in self._responses.values() if one.created and not one.over]

    def of(self, item: Item) -> Response | None:
        """The response whose message an item is, as far as it is remembered."""
        return next((one for one in self._responses.values() if one.item is item), None)

    # what is asked

    def ask(self, new: Sequence[Item], manner: Manner, wanted: bool) -> None:
        """Has the session answer items; `wanted`: whatever the model says about whom they are for."""
        self._check_free()
        if not new and not any(item.role in (USER, ASSISTANT) for item in self._items):
            raise ApiError(400, "the conversation has nothing to answer; create an item, or commit sound", None,
                           "conversation_empty")  # fmt: skip
        asked = Asked(list(new))
        for item in new:
            item.asked = asked
        shown = self._items.shown(new)
        said = [value for item in new for value in item.said]
        session, form = self.session, manner.form
        policy = session.policy
        most = form.max_output_tokens
        spoken = form.modality == AUDIO
        output = (policy.output or self._writes) if spoken else TEXT
        decoding = self._decoding(output)
        settings = replace(
            session.settings, answers=ALL if wanted else policy.answers, speaks=spoken and bool(policy.speaks),
            output=output, system=self._system(manner),
            decoding=decoding if most == "inf" else replace(decoding, max_tokens=int(most)),
            interrupts=wanted or manner.interrupts,
        )  # fmt: skip
        exchange = asked.exchange = session.ask(said, shown, settings, partial(self._items.turns, asked))
        response = Response(form, asked, self.id, self._send, self._items.add)
        active = self.active
        self._responses[exchange.number] = response
        if wanted:
            self._wanted.add(exchange.number)
        if settings.answers == ALL and not active:
            response.create()

    def _system(self, manner: Manner) -> dict[str, str]:
        """System prompts: the run's own, unless the client gives others."""
        known = dict(self.session.model.recipe.data.system)
        own = [text for text in (manner.instructions, self._items.system()) if text]
        if not own:
            return known if manner.instructions is None else {}
        return {"default": "\n\n".join(own)}

    # what is called off

    def call_off(self, responses: Sequence[Response], reason: str) -> None:
        """Ends responses that are being made."""
        for one in responses:
            if one.asked.exchange is not None:
                self._reasons[one.asked.exchange.number] = reason
                self.session.cancel(one.asked.exchange)
        self.attend()

    def stop(self) -> None:
        """What is said now stops all answers, those too of which the client does not know yet."""
        self.call_off([one for one in self._responses.values() if not one.over], TURN_DETECTED)
        self._stop_playing(TURN_DETECTED)

    def clear_output(self) -> None:
        """The client plays nothing any more of what it was given."""
        last = self._stop_playing(CLIENT_CANCELLED) or next(reversed(self._responses.values()), None)
        self._send({"type": "output_audio_buffer.cleared", "response_id": last.id if last is not None else ""})

    def _stop_playing(self, reason: str) -> Response | None:
        """The response that is over and being played, which it is no longer."""
        given = self.session.given
        response = self._responses.get(given.number) if given is not None else None
        if given is None or response is None or not response.over:
            return None
        self._reasons[given.number] = reason
        self.session.cancel(given)
        self.attend()
        return response

    def close(self) -> None:
        """Calls off what is being made: the client has left."""
        for response in self._responses.values():
            if response.asked.exchange is not None:
                self.session.cancel(response.asked.exchange)

    # what the session tells

    def attend(self) -> None:
        """Looks at what the session has to do and to tell. To be called before steps, and at `next`."""
        while told := self.session.attend():
            for event in told:
                self._take(event)

    @property
    def next(self) -> float | None:
        """Seconds until it has to be attended to again though the engine tells nothing."""
        following = self.session.next
        return None if following is None else max(0.0, following - self.session.clock.now())

    @property
    def over(self) -> bool:
        """Whether the model has answered all, and all was played."""
        over = all(one.over for one in self._responses.values())
        return bool(self._responses) and over and self.session.given is None

    def _take(self, event: SessionEvent) -> None:
        response = self._responses.get(event.query)
        if response is None:
            return
        if event.kind == events.TEXT:
            response.text(event.text)
        elif event.kind in (events.CHUNK, events.MEDIA):
            self._take_media(response, event)
        elif event.kind == events.INTERRUPTED:
            self._interrupted(response, event)
        elif event.kind == events.IGNORED:
            self._ignored(response, event)
        elif event.kind in (events.DONE, events.SILENCE, events.FAILED):
            self._over(response, event)
        if response.over:
            self._forget()

    def _take_media(self, response: Response, event: SessionEvent) -> None:
        if is_sound(self.session.model, event.modality):
            if event.kind == events.MEDIA and response.in_sound:
                response.sound_is_whole()
            else:
                response.sound(event.content, whole=event.kind == events.MEDIA)
        elif event.kind == events.MEDIA:
            model, content = self.session.model, event.content
            module = model.plugins.datamodule(event.modality)
            kind = module.media_type if module is not None else ""

            def url() -> str:
                full, content_bytes = as_file(model, event.modality, kind, content)
                return data_url(full if "/" in full else "application/octet-stream", content_bytes)

            response.other(kind or event.modality, url)

    def _interrupted(self, response: Response, event: SessionEvent) -> None:
        reason = self._reasons.pop(event.query, TURN_DETECTED if event.by >= 0 else CLIENT_CANCELLED)
        if not response.over:
            if response.created:
                response.end(CANCELLED, {"type": CANCELLED, "reason": reason}, self._usage(response))
            response.over = True
        elif reason == TURN_DETECTED and event.by not in self._wanted:  # it was being played
            self._send({"type": "output_audio_buffer.cleared", "response_id": response.id})

    def _ignored(self, response: Response, event: SessionEvent) -> None:
        exchange = response.asked.exchange
        if exchange is not None and exchange.ticket is not None:
            self.error(ApiError(500, f"a piece of the answer is left out: {event.reason}", code="piece_left_out"))
            return
        error = {"type": "invalid_request_error", "code": "invalid_value", "message": event.reason}
        response.end(FAILED, {"type": FAILED, "error": error})

    def _over(self, response: Response, event: SessionEvent) -> None:
        asked = response.asked
        ticket = asked.exchange.ticket if asked.exchange is not None else None
        finished = ticket.finished if ticket is not None else None
        if event.kind == events.FAILED:
            error = {"type": "server_error", "code": "engine_failed", "message": event.reason}
            response.end(FAILED, {"type": FAILED, "error": error}, self._usage(response))
        elif event.kind == events.SILENCE:
            if response.created:
                response.end(COMPLETED, None, self._usage(response))
            response.over = True
        elif finished is not None and finished.reason == requests.LENGTH:
            response.end(INCOMPLETE, {"type": INCOMPLETE, "reason": "max_output_tokens"}, self._usage(response))
        else:
            response.end(COMPLETED, None, self._usage(response))

    def _usage(self, response: Response) -> dict[str, Any] | None:
        exchange = response.asked.exchange
        if exchange is None or exchange.ticket is None:
            return None
        ticket = exchange.ticket
        taken = self._tokens(ticket.request.prompt, ("audio", "image"))
        given = self._tokens(Prompt(np.array(ticket.answer.tokens, np.int32)), ("audio",))
        counts = {"input_tokens": sum(taken.values()), "output_tokens": sum(given.values())}
        return {**counts, "total_tokens": sum(counts.values()), "input_token_details": taken,
                "output_token_details": given}  # fmt: skip

    def _tokens(self, prompt: Prompt, kinds: Sequence[str]) -> dict[str, int]:
        """Tokens by what OpenAI's clients know them as; all others count as text."""
        model = self.session.model
        found = dict.fromkeys([f"{kind}_tokens" for kind in (TEXT, *kinds)], 0)
        for name, count in tokens_by_modality(prompt, model.vocabulary).items():
            module = model.plugins.datamodule(name)
            kind = module.media_type if module is not None and module.media_type in kinds else TEXT
            found[f"{kind}_tokens"] += count
        return found

    def _forget(self) -> None:
        """Keeps no more of responses that are over than truncating them takes."""
        over = [query for query, one in self._responses.items() if one.over]
        for query in over[:-_KEPT]:
            del self._responses[query]

    def error(self, error: ApiError, event_id: str | None = None) -> None:
        """Tells what was wrong with an event of the client."""
        self._send({"type": "error", "error": {**error.content["error"], "event_id": event_id}})
