"""Validation while a stage trains: every so many steps all ranks look at the same held-out documents.

Nothing of the training shows it: it comes between two steps, leaves gradients, optimizer, figures and random numbers
alone, and gives up what it gathered of the weights. It is no validation loop of Lightning's, which would take data
loaders and samplers of its own, run before the first step, and count its batches among those of the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console

from mio.core.contract.loggers import Sample
from mio.core.data.batch import Batch
from mio.core.model.parallel import as_compiled_for_training, reshard
from mio.core.recipe.schema import ValidateConfig
from mio.core.training.average import averaged
from mio.core.training.losses import PassLosses
from mio.core.training.module import MioModule
from mio.core.training.validation_report import Report, table
from mio.core.training.validation_set import ValidationSet

PREFIX = "validation"
"""Of the names of all figures in logs."""


class Found(NamedTuple):
    """What a further look at the model found."""

    figures: Mapping[str, float]
    """By name, below `validation/`: `tasks/caption`."""
    samples: Sequence[Sample]
    """Answers of the model."""


Look = Callable[[MioModule, int, Callable[[str], None]], Found]
"""Called with the module, the step, and what is to be called with the phase now and then, at every validation, on every
rank, in no particular autocast and with gradients off. Rank 0's answer counts."""


def together(looks: Sequence[Look]) -> Look:
    """Several looks as one, one after the other."""

    def look(module: MioModule, step: int, heartbeat: Callable[[str], None]) -> Found:
        found = [one(module, step, heartbeat) for one in looks]
        figures = {name: value for one in found for name, value in one.figures.items()}
        return Found(figures, [sample for one in found for sample in one.samples])

    return look


class Validation(Callback):
    """Looks at the model every `config.every` steps and after the last one, before the step's checkpoint is saved.

    Args:
        documents: what the losses are computed on; None: nothing is.
        look: a further look, at tasks for example.
        errors: figures that it finds of which lower is better.
        console: prints a table, on rank 0.
        left_out: called with the seconds that it took, which were no training.
        heartbeat: called with the phase before every forward pass.
        logs: called with the figures, below `validation/`, and the step.
        sample_logs: called with the answers that `look` found, and the step.
    """

    def __init__(
        self,
        config: ValidateConfig,
        documents: ValidationSet | None,
        *,
        look: Look | None,
        errors: Collection[str] = (),
        console: Console,
        left_out: Callable[[float], None],
        heartbeat: Callable[[str], None],
        logs: Sequence[Callable[[dict[str, float], int], None]] = (),
        sample_logs: Sequence[Callable[[Sequence[Sample], int], None]] = (),
    ) -> None:
        self.config = config
        self.documents = documents
        self.look = look
        self.report = Report(errors)
        self.logs = logs
        self.sample_logs = sample_logs
        self._console = console
        self._left_out = left_out
        self._heartbeat = heartbeat

    @property
    def state_key(self) -> str:
        return "Validation"

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if not batch.ends_step:
            return
        step = trainer.global_step
        figure = None
        if step % self.config.every == 0 or step >= trainer.max_steps:
            assert isinstance(pl_module, MioModule)
            figures = self._validate(trainer, pl_module, step)
            figure = figures.get(self.config.best)
        trainer.strategy.figure = figure  # type: ignore[attr-defined]

    def _validate(self, trainer: Trainer, module: MioModule, step: int) -> dict[str, float]:
        """The figures of a step, on every rank. A collective call where there are several."""
        start = time.perf_counter()
        figures: dict[str, float] = {}
        samples: Sequence[Sample] = ()
        mode = module.transformer.training
        module.transformer.eval()
        looked_at = averaged(module) if self.config.average else nullcontext()
        with isolate_rng(), torch.no_grad(), looked_at:
            if self.documents is not None:
                compiled = as_compiled_for_training(module.device.type)
                with trainer.precision_plugin.val_step_context(), compiled:
                    losses = self.documents.losses(lambda batch: self._losses(module, batch), module.device)
                figures = self.documents.figures(losses)
            if self.look is not None:
                # its thread talks to other ranks through the process group, which a look may hide
                trainer.strategy.writer.wait()  # type: ignore[attr-defined]
                self._heartbeat("validation, looks")
                found = self.look(module, step, self._heartbeat)
                figures |= found.figures
                samples = found.samples
        reshard(module.transformer)
        module.transformer.train(mode)
        seconds = time.perf_counter() - start
        self._left_out(seconds)
        changes = self.report.add(figures, step, seconds)
        logged = {f"{PREFIX}/{name}": value for name, value in figures.items()}
        for log in self.logs:
            log({**logged, f"{PREFIX}/seconds": seconds}, step)
        for log_samples in self.sample_logs:
            log_samples([replace(sample, name=f"{PREFIX}/{sample.name}") for sample in samples], step)
        self._console.print(table(self.report, changes, seconds))
        return figures

    def _losses(self, module: MioModule, batch: Batch) -> PassLosses:
        self._heartbeat("validation, forward pass")
        return module.loss_sum(batch)

    def summary(self) -> dict[str, Any]:
        """For `summary.json`."""
        held_out = self.documents
        looked_at = (
            {"documents": held_out.documents, "positions": held_out.positions, "skipped": held_out.skipped}
            if held_out is not None
            else {}
        )
        return {**self.report.summary(), **looked_at}

    def state_dict(self) -> dict[str, Any]:
        return self.report.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.report.load_state_dict(state_dict)
