"""What a stage starts from, as the teacher of documents that are to be as probable as they were before."""

from __future__ import annotations

import torch

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.batch import Batch
from mio.core.model.lora import freeze_parameters
from mio.core.model.loss import SoftTargets
from mio.core.model.parallel import head_part
from mio.core.model.transformer import Transformer


def frozen_copy(config: TransformerConfig, rows: int, precision: str) -> Transformer:
    """A transformer on the meta device that is not trained. It has no networks of plugins: documents with media that
    these read or make are not taught."""
    with torch.device("meta"):
        transformer = Transformer(config, rows)
    freeze_parameters(transformer, [name for name, _ in transformer.named_parameters()], precision)
    return transformer.eval()


class Teacher:
    """Gives probabilities of the next token in the documents that a batch marks (see `mio.core.data.taught`).

    Not a module, so that its weights are neither the student's parameters nor in its checkpoints.

    Args:
        transformer: with its weights, spread like the student.
        known: ids that it has learnt.
        share: of its probabilities in what is learnt.
    """

    def __init__(self, transformer: Transformer, known: int, share: float) -> None:
        self.transformer = transformer
        self.known = known
        self.share = share

    @torch.no_grad()
    def soft_targets(self, batch: Batch) -> SoftTargets:
        """Of a batch that marks documents."""
        taught = batch.taught
        assert taught is not None
        output = self.transformer(taught.row(batch.tokens), taught.row(batch.positions), taught.mask)
        head, bias, _, _ = head_part(self.transformer)
        return SoftTargets(output.hidden[0], head, bias, self.known, taught.place.flatten(), self.share)
