"""Readers of files, which a recipe names like a corpus. Free of torch; formats are imported when they are opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mio.core.data.readers.options import option_problems, split_problems
from mio.core.data.readers.records import Kinds, files_of
from mio.core.errors import DataError, RecipeError

OPTIONS: dict[str, dict[str, type]] = {
    "jsonl": {"path": str},
    "parquet": {"path": str},
    "arrow": {"path": str},
    "webdataset": {"path": str},
    "folder": {"path": str},
    "hub": {"name": str, "config": str, "revision": str, "streaming": bool},
}
"""Each reader's own options, beside those that all share (see `options.py`)."""

READERS = tuple(OPTIONS)


def reader_problems(reader: str, options: Mapping[str, Any], kinds: Kinds, whole: bool = True) -> list[str]:
    """What is wrong with the options of a reader, before anything is opened; `whole`: also what is missing."""
    problems = option_problems(reader, options, OPTIONS[reader], kinds.media, bool(kinds.controls))
    needed = next(iter(OPTIONS[reader]))
    if whole and needed not in options:
        problems.append(f"reader `{reader}` needs the option `{needed}`")
    return problems


def at_hand(options: Mapping[str, Any]) -> bool:
    """Whether anything of what a reader with these options reads is on this machine, be it damaged."""
    place = str(options.get("path") or options.get("name") or "")
    try:
        return bool(place) and (Path(place).exists() or bool(files_of(place, "file")))
    except (DataError, OSError, ValueError):
        return False


def open_reader(reader: str, split: str, options: Mapping[str, Any], kinds: Kinds) -> Any:
    """Opens a source of files.

    Raises:
        RecipeError: options are missing, unknown or of the wrong type.
        DataError: the files are missing, damaged or empty.
    """
    problems = reader_problems(reader, options, kinds)
    if not problems:
        problems = split_problems(reader, split, Path(str(options.get("path", ""))))
    if problems:
        raise RecipeError(problems)
    path = str(options.get("path"))
    if reader == "jsonl":
        from mio.core.data.readers.jsonl import JsonLines

        return JsonLines(Path(path), options, kinds)
    if reader == "webdataset":
        from mio.core.data.readers.webdataset import WebDataset

        return WebDataset(files_of(path, "tar archive"), options, kinds)
    if reader == "folder":
        from mio.core.data.readers.folder import MediaFolder

        return MediaFolder(Path(path), split, options, kinds)
    from mio.core.data.readers.tables import open_arrow, open_hub, open_parquet

    if reader == "parquet":
        return open_parquet(options, kinds)
    return (open_arrow if reader == "arrow" else open_hub)(split, options, kinds)
