"""What happens around the training steps: metrics, progress, checkpoints, interruption."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from mio.core.data.batch import Batch
from mio.core.data.journal import Journal, JournalEntry
from mio.core.model.flops import flops_per_token, peak_flops
from mio.core.recipe.places import SKIPPED
from mio.core.runs.active import ActiveRun
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.terminal import Progress
from mio.core.training.bad_steps import forget_after
from mio.core.training.metrics import HEADS
from mio.core.training.module import MioModule
from mio.core.training.run_log import RunLog


class Metrics(Callback):
    """Logs losses, speed and mixture every `every` optimizer steps.

    `shares` gives the mixture achieved so far and its targets, by group; `logs` are called with the metrics and the
    step.
    """

    def __init__(
        self,
        every: int,
        shares: Callable[[], dict[str, tuple[float, float]]],
        logs: Sequence[Callable[[dict[str, float], int], None]] = (),
    ) -> None:
        self.every = every
        self.shares = shares
        self.logs = logs
        self.seconds = 0.0
        """Wall seconds of training, over all parts of an interrupted run."""
        self.tokens = 0
        """Document tokens trained on, by all ranks."""
        self.positions = 0
        self.latest: dict[str, float] = {}
        """The metrics logged last."""
        self._since = (0.0, 0)
        self._documents = 0
        self._peak = 0.0
        self._clock = 0.0

    @property
    def state_key(self) -> str:
        return "Figures"  # as in the checkpoints of earlier versions

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MioModule)
        self._peak = peak_flops(pl_module.device, pl_module.train_config.precision)
        self._since = (self.seconds, self.tokens)
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        assert isinstance(pl_module, MioModule)
        assert pl_module.totals is not None
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        self.tokens += pl_module.totals.tokens
        self.positions += pl_module.totals.positions
        self._documents += pl_module.totals.documents
        if trainer.global_step % self.every == 0:
            self._log(trainer, pl_module)

    def leave_out(self, seconds: float) -> None:
        """Takes seconds since the last step out of those that the next one is thought to last: they are no training."""
        self._clock += seconds

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, MioModule)
        module.loss_metrics.gather()
        metrics = module.loss_metrics.read()
        seconds, tokens = self.seconds - self._since[0], self.tokens - self._since[1]
        self._since = (self.seconds, self.tokens)
        speed = tokens / max(seconds, 1e-9)
        mean_length = self.tokens / max(1, self._documents)
        frozen = module.train_config.lora.rank > 0
        work = flops_per_token(module.model_config, module.vocabulary.rows, mean_length, frozen)
        metrics["tokens_per_second"] = speed
        metrics["mfu"] = speed * work / (self._peak * trainer.world_size) if self._peak else 0.0
        metrics["packing/fill"] = self.tokens / max(1, self.positions)
        metrics["grad_norm"] = module.grad_norm
        for name, count in module.guard.report().items():
            metrics[f"guard/{name}"] = count
        for name, rate in module.rates.items():
            metrics[name] = rate.at(trainer.global_step, module.train_config.steps)
        for group, (target, achieved) in self.shares().items():
            metrics[f"mixture/{group}/target"] = target
            metrics[f"mixture/{group}/achieved"] = achieved
        for name, use in module.loss_metrics.codebook_usage().items():
            metrics[f"codebook/{name}/used"] = use["used"]
            metrics[f"codebook/{name}/perplexity"] = use["perplexity"]
        self.latest = metrics
        for log in self.logs:
            log(metrics, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "tokens": self.tokens, "positions": self.positions, "docs": self._documents}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.tokens = state_dict["seconds"], state_dict["tokens"]
        self.positions, self._documents = state_dict["positions"], state_dict["docs"]


class ShowProgress(Callback):
    """Progress of the steps with the latest losses, and a line at the end; on rank 0."""

    def __init__(self, progress: Progress, metrics: Metrics) -> None:
        self.progress = progress
        self.metrics = metrics
        self._heads: tuple[str, ...] = ()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MioModule)
        self._heads = pl_module.loss_metrics.heads
        self.progress.skip(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        latest = self.metrics.latest
        shown = [("loss", "loss"), *((name, f"{HEADS}/{name}") for name in self._heads)]
        detail = ", ".join(f"{word} {latest[name]:.3f}" for word, name in shown if name in latest)
        self.progress.tick(detail)
        if trainer.global_step >= trainer.max_steps:
            self.progress.line(detail)


RECORDS = "records"
"""Key of a checkpoint's state that has the state of the tables."""


@dataclass
class StepTables:
    """The tables that a training writes step by step into its run folder, on rank 0."""

    run: ActiveRun
    journal: Journal
    log: RunLog

    def begin(self, step: int) -> None:
        """Everything is restored and checked: files may change from now on."""
        self.run.begin(step)
        forget_after(self.run.folder / SKIPPED, step)
        self.log.begin(self.run.lock, step)

    def add(self, entry: JournalEntry) -> None:
        """Writes what there is of a step, which is over."""
        self.run.check()
        self.journal.add(entry)
        self.log.flush(entry.step)

    def state(self) -> dict[str, Any]:
        return {"journal": self.journal.state(), "metrics": self.log.metrics.state()}

    def check(self, path: Path, tell: Callable[[str], None]) -> None:
        """Compares the tables with the checkpoint that the run goes on from. Raises `DataError` for another journal, or
        where the checkpoint is another run's."""
        checkpoint = Checkpoint(path)
        checkpoint.check_run(self.run.lock.run)
        state, step = checkpoint.state.get(RECORDS), checkpoint.step
        if state is None:  # of an earlier version
            return
        if self.journal.path.is_file():
            self.journal.check(state["journal"], step)
        elif state["journal"]["lines"]:
            tell(f"{self.journal.path} is missing: `mio recipe verify` will not approve of this run")
        if problem := self.log.metrics.problem(state["metrics"], step):
            tell(problem)


class DataCursor(Callback):
    """Commits the data of every finished step, which what logs and saves it comes after."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if batch.ends_step:
            trainer.datamodule.commit(batch)  # type: ignore[attr-defined]


class Checkpoints(Callback):
    """Writes the line of every finished step into journal and log, so callbacks that log come before this one; saves a
    checkpoint every `every` steps, at the end, and when a rank gets a signal.

    They are written in the background (see `mio.core.runs.checkpoints`).
    """

    def __init__(self, path: Path, every: int, tables: StepTables | None) -> None:
        self.path = path
        self.every = every
        self.tables = tables
        """Of rank 0 alone."""
        self.interrupted = ""
        """Name of the signal that stopped the run, if one did."""
        self._received = ""
        self._losses: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored and checked: files may change from now on."""
        trainer.strategy.writer.begin()  # type: ignore[attr-defined]
        if self.tables is not None:
            self.tables.begin(trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.tables is not None:
            checkpoint[RECORDS] = self.tables.state()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        assert isinstance(pl_module, MioModule)
        totals = pl_module.totals
        assert totals is not None
        if self.tables is not None:
            self.tables.add(
                JournalEntry(trainer.global_step, totals.rows, totals.documents, totals.tokens, totals.digest)
            )
        if math.isfinite(totals.loss):  # of a step that is skipped it need not be
            self._losses.append(totals.loss)
        if totals.stop:
            self.interrupted = self._received or "a signal to another rank"
        pl_module.statistics.stop = bool(self._received)
        due = trainer.global_step % self.every == 0 or trainer.global_step >= trainer.max_steps
        if due or self.interrupted:
            mean = sum(self._losses) / len(self._losses) if self._losses else math.nan
            trainer.strategy.loss = mean  # type: ignore[attr-defined]
            self._losses.clear()
            trainer.save_checkpoint(self.path, weights_only=False)
        if self.interrupted:
            trainer.should_stop = True

    def agree(self) -> None:
        """Whether any rank got a signal that no further step was there to see. A collective call."""
        signals = torch.tensor([float(bool(self._received))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(signals)
        if signals.item() and not self.interrupted:
            self.interrupted = self._received or "a signal to another rank"

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Turns the first SIGINT or SIGTERM of any rank into a checkpoint of all ranks after the next step; a second
        one acts at once."""
        before: dict[signal.Signals, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._received = signal.Signals(number).name
            for name, handler in before.items():
                signal.signal(name, handler)

        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, stop)
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
