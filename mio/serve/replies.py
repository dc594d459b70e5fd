"""An answer as a message of OpenAI's API: text, sound, pictures and other media, whole or piece by piece."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT
from mio.serve import giving, sound
from mio.serve.answering import Given, Over, Part, Said, Text
from mio.serve.conversations import field_of
from mio.serve.receiving import AUDIO
from mio.serve.remembered import name_of_bytes
from mio.serve.service import Answers, Service


class Reply:
    """Takes the parts of one answer, and gives what each adds to the message.

    Args:
        audio: format of sound.
        streamed: whether sound is given in pieces of one file; otherwise all of it is one file at the end.
    """

    def __init__(self, service: Service, audio: str, streamed: bool) -> None:
        self._service, self._audio, self._streamed = service, audio, streamed
        self._sounds: list[tuple[Any, int]] = []
        self._writer: sound.SoundWriter | None = None
        self._name = f"audio_{secrets.token_hex(12)}"
        self._until = 0
        self._number = 0
        self._texts: list[str] = []
        self.parts: list[dict[str, Any]] = []
        """What the answer consists of, in order."""
        self.media: dict[str, list[dict[str, Any]]] = {}
        """By field of the message."""
        self.silent = False
        self.reason = ""

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def has_sound(self) -> bool:
        return bool(self._until)

    async def take(self, part: Part) -> dict[str, Any]:
        """What a part of the answer adds to the message; empty if nothing can be told of it yet."""
        if isinstance(part, Text):
            self._texts.append(part.text)
            if self.parts and self.parts[-1]["type"] == TEXT:
                self.parts[-1]["text"] += part.text
            else:
                self.parts.append({"type": TEXT, "text": part.text})
            return {"content": part.text}
        if isinstance(part, Said):
            self.silent = self.silent or part.silent
            self.parts.append({"type": CONTROL, "name": part.name})
            return {}
        if isinstance(part, Over):
            self.reason = part.reason
            return {}
        self._service.metrics.media.labels(part.modality, "written").inc()
        if self._service.abilities.media_type(part.modality) == AUDIO:
            return await self._sound(part)
        return await self._item(part)

    async def _sound(self, part: Given) -> dict[str, Any]:
        self._until = self._service.remembered.keep(f"{self._name}-{self._number}", part.value)
        self._number += 1
        self.parts.append({"type": AUDIO, "id": self._name})
        samples, rate = part.content
        if not self._streamed:
            self._sounds.append((samples, rate))
            return {}
        first, self._writer = self._writer is None, self._writer or sound.SoundWriter(self._audio)
        content = await self._run(self._writer.push, samples, rate)
        named = {"id": self._name} if first else {}
        return {"audio": {**named, "data": base64.b64encode(content).decode()}}

    async def _item(self, part: Given) -> dict[str, Any]:
        media_type = self._service.abilities.media_type(part.modality)
        kind, content = await self._run(giving.as_file, self._service.model, part.modality, media_type, part.content)
        self._service.remembered.keep(name_of_bytes(content), part.value)
        field = field_of(media_type)
        listed = self.media.setdefault(field, [])
        item: dict[str, Any] = {"index": len(listed)}
        if field == "files":
            url = giving.data_url("application/octet-stream", content)
            item |= {"type": "file", "file": {"filename": f"{part.modality}-{len(listed)}{kind}", "file_data": url}}
        else:
            item |= {"type": f"{media_type}_url", f"{media_type}_url": {"url": giving.data_url(kind, content)}}
        item["modality"] = part.modality
        listed.append(item)
        self.parts.append({"type": media_type or part.modality, "index": item["index"]})
        return {field: [item]}

    async def rest(self) -> list[dict[str, Any]]:
        """What is left to tell of a streamed answer: the end of its sound, and until when it is kept."""
        told: list[dict[str, Any]] = []
        if self._writer is not None:
            if content := await self._run(self._writer.finish):
                told.append({"audio": {"data": base64.b64encode(content).decode()}})
            if self._texts:
                told.append({"audio": {"transcript": self.text}})
            told.append({"audio": {"expires_at": self._until}})
        return told

    async def message(self) -> dict[str, Any]:
        """The whole message."""
        content = self.text
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if self.parts else ""),
                                   "refusal": None}  # fmt: skip
        if self._sounds:
            data = await self._run(_joined, self._sounds, self._audio)
            message["audio"] = {
                "id": self._name, "data": base64.b64encode(data).decode(), "expires_at": self._until,
                "transcript": content,
            }  # fmt: skip
        return {**message, **self.media, **self.extras()}

    def extras(self) -> dict[str, Any]:
        """What OpenAI's API has no field for: the order of parts, where they are not text alone, and silence."""
        several = any(part["type"] != TEXT for part in self.parts)
        return ({"parts": self.parts} if several else {}) | ({"silent": True} if self.silent else {})

    async def _run(self, function: Any, *arguments: Any) -> Any:
        executor: Executor = self._service.executor
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)


def _joined(sounds: Sequence[tuple[Any, int]], kind: str) -> bytes:
    """Recordings one after the other, as one file."""
    if len(sounds) == 1:
        return sound.whole(*sounds[0], kind)
    writer = sound.SoundWriter(kind)
    return b"".join(writer.push(samples, rate) for samples, rate in sounds) + writer.finish()


def usage(answers: Answers) -> dict[str, Any]:
    """Tokens of a request, in all and by kind."""
    media: Counter[str] = Counter()
    for one in answers.each:
        media.update(one.media_tokens)
    modules = answers.service.abilities.modules
    audio = sum(count for name, count in media.items() if modules[name].media_type == AUDIO)
    return {
        "prompt_tokens": answers.prompt_tokens,
        "completion_tokens": answers.tokens,
        "total_tokens": answers.prompt_tokens + answers.tokens,
        "completion_tokens_details": {"audio_tokens": audio, "text_tokens": answers.tokens - media.total()},
    }
