"""The LightningModule: owns the transformer and the vocabulary, and turns batches into a loss.

Shapes: B rows, L positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from mio.core.data.batch import Batch
from mio.core.errors import VocabularyError
from mio.core.loss import linear_cross_entropy
from mio.core.metrics import LossMeter
from mio.core.optimizer import build_optimizer, learning_rate, scale_gradients
from mio.core.schema import TrainConfig
from mio.core.transformer.attend import Documents
from mio.core.transformer.config import TransformerConfig
from mio.core.transformer.model import Transformer
from mio.core.vocabulary import Vocabulary


class MioModule(LightningModule):
    """Next-token prediction over one vocabulary.

    The loss of a step is the weighted mean of the cross-entropy over every supervised token of the step, however the
    step is cut into devices and micro batches: gradients are summed, and divided by the step's total weight just
    before they are clipped.
    """

    def __init__(
        self, model: TransformerConfig, vocabulary: Vocabulary, train: TrainConfig, leaves: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.model_config = model
        self.train_config = train
        self.vocabulary = vocabulary
        self.transformer = Transformer(model, vocabulary.rows)
        self.meter = LossMeter(vocabulary, leaves)
        self._weight: Tensor | float = 0.0
        self._elements = 1
        self.grad_norm = 0.0
        """Gradient norm of the last step, before clipping."""

    def configure_optimizers(self) -> Any:
        """One optimizer by the recipe's rules, with warm-up and cosine per optimizer step."""
        config = self.train_config.optimizer
        optimizer = build_optimizer(self.transformer, config, self.vocabulary)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(step, self.train_config.steps, config)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def loss_sum(self, batch: Batch, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Sum of scale x weight x cross-entropy over the batch, and the cross-entropy `[B, L]` float32, detached."""
        documents = Documents.from_lengths(batch.lengths, batch.tokens.shape[1]).to(batch.tokens.device)
        output = self.transformer(batch.tokens, batch.positions, documents)
        weights = batch.weights * scale
        total, nll = linear_cross_entropy(
            output.hidden.flatten(0, 1),
            self.transformer.head_weight,
            batch.targets.flatten(),
            weights.flatten(),
            size=self.vocabulary.size,  # padding rows are never predicted
        )
        # the auxiliary loss is a mean: it counts as much as the tokens that it stands beside
        return total + output.auxiliary * weights.sum(), nll.view_as(batch.targets)

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: ARG002
        self._elements = batch.weights.numel()
        # The constant divisor keeps gradients near one until the exact division before clipping. Lightning divides by
        # the micro batches of a step, hence the factor.
        total, nll = self.loss_sum(batch, self.trainer.accumulate_grad_batches / self._elements)
        self._weight = self._weight + batch.weights.sum()
        self.meter.update(batch, nll)
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        weight = torch.as_tensor(self._weight, dtype=torch.float32, device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(weight)
        # data parallel averages gradients over the ranks: undo that together with the constant divisor
        scale_gradients(self.parameters(), self._elements * self.trainer.world_size / weight.clamp(min=1e-8))
        self._weight = 0.0

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        gradient_clip_val: float | None = None,  # noqa: ARG002
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clips by the recipe's norm and keeps the norm for the log."""
        clip = self.train_config.optimizer.clip or float("inf")
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters(), clip))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vocabulary"] = self.vocabulary.to_json()
        checkpoint["meter"] = self.meter.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises `VocabularyError` when the checkpoint's vocabulary is another one."""
        if Vocabulary.from_json(checkpoint["vocabulary"]).fingerprint != self.vocabulary.fingerprint:
            raise VocabularyError(
                "the checkpoint was made with another vocabulary; plugins or their options changed during the run. "
                "Start a new run from its result (`start_from: RUN`), which migrates rows by name"
            )
        self.meter.load_state_dict(checkpoint["meter"])
