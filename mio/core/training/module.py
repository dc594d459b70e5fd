"""The LightningModule: owns the transformer and the vocabulary, and turns batches into a loss.

Shapes: B rows, L positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.data.batch import Batch
from mio.core.errors import UserError, VocabularyError
from mio.core.model.expert_parallel import empty_gradients
from mio.core.model.lora import adapt
from mio.core.model.loss import linear_cross_entropy
from mio.core.model.networks import buffers
from mio.core.model.parallel import head_part, reshard, synchronise
from mio.core.model.transformer import Transformer
from mio.core.recipe.rules import pulls
from mio.core.recipe.schema import TrainConfig
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.average import WeightAverage
from mio.core.training.gradients import RowMask, drop_gradients, gradient_norm, scale_gradients
from mio.core.training.guards import SKIP, STOP, Guard
from mio.core.training.losses import PassLosses
from mio.core.training.metrics import LossMetrics
from mio.core.training.optimizer import build_optimizer, freeze, row_masks
from mio.core.training.pull import Pull
from mio.core.training.schedule import Rate, Schedule, logged_rates
from mio.core.training.step_statistics import StepStatistics, StepTotals
from mio.core.training.teacher import Teacher


class MioModule(LightningModule):
    """Next-token prediction over one vocabulary.

    The loss of a step is the weighted mean of the cross-entropy over every supervised token of the step, however the
    step is cut into devices and micro batches: gradients are summed, and divided by the step's total weight just
    before they are clipped.

    Under `torch.device("meta")` nothing is allocated; `spread`, if given, is called with the transformer when training
    begins, to put it onto devices and give it its weights.
    """

    def __init__(
        self,
        model: TransformerConfig,
        vocabulary: Vocabulary,
        train: TrainConfig,
        streams: tuple[str, ...] = (),
        spread: Callable[[Transformer], None] | None = None,
        known: int | None = None,
        networks: Networks | None = None,
    ) -> None:
        """`known` is the number of ids that the stage starts with, None for all: later ones are `new` rows, of adapters
        and of rules. `networks` of plugins read and make media."""
        super().__init__()
        self.model_config = model
        self.train_config = train
        self.vocabulary = vocabulary
        self._known = vocabulary.size if known is None else known
        networks = networks or Networks()
        self.transformer = Transformer(model, vocabulary.rows, networks)
        if train.lora.rank:
            adapt(self.transformer, train, vocabulary, self._known)
        freeze(self.transformer, train.optimizer, vocabulary)
        self.loss_metrics = LossMetrics(vocabulary, streams, list(networks.heads))
        self.guard = Guard(train.guards)
        self.statistics = StepStatistics()
        self.replicas = 1
        """Ranks that see different rows."""
        self.totals: StepTotals | None = None
        """The last step over all ranks."""
        self.grad_norm = 0.0
        """Gradient norm of the last step, before clipping."""
        self.rates: dict[str, Rate] = {}
        """Learning rates that are logged."""
        self.average: WeightAverage | None = None
        """The average of the weights, if one is kept."""
        self.teacher: Teacher | None = None
        """What the stage starts from, where it teaches."""
        self.pull: Pull | None = None
        """Toward what the stage starts from, if there is one."""
        self.start = ""
        """Name of the training that made what the stage starts from, where that is needed until the end."""
        self.added: frozenset[str] = frozenset()
        """Networks of plugins that what the stage starts from does not have."""
        self.on_bad_step: Callable[[str, list[tuple[Batch, PassLosses]]], None] = _ignore
        """Called on every rank with the verdict on a step that the guard objects to, and its forward passes."""
        self.tell: Callable[[str], None] = _ignore
        """Called with what a user should know of what is trained."""
        self._spread = spread
        self._elements = 1
        self._skipped = False
        self._passes: list[tuple[Batch, PassLosses]] = []
        self._masks: list[RowMask] = []
        self._elsewhere: list[tuple[torch.nn.Parameter, Tensor]] = []

    def configure_model(self) -> None:
        """Puts the transformer onto its devices; Lightning calls this more than once."""
        if self._spread is not None:
            self._spread(self.transformer)
            self._spread = None

    def configure_optimizers(self) -> Any:
        """One optimizer by the recipe's rules, with the schedule of each group per optimizer step."""
        config = self.train_config.optimizer
        optimizer, schedules = build_optimizer(self.transformer, config, self.vocabulary)
        self.rates = logged_rates(schedules, config)
        if pulls(config):
            self.pull = Pull(self.transformer, optimizer.param_groups, self._known, self.added)
        self._elsewhere = empty_gradients(self.transformer)
        self._masks = row_masks(self.transformer, config, self.vocabulary, self._known)
        if self.train_config.average.kind != "none":
            self.average = WeightAverage(self.transformer, self.train_config.average, self.train_config.steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [self._factors(one) for one in schedules])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        untrained = next((mask.beside for mask in self._masks if mask.beside is not None), None)
        if untrained is not None:
            self.tell(f"rows that no stage has trained, which learn too: {int(untrained.sum()):,}")

    def _factors(self, schedule: Schedule) -> Callable[[int], float]:
        """A plain function: `LambdaLR` would save any other callable."""
        return lambda step: schedule.factor(step, self.train_config.steps)

    def loss_sum(self, batch: Batch, scale: float = 1.0) -> PassLosses:
        """The losses of a batch; their sum is multiplied by `scale`."""
        output = self.transformer(batch.tokens, batch.positions, batch.mask, items=batch.items, made=batch.made)
        weights = batch.weights * scale
        head, bias, group, first = head_part(self.transformer)
        soft = self.teacher.soft_targets(batch) if self.teacher is not None and batch.taught is not None else None
        total, nll = linear_cross_entropy(
            output.hidden.flatten(0, 1),
            head,
            batch.targets.flatten(),
            weights.flatten(),
            size=self.vocabulary.size,  # padding rows are never predicted
            group=group,
            offset=first,
            replaced=self.transformer.replaced_head_rows,
            bias=bias,
            soft=soft,
        )
        if self.teacher is not None:
            reshard(self.teacher.transformer)
        for name, loss in output.losses.items():
            total = total + (loss * batch.made[name].weights).sum() * scale
        # the auxiliary loss is a mean: it counts as much as the tokens that it stands beside
        total = total + output.auxiliary * weights.sum()
        heads = {name: loss.detach() for name, loss in output.losses.items()}
        return PassLosses(total, nll.view_as(batch.targets), heads)

    def training_step(self, batch: Batch, index: int) -> Tensor:  # noqa: ARG002
        self._elements = batch.weights.numel()
        synchronise(self.transformer, batch.ends_step)
        # The constant divisor keeps gradients near one until the exact division before clipping. Lightning divides by
        # the micro batches of a step, hence the factor.
        scale = self.trainer.accumulate_grad_batches / self._elements
        losses = self.loss_sum(batch, scale)
        self.statistics.add(batch, losses.total.detach() / scale)
        self._passes.append((batch, losses._replace(total=losses.total.detach())))
        self.loss_metrics.update(batch, losses.nll, losses.heads)
        return losses.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        """Sums the step up over the ranks."""
        self.totals = self.statistics.totals()
        for parameter, gradient in self._elsewhere:
            parameter.grad = gradient
        for mask in self._masks:
            mask.apply()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        gradient_clip_val: float | None = None,  # noqa: ARG002
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Turns summed gradients into those of the mean over all tokens of a step, clips them by the recipe's norm and
        keeps the norm for the log; takes the gradients of a harmful step away."""
        assert self.totals is not None
        # data parallelism averages gradients over the ranks: undo that together with the constant divisor
        factor = self._elements * self.replicas / max(self.totals.weight, 1e-8)
        self.grad_norm = factor * gradient_norm(self.parameters())
        verdict = self.guard.judge(self.totals.loss, self.grad_norm, self.totals.weight)
        if self.guard.reason:
            self.on_bad_step(verdict, self._passes)
        self._passes = []
        self._skipped = verdict in (SKIP, STOP)
        if self._skipped:
            drop_gradients(self.parameters())
            return
        clip = self.train_config.optimizer.clip
        if clip and self.grad_norm > clip:
            factor *= clip / self.grad_norm
        scale_gradients(self.parameters(), factor)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        if not self._skipped:
            self.after_step(self.trainer.optimizers[0], self.trainer.global_step)

    def after_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Pulls the weights toward the start and takes them into their average, after a step counted from 0."""
        if self.pull is not None:
            self.pull.apply(optimizer.param_groups)
        if self.average is not None:
            self.average.update(step)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint but the optimizer's, by name. Frozen weights lie beside the adapters' run."""
        state = self.transformer.state_dict(keep_vars=True) | buffers(self.transformer)
        state = {f"model.{name}": tensor for name, tensor in state.items() if name not in self.transformer.frozen}
        averages = self.average.tensors if self.average is not None else {}
        state |= {f"average.{name}": tensor for name, tensor in averages.items()}
        return state | {f"meter.{name}": tensor for name, tensor in self.loss_metrics.tensors().items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loss_metrics.gather()
        checkpoint["vocabulary"] = self.vocabulary.to_json()
        checkpoint["guard"] = self.guard.state_dict()
        if self.start:
            checkpoint["start"] = self.start
        if self.average is not None:
            checkpoint["averaged"] = self.average.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises `VocabularyError` when the checkpoint's vocabulary is another one, `UserError` when the start that is
        needed is."""
        if Vocabulary.from_json(checkpoint["vocabulary"]).fingerprint != self.vocabulary.fingerprint:
            raise VocabularyError(
                "the checkpoint was made with another vocabulary; plugins or their options changed during the run. "
                "Start a new run from its result (`start_from: RUN`), which migrates rows by name"
            )
        if self.start and checkpoint.get("start") != self.start:
            raise UserError(
                "what this run started from has been trained anew since, and `train.distillation`, `pull` or `rows: "
                "[untrained]` needs it as it was; restore it, or start a new run with another `name=`"
            )
        self.guard.load_state_dict(checkpoint["guard"])
        if self.average is not None:
            self.average.updates = checkpoint["averaged"]


def _ignore(*_: Any) -> None:
    """The default of what is called."""
