"""Streams of made-up documents, for the tests of plan and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mio.core.data.mixture import StreamShare
from mio.core.data.plan import Plan
from mio.core.data.ramp import mean_shares
from mio.core.recipe.data_schema import MixtureConfig, PackingConfig, RampPoint


@dataclass
class Numbers:
    """A document whose tokens say where it is from: stream, then number and position of each token."""

    tokens: np.ndarray
    weights: np.ndarray
    controls: tuple = ()
    items: tuple = ()
    made: tuple = ()

    def truncate(self, size):
        return Numbers(self.tokens[:size], self.weights[:size])


class MadeStream:
    """Documents of given lengths (positions), repeated for ever; a length of 0 is a broken record."""

    def __init__(self, number, share, lengths, context=10**9):
        self.number, self.share, self.name = number, share, share.name
        self.lengths = list(lengths)
        self.context = context
        self.identity = f"made-{number}"

    def __len__(self):
        return len(self.lengths)

    def length(self, n):
        return self.lengths[n % len(self)] or None

    def reason(self, n):  # noqa: ARG002
        return "broken"

    def truncated(self, n):
        return min(self.lengths[n % len(self)], self.context)

    def describe(self, n):
        return f"record {n % len(self)}"

    def document(self, n):
        size = self.truncated(n) + 1
        tokens = self.number * 1_000_000 + n * 1000 + np.arange(size, dtype=np.int32)
        return Numbers(tokens, np.ones(size, dtype=np.float32))


def made_plan(groups, *, unit="tokens", context=256, window=64, too_long="truncate", ramp=(), length=0):
    """A plan over `{group: (ratio, {stream: (share, lengths)})}`, and its streams. `ramp` has (share of the stage's
    `length` rows, ratios of the groups in order)."""
    ratios = {group: ratio for group, (ratio, _) in groups.items()}
    points = [RampPoint(at, dict(zip(groups, then, strict=True))) for at, then in ramp]
    mixture = MixtureConfig(unit=unit, ratios=ratios, ramp=points)
    if ramp:
        ratios = dict(zip(groups, mean_shares(mixture, list(groups)), strict=True))
    streams = []
    for group, (_, members) in groups.items():
        total = sum(share for share, _ in members.values())
        for name, (share, lengths) in members.items():
            part = StreamShare(group, *[*name.split(":"), ""][:2], ratios[group] * share / total)
            streams.append(MadeStream(len(streams), part, lengths, context))
    return Plan(streams, mixture, PackingConfig(context=context, window=window, too_long=too_long), length), streams


def farthest(shares, counts, unit="tokens"):
    """Positions of the group, source or direction that is farthest from its share of what the level above was given;
    groups of rows have no share of positions."""
    most = 0.0
    for depth in range(1 if unit == "rows" else 0, 3):
        for above in {one[:depth] for one in shares}:
            own = [i for i, one in enumerate(shares) if one[:depth] == above]
            total, whole = sum(counts[i] for i in own), sum(shares[i].share for i in own)
            for name in {shares[i][depth] for i in own}:
                below = [i for i in own if shares[i][depth] == name]
                asked = total * sum(shares[i].share for i in below) / whole
                most = max(most, abs(sum(counts[i] for i in below) - asked))
    return most
