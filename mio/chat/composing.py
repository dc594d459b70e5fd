"""What somebody composes: text in which `{1}` stands where the first file goes, and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mio.core.errors import DataError, UserError

_PLACE = re.compile(r"\{(?:([A-Za-z][\w.\-]*):)?(\d{1,3})\}")
"""`{2}`: the second file. `{music:2}`: as music."""


@dataclass(frozen=True)
class Composed:
    """A question as it was composed."""

    text: str = ""
    files: tuple[Path, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.text.strip() and not self.files


@dataclass(frozen=True)
class Placed:
    """A file in its place."""

    path: Path
    modality: str = ""
    """Named with it; empty: by its ending."""


def placed(composed: Composed, first: bool = False) -> list[str | Placed]:
    """Text and files in order. Files that the text does not name come behind it, or with `first` before it.

    Raises:
        UserError: the text names a file that is not there.
    """
    if composed.empty:
        raise UserError("write something, or add a file")
    text, files = composed.text, composed.files
    parts: list[str | Placed] = []
    named: set[int] = set()
    end = 0
    for match in _PLACE.finditer(text):
        number = int(match[2])
        if not files and not match[1]:
            continue  # braces of somebody who adds no file
        if not 1 <= number <= len(files):
            there = f"there {'is' if len(files) == 1 else 'are'} {len(files) or 'no'} file{'s' * (len(files) != 1)}"
            raise DataError(f"{match[0]}: {there}")
        parts += [text[end : match.start()], Placed(files[number - 1], match[1] or "")]
        named.add(number)
        end = match.end()
    parts.append(text[end:])
    others = [Placed(path) for number, path in enumerate(files, 1) if number not in named]
    return [part for part in ([*others, *parts] if first else [*parts, *others]) if part != ""]


def marked(parts: Sequence[str | Path]) -> Composed:
    """The opposite: text and files in order as somebody would compose them."""
    text = ""
    files: list[Path] = []
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            files.append(part)
            text += f"{{{len(files)}}}"
    return Composed(text, tuple(files))
