"""Prompts as Python programs write them, as what a document is made of: typed parts, messages, media as objects.

"Draw a seven."
["What is it? ", PIL.Image.open("a.png")]
["Say it. ", {"type": "speech", "path": "seven.wav"}, {"type": "image", "image": pixels}]
[{"role": "user", "content": ["And now? ", pixels]}, {"role": "assistant", "content": answer}, ...]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mio.api import forms
from mio.api.answers import Reply
from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.values import TEXT, Codes, Media, Value
from mio.core.data.readers.cells import PLACES, MediaCells
from mio.core.data.readers.coded import CodedText
from mio.core.errors import UserError, nearest
from mio.core.generation.model import Model
from mio.core.terminal import printable
from mio.core.tokens.chat import CONTENT, ROLE, role_of

Message = dict[str, Any]

_FORMS = "a string, media (a PIL image, an array, (samples, rate), mio.Media, mio.Codes), an answer, or {'type': ...}"
_SHOWN = 60
"""Characters of what somebody gave that messages show."""


class PartReader:
    """Reads the prompts of one model.

    Args:
        model: has the modalities.
        folder: where relative paths begin.
    """

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        self._model = model
        self.folder = folder or Path()
        self.modalities = model.codecs.modalities
        self._media = {name: one for name, one in model.codecs.modalities.items() if not one.text}
        self._cells = MediaCells(self.folder, self._suffixes, CodedText(()))

    @cached_property
    def media_types(self) -> dict[str, str]:
        """Media type of each modality that has one, in the recipe's order."""
        found = {name: self._model.plugins.datamodule(name).media_type for name in self._media}
        return {name: media_type for name, media_type in found.items() if media_type}

    def prompt(self, prompt: Any) -> list[Value] | list[Message]:
        """Values of a prompt that is a string or a list of parts, or messages of one that is a conversation.

        Raises:
            UserError: a part is of no known form, of a modality that the run does not have, or no media.
        """
        if isinstance(prompt, Mapping) and ROLE in prompt:
            prompt = [prompt]
        if isinstance(prompt, list | tuple) and any(_is_message(one) for one in prompt):
            return self.messages(prompt)
        return self.parts(prompt, "prompt")

    def messages(self, messages: Sequence[Any]) -> list[Message]:
        """Turns of a conversation, as `chat_document` takes them. Raises `UserError` as `prompt` does."""
        turns = []
        for number, message in enumerate(messages):
            where = f"message {number}"
            if not _is_message(message):
                raise UserError(f"{where}: must be {{'role': ..., 'content': ...}}, not {_shown(message)}")
            if not isinstance(message[ROLE], str):
                raise UserError(f"{where}: `role` must be a string, not {_shown(message[ROLE])}")
            role = _told(where, partial(role_of, message[ROLE]))
            if CONTENT not in message:
                raise UserError(f"{where}: has no `content`")
            if others := [key for key in message if key not in (ROLE, CONTENT)]:
                raise UserError(f"{where}: has `{printable(str(others[0])[:_SHOWN])}` beside `role` and `content`")
            turns.append({ROLE: role, CONTENT: self.parts(message[CONTENT], where)})
        if not turns:
            raise UserError("prompt: has no messages")
        return turns

    def parts(self, parts: Any, where: str) -> list[Value]:
        """Values of a part, or of a list of them. Raises `UserError` as `prompt` does."""
        several = isinstance(parts, list) or (isinstance(parts, tuple) and not forms.media_type_of(parts))
        values: list[Value] = []
        if not several:
            values += self._part(parts, where)
        else:
            for number, part in enumerate(parts):
                values += self._part(part, f"{where}, part {number}")
        if not values:
            raise UserError(f"{where}: is empty")
        return values

    def media(self, modality: str, value: Any, where: str = "media") -> Media:
        """An item of a modality. Raises `UserError` as `prompt` does."""
        self._check_modality(modality, where)
        if isinstance(value, Media):
            return self._own(value, where)
        if isinstance(value, str | bytes | bytearray | memoryview | Path):
            given = str(value) if isinstance(value, Path) else value
            return self._cells.media(modality, given, where)
        media_type = self.media_types.get(modality, "")
        data = _told(where, partial(forms.from_python, value, media_type))
        return Media(modality, data, forms.key_of_content(data))

    def of_object(self, value: Any, where: str = "media") -> Media:
        """An object as an item of the first modality that its form allows. Raises `UserError` where none does."""
        if isinstance(value, Media):
            return self._own(value, where)
        media_type = forms.media_type_of(value)
        if not media_type:
            raise UserError(f"{where}: must be {_FORMS}, not {_shown(value)}")
        names = [name for name, one in self.media_types.items() if one == media_type]
        if not names:
            raise UserError(
                f"{where}: is of the media type `{media_type}`, which this run has no modality for; {self._known}"
            )
        return self.media(names[0], value, where)

    def _part(self, part: Any, where: str) -> list[Value]:
        if isinstance(part, str):
            _told(where, part.encode, UnicodeEncodeError)
            return [part] if part else []
        if isinstance(part, Codes):
            self._check_modality(part.modality, where)
            return [part]
        if isinstance(part, Control):
            return [self._control(part.name, where)]
        if isinstance(part, Reply):
            return list(part.values)
        if isinstance(part, Mapping) and not forms.media_type_of(part):
            return self._typed(part, where)
        return [self.of_object(part, where)]

    def _typed(self, part: Mapping[str, Any], where: str) -> list[Value]:
        kind = part.get("type")
        if not isinstance(kind, str):
            raise UserError(f"{where}: must have a `type`: {{'type': 'text', 'text': ...}}; it has {_keys(part)}")
        content = {key: value for key, value in part.items() if key != "type"}
        if kind == TEXT:
            self._only(content, (TEXT,), kind, where)
            if not isinstance(content[TEXT], str):
                raise UserError(f"{where}: `text` must be a string, not {_shown(content[TEXT])}")
            return self._part(content[TEXT], where)
        if kind == CONTROL:
            self._only(content, ("name",), kind, where)
            return [self._control(content["name"], where)]
        self._check_modality(kind, where)
        place = self._only(content, (kind, *PLACES), kind, where)
        value = content[place]
        if isinstance(value, Codes):
            if value.modality != kind:
                raise UserError(f"{where}: codes of `{value.modality}` are given as `{kind}`")
            return [value]
        if isinstance(value, Mapping) and not forms.media_type_of(value):
            inner = self._only(value, PLACES, kind, where)
            value = value[inner]
        return [self.media(kind, value, where)]

    def _only(self, content: Mapping[str, Any], allowed: Sequence[str], kind: str, where: str) -> str:
        """The one key that a part has. Raises `UserError` for none, several, and others than are allowed."""
        if len(content) != 1 or next(iter(content)) not in allowed:
            one_of = " or ".join(f"`{name}`" for name in allowed)
            wrong = next((str(key) for key in content if key not in allowed), "")
            raise UserError(
                f"{where}: `{kind}` holds {one_of} beside its type, this has {_keys(content)}{nearest(wrong, allowed)}"
            )
        return next(iter(content))

    def _own(self, media: Media, where: str) -> Media:
        self._check_modality(media.modality, where)
        return media

    def _control(self, name: Any, where: str) -> Control:
        known = self._model.vocabulary.controls.tokens
        if not isinstance(name, str) or name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            hint = nearest(name, known) if isinstance(name, str) else ""
            raise UserError(f"{where}: no control token {_shown(name)} in this run{hint}; {has}")
        return Control(name)

    def _check_modality(self, name: Any, where: str) -> None:
        if not isinstance(name, str) or name not in self._media:
            hint = nearest(name, [TEXT, *self._media]) if isinstance(name, str) else ""
            raise UserError(f"{where}: no modality {_shown(name)} in this run{hint}; {self._known}")

    @property
    def _known(self) -> str:
        return f"it has {', '.join([TEXT, *self._media])}"

    def _suffixes(self) -> dict[str, tuple[str, ...]]:
        return {name: self._model.plugins.datamodule(name).suffixes for name in self._media}


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and ROLE in value


def _told(where: str, call: Callable[[], Any], *more: type[Exception]) -> Any:
    """The result of a call, whose errors say where they come from."""
    try:
        return call()
    except UserError as error:
        raise type(error)(f"{where}: {error}") from None
    except more:
        raise UserError(f"{where}: holds characters that are not valid UTF-8") from None


def _keys(content: Mapping[str, Any]) -> str:
    return ", ".join(f"`{printable(str(key)[:_SHOWN])}`" for key in content) or "nothing"


def _shown(value: Any) -> str:
    """Something that somebody gave, for messages: short, in one line."""
    if isinstance(value, str | int | float | bool) or value is None:
        return f"`{printable(str(value)[:_SHOWN])}`"
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{kind} of {value.dtype} {list(value.shape)}"
    return kind
