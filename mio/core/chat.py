"""Conversations in ChatML, as Yi-Chat and MIO write them.

    [bos]<|im_start|>system
    ...<|im_end|>
    <|im_start|>user
    ...<|im_end|>
    <|im_start|>assistant
    ...<|im_end|>

Only what the assistant says is supervised, with the `<|im_end|>` that closes it. All of it counts as response, also
that of earlier turns. Media of the assistant take the view `generate`, all other media `understand`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mio.core.documents import PROMPT, RESPONSE, SYSTEM, Document, Segment, Special, given, written
from mio.core.errors import DataError
from mio.core.modality import TEXT, Codes, Media, Value

Message = Mapping[str, Any]
"""`role` (`system`, `user` or `assistant`) and `content`: one `Value` or a list of them."""

_ROLES = {"system": SYSTEM, "user": PROMPT, "assistant": RESPONSE}


def chat_document(messages: Sequence[Message], system: Mapping[str, str], output: str | None = None) -> Document:
    """Document of a conversation.

    `system` holds system prompts by modality and under `default`. The one of `output` is taken; `None` means the one
    modality that everything the assistant says consists of. A conversation that brings its own system message keeps
    it. To generate, end with a message of the assistant whose content is empty, say which `output` is wanted, and let
    the renderer make a prompt of it.

    Raises DataError for a message without role or content, or with another role.
    """
    turns = [_turn(message) for message in messages]
    if not turns or turns[0][0] != "system":
        wanted = _modality_of([content for role, content in turns if role == "assistant"]) if output is None else output
        prompt = system.get(wanted) or system.get("default", "")
        if prompt:
            turns.insert(0, ("system", [prompt]))
    segments = [Segment(Special.BOS, PROMPT, False)]
    answer = 0
    for role, content in turns:
        kind = _ROLES[role]
        segments.append(Segment(Special.IM_START, kind, False))
        segments.append(Segment(f"{role}\n", kind, False))
        if role == "assistant":
            answer = len(segments)
            segments += written(content)
        else:
            segments += given(content, role=kind, supervised=False)
        segments.append(Segment(Special.IM_END, kind, role == "assistant"))
        segments.append(Segment("\n", kind, False))
    return Document(tuple(segments), answer or len(segments))


def _turn(message: Message) -> tuple[str, Sequence[Value]]:
    try:
        role, content = message["role"], message["content"]
    except KeyError as error:
        raise DataError(
            f"a message needs `role` and `content`, this one has: {', '.join(message) or 'none'}"
        ) from error
    if role not in _ROLES:
        raise DataError(f"a message has the role `{role}`; the roles are {', '.join(_ROLES)}")
    contents = content if isinstance(content, list | tuple) else [content]
    for item in contents:
        if not isinstance(item, str | Media | Codes):
            raise DataError(f"a message of `{role}` holds a {type(item).__name__}, not text, media or codes")
    return role, contents


def _modality_of(answers: Sequence[Sequence[Value]]) -> str:
    """The modality that all answers consist of, empty for a mixture; white space does not count."""
    names = set()
    for content in answers:
        for item in content:
            if not isinstance(item, str):
                names.add(item.modality)
            elif item.strip():
                names.add(TEXT)
    return names.pop() if len(names) == 1 else ""
