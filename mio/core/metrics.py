"""Running figures of training: loss per leaf of the mixture and per vocabulary block, and the use of codebooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mio.core.data.batch import Batch
from mio.core.vocabulary import Vocabulary


class LossMeter:
    """Sums the cross-entropy of supervised tokens between two readings.

    Means are unweighted: they are the loss a reader expects, whatever weights the recipe trains with.
    """

    def __init__(self, vocabulary: Vocabulary, leaves: Sequence[str]) -> None:
        self.leaves = tuple(leaves)
        self.blocks = tuple(block.name if block.kind == "codes" else block.kind for block in vocabulary.blocks)
        self._codebooks = [block for block in vocabulary.blocks if block.kind == "codes" and not block.absent]
        self._block_of = torch.as_tensor(vocabulary.block_of, dtype=torch.int64)
        self._rows = vocabulary.rows
        self._seen = torch.zeros(self._rows, dtype=torch.int64)
        self._reset()

    def _reset(self) -> None:
        self._leaf = torch.zeros(2, len(self.leaves), dtype=torch.float64)
        self._block = torch.zeros(2, len(self.blocks), dtype=torch.float64)

    @torch.no_grad()
    def update(self, batch: Batch, nll: Tensor) -> None:
        """Adds a batch; `nll` is float32 `[B, L]`."""
        chosen = batch.weights > 0
        loss = nll[chosen].double().cpu()
        targets = batch.targets[chosen].cpu()
        for sums, index in ((self._leaf, batch.leaf[chosen].long().cpu()), (self._block, self._block_of[targets])):
            sums[0].index_add_(0, index, loss)
            sums[1].index_add_(0, index, torch.ones_like(loss))
        self._seen += torch.bincount(targets, minlength=self._rows)

    def read(self) -> dict[str, float]:
        """Mean losses since the last reading: `loss`, `loss/GROUP`, `loss/BLOCK`; then starts anew."""
        figures: dict[str, float] = {}
        total, count = self._leaf.sum(dim=1).tolist()
        if count:
            figures["loss"] = total / count
        named = list(zip([leaf.split("/", 1)[0] for leaf in self.leaves], self._leaf.T.tolist(), strict=True))
        named += list(zip(self.blocks, self._block.T.tolist(), strict=True))
        sums: dict[str, list[float]] = {}
        for name, (loss, tokens) in named:
            entry = sums.setdefault(name, [0.0, 0.0])
            entry[0] += loss
            entry[1] += tokens
        figures.update({f"loss/{name}": loss / tokens for name, (loss, tokens) in sums.items() if tokens})
        self._reset()
        return figures

    def codebook_usage(self) -> dict[str, dict[str, float]]:
        """Per codebook, over the whole run: tokens seen, share of codes that occurred, and perplexity of their use."""
        report = {}
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

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._seen = state["seen"].clone()
