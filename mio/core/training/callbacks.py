"""What happens around the training steps: logged figures, progress, checkpoints, interruption."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from mio.core.data.batch import Batch
from mio.core.data.journal import Journal, JournalEntry
from mio.core.model.flops import flops_per_token, peak_flops
from mio.core.runs.folder import RunFolder
from mio.core.training.metrics_csv import MetricsCSV
from mio.core.training.module import MioModule


class Figures(Callback):
    """Logs losses, speed and mixture every `every` optimizer steps.

    `shares` gives the mixture achieved so far and its targets, by group.
    """

    def __init__(self, every: int, shares: Callable[[], dict[str, tuple[float, float]]]) -> None:
        self.every = every
        self.shares = shares
        self.seconds = 0.0
        """Wall seconds of training, over all parts of an interrupted run."""
        self.tokens = 0
        """Document tokens trained on, by all ranks."""
        self.positions = 0
        self.latest: dict[str, float] = {}
        """The figures logged last."""
        self._since = (0.0, 0)
        self._documents = 0
        self._peak = 0.0
        self._clock = 0.0

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

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, MioModule)
        module.meter.gather()
        figures = module.meter.read()
        seconds, tokens = self.seconds - self._since[0], self.tokens - self._since[1]
        self._since = (self.seconds, self.tokens)
        speed = tokens / max(seconds, 1e-9)
        mean_length = self.tokens / max(1, self._documents)
        work = flops_per_token(module.model_config, module.vocabulary.rows, mean_length)
        figures["tokens_per_second"] = speed
        figures["mfu"] = speed * work / (self._peak * trainer.world_size) if self._peak else 0.0
        figures["packing/fill"] = self.tokens / max(1, self.positions)
        figures["grad_norm"] = module.grad_norm
        for name, count in module.guard.report().items():
            figures[f"guard/{name}"] = count
        figures["lr"] = trainer.optimizers[0].param_groups[-1]["lr"]
        for group, (target, achieved) in self.shares().items():
            figures[f"mixture/{group}/target"] = target
            figures[f"mixture/{group}/achieved"] = achieved
        for name, use in module.meter.codebook_usage().items():
            figures[f"codebook/{name}/used"] = use["used"]
        self.latest = figures
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "tokens": self.tokens, "positions": self.positions, "docs": self._documents}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.tokens = state_dict["seconds"], state_dict["tokens"]
        self.positions, self._documents = state_dict["positions"], state_dict["docs"]


class ProgressLines(Callback):
    """Progress as plain lines, for logs and pipes: step, loss, speed, time left; one every `seconds`."""

    def __init__(self, console: Console, figures: Figures, seconds: float = 15.0) -> None:
        self.console = console
        self.figures = figures
        self.seconds = seconds
        self._start = (0.0, 0)
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = time.perf_counter()
        self._start = (self._last, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        finished = trainer.global_step >= trainer.max_steps
        if trainer.global_rank or (now - self._last < self.seconds and not finished):
            return
        self._last = now
        rate = (trainer.global_step - self._start[1]) / (now - self._start[0])
        left = (trainer.max_steps - trainer.global_step) / max(rate, 1e-9)
        loss = self.figures.latest.get("loss")
        self.console.print(
            f"  step {trainer.global_step}/{trainer.max_steps}  "
            + (f"loss {loss:.3f}  " if loss is not None else "")
            + f"{rate:.1f} steps/s  {int(left) // 60}:{int(left) % 60:02d} left",
            highlight=False,
        )


RECORDS = "records"
"""Key of a checkpoint's state that holds what `Records.check` compares."""


@dataclass
class Records:
    """What a training writes beside its checkpoints, on rank 0."""

    folder: RunFolder
    journal: Journal
    metrics: MetricsCSV

    def state(self) -> dict[str, Any]:
        """What `check` compares."""
        return {"journal": self.journal.state(), "metrics": self.metrics.state()}

    def check(self, state: dict[str, Any], step: int, tell: Callable[[str], None]) -> None:
        """Compares the records with those of a checkpoint of `step`. Raises `DataError` for another journal."""
        if self.journal.path.is_file():
            self.journal.check(state["journal"], step)
        elif state["journal"]["lines"]:
            tell(f"{self.journal.path} is missing: `mio recipe verify` will not approve of this run")
        if problem := self.metrics.problem(state["metrics"], step):
            tell(problem)


class Checkpoints(Callback):
    """Commits the data cursor of every finished step and writes it into the journal; saves a checkpoint every `every`
    steps, at the end, and when a rank is told to stop.

    What is written goes on in the background (see `mio.core.runs.checkpoints`); leaving `catching_signals` waits
    for it.
    """

    def __init__(self, path: Path, every: int, records: Records | None) -> None:
        self.path = path
        self.every = every
        self.records = records
        """Of rank 0 alone."""
        self.interrupted = ""
        """Name of the signal that stopped the run, if one did."""
        self._received = ""
        self._losses: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is restored and checked: files may change from now on."""
        trainer.strategy.writer.begin()  # type: ignore[attr-defined]
        if self.records is not None:
            self.records.folder.begin(trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.records is not None:
            checkpoint[RECORDS] = self.records.state()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        assert isinstance(pl_module, MioModule)
        totals = pl_module.totals
        assert totals is not None
        trainer.datamodule.commit(batch)  # type: ignore[attr-defined]
        if self.records is not None:
            self.records.folder.check()
            self.records.journal.add(
                JournalEntry(trainer.global_step, totals.rows, totals.documents, totals.tokens, totals.digest)
            )
        self._losses.append(totals.loss)
        if totals.stop:
            self.interrupted = self._received or "a signal to another rank"
        pl_module.tally.stop = bool(self._received)
        due = trainer.global_step % self.every == 0 or trainer.global_step >= trainer.max_steps
        if due or self.interrupted:
            trainer.strategy.loss = sum(self._losses) / len(self._losses)  # type: ignore[attr-defined]
            self._losses.clear()
            trainer.save_checkpoint(self.path, weights_only=False)
        if self.interrupted:
            trainer.should_stop = True

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
            if self.records is not None:
                self.records.journal.close()
