"""Records of which only a part can be used. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
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


class PartialRecord(dict[str, Any]):
    """A record that brings `notes`.

    Reading a field that has no content raises `DataError` with the reason: what nobody reads costs nothing. Such
    fields are not among `items()`.
    """

    __slots__ = ("notes",)

    def __init__(self, fields: Mapping[str, Any], notes: Notes) -> None:
        super().__init__(fields)
        self.notes = notes

    def __missing__(self, name: str) -> Any:
        if name in self.notes.failed:
            raise DataError(self.notes.failed[name].reason)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.notes.failed

    def get(self, name: str, default: Any = None) -> Any:
        """As for any mapping; raises `DataError` for a field without content."""
        try:
            return self[name]
        except KeyError:
            return default


def notes_of(record: Mapping[str, Any]) -> Notes:
    """The notes that a record brings; empty ones where it brings none."""
    return record.notes if isinstance(record, PartialRecord) else _NONE


_NONE = Notes()
