"""What validations found so far: the last figures and the best ones, for the terminal and the summary."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from rich.table import Table

from mio.core.terminal import plain


def is_loss(figure: str) -> bool:
    """Whether a figure is a loss, as opposed to one of a task."""
    return figure.split("/", 1)[0] in ("loss", "modality", "heads")


class Report:
    """Figures by name, over all validations of a run."""

    def __init__(self, errors: Collection[str] = ()) -> None:
        self.errors = errors
        """Figures of tasks of which lower is better."""
        self.step = 0
        """Of the last validation; 0 before the first."""
        self.seconds = 0.0
        """Of all validations."""
        self.last: dict[str, float] = {}
        self.best: dict[str, tuple[float, int]] = {}
        """(value, step)."""

    def add(self, figures: Mapping[str, float], step: int, seconds: float) -> dict[str, float]:
        """Takes in a validation; returns by how much its figures differ from the one before, where both have them."""
        changes = {name: value - self.last[name] for name, value in figures.items() if name in self.last}
        self.step, self.last = step, dict(figures)
        self.seconds += seconds
        for name, value in figures.items():
            best = self.best.get(name)
            better = best is None or (value < best[0] if is_loss(name) or name in self.errors else value > best[0])
            if better and math.isfinite(value):
                self.best[name] = (value, step)
        return changes

    def summary(self) -> dict[str, Any]:
        """For `summary.json`: each figure of the last validation, and its best value with its step."""
        figures = {
            name: {
                "last": _finite(value),
                **({"best": best[0], "best_step": best[1]} if (best := self.best.get(name)) else {}),
            }
            for name, value in self.last.items()
        }
        return {"step": self.step, "seconds": round(self.seconds, 2), "figures": figures}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "seconds": self.seconds, "last": self.last, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step, self.seconds, self.last = state["step"], state["seconds"], dict(state["last"])
        self.best = {name: (value, step) for name, (value, step) in state["best"].items()}


def _finite(value: float) -> float | None:
    """What JSON can hold."""
    return value if math.isfinite(value) else None


def table(report: Report, changes: Mapping[str, float], seconds: float) -> Table:
    """The last validation, to print: the whole loss, those of the groups (of the sources, where there is one group),
    those of heads, and what else was looked at."""
    shown = Table(
        f"validation, step {report.step:,}", box=None, pad_edge=False, title_justify="left", header_style="bold"
    )
    for column in (f"{seconds:.1f} s", "change", "best", "at step"):
        shown.add_column(column, justify="right")
    for name in _shown(report.last):
        value, best = report.last[name], report.best.get(name)
        changed = f"{changes[name]:+.4f}" if name in changes else ""
        shown.add_row(
            plain(f"  {name}"), f"{value:.4f}", changed, *((f"{best[0]:.4f}", f"{best[1]:,}") if best else ())
        )
    return shown


def _shown(figures: Mapping[str, float]) -> list[str]:
    losses = [name.split("/") for name in figures if name.startswith("loss")]
    groups = [parts for parts in losses if len(parts) == 2]
    if len(groups) == 1:
        groups = [parts for parts in losses if len(parts) == 3]
    return [
        *(["loss"] if "loss" in figures else []),
        *("/".join(parts) for parts in groups),
        *(name for name in figures if name.startswith("heads/") or not is_loss(name)),
    ]
