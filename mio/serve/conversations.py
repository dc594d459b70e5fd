"""Messages of a request as a prompt of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.values import TEXT, Value
from mio.core.generation.model import Model
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.templates import CHAT
from mio.serve.errors import ApiError
from mio.serve.limits import Limits
from mio.serve.protocol.chat import Message, Part, Place
from mio.serve.receiving import Receiver
from mio.serve.remembered import Remembered, name_of_bytes

_LISTS = {"image": "images", "video": "videos"}
"""Fields of an answer's message by the media type that they hold; all else without audio is under `files`."""


class Conversations:
    """Makes documents of conversations. `characters` is the most text that can fit the context."""

    def __init__(
        self, model: Model, receiver: Receiver, remembered: Remembered, limits: Limits, characters: int
    ) -> None:
        self._model, self._receiver, self._remembered = model, receiver, remembered
        self._limits, self._characters = limits, characters

    def document(self, messages: Sequence[Message], output: str) -> Document:
        """The prompt for the next answer, which is to hold `output`. Raises `ApiError`, and `DataError` for what
        cannot be rendered."""
        self._check_size(messages)
        turns = [
            {"role": message.role, "content": self._content(message, f"messages[{number}]")}
            for number, message in enumerate(messages)
        ]
        data = self._model.recipe.data
        if data.form == CHAT:
            return chat_document([*turns, {"role": "assistant", "content": []}], data.system, output)
        if len(messages) > 1 or messages[0].role != "user":
            raise ApiError(
                400, "this run was not trained on conversations: send one message of the user", "messages",
                "unsupported_value",
            )  # fmt: skip
        return plain_document(turns[0]["content"], [])

    def _check_size(self, messages: Sequence[Message]) -> None:
        if len(messages) > self._limits.messages:
            raise ApiError(400, f"`messages`: at most {self._limits.messages} are taken", "messages", "too_large")
        parts = [part for one in messages for listed in (one.content, one.images, one.videos, one.files)
                 for part in listed or ()]  # fmt: skip
        media = sum(part.type not in (TEXT, "refusal") for part in parts)
        if media > self._limits.media:
            raise ApiError(
                400, f"`messages`: at most {self._limits.media} media are taken, these are {media}", "messages",
                "too_large",
            )  # fmt: skip
        check_characters(sum(len(part.text or "") for part in parts), self._characters, "messages")

    def _content(self, message: Message, param: str) -> list[Value]:
        answer = message.role == "assistant"
        content = [
            (part, self._value(part, f"{param}.content[{number}]", answer))
            for number, part in enumerate(message.content or ())
        ]
        values = [value for _, value in content]
        if answer:
            given = self._given(message, param)
            if message.parts is not None:
                return list(self._ordered(message.parts, given, param))
            return [*values, *(value for listed in given.values() for value in listed)]
        if not values or (message.images or message.videos or message.files or message.audio or message.parts):
            raise ApiError(400, f"`{param}.content`: give a text, or a list of parts", f"{param}.content")
        return values

    def _value(self, part: Part, param: str, answer: bool) -> Value:
        if part.type in (TEXT, "refusal"):
            return part.text if part.text is not None else part.refusal or ""
        if not answer:
            return self._receiver.media(part, param)
        found = self._receiver.content(part, param)
        # what was given out as these bytes, where that is remembered
        return self._remembered.find(name_of_bytes(found[1])) or self._receiver.item(*found)

    def _given(self, message: Message, param: str) -> dict[str, list[Value]]:
        """Media of an answer that this or another server gave, by the field that they were in."""
        given: dict[str, list[Value]] = {"audio": []}
        if message.audio is not None:
            numbered = [f"{message.audio.id}-{number}" for number in range(self._limits.media)]
            found = [self._remembered.find(name) for name in numbered]
            given["audio"] = [value for value in found if value is not None]
            if not given["audio"]:
                raise ApiError(
                    400, f"`{param}.audio.id`: no sound of this name is kept any more", f"{param}.audio.id",
                    "audio_not_found",
                )  # fmt: skip
        for name in ("images", "videos", "files"):
            listed: Sequence[Part] = getattr(message, name) or ()
            given[name] = [
                self._value(part, f"{param}.{name}[{number}]", answer=True) for number, part in enumerate(listed)
            ]
        return given

    def _ordered(self, places: Sequence[Place], given: dict[str, list[Value]], param: str) -> Iterator[Value]:
        """An answer in the order that it was given in."""
        rest = {name: iter(values) for name, values in given.items()}
        for number, place in enumerate(places):
            where = f"{param}.parts[{number}]"
            if place.type == TEXT:
                yield place.text or ""
            elif place.type == CONTROL:
                self._model.vocabulary.controls.check(place.name or "")
                yield Control(place.name or "")
            else:
                media_type = "audio" if place.type == "audio" else _LISTS.get(place.type, "files")
                value: Any = next(rest[media_type], None)
                if value is None:
                    raise ApiError(400, f"`{where}`: the message has no such item", where)
                yield value


def field_of(media_type: str) -> str:
    """The field of an answer's message that media of a type are in."""
    return _LISTS.get(media_type, "files")


def check_characters(count: int, most: int, param: str) -> None:
    """Raises `ApiError` for text that cannot fit the context, before it is tokenised."""
    if count > most:
        raise ApiError(
            400, f"`{param}`: {count} characters of text cannot fit the context of the model", param,
            "context_length_exceeded",
        )  # fmt: skip
