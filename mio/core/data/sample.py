"""Which records of a source are read with care, so that a broken source is known in seconds and not after hours."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

WHOLE = 20_000
"""Sources of at most this many records are checked to the last one."""
SAMPLE = 2_000
"""Records checked of a larger source, evenly spaced."""
SHIPPED_SAMPLE = 200
"""Records checked of a corpus that a plugin ships: it may make its records as they are read."""
ENCODED = 16
"""Records checked whose media are encoded too, evenly spaced: a tokenizer that does not work shows at the first."""


@dataclass(frozen=True)
class CheckedSample:
    """Records that are checked when their lengths are learnt. Which ones they are depends on the source's size alone,
    so that every process finds the same records broken."""

    read: Set[int] = field(default=frozenset(), repr=False)
    """Whose files of media are read."""
    encoded: Set[int] = frozenset()
    """Whose media are encoded."""

    @classmethod
    def of(cls, size: int, shipped: bool) -> CheckedSample:
        """The sample of a source of `size` records; `shipped` by a plugin or not."""
        read = sample(size, shipped)
        encoded = [read[i * len(read) // ENCODED] for i in range(ENCODED)] if len(read) > ENCODED else read
        return cls(frozenset(read), frozenset(encoded))


def sample(size: int, shipped: bool) -> range | list[int]:
    """Indices of the records to check: all, or an evenly spaced selection."""
    count = SHIPPED_SAMPLE if shipped else size if size <= WHOLE else SAMPLE
    return range(size) if count >= size else [i * size // count for i in range(count)]
