"""Logged figures as one CSV file that is whole after every line and survives interruptions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsCSV(Logger):
    """Writes one row per logged step to `path`, with a column for every figure that ever occurred.

    Lightning's own logger deletes the file when a run goes on, and keeps up to a hundred rows in memory. Here a row is
    on disk as soon as it is logged, and rows that a killed run wrote after its last checkpoint are replaced when these
    steps are trained again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._opened = False

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe in the run folder holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        row = {"step": step or 0, **metrics}
        if not self._opened:
            earlier = [old for old in self._read() if int(old["step"]) < row["step"]]
            self._columns = list(dict.fromkeys(name for old in [*earlier, row] for name in old))
            self._rewrite(earlier)
            self._opened = True
        elif new := [name for name in row if name not in self._columns]:
            earlier = self._read()
            self._columns += new
            self._rewrite(earlier)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            # a killed process may leave half a row
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        partial = self.path.with_name(f"{self.path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
