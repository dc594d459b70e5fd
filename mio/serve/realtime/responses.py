"""A response of a realtime conversation: what the session tells of an answer, as events for the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mio.serve.realtime.audio import OutputSound
from mio.serve.realtime.items import ASSISTANT, Asked, Item, identifier
from mio.serve.realtime.protocol import PCM

Outgoing = dict[str, Any] | Callable[[], dict[str, Any] | None]
"""An event, or what makes one (None: there is none) where it is sent, as that takes long."""

COMPLETED, CANCELLED, INCOMPLETE, FAILED = "completed", "cancelled", "incomplete", "failed"
"""States of responses that are over."""

_TEXT, _AUDIO, _OTHER = "text", "audio", "other"


@dataclass(frozen=True)
class Form:
    """What a response is to be."""

    modality: str
    """`text`, or `audio`: sound with a transcript."""
    max_output_tokens: int | str = "inf"
    voice: Any = None
    metadata: Mapping[str, str] | None = None


@dataclass
class Given:
    """What was given out of a part with sound."""

    seconds: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    """Where each piece of sound begins, in seconds, and the characters of the transcript by then."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Where each item of sound begins and ends, in seconds."""

    def characters(self, heard: float) -> int:
        """Characters of the transcript that are heard within some seconds."""
        return max((length for start, length in self.marks if start < heard), default=0)


class Response:
    """One response and its one message.

    Args:
        send: takes events, in order.
        conversation: its name.
        add: puts the message into the conversation, and returns the name of the item before it.
    """

    def __init__(
        self, form: Form, asked: Asked, conversation: str, send: Callable[[Outgoing], None],
        add: Callable[[Item], str | None],
    ) -> None:  # fmt: skip
        self.form, self.asked = form, asked
        self.id = identifier("resp")
        self.item = Item(ASSISTANT, status="in_progress", asked=asked)
        self.created = self.over = False
        self.given: list[Given] = []
        """By content part."""
        self._conversation, self._send, self._add = conversation, send, add
        self._began = False
        """Whether its message was told of."""
        self._open = ""
        """Kind of the content part that is open."""
        self._sound: OutputSound | None = None
        self._span: float | None = None
        """Where the item of sound begins of which pieces were given."""
        self._before: str | None = None

    def create(self) -> None:
        """Tells that the model answers."""
        if not self.created:
            self.created = True
            self._send({"type": "response.created", "response": self._wire("in_progress")})

    # what it consists of

    def text(self, text: str) -> None:
        """Takes text that goes on: that of a transcript, where sound was asked for."""
        self._part(self.form.modality)
        if self.form.modality == _AUDIO:
            self._content["transcript"] += text
            self._tell("response.output_audio_transcript.delta", delta=text)
        else:
            self._content["text"] += text
            self._tell("response.output_text.delta", delta=text)

    def sound(self, content: tuple[Any, int], whole: bool) -> None:
        """Takes sound: `whole`, or a piece of an item that is still being made."""
        self._part(_AUDIO)
        given, sound = self.given[-1], self._sound
        assert sound is not None
        given.marks.append((given.seconds, len(self._content["transcript"])))
        start = given.seconds if self._span is None else self._span
        given.seconds += len(content[0]) / float(content[1])
        self._span = start
        if whole:
            self.sound_is_whole()
        place = self._place()
        self._send(lambda: _delta(place, sound.push(content)))

    def sound_is_whole(self) -> None:
        """The item of sound of which pieces were taken is over."""
        if self._span is not None and self.given:
            self.given[-1].spans.append((self._span, self.given[-1].seconds))
        self._span = None

    @property
    def in_sound(self) -> bool:
        """Whether pieces of an item of sound were taken that is not whole yet."""
        return self._span is not None

    def other(self, kind: str, url: Callable[[], str]) -> None:
        """Takes an item of another kind, whose data URL `url` makes."""
        self._part(_OTHER)
        content, place = self._content, self._place()
        content["type"] = f"output_{kind}"
        field_name = f"{kind}_url"

        def part() -> dict[str, Any]:
            content[field_name] = url()
            return {"type": "response.content_part.added", **place, "part": {"type": kind, field_name: ""}}

        self._send(part)
        self._send(lambda: {"type": "response.content_part.done", **place,
                            "part": {"type": kind, field_name: content[field_name]}})  # fmt: skip
        self._open = ""

    # its end

    def end(self, status: str, details: dict[str, Any] | None = None, usage: dict[str, Any] | None = None) -> None:
        """Tells that it is over, and why."""
        if self.over:
            return
        self.create()
        self.over = True
        self._close()
        if self._began:
            self.item.status = "completed" if status == COMPLETED else "incomplete"
            item = self.item
            self._send(lambda: {"type": "response.output_item.done", "response_id": self.id, "output_index": 0,
                                "item": item.wire()})  # fmt: skip
            self._send(lambda: {"type": "conversation.item.done", "previous_item_id": self._before,
                                "item": item.wire()})  # fmt: skip
        self._send(lambda: {"type": "response.done", "response": self._wire(status, details, usage)})

    # parts

    @property
    def _content(self) -> dict[str, Any]:
        return self.item.content[-1]

    def _part(self, kind: str) -> None:
        """Has a content part of this kind be open."""
        if self._open == kind and kind != _OTHER:
            return
        self._close()
        if not self._began:
            self.create()
            self._began = self.asked.answered = True
            self._before = self._add(self.item)
            item = self.item.wire()
            self._send({"type": "response.output_item.added", "response_id": self.id, "output_index": 0, "item": item})
            self._send({"type": "conversation.item.added", "previous_item_id": self._before, "item": item})
        self._open = kind
        self.given.append(Given())
        if kind == _OTHER:
            self.item.content.append({"type": "output_other"})
            return
        spoken = kind == _AUDIO
        self.item.content.append(
            {"type": "output_audio", "transcript": ""} if spoken else {"type": "output_text", "text": ""}
        )
        self._sound = OutputSound() if spoken else None
        self._tell("response.content_part.added", part={"type": kind, "transcript" if spoken else "text": ""})

    def _close(self) -> None:
        kind, self._open = self._open, ""
        if kind == _TEXT:
            text = self._content["text"]
            self._tell("response.output_text.done", text=text)
            self._tell("response.content_part.done", part={"type": _TEXT, "text": text})
        elif kind == _AUDIO:
            self.sound_is_whole()
            sound, place, transcript = self._sound, self._place(), self._content["transcript"]
            assert sound is not None
            self._send(lambda: _delta(place, sound.finish()))
            self._tell("response.output_audio.done")
            self._tell("response.output_audio_transcript.done", transcript=transcript)
            self._tell("response.content_part.done", part={"type": _AUDIO, "transcript": transcript})

    def _place(self) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": self.item.id, "output_index": 0,
                "content_index": len(self.item.content) - 1}  # fmt: skip

    def _tell(self, kind: str, **fields: Any) -> None:
        self._send({"type": kind, **self._place(), **fields})

    def _wire(
        self, status: str, details: dict[str, Any] | None = None, usage: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        output = [self.item.wire()] if self._began else []
        return {
            "object": "realtime.response", "id": self.id, "status": status, "status_details": details,
            "output": output, "conversation_id": self._conversation, "output_modalities": [self.form.modality],
            "max_output_tokens": self.form.max_output_tokens, "usage": usage, "metadata": self.form.metadata,
            "audio": {"output": {"format": dict(PCM), "voice": self.form.voice}},
        }  # fmt: skip


def _delta(place: dict[str, Any], sound: str) -> dict[str, Any] | None:
    return {"type": "response.output_audio.delta", **place, "delta": sound} if sound else None
