"""What clients of `/v1/realtime` send: the events of OpenAI's realtime API, with its general-availability names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic_core
from pydantic import Field

from mio.core.errors import nearest
from mio.serve.errors import ApiError
from mio.serve.http import validated
from mio.serve.protocol.fields import TOOLS, UNSAMPLED, Neutral, Positive, Strict

PCM = {"type": "audio/pcm", "rate": 24_000}
"""The one format of sound: 16 bits, little-endian, one channel."""

_MOST_VALUES = 10_000
"""Values in one event, about."""

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=1)]
Tokens = Positive | Literal["inf"]
"""The most that an answer has is the operator's, `Limits.max_tokens`, which `Choices` compares with."""


class PcmFormat(Strict):
    type: Literal["audio/pcm"] | None = None
    rate: Literal[24_000] | None = None


class ServerVad(Strict):
    """Fields that are not given stay as they are."""

    type: Literal["server_vad"]
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] | None = None
    silence_duration_ms: Annotated[int, Field(ge=32, le=60_000)] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: Annotated[int, Field(ge=1, le=3_600_000)] | None = None


class AudioInput(Strict):
    neutral: ClassVar[Neutral] = {
        "transcription": ("sound that comes in is not transcribed beside the answers", ()),
        "noise_reduction": (UNSAMPLED, ()),
    }

    format: PcmFormat | None = None
    turn_detection: ServerVad | None = None


class Voice(Strict):
    id: Identifier


class AudioOutput(Strict):
    neutral: ClassVar[Neutral] = {"speed": ("the run has one voice", (1, 1.0))}

    format: PcmFormat | None = None
    voice: Identifier | Voice | None = None
    """The run's own is the only one."""


class Audio(Strict):
    input: AudioInput | None = None
    output: AudioOutput | None = None


_NEUTRAL: Neutral = {
    "tools": (TOOLS, ([],)),
    "tool_choice": (TOOLS, ("auto", "none")),
    "parallel_tool_calls": (TOOLS, (True, False)),
    "prompt": ("no prompts are stored here", ()),
    "reasoning": (UNSAMPLED, ()),
}


class SessionSettings(Strict):
    unused = frozenset({"id", "object", "expires_at", "client_secret"})
    neutral: ClassVar[Neutral] = {
        **_NEUTRAL,
        "tracing": (UNSAMPLED, ()),
        "truncation": ("what does not fit the context is left out, the oldest first", ("auto",)),
        "include": (UNSAMPLED, ([],)),
    }

    type: Literal["realtime"]
    model: str | None = None
    output_modalities: Modalities | None = None
    instructions: str | None = None
    audio: Audio | None = None
    max_output_tokens: Tokens | None = None


class ResponseAudio(Strict):
    output: AudioOutput | None = None


class ResponseSettings(Strict):
    neutral: ClassVar[Neutral] = {
        **_NEUTRAL,
        "conversation": ("responses beside the conversation are not supported", ("auto",)),
        "input": ("a response is to the conversation; create items in it", ()),
    }

    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: ResponseAudio | None = None
    max_output_tokens: Tokens | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None


class Content(Strict):
    """A part of a message. Which fields it has is up to its type."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class ItemSettings(Strict):
    unused = frozenset({"object", "status"})

    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    content: Annotated[list[Content], Field(min_length=1, max_length=64)]
    id: Identifier | None = None


class ClientEvent(Strict):
    type: str
    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(ClientEvent):
    session: SessionSettings


class BufferAppend(ClientEvent):
    audio: str


class BufferCommit(ClientEvent):
    pass


class BufferClear(ClientEvent):
    pass


class ItemCreate(ClientEvent):
    item: ItemSettings
    previous_item_id: Identifier | None = None


class ItemRetrieve(ClientEvent):
    item_id: Identifier


class ItemDelete(ClientEvent):
    item_id: Identifier


class ItemTruncate(ClientEvent):
    item_id: Identifier
    content_index: Annotated[int, Field(ge=0)]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(ClientEvent):
    response: ResponseSettings | None = None


class ResponseCancel(ClientEvent):
    response_id: Identifier | None = None


class OutputClear(ClientEvent):
    pass


EVENTS: Mapping[str, type[ClientEvent]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": BufferAppend,
    "input_audio_buffer.commit": BufferCommit,
    "input_audio_buffer.clear": BufferClear,
    "conversation.item.create": ItemCreate,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.delete": ItemDelete,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
    "output_audio_buffer.clear": OutputClear,
}


def client_event(text: str | bytes) -> ClientEvent:
    """The event of a message. Raises `ApiError`."""
    content = text.encode() if isinstance(text, str) else text
    if content.count(b",") + content.count(b"[") + content.count(b"{") > _MOST_VALUES:
        raise ApiError(400, f"the event has more than {_MOST_VALUES} values", code="too_large")
    try:
        parsed: Any = pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the event is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(parsed, dict):
        raise ApiError(400, "an event is a JSON object", code="invalid_json")
    kind = parsed.get("type")
    if not isinstance(kind, str) or kind not in EVENTS:
        hint = nearest(kind, list(EVENTS)) if isinstance(kind, str) else ""
        raise ApiError(
            400, f"invalid `type`: no event that clients send is {kind!r:.80}{hint}", "type", "invalid_value"
        )
    return validated(parsed, EVENTS[kind])


def event_id_of(text: str | bytes) -> str | None:
    """The `event_id` of a message that could not be taken, to tell whose error it is."""
    try:
        found = pydantic_core.from_json(text).get("event_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) and len(found) <= 512 else None
