"""What comes into a conversation, in the order of its times."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

CHUNK, END, SHOWN, SAID = "chunk", "end", "shown", "said"


@dataclass(order=True)
class Input:
    """Something that comes in; of several at one time, what was given first."""

    time: float
    number: int
    kind: str = field(compare=False)
    content: Any = field(compare=False)


class Inbox:
    """Inputs that are still to come."""

    def __init__(self) -> None:
        self._inputs: list[Input] = []
        self._count = 0

    def put(self, time: float, kind: str, content: Any = None) -> None:
        heapq.heappush(self._inputs, Input(time, self._count, kind, content))
        self._count += 1

    @property
    def next(self) -> float | None:
        """When the next one comes; None if none is known."""
        return self._inputs[0].time if self._inputs else None

    def due(self, now: float) -> list[Input]:
        """Takes out what has come by now."""
        taken = []
        while self._inputs and self._inputs[0].time <= now:
            taken.append(heapq.heappop(self._inputs))
        return taken
