"""What a run was really trained on, beside what was asked for: computed from the state of its plan alone."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

_LEVELS = ("sources", "directions")


def ledger(state: dict[str, Any]) -> dict[str, Any]:
    """Report of the rows emitted up to a plan's `state`.

    `mixture` nests groups, sources and directions. At each level `target` and `achieved` are shares of the level above:
    of groups, in the mixture's unit; of sources and directions, in tokens. Where the mixture changes, the target of a
    group is what was due to it so far. `epochs` and `skipped` count documents when
    the plan draws them, everything else counts them when their row is emitted.
    """
    identity, counts = state["identity"], state["leaves"].values()
    rows, context = state["rows"], identity["context"]
    tokens = sum(stream["positions"] for stream in counts)
    skipped: dict[str, int] = {}
    for stream in counts:
        for reason, count in stream["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    return {
        "rows": rows,
        "documents": sum(stream["documents"] for stream in counts),
        "tokens": tokens,
        "packing": {
            "fill": round(tokens / max(1, rows * context), 5),
            "truncated": sum(stream["truncated"] for stream in counts),
            "skipped": skipped,
            "skipped_examples": state["examples"],
        },
        "mixture_unit": identity["unit"],
        "mixture": _groups(state),
    }


def group_shares(state: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(target, achieved) share of each group in the mixture's unit."""
    return {name: (group["target"], group["achieved"]) for name, group in _groups(state).items()}


def _groups(state: dict[str, Any]) -> dict[str, Any]:
    identity = state["identity"]
    streams = [(stream["path"], {**stream, **state["leaves"][name]}) for name, stream in identity["streams"].items()]
    report = _level(streams, 0)
    if identity["unit"] == "rows":
        rows = dict(zip(identity["ratios"], state["group_rows"], strict=True))
        for name, group in report.items():
            group["rows"] = rows[name]
            group["achieved"] = round(rows[name] / max(1, state["rows"]), 6)
    if "dues" in state:
        dues = dict(zip(identity["ratios"], map(Fraction, state["dues"]), strict=True))
        whole = sum(dues.values())
        for name, group in report.items():
            group["target"] = round(float(dues[name] / whole), 6) if whole else group["target"]
    return report


def _level(streams: list[tuple[list[str], dict[str, Any]]], depth: int) -> dict[str, Any]:
    """Shares among the children at one depth of the streams' paths, and in turn among theirs."""
    children: dict[str, list[tuple[list[str], dict[str, Any]]]] = {}
    for path, stream in streams:
        children.setdefault(path[depth], []).append((path, stream))
    shares = sum(stream["share"] for _, stream in streams)
    tokens = sum(stream["positions"] for _, stream in streams)
    report: dict[str, Any] = {}
    for name, below in children.items():
        own = [stream for _, stream in below]
        report[name] = {
            "target": round(sum(stream["share"] for stream in own) / shares, 6),
            "achieved": round(sum(stream["positions"] for stream in own) / max(1, tokens), 6),
            "tokens": sum(stream["positions"] for stream in own),
            "documents": sum(stream["documents"] for stream in own),
            "truncated": sum(stream["truncated"] for stream in own),
            "skipped": sum(sum(stream["skipped"].values()) for stream in own),
        }
        if depth < len(_LEVELS):
            report[name][_LEVELS[depth]] = _level(below, depth + 1)
        else:
            report[name]["epochs"] = round(own[0]["next"] / own[0]["records"], 4)
    return report
