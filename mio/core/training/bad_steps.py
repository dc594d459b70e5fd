"""Reports steps that the guard objects to, with the records to blame."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from mio.core.data.batch import Batch
from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.recipe.places import CHECKPOINTS
from mio.core.training.guards import STOP, Guard
from mio.core.training.losses import PassLosses

_NAMED, _WORST = 8, 3
"""Records that are named of a step; of one whose losses are all finite."""


class Suspect(NamedTuple):
    """A document of a bad step."""

    mean: float
    """Mean loss of what is learnt of it."""
    record: str

    @property
    def finite(self) -> bool:
        return math.isfinite(self.mean)


@dataclass
class BadSteps:
    """Writes such steps into a file and prints them, on rank 0; ends the run where the guard says so."""

    guard: Guard
    describe: Callable[[int, int], str]
    """Names a record by its stream and number."""
    file: Path
    ranks: Ranks
    console: Console
    _recent: list[str] = field(default_factory=list)
    """Records of the bad steps in a row."""

    def report(self, verdict: str, passes: list[tuple[Batch, PassLosses]]) -> None:
        """Takes the guard's verdict and the step's forward passes. A collective call. Raises `UserError` at `STOP`."""
        found = suspects(self.describe, passes)
        if self.ranks.size > 1:
            gathered: list[Any] = [None] * self.ranks.size
            torch.distributed.all_gather_object(gathered, found)
            found = [suspect for of_rank in gathered for suspect in of_rank]
        records = to_blame(found)
        step = passes[0][0].step + 1 if passes else 0
        if self.guard.in_a_row == 1:
            self._recent.clear()
        self._recent.extend(record for record in records if record not in self._recent)
        reason = self.guard.reason
        if self.ranks.first:
            entry = {"step": step, "verdict": verdict, "reason": reason, "records": records}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self.console.print(f"step {step} ({verdict}): {reason}: {'; '.join(records[:3])}")
        if verdict == STOP:
            row = self.guard.in_a_row
            skipped = f", and {row} steps in a row were skipped" if row > 1 else ""
            raise UserError(
                f"stopped at step {step}: {reason}{skipped}. Records: {'; '.join(self._recent[:_NAMED])} (all: "
                f"{self.file}). The same command would train them again: to go on without them, or with a lower "
                f"`train.optimizer.lr`, give another `name=` and `start_from=` one of {self.file.parent / CHECKPOINTS}"
            )


def forget_after(file: Path, step: int) -> None:
    """Drops what was written of later steps, which are trained again, and what was being written when it was ended."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(f"{line}\n")
    if kept:
        write_text(file, "".join(kept))
    else:
        file.unlink()


def suspects(describe: Callable[[int, int], str], passes: list[tuple[Batch, PassLosses]]) -> list[Suspect]:
    """Those of a rank's documents that may be to blame."""
    means = [mean for batch, losses in passes for mean in _means(batch, losses)]
    not_finite = [mean for mean in means if not math.isfinite(mean[0])]
    worst = not_finite[:_NAMED] or sorted(means, reverse=True)[:_WORST]
    return [Suspect(mean, describe(stream, n)) for mean, stream, n in worst]


def to_blame(found: Sequence[Suspect]) -> list[str]:
    """Records of documents whose loss is not finite, on whichever rank; where all are finite, those of the highest mean
    loss."""
    not_finite = [suspect for suspect in found if not suspect.finite]
    worst = not_finite or sorted(found, key=lambda suspect: -suspect.mean)
    records = list(dict.fromkeys(suspect.record for suspect in worst))
    return records[: _NAMED if not_finite else _WORST]


def _means(batch: Batch, losses: PassLosses) -> Iterator[tuple[float, int, int]]:
    """(mean loss of what is learnt, stream, number in it) of each document. An item that a head learns counts as in the
    loss of a step, as so many targets."""
    items = [
        (opening, loss, weight)
        for name, made in batch.made.items()
        if name in losses.heads
        for opening, loss, weight in zip(
            made.openings, losses.heads[name].tolist(), made.weights.tolist(), strict=not made.dummy
        )
    ]
    for row, (lengths, documents) in enumerate(zip(batch.lengths, batch.documents, strict=True)):
        start = 0
        for length, (stream, n) in zip(lengths, documents, strict=True):
            learnt = int((batch.weights[row, start : start + length] > 0).sum())
            mean = float(losses.nll[row, start : start + length].sum()) / max(1, learnt)
            first = row * batch.tokens.shape[1] + start
            if own := [(loss, weight) for opening, loss, weight in items if first <= opening < first + length]:
                total = mean * learnt + sum(loss * weight for loss, weight in own)
                mean = total / max(1, learnt + sum(weight for _, weight in own))
            yield mean, stream, n
            start += length
