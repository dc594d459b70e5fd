"""Which stream the next document or row comes from: exact shares, not in expectation. No torch.

Shares form a tree, group -> source -> direction, and count positions. Documents are drawn by largest shortfall: at
every node the child comes next that is furthest behind its share of what the node has been given. They are emitted by
fair queueing, which keeps every share within one document's length. Rows are shared out by Tijdeman's algorithm, which
is never off by a whole row.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import NamedTuple

from mio.core.data.ramp import mean_shares
from mio.core.recipe.data_schema import DataConfig, MixtureConfig, SourceConfig

_ROUNDING = 1 + 1e-12
"""No child is ahead of its share for a rounding error."""


class StreamShare(NamedTuple):
    """A stream of documents, which is one direction of one source of one group, and its share of the mixture."""

    group: str
    source: str
    direction: str
    """Empty for a source of conversations or interleaved documents."""
    share: float
    """Only ratios between streams matter."""

    @property
    def name(self) -> str:
        """`group/source/direction`, the direction left out where there is none."""
        return "/".join(part for part in self[:3] if part)


def read_sources(data: DataConfig, mixture: MixtureConfig) -> Iterator[tuple[str, str, SourceConfig]]:
    """(group, name, source) of every source with a share of its own, in the recipe's order."""
    for group, config in data.groups.items():
        if mixture.read(group):
            for name, source in config.sources.items():
                if source.weight > 0:
                    yield group, name, source


def stream_shares(
    data: DataConfig, mixture: MixtureConfig, directions: Mapping[tuple[str, str], Sequence[str]]
) -> list[StreamShare]:
    """The streams that a mixture reads, in the recipe's order. Of a mixture that changes, their shares of the stage.

    Args:
        directions: directions that each (group, source) offers; `("",)` for conversations and interleaved documents.
    """
    read = list(read_sources(data, mixture))
    ratios: Mapping[str, float] = mixture.ratios
    if mixture.ramp:
        groups = list(dict.fromkeys(group for group, _, _ in read))
        ratios = dict(zip(groups, mean_shares(mixture, groups), strict=True))
    shares: list[StreamShare] = []
    for group, name, source in read:
        weight = source.weight / sum(other.weight for owner, _, other in read if owner == group)
        parts = source.directions or dict.fromkeys(directions[group, name], 1.0)
        total = sum(parts.values())
        shares += [
            StreamShare(group, name, direction, ratios[group] * weight * share / total)
            for direction, share in parts.items()
            if share > 0
        ]
    return shares


class Node:
    """A node of the tree of shares: `count` is what the streams below it were given. Its leaves are streams."""

    __slots__ = ("branching", "children", "count", "due", "parent", "share", "start", "stop")

    def __init__(self, shares: Sequence[float], start: int, stop: int, parent: Node | None) -> None:
        self.start = start
        self.stop = stop
        self.parent = parent
        self.share = sum(shares[start:stop]) / sum(shares[parent.start : parent.stop]) if parent else 1.0
        self.count = 0
        self.children: list[Node] = []
        self.branching: list[Node] = []
        """This node and those below it that have several children."""
        self.due: tuple[int, int] | None = None
        """The stream below it whose next document is due first, and the document's length, as long as both hold."""


class Mixture:
    """Counts what each stream was given, and picks the one that is to be given the next document.

    The unit of the counts is the caller's; mio counts positions.
    """

    def __init__(self, streams: Sequence[StreamShare]) -> None:
        shares = [stream.share for stream in streams]
        self.idle: frozenset[int] = frozenset()
        """Streams of groups without a share now."""
        self.root = Node(shares, 0, len(streams), None)
        self.groups: list[Node] = []
        self._leaves: list[Node] = []
        index = range(len(streams))
        for _, group in groupby(index, key=lambda i: streams[i].group):
            members = list(group)
            node = self._add(shares, members, self.root)
            self.groups.append(node)
            for _, source in groupby(members, key=lambda i: streams[i].source):
                directions = list(source)
                branch = self._add(shares, directions, node)
                self._leaves += [self._add(shares, [i], branch) for i in directions]
        for node in (self.root, *self.groups):
            every = [node, *node.children, *(below for child in node.children for below in child.children)]
            node.branching = [below for below in every if len(below.children) > 1]

    @staticmethod
    def _add(shares: Sequence[float], members: Sequence[int], parent: Node) -> Node:
        node = Node(shares, members[0], members[-1] + 1, parent)
        parent.children.append(node)
        return node

    def pick(self, node: Node) -> int:
        """The stream below `node` with the largest shortfall, the first one where several tie."""
        while node.children:
            total, best, most = node.count, node.children[0], -math.inf
            for child in node.children:
                shortfall = child.share * total - child.count
                if shortfall > most:
                    best, most = child, shortfall
            node = best
        return node.start

    def due(self, node: Node, length: Callable[[int], int]) -> int:
        """The stream below `node` whose next document, of `length(stream)`, is due first.

        J. Bennett and H. Zhang, "WF2Q: worst-case fair weighted fair queueing" (INFOCOM 1996), at every node as in
        their "Hierarchical packet fair queueing algorithms" (SIGCOMM 1996): among the children that are not ahead of
        their share, the one whose share reaches its next document's end first. No child is then ever ahead of its share
        or behind it by more than the longest document, whatever shares and lengths are. A stream's next document may
        change only when something is given to the stream.
        """
        return self._due(node, length)[0]

    def _due(self, node: Node, length: Callable[[int], int]) -> tuple[int, int]:
        """(stream, length of its next document)."""
        if node.due is None:
            if not node.children:
                node.due = node.start, length(node.start)
            elif len(node.children) == 1:
                node.due = self._due(node.children[0], length)
            else:
                first = math.inf
                for child in node.children:
                    if child.count <= child.share * node.count * _ROUNDING:
                        due = self._due(child, length)
                        end = (child.count + due[1]) / child.share
                        if end < first:
                            node.due, first = due, end
                assert node.due is not None, "not all can be ahead of their shares"
        return node.due

    def within_reach(self, node: Node, bound: int) -> bool:
        """Whether `due` keeps every share below `node` within `bound` from here on, whatever documents of at most
        `bound` come; no share is further off now either.

        Let d be the shortfalls of a node's children and s their shares. Child j gets its next document, of length n,
        when it is behind by at most `(1 - s_j) n + s_j A`. Here A is by how much the others are still ahead when j's
        share reaches the document's end: the sum of `-d_i - s_i (n - d_j) / s_j` over those i for which it is positive.
        This is convex in n, so n = 0 and n = `bound` are the worst. A node whose children are ahead by less than
        `bound` in total passes all of this.
        """
        for below in node.branching:
            behind = [child.share * below.count - child.count for child in below.children]
            if -sum(d for d in behind if d < 0) < bound:
                continue
            if min(behind) <= -bound:
                return False
            shares = [child.share for child in below.children]
            still = _still_ahead(behind, shares)
            for share, own in zip(shares, behind, strict=True):
                if share * still(-own / share) > bound or still((bound - own) / share) > bound:
                    return False
        return True

    def shortfall(self, stream: int, top: Node) -> float:
        """By how much a stream is behind its share, at the level below `top` where it is least; negative if ahead."""
        least, node = math.inf, self._leaves[stream]
        while node is not top:
            assert node.parent is not None
            if len(node.parent.children) > 1:
                least = min(least, node.share * node.parent.count - node.count)
            node = node.parent
        return least

    def give(self, stream: int, amount: int) -> None:
        """Counts `amount` as given to a stream."""
        node: Node | None = self._leaves[stream]
        while node is not None:
            node.count += amount
            node.due = None
            node = node.parent

    @property
    def counts(self) -> list[int]:
        """What each stream was given."""
        return [node.count for node in self._leaves]

    def restore(self, counts: Sequence[int]) -> None:
        """Goes back to counts taken earlier."""
        for node in (self.root, *self.groups, *(child for group in self.groups for child in group.children)):
            node.count, node.due = 0, None
        for stream, count in enumerate(counts):
            self._leaves[stream].count = 0
            self.give(stream, count)


def _still_ahead(behind: Sequence[float], shares: Sequence[float]) -> Callable[[float], float]:
    """Function of a time, in what their parent is given: by how much the children that are still ahead then are so in
    total, if none of them is given anything."""
    even = sorted((-d / s, -d, s) for d, s in zip(behind, shares, strict=True))  # when each is at its share
    times = [time for time, _, _ in even]
    ahead, share = [0.0], [0.0]
    for _, own, part in reversed(even):
        ahead.append(ahead[-1] + own)
        share.append(share[-1] + part)

    def still(time: float) -> float:
        count = len(times) - bisect_right(times, time)
        return ahead[count] - time * share[count]

    return still


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
