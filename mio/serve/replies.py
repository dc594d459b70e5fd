"""An answer as a message of OpenAI's API: text, sound, pictures and other media, whole or piece by piece."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mio.core.contract.controls import CONTROL, SILENCE
from mio.core.contract.values import TEXT
from mio.core.generation.requests import LENGTH
from mio.core.generation.streaming import AnswerEvent, MediaChunk, Over, SaidControl, TextPiece, WholeMedia
from mio.serve import giving, sound
from mio.serve.conversations import field_of
from mio.serve.receiving import AUDIO
from mio.serve.remembered import name_of_bytes
from mio.serve.service import Answers, Service


class Reply:
    """Takes what one answer gives out, and tells what each piece adds to the message.

    Args:
        audio: format of sound.
        streamed: whether sound is told as it comes, in pieces of one file; otherwise all of it is one file at the end.
    """

    def __init__(self, service: Service, audio: str, streamed: bool) -> None:
        self._service, self._audio, self._streamed = service, audio, streamed
        self._sounds: list[Any] = []
        """Samples with their rate."""
        self._writer: sound.SoundWriter | None = None
        self._begun = False
        """Whether pieces of the sound that comes were told."""
        self._name = f"audio_{secrets.token_hex(12)}"
        self._number = self._until = 0
        self._texts: list[str] = []
        self._parts: list[dict[str, Any]] = []
        """What the answer consists of, in order."""
        self._media: dict[str, list[dict[str, Any]]] = {}
        """By field of the message."""
        self._silent = False
        self.reason = ""
        """Why the answer is over, in OpenAI's words; empty before that."""

    async def take(self, event: AnswerEvent) -> dict[str, Any]:
        """What an event adds to the message; empty if nothing can be told of it yet."""
        if isinstance(event, TextPiece):
            self._texts.append(event.text)
            if self._parts and self._parts[-1]["type"] == TEXT:
                self._parts[-1]["text"] += event.text
            else:
                self._parts.append({"type": TEXT, "text": event.text})
            return {"content": event.text}
        if isinstance(event, SaidControl):
            action = self._service.model.vocabulary.controls.tokens[event.name].action
            self._silent = self._silent or action == SILENCE
            self._parts.append({"type": CONTROL, "name": event.name})
        elif isinstance(event, Over):
            self.reason = finish_reason(event)
        elif isinstance(event, MediaChunk) and self._is_sound(event.modality) and self._streamed:
            self._begun = True
            return await self._piece(event.content)
        elif isinstance(event, WholeMedia):
            self._service.metrics.media.labels(event.modality, "written").inc()
            return await (self._sound(event) if self._is_sound(event.modality) else self._item(event))
        return {}

    def _is_sound(self, modality: str) -> bool:
        return self._service.abilities.media_type(modality) == AUDIO

    async def _sound(self, event: WholeMedia) -> dict[str, Any]:
        self._until = self._service.remembered.keep(f"{self._name}-{self._number}", event.value)
        self._number += 1
        self._parts.append({"type": AUDIO, "id": self._name})
        told, self._begun = self._begun, False
        if not self._streamed:
            self._sounds.append(event.content)
            return {}
        return {} if told else await self._piece(event.content)

    async def _piece(self, content: tuple[Any, int]) -> dict[str, Any]:
        first, self._writer = self._writer is None, self._writer or sound.SoundWriter(self._audio)
        data = await self._run(self._writer.push, *content)
        audio = ({"id": self._name} if first else {}) | ({"data": _base64(data)} if data else {})
        return {"audio": audio} if audio else {}

    async def _item(self, event: WholeMedia) -> dict[str, Any]:
        media_type = self._service.abilities.media_type(event.modality)
        kind, content = await self._run(giving.as_file, self._service.model, event.modality, media_type, event.content)
        self._service.remembered.keep(name_of_bytes(content), event.value)
        field = field_of(media_type)
        listed = self._media.setdefault(field, [])
        item: dict[str, Any] = {"index": len(listed), "modality": event.modality}
        if field == "files":
            url = giving.data_url("application/octet-stream", content)
            item |= {"type": "file", "file": {"filename": f"{event.modality}-{len(listed)}{kind}", "file_data": url}}
        else:
            item |= {"type": f"{media_type}_url", f"{media_type}_url": {"url": giving.data_url(kind, content)}}
        listed.append(item)
        self._parts.append({"type": media_type or event.modality, "index": item["index"]})
        return {field: [item]}

    async def rest(self) -> list[dict[str, Any]]:
        """What is left to tell of a streamed answer: the end of its sound, and until when it is kept."""
        told: list[dict[str, Any]] = []
        if self._writer is not None:
            if data := await self._run(self._writer.finish):
                told.append({"audio": {"data": _base64(data)}})
            if self._texts:
                told.append({"audio": {"transcript": "".join(self._texts)}})
            told.append({"audio": {"expires_at": self._until}})
        return told

    async def message(self) -> dict[str, Any]:
        """The whole message."""
        text = "".join(self._texts)
        content = text or (None if self._parts else "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._sounds:
            data = await self._run(_file, self._sounds, self._audio)
            message["audio"] = {
                "id": self._name, "data": _base64(data), "expires_at": self._until, "transcript": text,
            }  # fmt: skip
        return {**message, **self._media, **self.extras()}

    def extras(self) -> dict[str, Any]:
        """What OpenAI's API has no field for: the order of parts, where they are not text alone, and silence."""
        several = any(part["type"] != TEXT for part in self._parts)
        return ({"parts": self._parts} if several else {}) | ({"silent": True} if self._silent else {})

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._service.executor, function, *arguments)


def _file(sounds: Sequence[Any], kind: str) -> bytes:
    """Recordings one after the other, at the rate of the first."""
    writer = sound.SoundWriter(kind)
    content = b"".join([*(writer.push(*one) for one in sounds), writer.finish()])
    return sound.with_size(content) if kind == "wav" else content


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def finish_reason(over: Over) -> str:
    """Why an answer is over, in OpenAI's words."""
    return "length" if over.reason == LENGTH else "stop"


def usage(answers: Answers) -> dict[str, Any]:
    """Tokens of a request, in all and by kind. A prompt that several answers share counts once."""
    prompt, answer = token_counts(answers)
    return {
        "prompt_tokens": prompt.total(),
        "completion_tokens": answer.total(),
        "total_tokens": prompt.total() + answer.total(),
        "prompt_tokens_details": _by_kind(answers, prompt, ("audio", "image")),
        "completion_tokens_details": _by_kind(answers, answer, ("audio",)),
    }


def token_counts(answers: Answers) -> tuple[Counter[str], Counter[str]]:
    """Tokens of prompts and of answers, by modality."""
    prompts = {id(one.ticket.request.prompt.tokens): one for one in answers.each if one.ticket is not None}
    prompt: Counter[str] = Counter()
    answer: Counter[str] = Counter()
    for one in prompts.values():
        prompt.update(one.over.usage.prompt if one.over is not None else {})
    for one in answers.each:
        answer.update(one.over.usage.answer if one.over is not None else {})
    return prompt, answer


def _by_kind(answers: Answers, counts: Counter[str], kinds: tuple[str, ...]) -> dict[str, int]:
    modules = answers.service.abilities.modules
    found = dict.fromkeys((f"{kind}_tokens" for kind in kinds), 0) | {"text_tokens": counts[TEXT]}
    for name, count in counts.items():
        kind = modules[name].media_type if name in modules else ""
        if kind in kinds:
            found[f"{kind}_tokens"] += count
    return found
