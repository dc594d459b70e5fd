"""Which charts a page has: every figure that was logged is in one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mio.report.numbers import plain_number
from mio.report.reading import ReportedRun

TRAINING, HELD_OUT, TARGET = "training", "held-out", "target"
"""Kinds of lines: solid and thin; with marks; dashed."""
_VALIDATION = "validation/"


@dataclass(frozen=True)
class Line:
    """One figure in a chart. Lines of one `label` have one colour, and one entry in the legend."""

    metric: str
    label: str
    kind: str = TRAINING


@dataclass(frozen=True)
class Chart:
    """One chart: lines over the steps or tokens of all runs of the page."""

    title: str
    unit: str
    """Of the figures, beside the axis."""
    lines: tuple[Line, ...]
    note: str = ""
    zero: bool = False
    """Whether the axis begins at 0."""
    ordered: bool = False
    """Whether its labels have an order, which their colours show."""
    smooth: bool = True
    """Whether training figures are noisy, so that smoothing says more."""

    def to_json(self) -> dict[str, Any]:
        """As `static/page.js` takes it."""
        lines = [[line.metric, line.label, line.kind] for line in self.lines]
        shown: dict[str, Any] = {"title": self.title, "unit": self.unit, "lines": lines}
        return shown | {name: True for name in ("zero", "ordered", "smooth") if getattr(self, name)}


@dataclass
class Section:
    """Charts under one heading."""

    title: str
    charts: list[Chart] = field(default_factory=list)


_LOSS = "nats per token"


class _Logged:
    """The names of figures, each given to the first chart that asks for it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._left = dict.fromkeys(names)

    def take(self, pattern: str) -> list[str]:
        """Names that match as a whole."""
        found = [name for name in self._left if re.fullmatch(pattern, name)]
        for name in found:
            del self._left[name]
        return found

    @property
    def left(self) -> list[str]:
        return list(self._left)


def sections(runs: Sequence[ReportedRun]) -> list[Section]:
    """The charts of the figures that any of the runs has logged."""
    logged = _Logged(dict.fromkeys(name for run in runs for step in sorted(run.metrics) for name in run.metrics[step]))
    parts = (
        Section("Loss", _losses(logged)),
        Section("Held-out loss by source and direction", _by_source(logged)),
        Section("Tasks during training", _tasks(logged)),
        Section("Optimisation and speed", [*_optimisation(logged), *_speed(logged)]),
        Section("Data", [*_mixture(logged), *_packing(logged), *_codebooks(logged)]),
        Section("Other figures", _others(logged)),
    )
    return [part for part in parts if part.charts]


def _lines(logged: _Logged, pattern: str, label: Callable[[str], str]) -> tuple[Line, ...]:
    """Training and held-out figures of the names that match."""
    training = logged.take(pattern)
    held_out = logged.take(_VALIDATION + pattern)
    return (
        *(Line(name, label(name)) for name in training),
        *(Line(name, label(name.removeprefix(_VALIDATION)), HELD_OUT) for name in held_out),
    )


def _chart(title: str, unit: str, lines: Sequence[Line], **options: Any) -> list[Chart]:
    return [Chart(title, unit, tuple(lines), **options)] if lines else []


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _losses(logged: _Logged) -> list[Chart]:
    whole = [*(Line(name, "training") for name in logged.take("loss"))]
    whole += [Line(name, "held-out", HELD_OUT) for name in logged.take(f"{_VALIDATION}loss")]
    charts = _chart("Loss", _LOSS, whole, note="mean cross-entropy, not weighted")
    charts += _chart("Loss by group", _LOSS, _lines(logged, r"loss/[^/]+", _last))
    controls = _lines(logged, r"modality/control(/.+)?", lambda name: name.removeprefix("modality/"))
    charts += _chart("Loss by modality", _LOSS, _lines(logged, r"modality/[^/]+", _last))
    names = dict.fromkeys(name.split("/")[1] for name in [*logged.left] if re.fullmatch(r"modality/[^/]+/.+", name))
    names |= dict.fromkeys(
        name.split("/")[2] for name in [*logged.left] if re.fullmatch(r"validation/modality/[^/]+/.+", name)
    )
    for modality in names:
        lines = _lines(logged, rf"modality/{re.escape(modality)}/.+", lambda name: name.split("/", 2)[2])
        if len({line.label for line in lines}) > 1:  # one codebook is the modality itself
            charts += _chart(f"Loss by codebook: {modality}", _LOSS, lines, ordered=True)
    charts += _chart("Loss of control tokens", _LOSS, controls)
    charts += _chart("Loss of heads", "mean per item", _lines(logged, r"heads/[^/]+", _last))
    return charts


def _by_source(logged: _Logged) -> list[Chart]:
    charts = []
    found = logged.take(rf"{_VALIDATION}loss/.+/.+")
    paths = [name.removeprefix(f"{_VALIDATION}loss/") for name in found]
    parents = {path.rsplit("/", 1)[0] for path in paths}
    for group in dict.fromkeys(path.split("/")[0] for path in paths):
        own = [path for path in paths if path.split("/")[0] == group and path not in parents]
        lines = [Line(f"{_VALIDATION}loss/{path}", path.split("/", 1)[1], HELD_OUT) for path in own]
        charts += _chart(group, _LOSS, lines)
    return charts


def _tasks(logged: _Logged) -> list[Chart]:
    lines = [Line(name, name.split("/", 2)[2], HELD_OUT) for name in logged.take(rf"{_VALIDATION}tasks/.+")]
    return _chart("Tasks", "figure on a few held-out items", lines, zero=True)


def _optimisation(logged: _Logged) -> list[Chart]:
    rates = [Line(name, name) for name in logged.take(r"lr(/.+)?")]
    norms = [Line(name, "gradient norm") for name in logged.take("grad_norm")]
    guards = [Line(name, name.removeprefix("guard/").replace("_", " "), TARGET) for name in logged.take("guard/.+")]
    return [
        *_chart("Learning rate", "per step", rates, zero=True, smooth=False),
        *_chart("Gradient norm", "L2, before clipping", norms),
        *_chart("Steps that guards skipped", "steps so far", guards, zero=True, smooth=False),
    ]


def _mixture(logged: _Logged) -> list[Chart]:
    def label(name: str) -> str:
        return name.removeprefix("mixture/").rsplit("/", 1)[0]

    lines = [Line(name, label(name)) for name in logged.take("mixture/.+/achieved")]
    lines += [Line(name, label(name), TARGET) for name in logged.take("mixture/.+/target")]
    note = "solid: reached so far; dashed: asked for"
    return _chart("Share of each group", "share of the stage so far", lines, zero=True, note=note, smooth=False)


def _speed(logged: _Logged) -> list[Chart]:
    speed = [Line(name, "tokens") for name in logged.take("tokens_per_second")]
    mfu = [Line(name, "model FLOPs utilisation") for name in logged.take("mfu")]
    seconds = [Line(name, "validation", HELD_OUT) for name in logged.take(f"{_VALIDATION}seconds")]
    return [
        *_chart("Tokens per second", "tokens per second", speed, zero=True),
        *_chart("Model FLOPs utilisation", "share of the device's peak", mfu, zero=True),
        *_chart("Time of validations", "seconds", seconds, zero=True),
    ]


def _packing(logged: _Logged) -> list[Chart]:
    fill = [Line(name, "fill of rows") for name in logged.take("packing/fill")]
    return _chart("Packing", "share of positions with a document", fill, smooth=False)


def _codebooks(logged: _Logged) -> list[Chart]:
    charts = []
    for what, title, unit in (
        ("used", "Codes that occurred", "share of the codebook so far"),
        ("perplexity", "Perplexity of use", "codes"),
    ):
        lines = [
            Line(name, name.removeprefix("codebook/").rsplit("/", 1)[0]) for name in logged.take(f"codebook/.+/{what}")
        ]
        charts += _chart(title, unit, lines, zero=True, smooth=False)
    return charts


def _others(logged: _Logged) -> list[Chart]:
    """What no other chart has, one chart for each beginning of a name."""
    names = logged.left
    charts = []
    for start in dict.fromkeys(name.removeprefix(_VALIDATION).split("/")[0] for name in names):
        own = [name for name in names if name.removeprefix(_VALIDATION).split("/")[0] == start]
        lines = [Line(name, name, HELD_OUT if name.startswith(_VALIDATION) else TRAINING) for name in own]
        charts += _chart(start, "", lines)
    return charts


@dataclass(frozen=True)
class Numbers:
    """A line of a chart in numbers, for readers and printers without scripts."""

    run: str
    line: str
    first: str
    last: str
    least: str
    largest: str


def numbers_of(chart: Chart, runs: Sequence[ReportedRun]) -> list[Numbers]:
    """Each line of a chart in each run that has it."""
    rows = []
    for run in runs:
        for line in chart.lines:
            values = [
                run.metrics[step][line.metric] for step in sorted(run.metrics) if line.metric in run.metrics[step]
            ]
            if values:
                finite = [value for value in values if math.isfinite(value)] or [math.nan]
                shown = [plain_number(value) for value in (values[0], values[-1], min(finite), max(finite))]
                kind = "" if line.kind in (TRAINING, line.label) else f" ({line.kind})"
                rows.append(Numbers(run.name, line.label + kind, *shown))
    return rows
