"""The forward passes of a validation, made once, and what their losses add up to.

A pass is a fixed number of packed rows, whatever the number of ranks: a document's losses then come from the same
arithmetic on any rank that takes its pass. They are added up in float64, in the order of the passes, so that figures
do not show either who computed what.

P passes, T positions of a pass, M most items that heads learn in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from mio.core.data.batch import Batch, assemble
from mio.core.data.journal import row_digest
from mio.core.data.validation import HeldOutDocuments, HeldOutSources, pack
from mio.core.errors import DataError
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Rendered
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.losses import PassLosses
from mio.core.training.metrics import HEADS, target_kinds

_POSITIONS = 4096
"""Of a forward pass, or those of one row. Without a backward pass they take less memory than a training step."""
_KEPT = 256 << 20
"""Bytes of arrays for encoders that are kept from one validation to the next."""

_Rows = Sequence[Sequence[tuple[int, Rendered]]]
"""Of (stream index, document)."""


@dataclass(frozen=True)
class Share:
    """Which part of the work is this rank's. Ranks of one tensor-parallel group have the same part."""

    part: int = 0
    parts: int = 1
    counts: bool = True
    """Whether this rank's results count: of the ranks that have the same part, one's do."""


def gathered(sources: HeldOutSources, items: int, part: int, parts: int) -> list[HeldOutDocuments]:
    """The documents of all streams, each source read by one of the ranks. A collective call where there are several.

    Raises `DataError` on every rank for what any of them finds wrong.
    """
    mine: list[HeldOutDocuments] = []
    problem = ""
    try:
        for source in range(part, len(sources), parts):
            mine += sources.documents(source, items)
    except DataError as error:
        problem = str(error)
    outcomes: list[Any] = [(mine, problem)]
    if parts > 1:
        outcomes *= dist.get_world_size()
        dist.all_gather_object(outcomes, (mine, problem))
    if problems := list(dict.fromkeys(told for _, told in outcomes if told)):
        raise DataError("; ".join(problems))
    by_stream = {found.stream: found for documents, _ in outcomes for found in documents}
    return [by_stream[stream] for stream in sorted(by_stream)]


class _Passes:
    """Batches that are assembled once and kept, as long as what encoders read of them takes little memory; those beyond
    are prepared whenever they are needed."""

    def __init__(self, make: Callable[..., Batch]) -> None:
        self._make = make
        self._room = _KEPT

    def add(self, number: int, rows: _Rows) -> Callable[[], Batch]:
        """A call that gives the batch of the rows of the pass with this number. What heads draw is the same in every
        validation."""
        digests = [row_digest(number * len(rows) + place, ()) for place in range(len(rows))]
        make = partial(self._make, rows, digests=digests)
        if self._room < 0 and any(document.items or document.made for row in rows for _, document in row):
            return make
        batch = make()
        self._room -= sum(one.nbytes for by_name in (batch.items, batch.made) for one in by_name.values())
        return lambda: batch


class ValidationSet:
    """The passes over some held-out documents.

    Args:
        documents: of each stream, the same on every rank.
        streams: (group, source) or (group, source, direction) of every stream that is trained on.
        context: positions of a row.
        pad: id that fills what documents leave of a row.
        windows: of attention, where it runs on CUDA.
        codecs: have the encoders and heads, where there are any.
    """

    def __init__(
        self,
        documents: Sequence[HeldOutDocuments],
        streams: Sequence[tuple[str, ...]],
        vocabulary: Vocabulary,
        share: Share,
        *,
        context: int,
        pad: int,
        windows: Sequence[int] = (),
        codecs: Codecs | None = None,
    ) -> None:
        self._share = share
        self._streams = tuple(streams)
        self._kinds = target_kinds(vocabulary)
        self._heads = tuple(codecs.makers) if codecs is not None else ()
        flat = [(of.stream, document) for of in documents for document in of.documents]
        self.documents = len(flat)
        self.positions = sum(len(document) - 1 for _, document in flat)
        """Positions that hold a document."""
        self.skipped = {"/".join(streams[of.stream]): dict(of.skipped) for of in documents if of.skipped}
        """Held-out records that cannot be used, by stream and reason."""
        packed: list[list[tuple[int, Rendered]]] = [
            [flat[number] for number in row] for row in pack([len(document) - 1 for _, document in flat], context)
        ]
        rows = min(len(packed), max(1, _POSITIONS // context))
        packed += [[] for _ in range(-len(packed) % rows)]
        passes = [packed[start : start + rows] for start in range(0, len(packed), rows)]
        made = [self._made(chosen) for chosen in passes]
        self.items = {name: sum(len(of_pass[name]) for of_pass in made) for name in self._heads}
        """Items that heads learn, by modality."""
        self._length = rows * context
        most = max(sum(map(len, of_pass.values())) for of_pass in made)
        self._cells = np.full((len(passes), self._length + most), -1, np.int32)
        for number, (chosen, of_pass) in enumerate(zip(passes, made, strict=True)):
            for row, documents_of_row in enumerate(chosen):
                self._note(self._cells[number, row * context :], documents_of_row, vocabulary)
            items = [cell for name in self._heads for cell in of_pass[name]]
            self._cells[number, self._length : self._length + len(items)] = items
        last = len(passes) - 1
        # a rank without a pass of its own in the last turn takes part in it with another's, which is not counted
        turns = range(share.part, -(-len(passes) // share.parts) * share.parts, share.parts)
        assembled = _Passes(partial(assemble, context=context, pad=pad, windows=windows, codecs=codecs))
        self._own = [(turn, assembled.add(min(turn, last), passes[min(turn, last)])) for turn in turns]
        """This rank's passes by their numbers; every rank has equally many."""

    @property
    def names(self) -> list[str]:
        """Of the figures."""
        return list(self.figures(np.zeros_like(self._cells, np.float32)))

    @property
    def described(self) -> str:
        """In a line."""
        skipped = sum(sum(counts.values()) for counts in self.skipped.values())
        made = "".join(f", {count:,} `{name}` for its head" for name, count in self.items.items() if count)
        return f"validation on {self.documents:,} held-out documents, {self.positions:,} positions{made}" + (
            f"; {skipped:,} records cannot be used" if skipped else ""
        )

    def _made(self, rows: _Rows) -> dict[str, list[int]]:
        """By head, which (stream, kind) each item counts for, in the order in which a batch of these rows has them."""
        cells: dict[str, list[int]] = {name: [] for name in self._heads}
        for stream, document in chain.from_iterable(rows):
            for one in document.made:
                if one.end < len(document):  # the last token is no input
                    kind = len(self._kinds) + self._heads.index(one.modality)
                    cells[one.modality].append(stream * self._every + kind)
        return cells

    @property
    def _every(self) -> int:
        """Kinds of targets, and heads."""
        return len(self._kinds) + len(self._heads)

    def _note(self, cells: npt.NDArray[np.int32], row: Sequence[tuple[int, Rendered]], vocabulary: Vocabulary) -> None:
        """Writes down for the targets of a row which (stream, kind) each counts for; -1 where it does not count."""
        at = 0
        for stream, document in row:
            kind = vocabulary.block_of[document.tokens[1:]]
            if document.controls:
                said = document.control_numbers()[1:]
                kind = np.where(said > 0, len(vocabulary.blocks) - 1 + said, kind)
            stop = at + len(kind)
            cells[at:stop] = np.where(document.weights[1:] > 0, stream * self._every + kind, -1)
            at = stop

    def losses(self, run: Callable[[Batch], PassLosses], device: torch.device) -> npt.NDArray[np.float32]:
        """Cross-entropies of all targets, and behind them losses of what heads learn, float32 `[P, T + M]`, on every
        rank. A collective call where there are several.

        Args:
            run: losses of a batch; called equally often on every rank.
        """
        found = torch.zeros(self._cells.shape)
        # brought to the CPU at the end, so that a GPU is not waited for after every pass
        passes = [(number, self._flat(run, batch().to(device))) for number, batch in self._own]
        for number, losses in passes:
            if self._share.counts and number < len(found):
                found[number, : len(losses)] = losses.cpu()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)  # exact: each is 0 on all ranks but one
        return found.numpy()

    def _flat(self, run: Callable[[Batch], PassLosses], batch: Batch) -> Tensor:
        """Float32 `[T + items]` of a batch."""
        losses = run(batch)
        items = [losses.heads[name] for name in self._heads if not batch.made[name].dummy]
        return torch.cat([losses.nll.detach().float().flatten(), *items])

    def figures(self, losses: npt.NDArray[np.float32]) -> dict[str, float]:
        """Mean cross-entropies of `losses` by what they are of, not weighted: `loss`, `loss/GROUP`,
        `loss/GROUP/SOURCE`, `loss/GROUP/SOURCE/DIRECTION`; `modality/text`, `modality/special` (tokens that open and
        close spans), `modality/NAME`, `modality/NAME/codebook0` and so on; `modality/control`, `modality/control/NAME`
        of control tokens; `heads/NAME`, means over the items that a head learns."""
        cells = self._cells.ravel()
        counted = cells >= 0
        size = (len(self._streams), self._every)
        # added up one after the other, in the order of the passes
        sums = np.bincount(cells[counted], losses.ravel()[counted].astype(np.float64), size[0] * size[1]).reshape(size)
        counts = np.bincount(cells[counted], minlength=size[0] * size[1]).reshape(size)
        figures: dict[str, tuple[float, int]] = {}

        def add(name: str, total: float, count: int) -> None:
            before = figures.get(name, (0.0, 0))
            figures[name] = before[0] + total, before[1] + count

        tokens = slice(len(self._kinds))
        for stream, path in enumerate(self._streams):
            for depth in range(len(path) + 1):
                of_stream = float(sums[stream, tokens].sum()), int(counts[stream, tokens].sum())
                add("/".join(("loss", *path[:depth])), *of_stream)
        for block, name in enumerate(self._kinds):
            for part in dict.fromkeys((name.split("/")[0], name)):
                add(f"modality/{part}", float(sums[:, block].sum()), int(counts[:, block].sum()))
        for head, name in enumerate(self._heads, len(self._kinds)):
            add(f"{HEADS}/{name}", float(sums[:, head].sum()), int(counts[:, head].sum()))
        return {name: total / count for name, (total, count) in figures.items() if count}
