"""A mixture that changes within a stage, met by whole plans: exact shares, exact resume, groups that come and go."""

import json
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_streams import farthest, made_plan
from test_plan_rows import ARTICLES, BOOKS, PAIRS, UTTERANCES, made_lengths

from mio.core.data.ledger import group_shares, ledger
from mio.core.data.plan import Changes
from mio.core.errors import DataError

MIO = {"pairs": PAIRS, "text": ARTICLES, "interleaved": BOOKS, "speech": UTTERANCES}
STAGES = ((12, 2, 0, 2), (2, 2, 6, 6), (2, 1, 1, 12))
"""Published ratios of MIO's three stages."""


def mio_like(first, ramp, unit, length, **settings):
    groups = {name: (ratio, {"s": (1, MIO[name])}) for name, ratio in zip(MIO, first, strict=True)}
    return made_plan(groups, unit=unit, context=2800, ramp=ramp, length=length, **settings)[0]


def shares_in(points, row, length):
    """Exact share of each group in a row: the mean over the row, of which a straight line takes the middle. Rows of
    which a point is no border are cut."""
    cuts = [Fraction(row), *(at * length for at, _ in points if row < at * length < row + 1), Fraction(row + 1)]
    shares = [Fraction(0)] * len(points[0][1])
    for start, end in pairwise(cuts):
        middle = (start + end) / 2 / length
        before = max((i for i, (at, _) in enumerate(points) if at <= middle), default=0)
        (at, first), (then, last) = points[before], points[min(before + 1, len(points) - 1)]
        part = (middle - at) / (then - at) if then > at else Fraction(0)
        for i, (a, b) in enumerate(zip(first, last, strict=True)):
            shares[i] += (end - start) * (Fraction(a) / sum(first) * (1 - part) + Fraction(b) / sum(last) * part)
    return shares


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_after_20000_documents_no_share_is_off_the_integral_of_its_ramp_by_a_thousandth(unit):
    plan = mio_like(STAGES[0], [(0.5, STAGES[1]), (1, STAGES[2])], unit, 1200, window=512)
    due, filled = [Fraction(0)] * 4, 0
    points = list(zip((Fraction(0), Fraction(1, 2), Fraction(1)), STAGES, strict=True))
    while sum(counts.documents for counts in plan.counts) < 19_700 or plan.rows < 1190:
        shares, row = shares_in(points, plan.rows, 1200), plan.next_row()
        amount = sum(entry.length for entry in row) if unit == "tokens" else 1
        due = [one + share * amount for one, share in zip(due, shares, strict=True)]
        filled += sum(entry.length for entry in row)
    assert sum(counts.documents for counts in plan.counts) > 19_600
    assert filled / (plan.rows * 2800) >= 0.999
    groups = group_shares(plan.state())
    for one, (target, achieved) in zip(due, groups.values(), strict=True):
        assert target == pytest.approx(float(one / sum(due)), abs=1e-6)
        assert abs(target - achieved) < 0.001


def made_ramp(seed):
    """Groups that come, go and jump, of documents that are tiny, huge, or nearly divide a row."""
    draw = random.Random(seed)
    context, length, unit = draw.choice([32, 256, 1000]), draw.choice([7, 40, 120]), draw.choice(["tokens", "rows"])
    moments = sorted({draw.choice([0.1, 0.25, 0.5, 0.7, 1.0, round(draw.uniform(0.01, 1), 3)]) for _ in range(3)})
    if draw.random() < 0.5:
        moments.insert(0, moments[0])
    if moments[-2:] == [1.0, 1.0]:
        moments.pop()
    count = draw.randint(2, 5)
    tables = [[draw.choice([0, 0, 1, 3, 10, 1000]) for _ in range(count)] for _ in range(len(moments) + 1)]
    for table in tables:
        table[0] = table[0] or 1
    read = [i for i in range(count) if any(table[i] for table in tables)]
    tables = [[table[i] for i in read] for table in tables]
    groups = {}
    for group, ratio in enumerate(tables[0]):
        members = {}
        for source in range(draw.randint(1, 3)):
            for direction in draw.choice([[""], [":x", ":y"]]):
                members[f"s{source}{direction}"] = (draw.choice([1, 1, 2, 1000]), made_lengths(draw, context))
        groups[f"g{group}"] = (ratio, members)
    ramp = list(zip(moments, tables[1:], strict=True))
    window = draw.choice([1, 20, 256])
    plan, _ = made_plan(groups, unit=unit, context=context, window=window, ramp=ramp, length=length)
    points = list(zip([Fraction(0), *(Fraction(str(moment)) for moment in moments)], tables, strict=True))
    return plan, points, unit, context, length


@pytest.mark.parametrize("seed", range(30))
def test_no_share_is_ever_off_its_ramp_by_more_than_a_row(seed):
    plan, points, unit, context, length = made_ramp(seed)
    due, given = [Fraction(0)] * len(plan.groups), [0] * len(plan.groups)
    for row in range(length + 10):
        shares, entries = shares_in(points, row, length), plan.next_row()
        for entry in entries:
            group = plan.groups.index(plan.streams[entry.stream].share.group)
            given[group] += entry.length if unit == "tokens" else 0
        if unit == "rows":
            given[plan.groups.index(plan.streams[entries[0].stream].share.group)] += 1
        amount = sum(entry.length for entry in entries) if unit == "tokens" else 1
        due = [one + share * amount for one, share in zip(due, shares, strict=True)]
        bound = context if unit == "tokens" else 1
        assert max(abs(one - had) for one, had in zip(due, given, strict=True)) <= bound
        positions = [counts.positions for counts in plan.counts]
        assert farthest([stream.share for stream in plan.streams], positions, "rows") <= context + 1e-6
    assert plan.state()["dues"] == [str(one) for one in due]


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_who_is_served_first_hangs_on_what_shares_will_be(unit):
    """Group after group loses its share in favour of those after it. Whoever serves the first ones first owes the last
    one 1/4 + 1/3 + 1/2 rows after three."""
    ramp, left = [], [1.0] * 4
    for row in range(3):
        then = [0.0] * (row + 1) + [1.0] * (3 - row)
        ramp += [((row + 1) / 4, left), ((row + 1) / 4, then)]
        left = then
    groups = {f"g{i}": (1.0, {"s": (1, [100])}) for i in range(4)}
    plan, _ = made_plan(groups, unit=unit, context=100, window=4, ramp=ramp, length=4)
    assert [plan.streams[plan.next_row()[0].stream].share.group for _ in range(3)].count("g3") == 1


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_a_group_comes_and_goes_with_its_share(unit):
    """Text has no share between 0.4 and 0.8, pictures none after 0.8, books none before 0.4."""
    ramp = [(0.4, (2, 0, 0, 6)), (0.8, (0, 0, 8, 1)), (0.8, (0, 2, 8, 1))]
    plan, rows = mio_like((12, 2, 0, 2), ramp, unit, 300, window=512), {name: [] for name in MIO}
    for row in range(320):
        for entry in plan.next_row():
            rows[plan.streams[entry.stream].share.group].append(row)
    assert 120 < min(rows["interleaved"]) < 160
    assert 200 < max(rows["pairs"]) <= 242
    assert not any(125 < row < 240 for row in rows["text"])
    assert min(row for row in rows["text"] if row >= 240) < 250


def fresh(unit, window, moments, length):
    ramp = [(at, ratios) for at, ratios in zip(moments, ((1, 1, 0), (0, 2, 5), (1, 0, 1)), strict=False)]
    groups = {
        "a": (3, {"s:x": (1, PAIRS), "s:y": (2, [40, 0, 300, 90])}),
        "b": (1, {"t": (1, UTTERANCES)}),
        "c": (0, {"u": (1, [7, 500])}),
    }
    return made_plan(groups, unit=unit, context=512, window=window, ramp=ramp, length=length)[0]


@settings(max_examples=40, deadline=None)
@given(
    stop=st.integers(0, 80),
    unit=st.sampled_from(["tokens", "rows"]),
    window=st.integers(1, 100),
    moments=st.lists(st.floats(0.01, 0.99).map(lambda at: round(at, 3)), min_size=3, max_size=3).map(sorted),
    length=st.integers(1, 100),
)
def test_a_ramp_goes_on_exactly_from_any_row_and_can_be_followed(stop, unit, window, moments, length):
    whole = fresh(unit, window, moments, length)
    rows = [whole.next_row() for _ in range(100)]
    first, follower = (fresh(unit, window, moments, length) for _ in range(2))
    first.changes = Changes()
    for _ in range(stop):
        first.next_row()
    follower.follow(first.changes)
    saved = json.dumps(first.state())
    assert json.dumps(follower.state()) == saved
    second = fresh(unit, window, moments, length)
    second.restore(json.loads(saved))
    assert json.dumps(second.state()) == saved
    assert [second.next_row() for _ in range(100 - stop)] == rows[stop:]
    assert second.state() == whole.state()


def test_a_ramp_and_the_length_of_the_stage_are_part_of_what_a_plan_is():
    groups = {"a": (3, {"s": (1, [5, 6])}), "b": (1, {"t": (1, [7])})}
    plan, _ = made_plan(groups, ramp=[(1, (1, 1))], length=100)
    plan.next_row()
    for other in ({"ramp": [(0.5, (1, 1))], "length": 100}, {"ramp": [(1, (1, 1))], "length": 90}, {}):
        with pytest.raises(DataError, match=r"`(ramp|length)` was"):
            made_plan(groups, **other)[0].restore(plan.state())


def test_a_ramp_that_stays_gives_each_group_its_constant_share():
    groups = {"a": (3, {"s": (1, PAIRS)}), "b": (1, {"t": (1, UTTERANCES)})}
    for unit in ("tokens", "rows"):
        plan, _ = made_plan(groups, unit=unit, context=512, ramp=[(0.3, (6, 2)), (1, (3, 1))], length=77)
        for _ in range(100):
            plan.next_row()
        report = ledger(plan.state())["mixture"]
        assert [group["target"] for group in report.values()] == [0.75, 0.25]
        assert report["a"]["achieved"] == pytest.approx(0.75, abs=0.01)
