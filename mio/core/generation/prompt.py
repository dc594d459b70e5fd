"""What a model is asked: prompts as a person types them, text with `{MODALITY:FILE}` where media go, and conversations,
as documents of the form that it was trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.values import Modality, Value
from mio.core.data.readers.cells import media_file
from mio.core.errors import UserError, nearest
from mio.core.generation.model import Model
from mio.core.tokens.chat import CONTENT, ROLE, Message, chat_document, role_of
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.templates import CHAT

Content = Sequence[Value] | Sequence[Message]
"""What is asked: pieces of one turn, or a conversation whose last turn is to be answered."""

_MEDIA = re.compile(r"\{(\w+):([^{}]+)\}")


def parse_prompt(prompt: str, modalities: Mapping[str, Modality], folder: Path = Path()) -> list[Value]:
    """Text and media of a prompt in order, of files whose relative paths begin in `folder`. Other braces stay text.

    Raises `UserError` for an unknown modality, a missing file, or text that is not valid UTF-8.
    """
    values: list[Value] = []
    end = 0
    for match in _MEDIA.finditer(prompt):
        name, file = match[1], Path(match[2].strip())
        known = [key for key, declared in modalities.items() if not declared.text]
        if name not in known:
            raise UserError(
                f"prompt: no modality `{name}` in this run{nearest(name, known)}; it has {', '.join(known)}"
            )
        if match.start() > end:
            values.append(_text(prompt[end : match.start()]))
        values.append(media_file(name, folder / file, "prompt"))
        end = match.end()
    if end < len(prompt):
        values.append(_text(prompt[end:]))
    if not values:
        raise UserError("prompt: it is empty")
    return values


def _text(typed: str) -> str:
    """Text of the command line, of which the terminal's locale may have left bytes undecoded."""
    try:
        return typed.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UserError("prompt: holds bytes or characters that are not valid UTF-8; type them again") from None


def turns_of(content: Content) -> list[Message]:
    """The turns of a conversation; none of what is no conversation."""
    return [one for one in content if isinstance(one, Mapping)]


def values_of(content: Content) -> list[Value]:
    """The pieces of a single turn; none of a conversation."""
    return [one for one in content if not isinstance(one, Mapping)]


def prompt_document(model: Model, content: Content, output: str | None, answer: Sequence[Value] = ()) -> Document:
    """What is asked, in the form that the model was trained with, and the beginning of a turn that answers it.

    Args:
        output: modality of the answer, by which the recipe chooses the system prompt; empty: any; None: the one that
            all answers consist of.
        answer: what that turn says, for a document that is scored.

    Raises:
        UserError: a conversation does not end with something to be answered, or the model knows no turns.
    """
    data = model.recipe.data
    turns, values = turns_of(content), values_of(content)
    if data.form != CHAT:
        if len(turns) > 1 or (turns and role_of(turns[0][ROLE]) != "user"):
            raise UserError(
                "prompt: the model was trained without turns (`data.form: plain`), and knows no conversations; give "
                "one prompt"
            )
        return plain_document(_listed(turns[0][CONTENT]) if turns else values, list(answer))
    messages: list[Any] = turns or [{ROLE: "user", CONTENT: values}]
    if (last := role_of(messages[-1][ROLE])) != "user":
        raise UserError(f"prompt: the last message is of the {last}; end with one of the user, which is answered")
    return chat_document([*messages, {ROLE: "assistant", CONTENT: list(answer)}], data.system, output)


def _listed(content: Any) -> list[Value]:
    return list(content) if isinstance(content, list | tuple) else [content]
