"""Counts the documents whose media turned out to be damaged when they were trained on. Free of torch.

The plan of a run does not look at media, so such a document keeps its place in its row, as padding of weight 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Lost = tuple[int, int, str]
"""Stream index, number in the stream, and why: a document whose media are damaged."""

KEY = "unreadable"
"""Of the report, and of a data cursor; absent where there are none."""
_EXAMPLES = 20


class Unreadable:
    """What this rank has found since ranks were last added up, and what all of them have found before.

    Args:
        streams: name of each stream, by the index that `Lost` holds.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self.tell: Callable[[str], None] = lambda line: None  # noqa: ARG005
        """Called with a line about each of the first that this rank finds."""
        self._streams = streams
        self._step: list[Lost] = []
        self._counts: Counter[str] = Counter()
        self._examples: list[str] = []
        self._own: Counter[str] = Counter()
        self._own_examples: list[str] = []

    def take(self, lost: Iterable[Lost]) -> None:
        """Notes what a batch lost, of a step that is not over yet."""
        self._step += lost

    def commit(self) -> None:
        """Counts what the step lost."""
        for stream, _, reason in self._step:
            self._own[self._streams[stream]] += 1
            if len(self._own_examples) < _EXAMPLES:
                self._own_examples.append(reason)
                self.tell(f"{reason}: trained on as padding")
        self._step = []

    @property
    def own(self) -> dict[str, Any]:
        """What this rank alone has found, for `add`; empty if that is nothing."""
        return {"documents": dict(self._own), "examples": self._own_examples} if self._own else {}

    def add(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Adds up what the ranks have found on their own, this one among them."""
        for own in found:
            self._counts.update(own.get("documents", {}))
            self._examples = [*self._examples, *own.get("examples", ())][:_EXAMPLES]
        self._own, self._own_examples = Counter(), []

    def report(self) -> dict[str, Any]:
        """`unreadable`: number of documents by stream, and the first of them with their reason; empty without any."""
        if not self._counts:
            return {}
        return {KEY: {"documents": dict(sorted(self._counts.items())), "examples": list(self._examples)}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a report."""
        found = state.get(KEY, {})
        self._counts, self._examples = Counter(found.get("documents", {})), list(found.get("examples", ()))
        self._own, self._own_examples, self._step = Counter(), [], []
