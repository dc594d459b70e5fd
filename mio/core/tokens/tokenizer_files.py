"""The files of a folder of tokenizers, and the record of what they are: fingerprints and checksums. Free of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.checksums import file_sum, read_summed, write_summed
from mio.core.errors import DataError, UserError

FINGERPRINTS = "tokenizers.json"
"""Record of a folder of tokenizers: fingerprint of each, and checksums of its files."""

_COPY = "restore it from a copy"


def tokenizer_record(folder: Path) -> dict[str, str]:
    """Fingerprints that a folder of tokenizers remembers, by modality; none if it has no record.

    Raises `DataError` if the record is damaged.
    """
    return {name: entry["fingerprint"] for name, entry in _record(folder).items()}


def check_tokenizers(folder: Path, names: Sequence[str] | None = None) -> bool:
    """Compares the files of a folder of tokenizers, of all or of the named modalities, with its record.

    Returns whether the record has checksums of them: those of earlier versions of mio have none. Raises `DataError` if
    a file is missing or another.
    """
    record = _record(folder)
    entries = [record.get(name) for name in (record if names is None else names)]
    sums = [file for entry in entries if entry for file in (entry["files"] or {}).items()]
    for path, checksum in sums:
        if not (folder / path).is_file():
            raise DataError(f"{folder / path}: is missing; {_COPY}")
        try:
            present = file_sum(folder / path)
        except OSError as error:
            raise DataError(f"{folder / path}: cannot be read ({error.strerror}); {_COPY}") from error
        if present != checksum:
            raise DataError(
                f"{folder / path}: is not what was trained ({folder / FINGERPRINTS} has another checksum); {_COPY}"
            )
    return all(entry is not None and entry["files"] is not None for entry in entries)


def save_record(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Adds tokenizers to a folder's record, with the checksums of their files."""
    record: dict[str, Any] = {
        name: entry if entry["files"] is not None else entry["fingerprint"]
        for name, entry in _record(folder).items()
        if name not in fingerprints
    }
    for name, fingerprint in fingerprints.items():
        files = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        sums = {path.relative_to(folder).as_posix(): file_sum(path) for path in files}
        record[name] = {"fingerprint": fingerprint, "files": sums}
    write_summed(folder / FINGERPRINTS, record)


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / FINGERPRINTS
    if not path.is_file():
        return {}
    record: dict[str, dict[str, Any]] = {}
    for name, content in read_summed(path, _COPY).items():
        entry: Any = {"fingerprint": content, "files": None} if isinstance(content, str) else content
        try:
            sound = all(isinstance(text, str) for text in (entry["fingerprint"], *(entry["files"] or {}).values()))
        except (KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise DataError(f"{path}: is damaged (`{name}` has no fingerprint); {_COPY}")
        record[name] = entry
    return record


@contextlib.contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Tells of a folder with weights of the tokenizer of `name` that these cannot be read."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{folder}: weights of the tokenizer of `{name}` cannot be read "
            f"({type(error).__name__}: {error}); restore them from a copy"
        ) from error
