"""Which stream the next document or row comes from: exact shares by largest shortfall, not in expectation. No torch.

Shares form a tree, group -> source -> direction. At every node the child that is furthest behind its share of what the
node has been given comes next, so no share is ever off by more than a few documents, whatever their lengths. Rows are
shared out by Tijdeman's algorithm, which is never off by a whole row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import NamedTuple

from mio.core.data.config import DataConfig, MixtureConfig, SourceConfig


class Leaf(NamedTuple):
    """A stream of documents: one direction of one source of one group."""

    group: str
    source: str
    direction: str
    """Empty for a source of conversations or interleaved documents."""
    share: float
    """Of the whole mixture; only ratios between leaves matter."""

    @property
    def name(self) -> str:
        """`group/source/direction`, the direction left out where there is none."""
        return "/".join(part for part in self[:3] if part)


def read_sources(data: DataConfig, mixture: MixtureConfig) -> Iterator[tuple[str, str, SourceConfig]]:
    """(group, name, source) of every source with a share of its own, in the recipe's order."""
    for group, config in data.groups.items():
        if mixture.ratios.get(group, 0) > 0:
            for name, source in config.sources.items():
                if source.weight > 0:
                    yield group, name, source


def leaves(data: DataConfig, mixture: MixtureConfig, directions: Mapping[tuple[str, str], Sequence[str]]) -> list[Leaf]:
    """The streams that a mixture reads, in the recipe's order.

    Args:
        directions: directions that each (group, source) offers; `("",)` for conversations and interleaved documents.
    """
    read = list(read_sources(data, mixture))
    found: list[Leaf] = []
    for group, name, source in read:
        weight = source.weight / sum(other.weight for owner, _, other in read if owner == group)
        asked = source.directions or dict.fromkeys(directions[group, name], 1.0)
        total = sum(asked.values())
        found += [
            Leaf(group, name, direction, mixture.ratios[group] * weight * share / total)
            for direction, share in asked.items()
            if share > 0
        ]
    return found


class _Node:
    """A node of the tree of shares: `count` is what the leaves below it were given."""

    __slots__ = ("children", "count", "parent", "share", "start", "stop")

    def __init__(self, shares: Sequence[float], start: int, stop: int, parent: _Node | None) -> None:
        self.start = start
        self.stop = stop
        self.parent = parent
        self.share = sum(shares[start:stop]) / sum(shares[parent.start : parent.stop]) if parent else 1.0
        self.count = 0
        self.children: list[_Node] = []


class Mixture:
    """Counts what each leaf was given, and picks the leaf that is to be given the next document.

    The unit of the counts is the caller's; mio counts positions.
    """

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        shares = [leaf.share for leaf in leaves]
        self.root = _Node(shares, 0, len(leaves), None)
        self.groups: list[_Node] = []
        self._leaves: list[_Node] = []
        index = range(len(leaves))
        for _, group in groupby(index, key=lambda i: leaves[i].group):
            members = list(group)
            node = self._add(shares, members, self.root)
            self.groups.append(node)
            for _, source in groupby(members, key=lambda i: leaves[i].source):
                directions = list(source)
                branch = self._add(shares, directions, node)
                self._leaves += [self._add(shares, [i], branch) for i in directions]

    @staticmethod
    def _add(shares: Sequence[float], members: Sequence[int], parent: _Node) -> _Node:
        node = _Node(shares, members[0], members[-1] + 1, parent)
        parent.children.append(node)
        return node

    def pick(self, node: _Node, waiting: Sequence[int] | None = None) -> int:
        """Leaf below `node` with the largest shortfall, the first one where several tie.

        Args:
            waiting: documents that each leaf has on hand; only leaves with some are considered. None: all are.
        """
        while node.children:
            total, best, most = node.count, None, 0.0
            for child in node.children:
                if waiting is not None and not any(waiting[child.start : child.stop]):
                    continue
                shortfall = child.share * total - child.count
                if best is None or shortfall > most:
                    best, most = child, shortfall
            assert best is not None, "nothing to pick from"
            node = best
        return node.start

    def give(self, leaf: int, amount: int) -> None:
        """Counts `amount` as given to a leaf."""
        node: _Node | None = self._leaves[leaf]
        while node is not None:
            node.count += amount
            node = node.parent

    @property
    def counts(self) -> list[int]:
        """What each leaf was given."""
        return [node.count for node in self._leaves]

    def restore(self, counts: Sequence[int]) -> None:
        """Goes back to counts taken earlier."""
        for node in (self.root, *self.groups, *(child for group in self.groups for child in group.children)):
            node.count = 0
        for leaf, count in enumerate(counts):
            self._leaves[leaf].count = 0
            self.give(leaf, count)


class RowSchedule:
    """Shares rows out to groups so that none is ever a whole row away from its share.

    R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): among the groups that may be given
    the next row without getting too far ahead, the one whose deadline comes first. The largest distance from a share is
    `1 - 1 / (2k - 2)` rows for k groups, which is the best possible. Computed in exact fractions.
    """

    def __init__(self, ratios: Sequence[float]) -> None:
        # a float's shortest decimal is the ratio that a person wrote
        exact = [Fraction(str(ratio)) for ratio in ratios]
        self.shares = [ratio / sum(exact) for ratio in exact]
        self.counts = [0] * len(exact)
        self._slack = Fraction(1, 2 * len(exact) - 2) if len(exact) > 1 else Fraction(1)

    def pick(self) -> int:
        """Group of the next row."""
        row = sum(self.counts) + 1
        shortfalls = [share * row - count for share, count in zip(self.shares, self.counts, strict=True)]
        eligible = [i for i, shortfall in enumerate(shortfalls) if shortfall >= self._slack]
        return min(eligible, key=lambda i: (1 - self._slack - shortfalls[i]) / self.shares[i])
