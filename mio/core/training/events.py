"""Logged figures as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Events(Logger):
    """Writes figures into a folder as events, in a file that begins with the first of them.

    Lightning's own logger makes its files before a run is restored: one that cannot go on would leave them behind.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._writer: Any = None

    @property
    def name(self) -> str:
        return "events"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe in the run folder holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the figures of a step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self.folder))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        if self._writer is not None:
            self._writer.close()
            self._writer = None
