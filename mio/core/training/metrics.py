"""Metrics of training: loss per stream of the mixture, per vocabulary block and control token, and of each head, and
the use of codebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from mio.core.contract.controls import CONTROL
from mio.core.data.batch import Batch
from mio.core.tokens.vocabulary import Vocabulary

HEADS = "heads"
"""Before the modality in the name of what a head's loss is logged as."""
_GROUPS = 64
"""Most shares of codes that are told of a codebook."""


def target_kinds(vocabulary: Vocabulary) -> tuple[str, ...]:
    """What a target may be: of a block of the vocabulary, or of a control token, whatever ids that consists of."""
    blocks = (block.name if block.kind == "codes" else block.kind for block in vocabulary.blocks)
    return (*blocks, *(f"{CONTROL}/{name}" for name in vocabulary.controls.tokens))


class LossMetrics:
    """Sums the cross-entropy of supervised tokens, and the losses of what heads learn, between two readings.

    Means are unweighted: they are the loss a reader expects, whatever weights the recipe trains with.
    """

    def __init__(self, vocabulary: Vocabulary, streams: Sequence[str], heads: Sequence[str] = ()) -> None:
        """`heads` are the modalities that are made by one."""
        self.streams = tuple(streams)
        self.heads = tuple(heads)
        self.kinds = target_kinds(vocabulary)
        self._controls = len(vocabulary.blocks)
        """Number of the first control token among the kinds."""
        self._codebooks = [block for block in vocabulary.blocks if block.kind == "codes" and not block.absent]
        self._block_of = torch.as_tensor(vocabulary.block_of, dtype=torch.int64, device="cpu")
        self._rows = vocabulary.rows
        self.counts = True
        """Whether this rank's rows are counted: of the ranks of one tensor-parallel group, one's are."""
        self._seen = torch.zeros(self._rows, dtype=torch.int64, device="cpu")
        self._stream = torch.zeros(2, len(self.streams), dtype=torch.float64, device="cpu")
        self._block = torch.zeros(2, len(self.kinds), dtype=torch.float64, device="cpu")
        self._heads = torch.zeros(3, len(self.heads), dtype=torch.float64, device="cpu")
        """Sum of the losses, items, and items of the whole run."""

    @torch.no_grad()
    def update(self, batch: Batch, nll: Tensor, heads: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        """Adds a batch; `nll` is float32 `[B, L]`, `heads` have the losses `[N]` of the items of their modalities."""
        if self._seen.device != nll.device:  # of every rank: what is summed over them lies on one kind of device
            self._seen, self._stream, self._block, self._heads, self._block_of = (
                tensor.to(nll.device) for tensor in (self._seen, self._stream, self._block, self._heads, self._block_of)
            )
        if not self.counts:
            return
        for number, name in enumerate(self.heads):
            if name in heads and not batch.made[name].dummy:
                learnt = (batch.made[name].weights > 0) & heads[name].isfinite()
                self._heads[0, number] += torch.where(learnt, heads[name], 0).double().sum()
                self._heads[1:, number] += learnt.sum()
        # every position is added, with 0 where it does not count: choosing some would make a GPU wait
        # and so are those of a step that is skipped as they are not finite
        counted = ((batch.weights > 0) & nll.isfinite()).flatten()
        ones = counted.double()
        loss = torch.where(counted, nll.flatten(), 0).double()
        targets = batch.targets.flatten()
        stream = batch.stream.flatten().clamp(min=0)
        of = self._block_of[targets].clamp(min=0)
        if batch.controls.numel():
            said = batch.controls.flatten().long()
            of = torch.where(said > 0, self._controls - 1 + said, of)
        for sums, index in ((self._stream, stream), (self._block, of)):
            sums[0].index_add_(0, index, loss)
            sums[1].index_add_(0, index, ones)
        self._seen.index_add_(0, targets, counted.long())

    def gather(self) -> None:
        """Adds up on rank 0 what the ranks have counted. A collective call where there are several."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for counted in self.tensors().values():
            torch.distributed.all_reduce(counted)
            if torch.distributed.get_rank():
                counted.zero_()

    def read(self) -> dict[str, float]:
        """Mean losses since the last reading: `loss`, `loss/GROUP`; by what the tokens are, `modality/NAME`,
        `modality/NAME/codebook0` and so on, `modality/control` and `modality/control/NAME`; of the items that a head
        learns, `heads/NAME`, and their number, `heads/NAME/items`. Then starts anew. Of this rank, hence of all of them
        on rank 0 after `gather`."""
        metrics: dict[str, float] = {}
        total, count = self._stream.sum(dim=1).tolist()
        if count:
            metrics["loss"] = total / count
        sums: dict[str, list[float]] = {}

        def add(name: str, loss: float, tokens: float) -> None:
            entry = sums.setdefault(name, [0.0, 0.0])
            entry[0] += loss
            entry[1] += tokens

        for stream, (loss, tokens) in zip(self.streams, self._stream.T.tolist(), strict=True):
            add(f"loss/{stream.split('/', 1)[0]}", loss, tokens)
        for block, (loss, tokens) in zip(self.kinds, self._block.T.tolist(), strict=True):
            for name in dict.fromkeys((block.split("/", 1)[0], block)):
                add(f"modality/{name}", loss, tokens)
        metrics.update({name: loss / tokens for name, (loss, tokens) in sums.items() if tokens})
        for name, (loss, items, _) in zip(self.heads, self._heads.T.tolist(), strict=True):
            if items:
                metrics[f"{HEADS}/{name}"] = loss / items
                metrics[f"{HEADS}/{name}/items"] = items
        self._stream.zero_()
        self._block.zero_()
        self._heads[:2] = 0
        return metrics

    def items_learnt(self) -> dict[str, int]:
        """How many items each head has learnt from, over the whole run."""
        return {name: int(count) for name, count in zip(self.heads, self._heads[2].tolist(), strict=True)}

    def codebook_usage(self) -> dict[str, dict[str, float]]:
        """Per codebook, over the whole run: tokens seen, share of codes that occurred, and perplexity of their use."""
        report: dict[str, dict[str, float]] = {}
        for block in self._codebooks:
            counts = self._seen[block.start : block.start + block.size].double()
            tokens = counts.sum()
            if tokens:
                shares = counts / tokens
                entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
                report[block.name] = {
                    "tokens": int(tokens),
                    "used": round(float((counts > 0).double().mean()), 4),
                    "perplexity": round(float(entropy.exp()), 2),
                }
        return report

    def codebook_frequencies(self) -> dict[str, list[float]]:
        """Per codebook, over the whole run: shares of the codes, the most frequent first; of a large codebook the means
        of neighbours in that order, at most 64 of them."""
        found = {}
        for block in self._codebooks:
            counts = self._seen[block.start : block.start + block.size].double().sort(descending=True).values
            if total := float(counts.sum()):
                groups = counts.tensor_split(min(_GROUPS, len(counts)))
                found[block.name] = [float(f"{float(group.mean()) / total:.4g}") for group in groups]
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All that is counted, to be saved and filled in place."""
        tensors = {"seen": self._seen, "leaf": self._stream, "block": self._block}
        return {**tensors, "heads": self._heads} if self.heads else tensors
