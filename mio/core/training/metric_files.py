"""What a run folder keeps of its figures and samples: `metrics.csv`, `samples.jsonl`.

Lightning's own loggers make their files before a run is restored and checked, so that a run that cannot go on would
leave some behind; its CSV logger deletes the file of a run that goes on.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.core.contract.loggers import Sample
from mio.core.data.step_table import StepTable
from mio.core.files import write_text


class MetricsTable(StepTable):
    """`metrics.csv`: a line per logged step, with a column for every metric that ever occurred.

    A killed run trains the steps after its last checkpoint again; those that have a line keep it, as what loggers were
    sent cannot be taken back everywhere. Figures of learning are the same both times, those of speed are not.
    """

    counted = "rows"
    _ahead: Sequence[Mapping[str, str]] = ()
    """Lines of steps that are still to be trained again."""

    def begin(self, step: int) -> int:
        """Goes on after `step`; returns the last step that has a line. What a training left that begins anew is
        deleted."""
        self.close()
        if not step:
            self.path.unlink(missing_ok=True)
        self._lines_until(step)
        self._ahead = [line for line in self._read() if int(line["step"]) > step]
        return max((int(line["step"]) for line in self._read()), default=0)

    def reach(self, step: int) -> None:
        """Counts the lines up to `step`, which is trained."""
        while self._ahead and int(self._ahead[0]["step"]) <= step:
            self._count(self._ahead[0])
            self._ahead = self._ahead[1:]

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds the metrics of a step, later than all that there are."""
        self.add_line({"step": str(step), **{name: str(value) for name, value in metrics.items()}})

    def read(self) -> dict[int, dict[str, float]]:
        """Metrics by step."""
        steps: dict[int, dict[str, float]] = {}
        for line in self._read():
            metrics = steps.setdefault(int(line["step"]), {})
            for name, value in line.items():
                if name != "step" and value:
                    with contextlib.suppress(ValueError):  # no number of ours
                        metrics[name] = float(value)
        return steps

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
        content = self.path.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines(keepends=True)
        lines = []
        with contextlib.suppress(csv.Error):
            for line in csv.DictReader(text):
                whole = None not in line and None not in line.values()
                if whole and re.fullmatch(r"\d{1,18}", line.get("step", ""), re.ASCII):
                    lines.append(line)
        return lines


class SampleFile:
    """`samples.jsonl`: a line per step with its samples, whose files are named relative to the run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Goes on after `step`; what was added of later ones is dropped."""
        steps = self.read()
        kept = {number: samples for number, samples in steps.items() if number <= step}
        if not kept:
            self.path.unlink(missing_ok=True)
        elif len(kept) < len(steps):
            write_text(self.path, "".join(self._line(samples, number) for number, samples in kept.items()))

    def add(self, samples: Sequence[Sample], step: int) -> None:
        """Adds the samples of a step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(samples, step))

    def _line(self, samples: Sequence[Sample], step: int) -> str:
        files = [[os.path.relpath(file, self.path.parent) for file in sample.files] for sample in samples]
        content = [{**asdict(sample), "files": names} for sample, names in zip(samples, files, strict=True)]
        return json.dumps({"step": step, "samples": content}, ensure_ascii=False) + "\n"

    def read(self) -> dict[int, tuple[Sample, ...]]:
        """Samples by step. Lines that cannot be read are left out: a killed process may leave half a line."""
        steps: dict[int, tuple[Sample, ...]] = {}
        if self.path.is_file():
            for line in self.path.read_text("utf-8", "replace").split("\n"):  # texts may hold other ends of lines
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    content = json.loads(line)
                    steps[int(content["step"])] = tuple(self._sample(sample) for sample in content["samples"])
        return steps

    def _sample(self, content: Mapping[str, Any]) -> Sample:
        files = tuple(self.path.parent / name for name in content["files"])
        return Sample(name=content["name"], prompt=content["prompt"], answer=content["answer"], files=files)
