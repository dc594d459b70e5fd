"""Logged figures as one CSV file that is whole after every line and survives interruptions."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mio.core.files import write_text


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
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = 0

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
        row = {"step": str(step or 0), **{name: str(value) for name, value in metrics.items()}}
        if not self._opened:
            earlier = self._take((step or 0) - 1)
            self._columns = list(dict.fromkeys(name for old in [*earlier, row] for name in old))
            self._rewrite(earlier)
            self._opened = True
        elif new := [name for name in row if name not in self._columns]:
            earlier = self._read()
            self._columns += new
            self._rewrite(earlier)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)
        self._count(row)

    def state(self) -> dict[str, Any]:
        """What `problem` compares: how many rows there are, and the digest of their figures."""
        return {"rows": self._rows, "digest": self._digest.hexdigest()}

    def problem(self, state: Mapping[str, Any], step: int) -> str:
        """What to tell if the rows up to `step` are not those that were logged when `state` was taken, or nothing."""
        self._take(step)
        if self.state() == {"rows": state["rows"], "digest": state["digest"]}:
            return ""
        return (
            f"{self.path}: is not what was logged up to step {step} ({self._rows} of {state['rows']} rows are there); "
            "nothing is computed from it, and the run goes on"
        )

    def _take(self, step: int) -> list[dict[str, str]]:
        """Rows up to a step, which the next ones are added to."""
        self._digest, self._rows = hashlib.blake2b(digest_size=16), 0
        found = [row for row in self._read() if int(row["step"]) <= step]
        for row in found:
            self._count(row)
        return found

    def _count(self, row: Mapping[str, str]) -> None:
        """Columns that were added later are empty in earlier rows, and their order depends on it: neither counts."""
        figures = json.dumps(sorted((name, value) for name, value in row.items() if value))
        self._digest.update(figures.encode())
        self._rows += 1

    def _read(self) -> list[dict[str, str]]:
        """Rows that can be read: a killed process may leave half a row."""
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
        rows = []
        with contextlib.suppress(csv.Error):
            for row in csv.DictReader(lines):
                whole = None not in row and None not in row.values()
                if whole and re.fullmatch(r"\d{1,18}", row.get("step", ""), re.ASCII):
                    rows.append(row)
        return rows

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        made = io.StringIO(newline="")
        writer = csv.DictWriter(made, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, made.getvalue())
