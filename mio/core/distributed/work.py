"""Work that ranks share piece by piece, so that none of them waits while there is some left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_KEPT = 4096
"""Messages of a channel that are kept."""


@dataclass
class Work:
    """`count` numbered pieces of work. Each is done by one rank, and the first rank has the results.

    Who takes which piece depends on who is free, so a result must not depend on it. `store` is the ranks' and None for
    one process alone; results are what JSON can hold.
    """

    store: Any
    key: str
    count: int
    _taken: int = 0
    _results: dict[int, Any] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    """Pieces that somebody has taken and whose results were not given yet."""
    _begun: int = 0

    def pieces(self) -> Iterator[int]:
        """The pieces of this rank, each of which it has to `finish` before the next."""
        while (number := self._take()) < self.count:
            yield number

    def finish(self, number: int, result: Any) -> None:
        """Notes the result of a piece."""
        if self.store is None:
            self._results[number] = result
        else:
            self.store.set(f"{self.key}/{number}", json.dumps(result))

    def results(self) -> Iterator[tuple[int, Any]]:
        """Number and result of the pieces that were finished since the last call. For the first rank; after a barrier
        nothing is missing."""
        if self.store is None:
            while self._results:
                yield self._results.popitem()
            return
        begun = min(self.count, self.store.add(f"{self.key}/taken", 0))
        self._open.update(range(self._begun, begun))
        self._begun = begun
        for number in sorted(self._open):
            key = f"{self.key}/{number}"
            if self.store.check([key]):
                self._open.remove(number)
                result = json.loads(self.store.get(key))
                self.store.delete_key(key)
                yield number, result

    def _take(self) -> int:
        self._taken += 1
        return self._taken - 1 if self.store is None else self.store.add(f"{self.key}/taken", 1) - 1


@dataclass
class Channel:
    """Messages of one rank to others, in order; values that JSON can hold."""

    store: Any
    key: str
    _count: int = 0

    def send(self, value: Any) -> None:
        self._count += 1
        self.store.set(f"{self.key}/{self._count}", json.dumps(value))
        if self._count > _KEPT:  # who receives them computes with who sends them, and is not so far behind
            self.store.delete_key(f"{self.key}/{self._count - _KEPT}")

    def receive(self) -> Any:
        """The next message; waits for it."""
        self._count += 1
        return json.loads(self.store.get(f"{self.key}/{self._count}"))
