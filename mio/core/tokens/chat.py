"""Conversations in ChatML, as Yi-Chat and MIO write them.

    [bos]<|im_start|>system
    ...<|im_end|>
    <|im_start|>user
    ...<|im_end|>
    <|im_start|>assistant
    ...<|im_end|>

Only the assistant's turns are supervised, each with the `<|im_end|>` that closes it. All of them count as response,
also earlier ones, unless a turn is excluded from the loss (see `turn_weight`). Media of the assistant take
the view `generate`, all other media `understand`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from mio.core.contract.controls import Control
from mio.core.contract.values import TEXT, Codes, Media, Value
from mio.core.errors import DataError
from mio.core.tokens.documents import (
    PROMPT,
    RESPONSE,
    SYSTEM,
    Document,
    Segment,
    Special,
    Viewed,
    prompt_segments,
    response_segments,
)
from mio.core.tokens.visitor import Visitor

Message = Mapping[str, Any]
"""`role` (`system`, `user` or `assistant`) and `content`: one `Value` or a list of them; `weight` (see `turn_weight`)
where it is not 1, `end_tag: False` (see `is_closed`)."""
Contents = Sequence[Value | Viewed]

ROLE, CONTENT, WEIGHT, END_TAG = "role", "content", "weight", "end_tag"
"""Keys of a message."""

_WEIGHTS = (1e-6, 1e6)
"""Smallest and largest weight of a turn that is not 0: sums of weights stay exact enough."""

SWITCHES = ("train", "training", "trainable", "loss")
"""Keys by which data say whether a turn is learnt, beside its weight."""

_ROLES = {"system": SYSTEM, "user": PROMPT, "assistant": RESPONSE}

GIVEN = "given_"
"""Begins the key of a system prompt for conversations in which a modality is given: `given_NAME`."""

ROLE_NAMES = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
"""Other names of the roles in data sets."""


def role_of(name: str) -> str:
    """The role that the data call `name`. Raises `DataError` for an unknown name."""
    role = name.strip().lower()
    role = ROLE_NAMES.get(role, role)
    if role not in _ROLES:
        known = f"{', '.join(_ROLES)}, also called {', '.join(ROLE_NAMES)}"
        raise DataError(f"a message has the role `{name:.40}`; the roles are {known}")
    return role


def turn_weight(turn: Message) -> float:
    """Factor on the loss weight of a turn: its `weight`, or 0 where `train`, `loss` or the like switch it off.

    Raises `DataError` for an invalid weight, and for a switch that is neither true nor false.
    """
    stated: Any = turn.get(WEIGHT)
    least, most = _WEIGHTS
    if stated is None:
        stated = 1.0
    elif not isinstance(stated, Real) or not (stated == 0 or least <= stated <= most):  # type: ignore[operator]
        raise DataError(f"`{WEIGHT}` of a turn is {stated!r:.40}; it must be 0, or from {least:g} to {most:g}")
    weight = float(stated)
    for name in SWITCHES:
        switch = turn.get(name)
        if switch is None:
            continue
        if not isinstance(switch, bool | Real) or switch not in (0, 1):
            raise DataError(f"`{name}` of a turn is {switch!r:.40}; it must be `true` or `false`")
        weight *= bool(switch)
    return weight


def is_closed(turn: Message) -> bool:
    """Whether the end of a turn is learnt: not where `end_tag` is false, as VITA's data have it of answers that the
    model shall not learn to end. Raises `DataError` for another value."""
    stated = turn.get(END_TAG)
    if stated is None:
        return True
    if not isinstance(stated, bool | Real) or stated not in (0, 1):
        raise DataError(f"`{END_TAG}` of a turn is {stated!r:.40}; it must be `true` or `false`")
    return bool(stated)


def chat_document(messages: Sequence[Message], system: Mapping[str, str], output: str | None = None) -> Document:
    """Document of a conversation.

    `system` holds system prompts by modality, under `given_NAME`, and under `default`. The one of `output` is taken;
    `None` means the one modality that everything the assistant says consists of. Where there is none, it is the first
    `given_NAME` of a modality that the others' turns hold, or `default`. A conversation that brings its own system
    message keeps it. To generate, end with a message of the assistant whose content is empty, say which `output` is
    wanted, and let the renderer make a prompt of it.

    Raises DataError for a message without role or content, or with an invalid role or weight.
    """
    turns = [_turn(message) for message in messages]
    closed = [is_closed(message) for message in messages]
    if not turns or turns[0][0] != "system":
        prompt = _system_prompt([turn[:2] for turn in turns], system, output)
        if prompt:
            turns.insert(0, ("system", [prompt], 1.0))
            closed.insert(0, True)
    segments = [Segment(Special.BOS, PROMPT, False)]
    answer = 0
    for (role, content, weight), ends in zip(turns, closed, strict=True):
        kind = _ROLES[role]
        segments.append(Segment(Special.IM_START, kind, False))
        segments.append(Segment(f"{role}\n", kind, False))
        if role == "assistant":
            answer = len(segments)
            segments += response_segments(content, weight)
        else:
            segments += prompt_segments(content, role=kind, supervised=False)
        segments.append(Segment(Special.IM_END, kind, weight if role == "assistant" and ends else False))
        segments.append(Segment("\n", kind, False))
    return Document(tuple(segments), answer or len(segments))


def _system_prompt(turns: Sequence[tuple[str, Contents]], system: Mapping[str, str], output: str | None) -> str:
    """The system prompt of a conversation, see `chat_document`; empty for none."""
    if output is None:
        output = _modality_of([content for role, content in turns if role == "assistant"])
    if system.get(output):
        return system[output]
    names = {_MODALITY.visit(item) for role, content in turns if role != "assistant" for item in content}
    given = {f"{GIVEN}{name}" for name in names - {TEXT, "", None}}
    return next((prompt for key, prompt in system.items() if key in given and prompt), system.get("default", ""))


def _turn(message: Message) -> tuple[str, Contents, float]:
    try:
        role, content = role_of(message[ROLE]), message[CONTENT]
    except KeyError as error:
        raise DataError(
            f"a message needs `role` and `content`, this one has: {', '.join(message) or 'none'}"
        ) from error
    contents = content if isinstance(content, list | tuple) else [content]
    for item in contents:
        if _MODALITY.visit(item) is None:
            raise DataError(f"a message of `{role}` holds a {type(item).__name__}, not text, media or codes")
    return role, contents, turn_weight(message)


def _modality_of(answers: Sequence[Contents]) -> str:
    """The modality that all answers consist of, empty for a mixture; white space does not count."""
    names = {_MODALITY.visit(item) for content in answers for item in content} - {""}
    return (names.pop() or "") if len(names) == 1 else ""


class _Modality(Visitor[str | None]):
    """Modality of a piece of content; the empty string where it has none, None of what is no content."""

    def text(self, text: str) -> str:
        return TEXT if text.strip() else ""

    def media(self, media: Media) -> str:
        return media.modality

    def codes(self, codes: Codes) -> str:
        return codes.modality

    def control(self, control: Control) -> str:  # noqa: ARG002
        return ""

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


_MODALITY = _Modality()
