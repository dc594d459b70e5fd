"""The JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mio.core.errors import DataError


def read_json(path: Path) -> dict[str, Any]:
    """The mapping that a file holds. Raises `DataError` for anything else, and for a key that stands twice."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can not be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no mapping")
    return content


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: {twice!r} stands twice; which one counts?")
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
