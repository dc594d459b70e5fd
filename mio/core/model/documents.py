"""The packed documents of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mio.core.errors import DataError


class Documents:
    """The packed documents of a batch: which positions may see each other. Immutable; `to` copies it to a device."""

    def __init__(self, lengths: tuple[tuple[int, ...], ...], context: int, ids: Tensor) -> None:
        self.lengths = lengths
        self.context = context
        self.ids = ids
        """int32 [B, L]: index of the document within its row, -1 at padding."""
        self._derived: dict[Any, Any] = {}

    @classmethod
    def from_lengths(cls, rows: Sequence[Sequence[int]], context: int) -> Documents:
        """Documents from the lengths of each row's documents, in order; the rest of a row up to `context` is padding.

        Raises:
            DataError: a length is below 1, a row is longer than `context`, or there is no document at all.
        """
        lengths = tuple(tuple(int(length) for length in row) for row in rows)
        if not any(lengths):
            raise DataError("a batch needs at least one document")
        ids = torch.full((len(lengths), context), -1, dtype=torch.int32)
        for index, row in enumerate(lengths):
            if sum(row) > context or any(length < 1 for length in row):
                raise DataError(f"row {index}: documents of lengths {list(row)} do not fit a context of {context}")
            of_row = torch.tensor(row, dtype=torch.int64)
            ids[index, : sum(row)] = torch.arange(len(row), dtype=torch.int32).repeat_interleave(of_row)
        return cls(lengths, context, ids)

    def to(self, device: torch.device | str) -> Documents:
        """On a GPU, without waiting for the work that is queued there."""
        ids = self.ids.pin_memory() if torch.device(device).type == "cuda" else self.ids
        return Documents(self.lengths, self.context, ids.to(device, non_blocking=True))

    @property
    def valid(self) -> Tensor:
        """bool [B, L]: False at padding."""
        return self.derive("valid", lambda: self.ids >= 0)

    def derive(self, key: Any, build: Callable[[], Any]) -> Any:
        """A value computed from these documents once and shared by all layers."""
        if key not in self._derived:
            self._derived[key] = build()
        return self._derived[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_derived": {}}
