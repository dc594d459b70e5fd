"""Exact shares of a mixture that changes within a stage. No torch.

Whoever is served next is told by when its share will have reached its next document's or row's end, which the ramp says
in closed form, not by what its share is now: the arguments behind `Mixture.due` and `RowSchedule` need no more of the
shares than that they add up to one at every moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from mio.core.data.mixture import Mixture, Node, StreamShare
from mio.core.data.ramp import Ramp

_ROUNDING = 1e-6
"""Positions by which no group is ahead or behind but for a rounding error."""


class RampedMixture(Mixture):
    """A mixture whose groups have other shares in each row, of `context` positions. Shares in groups are constant.

    Between the root and each group stands a node that counts by how much the group is ahead of what is due to it, from
    the last call of `aim` on; from there on the rules of constant shares apply. A tick of the ramp is a position.
    """

    def __init__(self, streams: Sequence[StreamShare], ramp: Ramp, context: int) -> None:
        super().__init__(streams)
        self.ramp = ramp
        self.context = context
        shares = [stream.share for stream in streams]
        self._slots: list[Node] = []
        for group in self.groups:
            slot = Node(shares, group.start, group.stop, self.root)
            slot.children, group.parent, group.share = [group], slot, 1.0
            self._slots.append(slot)
        self.root.children = self._slots
        self._dues: list[float] = []

    def aim(self, rows: int, dues: Sequence[int], ahead: int = 0) -> None:
        """Takes up the shares of the row after `rows`, or of what comes `ahead` positions later.

        Args:
            dues: what is due to each group after `rows`, in positions x `scale` x `context`.
        """
        ramp, tick = self.ramp, rows * self.context
        unit = ramp.scale * self.context
        begin, now = ramp.dues(tick), ramp.dues(tick + ahead)
        then = ramp.dues(tick + ahead + self.context)
        idle: list[int] = []
        for index, (slot, group) in enumerate(zip(self._slots, self.groups, strict=True)):
            due = dues[index] + (now[index] - begin[index]) * self.context
            slot.count = (group.count * unit - due) / unit  # type: ignore[assignment]
            slot.share = (then[index] - now[index]) / unit
            if not slot.share:
                idle += range(slot.start, slot.stop)
        self.idle = frozenset(idle)
        self.root.count, self.root.due = 0, None
        self._dues = [due / ramp.scale for due in now]

    @property
    def given(self) -> int:
        """Positions that all groups were given."""
        return sum(group.count for group in self.groups)

    def _due(self, node: Node, length: Callable[[int], int]) -> tuple[int, int]:
        """Like `Mixture.due`; who is due first hangs on what the shares will be. A group without a share in this row is
        given what it is still owed, when no other is behind."""
        if node is not self.root or node.due is not None:
            return super()._due(node, length)
        first = math.inf
        for index, slot in enumerate(self._slots):
            ahead = slot.count - slot.share * node.count
            if ahead <= _ROUNDING if slot.share else ahead < -_ROUNDING:
                due = self._due(slot, length)
                end = self.ramp.reach(index, self._dues[index] + slot.count + due[1])
                if node.due is None or end < first:
                    node.due, first = due, end
        assert node.due is not None, "not all can be ahead of their shares"
        return node.due

    def within_reach(self, node: Node, bound: int) -> bool:
        """As there. Groups that are ahead by less than `bound` in total pass whatever their shares become: each is then
        served before its share is `bound` past its documents' end."""
        if node is not self.root:
            return super().within_reach(node, bound)
        ahead = (slot.count - slot.share * node.count for slot in self._slots)
        return sum(one for one in ahead if one > 0) < bound and all(
            super(RampedMixture, self).within_reach(group, bound) for group in self.groups
        )


class RampedRows:
    """`RowSchedule` for shares that change: Tijdeman's theorem is about such shares, and so is its bound."""

    def __init__(self, ramp: Ramp, groups: int) -> None:
        self.ramp = ramp
        self.counts = [0] * groups
        self._slack = Fraction(1, 2 * groups - 2) if groups > 1 else Fraction(1)

    def pick(self) -> int:
        """Group of the next row."""
        scale = self.ramp.scale
        short, least = math.ceil(self._slack * scale), math.ceil((1 - self._slack) * scale)
        dues = self.ramp.dues(sum(self.counts) + 1)
        eligible = [i for i, due in enumerate(dues) if due - self.counts[i] * scale >= short]
        return min(eligible, key=lambda i: self.ramp.first(i, self.counts[i] * scale + least))
