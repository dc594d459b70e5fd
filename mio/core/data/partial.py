"""Records of which only a part can be used. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mio.core.errors import DataError


@dataclass(frozen=True)
class Failed:
    """In place of a field's content: why there is none."""

    reason: str
    kind: str = ""
    """What the field holds, where no template could use values of its type: `date`, say."""


@dataclass(frozen=True)
class Notes:
    """What is known about a record beside its fields."""

    failed: Mapping[str, Failed] = field(default_factory=dict)
    """Fields without content."""
    dropped: str = ""
    """Why a filter of the recipe left the record out, when its media were still there to be looked at."""
    unknown: tuple[str, ...] = ()
    """Keys inside the record that nothing reads: of a conversation's turns, say."""


class PartialRecord(Mapping[str, Any]):
    """A record that brings `notes`.

    Reading a field without content raises `DataError` with the reason: what nobody reads costs nothing. `in` says that
    such a field is there; it is not among the fields that are gone through.
    """

    def __init__(self, fields: Mapping[str, Any], notes: Notes) -> None:
        self.notes = notes
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        if name in self.notes.failed and name not in self._fields:
            raise DataError(self.notes.failed[name].reason)
        return self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields or name in self.notes.failed

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def notes_of(record: Mapping[str, Any]) -> Notes:
    """The notes that a record brings; empty ones where it brings none."""
    return record.notes if isinstance(record, PartialRecord) else _NONE


_NONE = Notes()
