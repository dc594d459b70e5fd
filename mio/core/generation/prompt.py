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

    Raises `UserError` for an unknown modality, a missing file, or text that is none.
    """
    values: list[Value] = []
    end = 0
    for found in _MEDIA.finditer(prompt):
        name, file = found[1], Path(found[2].strip())
        known = [key for key, declared in modalities.items() if not declared.text]
        if name not in known:
            raise UserError(
                f"prompt: no modality `{name}` in this run{nearest(name, known)}; it has {', '.join(known)}"
            )
        regular_file(file, f"prompt: {file}")
        if found.start() > end:
            values.append(_text(prompt[end : found.start()]))
        values.append(Media(name, file, key=str(file.resolve())))
        end = found.end()
    if end < len(prompt):
        values.append(_text(prompt[end:]))
    if not values:
        raise UserError("prompt: it is empty")
    return values


def _text(typed: str) -> str:
    """Text of the command line, whose bytes the terminal's locale may not have been able to decode."""
    try:
        return typed.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UserError("prompt: holds bytes or characters that are no text in UTF-8; write them anew") from None
