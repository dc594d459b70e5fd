"""What happens around the training steps: logged figures, progress, checkpoints, interruption."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from mio.core.data.batch import Batch
from mio.core.module import MioModule
from mio.core.throughput import flops_per_token, peak_flops


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
        """Document tokens trained on by this rank."""
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
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        self.tokens += sum(sum(row) for row in batch.lengths)
        self.positions += batch.tokens.numel()
        self._documents += sum(len(row) for row in batch.lengths)
        if batch.ends_step and trainer.global_step % self.every == 0:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, MioModule)
        figures = module.meter.read()
        seconds, tokens = self.seconds - self._since[0], self.tokens - self._since[1]
        self._since = (self.seconds, self.tokens)
        speed = tokens / max(seconds, 1e-9)
        mean_length = self.tokens / max(1, self._documents)
        work = flops_per_token(module.model_config, module.vocabulary.rows, mean_length)
        figures["tokens_per_second"] = speed * trainer.world_size
        figures["mfu"] = speed * work / self._peak if self._peak else 0.0
        figures["packing/fill"] = self.tokens / max(1, self.positions)
        figures["grad_norm"] = module.grad_norm
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


class Checkpoints(Callback):
    """Commits the data cursor of every finished step; saves `path` every `every` steps, at the end and at interruption.

    The file is written beside its place and renamed, so the last whole checkpoint survives a crash while saving.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self.interrupted = ""
        """Name of the signal that stopped the run, if one did."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        trainer.datamodule.commit(batch)  # type: ignore[attr-defined]
        due = trainer.global_step % self.every == 0 or trainer.global_step >= trainer.max_steps
        if due or self.interrupted:
            self._save(trainer)
        if self.interrupted:
            trainer.should_stop = True

    def _save(self, trainer: Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial, weights_only=False)
        if trainer.is_global_zero:
            partial.replace(self.path)

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Turns the first SIGINT or SIGTERM into a checkpoint after the current step; a second one acts at once."""
        before: dict[signal.Signals, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self.interrupted = signal.Signals(number).name
            for name, handler in before.items():
                signal.signal(name, handler)

        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, stop)
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
