"""Which modality a file is of, by the ending of its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError


class Endings:
    """The modality that reads files of an ending. Where several do, the options have to say which."""

    def __init__(self, kinds: Kinds, named: Iterable[str]) -> None:
        """`named` are the modalities that the options name; of several for one ending, the one among them counts."""
        named = set(named)
        self._readers: dict[str, list[str]] = {}
        for name, suffixes in kinds.suffixes().items():
            for suffix in suffixes:
                self._readers.setdefault(suffix, []).append(name)
        for suffix, names in self._readers.items():
            chosen = [name for name in names if name in named]
            self._readers[suffix] = chosen if len(chosen) == 1 else names

    def __contains__(self, name: str) -> bool:
        """Whether any modality reads a file of this name."""
        return PurePath(name).suffix.lower() in self._readers

    def __str__(self) -> str:
        return ", ".join(sorted(self._readers)) or "none"

    def readers(self, name: str) -> list[str]:
        """The modalities that may read a file of this name."""
        return self._readers.get(PurePath(name).suffix.lower(), [])

    def modality(self, name: str) -> str:
        """The modality of a file of this name; the empty string if nothing reads it.

        Raises `DataError` where several do.
        """
        names = self.readers(name) or [""]
        if len(names) > 1:
            suffix = PurePath(name).suffix.lower()
            first = names[0]
            raise DataError(
                f"files with the ending `{suffix}` may be {' or '.join(names)}; say which by the option `fields`, as "
                f"`fields: {{{first}: {first}}}`"
            )
        return names[0]


def counted(files: Counter[str], most: int = 10) -> str:
    """Kinds of files with their numbers, the most frequent first."""
    listed = ", ".join(f"{kind} ({count:,})" for kind, count in files.most_common(most))
    return listed + (", ..." if len(files) > most else "")
