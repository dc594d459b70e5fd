"""Notices a training that stands still, and reports which rank is stuck and where in the program.

Each rank watches itself from a thread. One that has made no progress for a while writes its position to the run folder,
where rank 0 collects them: collectives make every rank wait, so the suspect is the one that is furthest behind, or in
no collective at all.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Callback, LightningModule, Trainer

_COLLECTIVE = ("torch/distributed/", "torch\\distributed\\")
_POLLS = 8
"""Checks per period of patience."""
_SETTLE = 3.0
"""Seconds that rank 0 waits for the positions of the other ranks."""


class Position(NamedTuple):
    """Where a rank is in the program."""

    rank: int
    host: str
    step: int
    phase: str
    heartbeats: int
    """Phases begun: a rank that has begun fewer than the others is behind them."""
    seconds: float
    """Since it last made progress."""
    stack: list[str]
    """Innermost call first."""

    @property
    def in_collective(self) -> bool:
        return any(part in line for line in self.stack[:6] for part in _COLLECTIVE)


def suspects(positions: Sequence[Position], size: int) -> tuple[list[int], list[Position]]:
    """Ranks that have not reported, and those that hold up the others: of the ones furthest behind, those that are in
    no collective, or all of them if all are."""
    silent = sorted(set(range(size)) - {position.rank for position in positions})
    least = min(position.heartbeats for position in positions)
    behind = [position for position in positions if position.heartbeats == least]
    return silent, [position for position in behind if not position.in_collective] or behind


def describe(positions: Sequence[Position], size: int) -> str:
    """What to tell a person about a standstill of `size` ranks."""
    silent, stuck = suspects(positions, size)
    lines = []
    if silent:
        lines.append(f"no sign of life from rank {', '.join(map(str, silent))}: lost, or its machine is")
    for position in stuck[:4] if not silent else []:
        lines.append(
            f"rank {position.rank} on {position.host} is stuck in step {position.step}, {position.phase}, for "
            f"{position.seconds:.0f} s, in {position.stack[0] if position.stack else 'an unknown place'}"
        )
    waiting = len(positions) - len(stuck)
    if waiting:
        lines.append(f"{waiting} other ranks wait for it")
    return "; ".join(lines)


class Watchdog(Callback):
    """Watches this rank's training.

    Args:
        folder: where positions are written; one file per rank, which rank 0 reads.
        patience: seconds without progress before a position is reported; 0 turns the watchdog off.
        limit: seconds without progress after which this process ends with exit code 1; 0 means never.
        tell: called with the message on rank 0.
    """

    def __init__(
        self, folder: Path, rank: int, size: int, patience: float, limit: float, tell: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.size = size
        self.patience = patience
        self.limit = limit
        self.tell = tell
        self._step = 0
        self._phase = "starting"
        self._heartbeats = 0
        self._last = time.monotonic()
        self._reported = False
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._main = threading.main_thread().ident

    def heartbeat(self, phase: str) -> None:
        """Notes that the training has come to `phase`."""
        self._phase, self._last = phase, time.monotonic()
        self._heartbeats += 1
        self._reported = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.patience and not self.limit:
            return
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._step = trainer.global_step
        self.heartbeat("waiting for data")
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step = trainer.global_step
        self.heartbeat("forward pass")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        self.heartbeat("backward pass")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.heartbeat("optimizer step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.heartbeat("waiting for data")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop()

    def stop(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def position(self) -> Position:
        """Where this rank's main thread is now."""
        frame = sys._current_frames().get(self._main or 0)
        stack = [f"{item.filename}:{item.lineno} {item.name}" for item in reversed(traceback.extract_stack(frame))]
        seconds = time.monotonic() - self._last
        host = socket.gethostname()
        return Position(self.rank, host, self._step, self._phase, self._heartbeats, seconds, stack[:40])

    def _watch(self) -> None:
        period = min(limit for limit in (self.patience, self.limit) if limit) / _POLLS
        while not self._done.wait(period):
            waited = time.monotonic() - self._last
            if self.patience and waited > self.patience and not self._reported:
                self._report()
            if self.limit and waited > self.limit:
                self._report()
                if self.rank == 0:
                    self.tell(f"no progress for {waited:.0f} s, more than `runtime.abort_after`: ending the process")
                os._exit(1)

    def _report(self) -> None:
        self._reported = True
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".rank-{self.rank:05d}"
        partial.write_text(json.dumps(self.position()), encoding="utf-8")
        partial.replace(self.folder / f"rank-{self.rank:05d}.json")
        if self.rank == 0:
            # the others check as often as this rank does, but not at the same moment
            self._done.wait(_SETTLE + min(self.patience or self.limit, 60.0) / _POLLS * 2)
            if not self._done.is_set() and self._reported:
                self.tell(f"standstill: {describe(self.positions(), self.size)} (all places: {self.folder})")

    def positions(self) -> list[Position]:
        """The positions that ranks have reported."""
        files = sorted(self.folder.glob("rank-*.json"))
        return [Position(*json.loads(path.read_text(encoding="utf-8"))) for path in files]
