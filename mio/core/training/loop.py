"""The training of one stage: devices, checkpoints, guards and watchdog around Lightning's loop."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch.distributed.device_mesh import DeviceMesh

from mio.core.contract.plugins import PluginManager
from mio.core.data.journal import Journal
from mio.core.data.loader import MioDataModule, as_raised
from mio.core.distributed.devices import device_type
from mio.core.distributed.ranks import Ranks
from mio.core.errors import Interrupted, UserError
from mio.core.model.parallel import compile_blocks, compiles, data_parallel, device_mesh, parallelise, recompute
from mio.core.model.transformer import Transformer
from mio.core.recipe.distillation import distilled_groups
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import AVERAGE, BASE, CHECKPOINTS, JOURNAL, PLACES, SKIPPED
from mio.core.recipe.rules import names_untrained, pulls
from mio.core.recipe.schema import Recipe
from mio.core.runs.active import ActiveRun, run_folder
from mio.core.runs.adapters import known_ids, start_adapters
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.writing import Best, CheckpointWriter
from mio.core.runs.lock import Lock
from mio.core.runs.run import Run
from mio.core.runs.weights import SavedWeights, added_networks, save_weights, start_weights
from mio.core.terminal import Progress
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.bad_steps import BadSteps
from mio.core.training.callbacks import Checkpoints, DataCursor, Metrics, ShowProgress, StepTables
from mio.core.training.heap import keep_freed_memory
from mio.core.training.module import MioModule
from mio.core.training.run_log import RunLog
from mio.core.training.strategy import ManyDevices, OneDevice
from mio.core.training.teacher import Teacher, frozen_copy
from mio.core.training.validation import Look, Validation
from mio.core.training.validation_report import is_loss
from mio.core.training.validation_set import Share, ValidationSet, gathered
from mio.core.training.watchdog import Watchdog

_PATIENCE = timedelta(minutes=30)
"""How long ranks wait for each other's part of a checkpoint."""


@dataclass
class Trained:
    """What a training leaves behind, beside the weights in the run folder."""

    parameters: int
    rows: dict[str, Any]
    """Of embedding and head: how many were kept from the parent, new and absent."""
    metrics: dict[str, Any]
    codebooks: dict[str, Any]
    heads: dict[str, int]
    """Items that each has learnt from."""


@dataclass(frozen=True)
class Training:
    """The training of a stage, before it begins. `run` carries it out."""

    recipe: Recipe
    manager: PluginManager
    vocabulary: Vocabulary
    data: MioDataModule
    parent: Run | None
    """The run whose weights it starts from."""
    active: ActiveRun | None
    """The run in its folder, on rank 0."""
    log: RunLog | None
    """The run's log, on rank 0."""
    ranks: Ranks
    console: Console
    look: Look | None = None
    """What validations look at beside losses, on every rank."""
    errors: frozenset[str] = frozenset()
    """Figures that `look` finds of which lower is better."""

    def run(self, after: Callable[[Transformer], None]) -> Trained:
        """Runs the optimizer steps that are left and writes the weights, then calls `after` on every rank with what was
        trained, as it is spread, inside of the ranks' process group. Raises `Interrupted` after a signal."""
        quieten_lightning()
        if self.device.type == "cpu":
            keep_freed_memory()
        with self.ranks.process_group(self.recipe.name, self.device.type):
            with contextlib.ExitStack() as stack:
                trained, transformer = self._run(stack)
            gc.collect()  # what trained it: optimizer state, gradients, activations
            after(transformer)
            return trained

    @cached_property
    def folder(self) -> Path:
        return run_folder(self.recipe)

    @cached_property
    def device(self) -> torch.device:
        return training_device(self.recipe.runtime.accelerator, self.ranks)

    @cached_property
    def mesh(self) -> DeviceMesh | None:
        """None for one process without a CUDA device."""
        if self.ranks.size == 1 and self.device.type != "cuda":
            return None
        return device_mesh(self.recipe.runtime, self.ranks.size, self.ranks.local_size, self.device.type)

    def _run(self, stack: contextlib.ExitStack) -> tuple[Trained, Transformer]:
        """`stack` closes files and ends threads."""
        recipe, runtime, ranks, console = self.recipe, self.recipe.runtime, self.ranks, self.console
        rows: dict[str, Any] = {}
        module = self._module(rows)
        parameters = sum(p.numel() for p in module.parameters())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        console.print(
            f"{parameters / 1e6:.2f} M parameters"
            + (f", {trained / 1e6:.3g} M of them trained" if recipe.train.lora.rank else "")
            + f", {self.vocabulary.size} ids, {recipe.train.steps} steps of "
            f"{recipe.train.rows} rows x {recipe.data.packing.context} tokens"
            + (f" on {ranks.size} devices" if ranks.size > 1 else "")
        )
        tables, metrics = None, Metrics(runtime.log_every, self.data.shares)
        if self.active is not None and self.log is not None:
            tables = StepTables(self.active, Journal(self.folder / JOURNAL), self.log)
            metrics.logs = (self.log.add,)
            stack.callback(tables.journal.close)
        checkpoints = Checkpoints(self.folder / CHECKPOINTS, runtime.checkpoint_every, tables)
        places, patience, limit = self.folder / PLACES, runtime.stalled_after, runtime.abort_after
        watchdog = Watchdog(places, ranks.rank, ranks.size, patience, limit, console.print)
        stack.callback(watchdog.stop)
        validation = self._validation(metrics, watchdog)
        progress = stack.enter_context(Progress(console, recipe.name, recipe.train.steps, "steps"))
        shown = [ShowProgress(progress, metrics)] if ranks.first else []
        validations = [validation] if validation else []
        trainer = self._trainer([DataCursor(), metrics, *validations, checkpoints, watchdog, *shown])
        group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE) if ranks.size > 1 else None
        best = recipe.validate.best
        writer = CheckpointWriter(
            self.folder / CHECKPOINTS,
            group,
            attempt=ranks.attempt,
            keep_last=runtime.keep_last,
            keep_best=runtime.keep_best,
            best=Best(best, not (is_loss(best) or best in self.errors)) if validation else None,
            run=self.active.lock.run if self.active else "",
        )
        trainer.strategy.writer = writer  # type: ignore[attr-defined]
        resumed = latest(self.folder / CHECKPOINTS)
        if resumed is not None:
            ranks.on_first(partial(tables.check, resumed, console.print) if tables else lambda: None)
            console.print(f"going on from {resumed}")
        with checkpoints.catching_signals():
            try:
                trainer.fit(module, datamodule=self.data, ckpt_path=resumed, weights_only=True)
            except UserError as error:
                raise as_raised(error) from error
            writer.begin()  # where no step was left
            writer.wait()
            checkpoints.agree()
        if checkpoints.interrupted:
            raise Interrupted(
                f"stopped by {checkpoints.interrupted} after step {trainer.global_step} of {recipe.train.steps}; "
                "the same command goes on from there"
            )
        module.loss_metrics.gather()
        if self.active is not None:
            self.active.check()
        save_weights(module.transformer, self.folder, ranks.first)
        if module.average is not None:
            module.average.exchange()
            save_weights(module.transformer, self.folder, ranks.first, AVERAGE)
            if not recipe.evaluate.average:
                module.average.exchange()
        summary = {
            "train_seconds": round(metrics.seconds, 2),
            "tokens_per_second": round(metrics.tokens / max(metrics.seconds, 1e-9), 1),
            "skipped_steps": module.guard.report(),
        }
        if validation:
            summary["validation"] = validation.summary()
        meter = module.loss_metrics
        shares = meter.codebook_frequencies()
        codebooks = {name: {**use, "shares": shares[name]} for name, use in meter.codebook_usage().items()}
        return Trained(parameters, rows, summary, codebooks, meter.items_learnt()), module.transformer

    def _module(self, rows: dict[str, Any]) -> MioModule:
        """The module, on the meta device until Lightning sets it up; `rows` is filled then (see `Trained`)."""
        recipe, runtime, mesh = self.recipe, self.recipe.runtime, self.mesh

        def place(transformer: Transformer) -> None:
            if mesh is not None:
                parallelise(transformer, mesh, runtime, recipe.train.precision)
            else:
                recompute(transformer, runtime.activation_checkpointing)
                if compiles(runtime, self.device.type):
                    compile_blocks(transformer, self.device.type)
            transformer.to_empty(device=self.device)

        def spread(transformer: Transformer) -> None:
            place(transformer)
            if recipe.train.lora.rank:
                rows.update(start_adapters(transformer, self.folder, self.vocabulary, recipe.seed))
            elif self.parent is not None:
                rows.update(start_weights(transformer, self.vocabulary, self.parent, recipe.seed))
            else:
                transformer.reset_parameters(recipe.seed)
            optimizer = recipe.train.optimizer
            if self.parent is not None and (distils or pulls(optimizer) or names_untrained(optimizer)):
                module.start = Lock.read(self.parent.folder).run
                module.added = added_networks(self.parent, [name for name, _ in transformer.named_parameters()])
            if distils:
                assert self.parent is not None
                teacher = frozen_copy(thought, self.vocabulary.rows, recipe.train.precision)
                place(teacher)
                start_weights(teacher, self.vocabulary, self.parent, recipe.seed)
                share = recipe.train.distillation.share
                module.teacher = Teacher(teacher, self.parent.stored_vocabulary.size, share)

        model = thought = transformer_config(recipe, self.manager)
        if distils := bool(distilled_groups(recipe)):
            assert self.parent is not None
            # what the stage changes of how the same weights compute, windows for one, they were not trained with
            thought = transformer_config(self.parent.recipe, self.manager)
        known = self.parent.stored_vocabulary.size if self.parent is not None else 0
        self.data.known = known
        if recipe.train.lora.rank:  # what it adapts lies in its own folder
            known = known_ids(SavedWeights(self.folder / BASE))
        with torch.device("meta"):
            streams, networks = self.data.stream_names, self.data.codecs.networks
            module = MioModule(model, self.vocabulary, recipe.train, streams, spread, known, networks)
        windows = dict.fromkeys((*model.windows, *thought.windows))
        self.data.windows = tuple(windows) if self.device.type == "cuda" else ()
        if mesh is not None:
            module.replicas = data_parallel(mesh)[1]
            module.statistics.counts = module.loss_metrics.counts = mesh["tensor"].get_local_rank() == 0
        bad_steps = BadSteps(module.guard, self.data.describe, self.folder / SKIPPED, self.ranks, self.console)
        module.on_bad_step, module.tell = bad_steps.report, self.console.print
        return module

    def _validation(self, metrics: Metrics, watchdog: Watchdog) -> Validation | None:
        """What looks at the model while it trains; None without `validate`. A collective call where there are several
        ranks. Raises `DataError` where there is nothing to look at, `UserError` where nothing is of `validate.best`."""
        recipe, held_out, mesh = self.recipe, self.data.held_out, self.mesh
        if held_out is None:
            return None
        documents = None
        if len(held_out):
            part, parts = data_parallel(mesh) if mesh is not None else (0, 1)
            counts = mesh is None or mesh["tensor"].get_local_rank() == 0
            documents = ValidationSet(
                gathered(held_out, recipe.validate.items, self.ranks.rank, self.ranks.size),
                [tuple(filter(None, stream.share[:3])) for stream in self.data.streams],
                self.vocabulary,
                Share(part, parts, counts),
                context=recipe.data.packing.context,
                pad=self.data.pad,
                windows=self.data.windows,
                codecs=self.data.codecs,
            )
            self.console.print(documents.described)
            best = recipe.validate.best
            if recipe.runtime.keep_best and is_loss(best) and best not in documents.names:
                raise UserError(
                    f"`validate.best` is `{best}`, but the held-out documents have no targets of it; name one of "
                    f"{', '.join(documents.names)}"
                )
        return Validation(
            recipe.validate,
            documents,
            look=self.look,
            errors=self.errors,
            console=self.console,
            left_out=metrics.leave_out,
            heartbeat=watchdog.heartbeat,
            logs=metrics.logs,
            sample_logs=(self.log.add_samples,) if self.log is not None else (),
        )

    def _trainer(self, callbacks: list[Callback]) -> Trainer:
        try:
            trainer = Trainer(
                default_root_dir=self.folder,
                accelerator=self.device.type,
                strategy=ManyDevices(self.ranks.size) if self.mesh is not None else OneDevice(device=self.device),
                devices=self.ranks.local_size,
                num_nodes=self.ranks.nodes,
                precision="bf16-mixed" if self.recipe.train.precision == "bf16" else "32-true",
                max_steps=self.recipe.train.steps,
                max_epochs=-1,
                accumulate_grad_batches=self.data.shape.micro_batches,
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"`runtime` does not fit this machine: {error}") from error
        # Lightning would answer SIGTERM with a collective from inside the handler, wherever the program is: ranks then
        # wait for each other for ever. `Checkpoints` has the signals.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        return trainer


def training_device(accelerator: str, ranks: Ranks) -> torch.device:
    """The device of this rank."""
    kind = device_type(accelerator, trains=True)
    return torch.device(kind, ranks.local_rank) if kind == "cuda" else torch.device(kind)


def quieten_lightning() -> None:
    """Silences what Lightning says about things that mio decides: devices, data sets and how they are resumed."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Your `IterableDataset` has `__len__`",
        "The '.*dataloader' does not have many workers",
        "You're resuming from a checkpoint that ended before the epoch ended",
        ".*treespec, LeafSpec.*",
        "Found .* module\\(s\\) in eval mode",  # encoders (see `Transformer.train`)
    ):
        warnings.filterwarnings("ignore", message)
