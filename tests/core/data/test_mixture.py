import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_streams import farthest

from mio.core.data.mixture import Mixture, RowSchedule, StreamShare, stream_shares
from mio.core.recipe.data_schema import DataConfig, GroupConfig, MixtureConfig, SourceConfig


def deal(found, lengths, documents):
    """Gives `documents` documents to the streams; returns the shares of tokens."""
    mixture = Mixture(found)
    next_of = [0] * len(found)
    for _ in range(documents):
        stream = mixture.pick(mixture.root)
        mixture.give(stream, int(lengths[stream][next_of[stream] % len(lengths[stream])]))
        next_of[stream] += 1
    return np.array(mixture.counts) / sum(mixture.counts)


def test_token_shares_after_20000_documents_are_within_a_thousandth_at_every_level():
    rng = np.random.default_rng(0)
    found = [
        StreamShare("a", "x", "in", 0.3),
        StreamShare("a", "x", "out", 0.15),
        StreamShare("a", "y", "", 0.05),
        StreamShare("b", "z", "in", 0.125),
        StreamShare("b", "z", "out", 0.125),
        StreamShare("c", "w", "", 0.25),
    ]
    lengths = [np.clip(rng.lognormal(mean, 0.8, 997), 4, 2800) for mean in (3.5, 4, 6.5, 5, 3, 6)]
    shares = deal(found, lengths, 20_000)
    assert np.abs(shares - [stream.share for stream in found]).max() < 0.001
    assert abs(shares[:3].sum() - 0.5) < 0.001
    assert abs(shares[3:5].sum() - 0.25) < 0.001


@settings(max_examples=25, deadline=None)
@given(
    ratios=st.lists(st.floats(0.01, 1), min_size=2, max_size=6),
    scales=st.lists(st.integers(2, 1000), min_size=6, max_size=6),
)
def test_any_shares_and_lengths_stay_within_a_few_documents(ratios, scales):
    found = [StreamShare(f"g{i}", "s", "", ratio) for i, ratio in enumerate(ratios)]
    lengths = [[scale, 2 * scale, 1 + scale // 2] for scale in scales]
    mixture, next_of = Mixture(found), [0] * len(found)
    longest = 2 * max(scales[: len(found)])
    for _ in range(2000):
        stream = mixture.pick(mixture.root)
        mixture.give(stream, lengths[stream][next_of[stream] % 3])
        next_of[stream] += 1
    total = sum(mixture.counts)
    for stream, count in zip(found, mixture.counts, strict=True):
        assert abs(count - total * stream.share / sum(ratios)) <= len(found) * longest


def random_shares(draw, most=20):
    found = []
    for group in range(draw.randint(1, 4)):
        ratio = 10 ** draw.uniform(0, 3)
        for source in range(draw.randint(1, 3)):
            directions = draw.randint(1, 3)
            for direction in range(directions):
                share = ratio * draw.choice([1, 1, 2, 30]) / directions
                found.append(StreamShare(f"g{group}", f"s{source}", f"d{direction}" if directions > 1 else "", share))
    return found[:most]


@pytest.mark.parametrize("seed", range(12))
def test_fair_queueing_keeps_every_share_within_the_longest_document(seed):
    draw = random.Random(seed)
    found = random_shares(draw)
    scales = [draw.choice([2, 10, 100]) for _ in found]
    mixture, following = Mixture(found), [draw.randint(1, scale) for scale in scales]
    for _ in range(600):
        stream = mixture.due(mixture.root, following.__getitem__)
        mixture.give(stream, following[stream])
        following[stream] = draw.randint(1, scales[stream])
        assert farthest(found, mixture.counts) <= max(scales) + 1e-6


@pytest.mark.parametrize("seed", range(40))
def test_from_a_state_within_reach_fair_queueing_never_gets_further_off(seed):
    """Random states, however they came about, and the worst documents: of the bound's length or of one position."""
    draw = random.Random(seed)
    found = random_shares(draw, draw.choice([2, 3, 6, 20]))
    mixture, bound, tried = Mixture(found), 100, 0
    while tried < 3:
        # far from the beginning, where every share was met, then thrown off
        shares = sum(stream.share for stream in found)
        level = [round(10**6 * stream.share / shares) for stream in found]
        spread = draw.choice([10, 40, 90])
        mixture.restore([max(0, count + draw.randint(-spread, spread)) for count in level])
        if not mixture.within_reach(mixture.root, bound):
            continue
        tried += 1
        assert farthest(found, mixture.counts) <= bound + 1e-6
        lengths = [draw.choice([1, 2, bound, bound // 2]) for _ in found]
        for _ in range(100):
            stream = mixture.due(mixture.root, lengths.__getitem__)
            mixture.give(stream, lengths[stream])
            assert farthest(found, mixture.counts) <= bound + 1e-6


def test_a_state_from_which_nobody_could_keep_the_bound_is_out_of_reach():
    """Two of four are a row behind: one of them has to wait for the other."""
    mixture = Mixture([StreamShare("g", "s", str(i), 1) for i in range(4)])
    for counts, within in (((0, 0, 0, 0), True), ((60, 60, 120, 120), True), ((0, 0, 200, 200), False)):
        mixture.restore(counts)
        assert mixture.within_reach(mixture.root, 100) is within


@pytest.mark.parametrize("ratios", [(12, 2, 2), (2, 2, 6, 6), (2, 1, 1, 12), (1,), (0.1, 0.2, 0.7)])
def test_rows_are_never_a_whole_row_off(ratios):
    schedule = RowSchedule(ratios)
    shares = [Fraction(str(ratio)) / sum(Fraction(str(r)) for r in ratios) for ratio in ratios]
    for row in range(1, 500):
        schedule.counts[schedule.pick()] += 1
        assert all(abs(share * row - count) < 1 for share, count in zip(shares, schedule.counts, strict=True))
    # after whole periods the ratio is met to the row
    period = RowSchedule(ratios)
    for _ in range(160):
        period.counts[period.pick()] += 1
    assert period.counts == [share * 160 for share in shares]


@settings(max_examples=40, deadline=None)
@given(ratios=st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_row_schedule_keeps_the_bound_of_the_chairman_assignment(ratios):
    schedule = RowSchedule(ratios)
    bound = 1 - Fraction(1, 2 * len(ratios) - 2)
    for row in range(1, 2 * sum(ratios) + 1):
        schedule.counts[schedule.pick()] += 1
        assert all(abs(s * row - c) <= bound for s, c in zip(schedule.shares, schedule.counts, strict=True))


def test_streams_of_a_recipe():
    data = DataConfig(
        groups={
            "pairs": GroupConfig(
                sources={
                    "one": SourceConfig(templates="t", weight=3),
                    "two": SourceConfig(templates="t", directions={"out": 1, "in": 3, "skip": 0}),
                    "off": SourceConfig(weight=0),
                }
            ),
            "talk": GroupConfig(sources={"chats": SourceConfig()}),
            "unused": GroupConfig(sources={"x": SourceConfig()}),
        }
    )
    mixture = MixtureConfig(ratios={"pairs": 8, "talk": 2, "unused": 0})
    offered = {("pairs", "one"): ["in", "out"], ("pairs", "two"): ["in", "out", "skip"], ("talk", "chats"): [""]}
    found = {stream.name: stream.share for stream in stream_shares(data, mixture, offered)}
    assert found == {
        "pairs/one/in": 3,
        "pairs/one/out": 3,
        "pairs/two/out": 0.5,
        "pairs/two/in": 1.5,
        "talk/chats": 2,
    }
