"""Prompts as a person types them: text with `{MODALITY:FILE}` where media go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mio.core.contract.values import Media, Modality, Value
from mio.core.errors import UserError, nearest
from mio.core.files import regular_file

_MEDIA = re.compile(r"\{(\w+):([^{}]+)\}")


def parse_prompt(prompt: str, modalities: Mapping[str, Modality]) -> list[Value]:
    """Text and media of a prompt in order. Other braces stay text.

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
        regular_file(file, f"prompt: {file}")
        if match.start() > end:
            values.append(_text(prompt[end : match.start()]))
        values.append(Media(name, file, key=str(file.resolve())))
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
