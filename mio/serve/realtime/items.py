"""The items of a realtime conversation, and what a prompt is made of them."""

from __future__ import annotations

import base64
import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mio.api.forms import to_pcm
from mio.core.contract.sessions import SessionPolicy
from mio.core.contract.values import Codes, Media, Value
from mio.core.generation.model import Model
from mio.core.live.history import Exchange, Message, Turn
from mio.core.tokens.automata import beginning
from mio.core.tokens.visitor import codes_in, control_of, media_in, text_of
from mio.serve.errors import ApiError
from mio.serve.limits import Limits
from mio.serve.protocol.chat import Part
from mio.serve.realtime.audio import pcm_of, samples_of, seconds_of
from mio.serve.realtime.protocol import Content, ItemSettings
from mio.serve.receiving import AUDIO, Receiver
from mio.serve.sound import PCM_RATE

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
_PARTS = {
    USER: ("input_text", "input_audio", "input_image"),
    ASSISTANT: ("output_text", "output_audio"),
    SYSTEM: ("input_text",),
}
"""Types of content by role."""
_FIELDS = {"input_text": "text", "input_audio": "audio", "input_image": "image_url", "output_text": "text"}
_KEYS = itertools.count()
MOST_ITEMS = 4096


def identifier(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


@dataclass
class Asked:
    """Items of the user that the model was asked about together."""

    items: list[Item]
    exchange: Exchange | None = None
    """As the session has it."""
    answered: bool = False
    """Whether anything came of it."""


@dataclass(eq=False)
class Item:
    """A message."""

    role: str
    id: str = field(default_factory=lambda: identifier("item"))
    content: list[dict[str, Any]] = field(default_factory=list)
    """As clients are told of it, sound left out."""
    shown: list[Value] = field(default_factory=list)
    """What the user shows: pictures."""
    said: list[Value] = field(default_factory=list)
    """What the user says, or what is said in other roles."""
    status: str = "completed"
    sound: dict[int, bytes] = field(default_factory=dict)
    """PCM by number of the part."""
    asked: Asked | None = None
    """The answer that this is, or that was asked for with it."""
    past: bool = False
    """Whether it is over without an answer of the model."""
    forgotten: bool = False
    """Whether its media are kept no more, and prompts leave it out."""

    def wire(self, sound: bool = False) -> dict[str, Any]:
        """As clients are told of it, with its `sound` or without."""
        content = [dict(part) for part in self.content]
        if sound:
            for number, pcm in self.sound.items():
                content[number]["audio"] = base64.b64encode(pcm).decode()
        return {"id": self.id, "object": "realtime.item", "type": "message", "role": self.role, "status": self.status,
                "content": content}  # fmt: skip

    @property
    def size(self) -> int:
        """Bytes of its media, about."""
        return 3 * sum(map(len, self.sound.values())) + 2 * sum(len(one.get("image_url") or "") for one in self.content)

    def forget(self) -> None:
        """Keeps its media no longer."""
        self.sound, self.shown, self.said, self.forgotten = {}, [], [], True
        for part in self.content:
            if "image_url" in part:
                part["image_url"] = None

    @property
    def values(self) -> Sequence[Value]:
        """What the model has said, or a client in its place."""
        if self.said or self.asked is None or self.asked.exchange is None:
            return self.said
        return self.asked.exchange.parts


def spoken_item(modality: str, data: tuple[Any, int]) -> Item:
    """What the user has said aloud: samples and rate."""
    pcm = bytes(to_pcm(data[0]).tobytes())
    item = Item(USER, content=[{"type": "input_audio", "transcript": None}], sound={0: pcm})
    item.said = [_sound(modality, data)]
    return item


def _sound(modality: str, data: Any) -> Media:
    return Media(modality, data, f"realtime/{next(_KEYS)}")


class ItemReader:
    """Makes items of what clients send.

    Args:
        listens: modality in which sound is read; empty: in none.
        characters: that can fit the context.
    """

    def __init__(self, receiver: Receiver, limits: Limits, listens: str, characters: int) -> None:
        self._receiver, self._limits, self._listens, self._characters = receiver, limits, listens, characters

    def item(self, settings: ItemSettings) -> Item:
        """Raises `ApiError`."""
        item = Item(settings.role)
        if settings.id == "root":
            raise ApiError(400, "`item.id`: `root` is no name of an item", "item.id", "invalid_value")
        item.id = settings.id or item.id
        for number, part in enumerate(settings.content):
            where = f"item.content[{number}]"
            self._check(settings.role, part, where)
            if part.type == "input_image":
                item.shown.append(self._receiver.media(_image_part(part.image_url or ""), where))
                item.content.append({"type": part.type, "image_url": part.image_url, "detail": part.detail or "auto"})
            elif part.type == "input_audio":
                self._hear(item, part, where)
            else:
                text = part.text if part.type != "output_audio" else part.transcript
                item.said.append(text or "")
                item.content.append({"type": part.type, "transcript" if part.type == "output_audio" else "text": text})
        if sum(len(text) for value in item.said if (text := text_of(value)) is not None) > self._characters:
            raise ApiError(
                400, "`item.content`: so much text cannot fit the context of the model", "item.content",
                "context_length_exceeded",
            )  # fmt: skip
        return item

    def _check(self, role: str, part: Content, where: str) -> None:
        allowed = _PARTS[role]
        if part.type not in allowed:
            known = " or ".join(f"`{one}`" for one in allowed)
            raise ApiError(
                400, f"`{where}.type`: a message of the role `{role}` holds {known}, not `{part.type}`",
                f"{where}.type", "invalid_value",
            )  # fmt: skip
        if part.type == "output_audio":
            if not part.transcript:
                raise ApiError(
                    400, f"`{where}.transcript`: sound of the assistant is taken by its transcript; give that",
                    f"{where}.transcript", "missing_required_parameter",
                )  # fmt: skip
            return
        name = _FIELDS[part.type]
        if getattr(part, name) is None:
            raise ApiError(
                400, f"missing required parameter: `{where}.{name}`", f"{where}.{name}", "missing_required_parameter"
            )

    def _hear(self, item: Item, part: Content, where: str) -> None:
        if not self._listens:
            raise ApiError(400, f"`{where}`: this run reads no sound", where, "unsupported_modality")
        pcm = pcm_of(part.audio or "", f"{where}.audio")
        if not pcm or seconds_of(pcm) > self._limits.seconds:
            raise ApiError(
                400, f"`{where}.audio`: sound lasts from 1 sample to {self._limits.seconds:g} s", f"{where}.audio",
                "invalid_media",
            )  # fmt: skip
        item.sound[len(item.content)] = pcm
        item.said.append(_sound(self._listens, (samples_of(pcm), PCM_RATE)))
        item.content.append({"type": part.type, "transcript": part.transcript})


def _image_part(url: str) -> Part:
    return Part.model_validate({"type": "image_url", "image_url": {"url": url}})


class Items:
    """The items of a conversation, in order.

    Args:
        most: bytes of media that are kept; those of the oldest items go first.
    """

    def __init__(self, policy: SessionPolicy, most: int) -> None:
        self._policy, self._most = policy, most
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def last(self) -> str | None:
        return self._items[-1].id if self._items else None

    def find(self, name: str, param: str = "item_id") -> Item:
        """Raises `ApiError` if there is none of this name."""
        for item in self._items:
            if item.id == name:
                return item
        raise ApiError(400, f"`{param}`: there is no item `{name:.80}` in the conversation", param, "item_not_found")

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Adds an item at the end, or behind another; `root`: in front. Returns the name of the one before it. Raises
        `ApiError`."""
        if any(one.id == item.id for one in self._items):
            raise ApiError(400, f"`item.id`: there is an item `{item.id:.80}` already", "item.id", "invalid_value")
        if len(self._items) >= MOST_ITEMS:
            raise ApiError(400, f"a conversation has at most {MOST_ITEMS} items; delete some", None, "too_large")
        place = len(self._items)
        if after is not None:
            place = 0 if after == "root" else self._items.index(self.find(after, "previous_item_id")) + 1
        if item.size > self._most:
            raise ApiError(400, f"`item`: its media take more than {self._most} bytes", "item", "too_large")
        self._items.insert(place, item)
        size = sum(one.size for one in self._items)
        for one in self._items:
            if size > self._most and one is not item and one.size:
                size -= one.size
                one.forget()
        return self._items[place - 1].id if place else None

    def delete(self, item: Item) -> None:
        self._items.remove(item)

    # prompts

    def new(self) -> list[Item]:
        """Items of the user that nobody was asked about, behind the last answer that a client has made up; or else
        those of the last question that was not answered."""
        made = [place for place, one in enumerate(self._items) if one.role == ASSISTANT and one.asked is None]
        last = made[-1] if made else -1
        for item in self._items[: last + 1]:
            item.past = item.past or item.asked is None
        new = [
            one for one in self._items if one.role == USER and one.asked is None and not one.past and not one.forgotten
        ]
        if new:
            return new
        users = [one for one in self._items if one.role == USER]
        asked = users[-1].asked if users else None
        if asked is None or asked.answered:
            return []
        return [one for one in asked.items if one in self._items]

    def shown(self, new: Sequence[Item]) -> list[Value]:
        """What a question is about: what is shown with it, or, where that stays, was shown last."""
        shown = [value for item in new for value in item.shown]
        if shown or not self._policy.shown_stays:
            return shown
        return next((list(item.shown) for item in reversed(self._items) if item.shown), [])

    def system(self) -> str:
        """All that messages of the system say."""
        return "\n\n".join(str(value) for item in self._items if item.role == SYSTEM for value in item.said)

    def turns(self, asked: Asked) -> Sequence[Turn]:
        """What went before a question."""
        turns: list[list[Message]] = []
        taken: list[Asked] = [asked]
        for item in self._items:
            if item.forgotten:
                taken += [item.asked] if item.asked is not None else []
            elif item.asked is None and (item.past or item.role == ASSISTANT):
                message = self._message(item.role, [item])
                if item.role == USER or not turns:
                    turns.append([message])
                else:
                    turns[-1].append(message)
            elif item.role != SYSTEM and item.asked is not None and not _holds(taken, item.asked):
                taken.append(item.asked)
                if _told_to(asked, item.asked):
                    turns.append(self._exchange(item.asked))
        return turns

    def _exchange(self, asked: Asked) -> list[Message]:
        messages = []
        if questions := [one for one in asked.items if one in self._items]:
            messages.append(self._message(USER, questions))
        answers = [one for one in self._items if one.role == ASSISTANT and one.asked is asked]
        if not asked.answered and asked.exchange is not None and asked.exchange.ticket is not None:
            answers = [Item(ASSISTANT, asked=asked)]  # nothing that the client knows of
        return [*messages, *(self._message(ASSISTANT, [one]) for one in answers)]

    def _message(self, role: str, items: Sequence[Item]) -> Message:
        policy = self._policy
        if role == ASSISTANT:
            keeps = policy.control_in_history
            values = [value for item in items for value in item.values if keeps or control_of(value) is None]
            return {"role": role, "content": values}
        shown = [value for item in items for value in item.shown] if policy.older_media else []
        return {"role": role, "content": list(policy.compose(shown, [value for item in items for value in item.said]))}


def _holds(taken: Sequence[Asked], asked: Asked) -> bool:
    return any(one is asked for one in taken)


def _told_to(asked: Asked, other: Asked) -> bool:
    """Whether a question is told of another: it was asked before, and meant for the model."""
    if asked.exchange is None or other.exchange is None:
        return True
    return other.exchange.number < asked.exchange.number and not other.exchange.left_out


def cut_values(values: Sequence[Value], text: int, heard: float, spans: Sequence[tuple[float, float]], sound: str,
               model: Model) -> list[Value]:  # fmt: skip
    """What was heard of an answer: the first `text` characters, and of its sound what comes before `heard` seconds.

    Args:
        spans: seconds at which each of its items of the modality `sound` begins and ends.
    """
    kept: list[Value] = []
    places = iter(spans)
    for one in values:
        value = one
        if (said := text_of(value)) is not None:
            if said[:text]:
                kept.append(value if len(said) <= text else said[:text])
            text = max(0, text - len(said))
            continue
        items: Sequence[Codes | Media] = [*codes_in((value,)), *media_in((value,))]
        if any(item.modality == sound for item in items):
            start, end = next(places, (heard, heard))
            if start >= heard:
                continue
            value = _beginning(value, (heard - start) / (end - start), model) if end > heard else value
        kept.append(value)
    return kept


def _beginning(value: Value, share: float, model: Model) -> Value:
    """The first frames of codes; media of heads are left whole."""
    if not isinstance(value, Codes):
        return value
    heard = int(np.ceil(share * value.codes.shape[1]))
    count = beginning(model.codecs.modalities[value.modality], value.codes, heard)
    return Codes(value.modality, value.codes[:, :count], value.codebooks)


def is_sound(model: Model, modality: str) -> bool:
    """Whether items of a modality are sound to other programs."""
    module = model.plugins.datamodule(modality)
    return module is not None and module.media_type == AUDIO
