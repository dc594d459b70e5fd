"""What a run was really trained on, beside what was asked for: computed from the state of its plan alone."""

from __future__ import annotations

from typing import Any

_LEVELS = ("sources", "directions")


def ledger(state: dict[str, Any]) -> dict[str, Any]:
    """Report of the rows emitted up to a plan's `state`.

    `mixture` nests groups, sources and directions. At each level `target` and `achieved` are shares of the level above:
    of groups, in the mixture's unit; of sources and directions, in tokens. `epochs` and `skipped` count documents when
    the plan draws them, everything else counts them when their row is emitted.
    """
    identity, counts = state["identity"], state["leaves"]
    rows, context = state["rows"], identity["context"]
    tokens = sum(leaf["positions"] for leaf in counts.values())
    skipped: dict[str, int] = {}
    for leaf in counts.values():
        for reason, count in leaf["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    return {
        "rows": rows,
        "documents": sum(leaf["documents"] for leaf in counts.values()),
        "tokens": tokens,
        "packing": {
            "fill": round(tokens / max(1, rows * context), 5),
            "truncated": sum(leaf["truncated"] for leaf in counts.values()),
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
    leaves = [(stream["path"], {**stream, **state["leaves"][name]}) for name, stream in identity["streams"].items()]
    report = _level(leaves, 0)
    if identity["unit"] == "rows":
        rows = dict(zip(identity["ratios"], state["group_rows"], strict=True))
        for name, group in report.items():
            group["rows"] = rows[name]
            group["achieved"] = round(rows[name] / max(1, state["rows"]), 6)
    return report


def _level(leaves: list[tuple[list[str], dict[str, Any]]], depth: int) -> dict[str, Any]:
    """Shares among the children at one depth of the leaves' paths, and in turn among theirs."""
    children: dict[str, list[tuple[list[str], dict[str, Any]]]] = {}
    for path, leaf in leaves:
        children.setdefault(path[depth], []).append((path, leaf))
    shares = sum(leaf["share"] for _, leaf in leaves)
    tokens = sum(leaf["positions"] for _, leaf in leaves)
    report: dict[str, Any] = {}
    for name, below in children.items():
        own = [leaf for _, leaf in below]
        report[name] = {
            "target": round(sum(leaf["share"] for leaf in own) / shares, 6),
            "achieved": round(sum(leaf["positions"] for leaf in own) / max(1, tokens), 6),
            "tokens": sum(leaf["positions"] for leaf in own),
            "documents": sum(leaf["documents"] for leaf in own),
            "truncated": sum(leaf["truncated"] for leaf in own),
            "skipped": sum(sum(leaf["skipped"].values()) for leaf in own),
        }
        if depth < len(_LEVELS):
            report[name][_LEVELS[depth]] = _level(below, depth + 1)
        else:
            report[name]["epochs"] = round(own[0]["next"] / own[0]["records"], 4)
    return report
