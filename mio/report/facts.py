"""What a run did, in figures: its head, its mixture, its codebooks, and what it passed over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mio.report.evaluation import figures, mean_of_own, task_reports
from mio.report.numbers import count, duration, fixed, percent, plain_number
from mio.report.reading import ReportedRun, listed, mapping, number, numbers_in


def tiles(run: ReportedRun) -> list[tuple[str, str]]:
    """The result in one view: (value, what it is)."""
    summary = run.summary
    planned = run.recipe.train.steps
    steps = f"{run.steps:,}" if run.state == "finished" or not run.steps else f"{run.steps:,} of {planned:,}"
    shown = [(steps, "steps"), (count(run.trained_tokens), "tokens")] if run.state != "imported" else []
    wall, training = number(summary.get("wall_seconds")), number(summary.get("train_seconds"))
    resumed = wall is not None and training is not None and wall < training
    for key, label, form in (
        ("parameters", "parameters", count),
        ("wall_seconds", "since it was resumed" if resumed else "in all", duration),
        ("train_seconds", "training", duration),
        ("tokens_per_second", "tokens per second", lambda value: f"{value:,.0f}"),
    ):
        if (value := number(summary.get(key))) is not None:
            shown.append((form(value), label))
    if loss := last_of(run, "validation/loss"):
        shown.append((fixed(loss[0], 4), "held-out loss"))
    elif loss := last_of(run, "loss"):
        shown.append((fixed(loss[0], 4), f"training loss, step {loss[1]:,}"))
    tasks = figures(task_reports(run))
    if (mean := mean_of_own(tasks)) is not None:
        shown.append((fixed(mean), f"mean of {sum(figure.own for figure in tasks)} tasks"))
    if (fill := number(mapping(summary.get("packing")).get("fill"))) is not None:
        shown.append((percent(fill), "packing fill"))
    if size := number(mapping(summary.get("vocabulary")).get("size")):
        shown.append((f"{int(size):,}", "ids"))
    return shown


def last_of(run: ReportedRun, name: str) -> tuple[float, int] | None:
    """The last finite value of a figure, and its step."""
    for step in sorted(run.metrics, reverse=True):
        value = run.metrics[step].get(name)
        if value is not None and math.isfinite(value):
            return value, step
    return None


@dataclass(frozen=True)
class Share:
    """A row of the mixture: of a group, a source or a direction."""

    name: str
    depth: int
    target: float | None
    achieved: float | None
    tokens: float | None
    documents: float | None
    epochs: float | None
    truncated: float | None
    skipped: float | None


def mixture(run: ReportedRun) -> list[Share]:
    """Groups, their sources, their directions, as `summary.json` has them."""
    return [
        share
        for name, group in mapping(run.summary.get("mixture")).items()
        for share in _shares(name, mapping(group), 0)
    ]


_BELOW = ("sources", "directions")


def _shares(name: str, entry: Mapping[str, Any], depth: int) -> Iterator[Share]:
    figures = ("target", "achieved", "tokens", "documents", "epochs", "truncated", "skipped")
    yield Share(name=name or "(whole conversations)", depth=depth, **numbers_in(entry, *figures))
    below = mapping(entry.get(_BELOW[depth])) if depth < len(_BELOW) else {}
    if len(below) == 1 and depth == 1:
        return  # its one direction is the source again
    for inner, content in below.items():
        yield from _shares(str(inner), mapping(content), depth + 1)


def skipped(run: ReportedRun) -> list[str]:
    """What was passed over or cut, a line each."""
    summary, lines = run.summary, []
    packing = mapping(summary.get("packing"))
    if truncated := number(packing.get("truncated")):
        lines.append(f"{int(truncated):,} documents were cut to the context")
    lines += [f"{_count(value)} documents skipped: {reason}" for reason, value in _reasons(packing)]
    names = {
        "not_finite": "with a gradient that is not finite",
        "spikes": "as spikes",
        "unweighted": "of which nothing has a weight in the loss",
    }
    for name, value in mapping(summary.get("skipped_steps")).items():
        if number(value):
            lines.append(f"{_count(value)} steps skipped {names.get(name, name)}")
    for label, source in mapping(summary.get("data")).items():
        entry = mapping(source)
        lines += [f"{label}: {_count(value)} records of the check: {reason}" for reason, value in _reasons(entry)]
        if broken := number(entry.get("broken")):
            lines.append(f"{label}: {_count(broken)} broken records in the check")
        unknown = mapping(entry.get("unknown"))
        lines += [f"{label}: not used: {what} ({_count(value)} records)" for what, value in unknown.items()]
        lines += [f"{label}: {problem}" for problem in listed(entry.get("problems")) if isinstance(problem, str)]
    held_out = mapping(mapping(summary.get("validation")).get("skipped"))
    for stream, reasons in held_out.items():
        for reason, value in mapping(reasons).items():
            lines.append(f"{stream}: {_count(value)} held-out records cannot be used: {reason}")
    for name, failed in mapping(summary.get("logger_failures")).items():
        lines.append(f"logger {name}: {_count(failed)} calls failed")
    return lines


def _reasons(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(str(reason), value) for reason, value in mapping(entry.get("skipped")).items() if number(value)]


def _count(value: Any) -> str:
    return plain_number(number(value))


@dataclass(frozen=True)
class Codebook:
    """How the codes of one codebook were used over the whole run."""

    name: str
    size: int
    tokens: float | None
    used: float | None
    """Share of its codes that occurred."""
    perplexity: float | None
    ranked: tuple[float, ...] = ()
    """Shares of the codes, the most frequent first, relative to the largest one."""


def codebooks(run: ReportedRun) -> list[Codebook]:
    """Of `summary.json`, with the sizes of the vocabulary's blocks."""
    sizes = {str(mapping(one).get("name")): mapping(one).get("size") for one in listed(run.vocabulary.get("blocks"))}
    found = []
    for name, content in mapping(run.summary.get("codebooks")).items():
        entry = mapping(content)
        values = [number(value) for value in listed(entry.get("shares"))]
        shares = [value for value in values if value is not None]
        most = max(shares, default=0.0)
        ranked = tuple(value / most for value in shares) if most > 0 else ()
        size, use = int(number(sizes.get(name)) or 0), numbers_in(entry, "tokens", "used", "perplexity")
        found.append(Codebook(name=str(name), size=size, ranked=ranked, **use))
    return found
