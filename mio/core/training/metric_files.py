"""Where logged metrics go: `metrics.csv` and TensorBoard events.

Lightning's own loggers make their files before a run is restored and checked, so that a run that cannot go on would
leave some behind; its CSV logger deletes the file of a run that goes on.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mio.core.data.step_table import StepTable


class MetricsTable(StepTable):
    """`metrics.csv`: a line per logged step, with a column for every metric that ever occurred."""

    counted = "rows"

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds the metrics of a step."""
        self.add_line({"step": str(step), **{name: str(value) for name, value in metrics.items()}})

    def problem(self, state: Mapping[str, Any], step: int) -> str:
        """What to tell if the lines up to `step` are not those that were logged when `state` was taken, or nothing."""
        if self.matches(state, step):
            return ""
        return (
            f"{self.path}: is not what was logged up to step {step} ({self.lines} of {state['rows']} lines are there); "
            "nothing is computed from it, and the run goes on"
        )

    def _signed(self, line: Mapping[str, str]) -> str:
        # columns that were added later are empty in earlier lines, and their order depends on it: neither counts
        return json.dumps(sorted((name, value) for name, value in line.items() if value))

    def _read(self) -> list[dict[str, str]]:
        """Lines that can be read: a killed process may leave half a line."""
        if not self.path.is_file():
            return []
        text = self.path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
        lines = []
        with contextlib.suppress(csv.Error):
            for line in csv.DictReader(text):
                whole = None not in line and None not in line.values()
                if whole and re.fullmatch(r"\d{1,18}", line.get("step", ""), re.ASCII):
                    lines.append(line)
        return lines


class Events:
    """Metrics as TensorBoard events in a folder, in a file that begins with the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds the metrics of a step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self.folder))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
