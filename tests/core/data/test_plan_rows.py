import json
import pickle
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_streams import farthest, made_plan

from mio.core.data.ledger import group_shares, ledger
from mio.core.data.plan import Changes
from mio.core.errors import DataError

rng = np.random.default_rng(0)
# positions per document like MIO's: 34 for the span of one picture and a caption; articles; picture books; utterances
PAIRS = np.clip(34 + rng.lognormal(3.2, 0.6, 5000), 36, 2800).astype(int).tolist()
ARTICLES = np.clip(rng.lognormal(6.3, 1.0, 5000), 20, 2800).astype(int).tolist()
BOOKS = np.clip(rng.lognormal(6.8, 0.5, 5000), 200, 2800).astype(int).tolist()
UTTERANCES = np.clip(rng.gamma(3, 120, 5000) + 20, 50, 2800).astype(int).tolist()
STAGES = {"one": (12, 2, 0.0001, 2), "two": (2, 2, 6, 6), "three": (2, 1, 1, 12)}


def mio_like(ratios, **settings):
    streams = (PAIRS, ARTICLES, BOOKS, UTTERANCES)
    names = ("pairs", "text", "interleaved", "speech")
    groups = {name: (ratio, {"s": (1, lengths)}) for name, ratio, lengths in zip(names, ratios, streams, strict=True)}
    return made_plan(groups, **settings)


@pytest.mark.parametrize("unit", ["tokens", "rows"])
@pytest.mark.parametrize("stage", STAGES)
def test_rows_of_multimodal_mixes_are_full(stage, unit):
    plan, _ = mio_like(STAGES[stage], unit=unit, context=2800, window=512)
    rows = [plan.next_row() for _ in range(1200)]
    filled = sum(entry.length for row in rows for entry in row)
    assert filled / (1200 * 2800) >= 0.999
    assert ledger(plan.state())["packing"]["fill"] == pytest.approx(filled / (1200 * 2800), abs=1e-5)


def test_small_rows_are_full():
    scaled = [[max(4, length * 7 // 100) for length in lengths] for lengths in (PAIRS, ARTICLES, BOOKS, UTTERANCES)]
    groups = {
        f"g{i}": (ratio, {"s": (1, lengths)})
        for i, (ratio, lengths) in enumerate(zip((2, 2, 6, 6), scaled, strict=True))
    }
    for unit in ("tokens", "rows"):
        plan, _ = made_plan(groups, unit=unit, context=256, window=256)
        filled = sum(entry.length for _ in range(2000) for entry in plan.next_row())
        assert filled / (2000 * 256) >= 0.999


def test_rows_of_documents_of_few_lengths_are_still_full():
    # nine of these leave up to 40 of 256 positions free unless they are chosen to add up
    plan, _ = made_plan({"a": (1, {"s": (1, list(range(24, 31)))})}, unit="rows", context=256, window=256)
    assert all(sum(entry.length for entry in plan.next_row()) == 256 for _ in range(500))


def test_no_document_waits_for_long():
    plan, _ = mio_like(STAGES["two"], context=2800, window=512)
    drawn_at = {}
    for row in range(1500):
        before = [counts.next for counts in plan.counts]
        entries = plan.next_row()
        drawn_at |= {
            (stream, n): row for stream, counts in enumerate(plan.counts) for n in range(before[stream], counts.next)
        }
        assert all(row - drawn_at[entry.stream, entry.n] < 120 for entry in entries)


def test_emitted_token_shares_are_exact_though_the_pool_holds_documents_back():
    plan, _ = mio_like(STAGES["two"], context=2800, window=512)
    while sum(counts.documents for counts in plan.counts) < 20_000:
        plan.next_row()
    for target, achieved in group_shares(plan.state()).values():
        assert abs(target - achieved) < 0.001


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_two_directions_of_documents_of_nearly_one_length_share_equally(unit):
    """Nine documents fill a row: those of 28 fill it better than those of 27."""
    plan, _ = made_plan({"g": (1, {"s:a": (1, [27]), "s:b": (1, [28])})}, unit=unit, context=256, window=256)
    emitted = [0, 0]
    for _ in range(600):
        row = plan.next_row()
        assert len(row) == 9
        for entry in row:
            emitted[entry.stream] += entry.length
        assert abs(emitted[0] - emitted[1]) / 2 <= 256
    directions = ledger(plan.state())["mixture"]["g"]["sources"]["s"]["directions"]
    assert directions["a"]["achieved"] == pytest.approx(0.5, abs=256 / sum(emitted))


def made_lengths(draw, context):
    """Of documents that are tiny, huge, or nearly divide a row."""
    kinds = [
        lambda: [context],
        lambda: [context // 2 + 1],
        lambda: [max(1, context // draw.choice([2, 3, 9]) + draw.choice([-1, 0, 1]))],
        lambda: [draw.randint(1, max(1, context // 20)) for _ in range(30)],
        lambda: [draw.randint(1, context) for _ in range(50)],
        lambda: [1, context, 2 * context, 0],
    ]
    return draw.choice(kinds)()


def made_mix(seed):
    """Groups of sources with directions in wild ratios, of documents of all lengths."""
    draw = random.Random(seed)
    context, groups = draw.choice([32, 256, 1000]), {}
    for group in range(draw.randint(1, 4)):
        members = {}
        for source in range(draw.randint(1, 3)):
            weight = 10 ** draw.uniform(0, 3)
            for direction in draw.choice([[""], [":x", ":y"], [":x", ":y", ":z"]]):
                members[f"s{source}{direction}"] = (weight * draw.choice([1, 1, 2, 1000]), made_lengths(draw, context))
        groups[f"g{group}"] = (draw.choice([1, 1, 3, 1000]), members)
    settings = {"unit": draw.choice(["tokens", "rows"]), "context": context, "window": draw.choice([1, 20, 256])}
    return made_plan(groups, **settings)[0], settings["unit"], context


@pytest.mark.parametrize("seed", range(24))
def test_no_share_is_ever_off_by_more_than_a_row(seed):
    plan, unit, context = made_mix(seed)
    emitted, rows = [0] * len(plan.streams), Counter()
    for count in range(1, 151):
        row = plan.next_row()
        for entry in row:
            emitted[entry.stream] += entry.length
        assert farthest([stream.share for stream in plan.streams], emitted, unit) <= context + 1e-6
        rows[plan.streams[row[0].stream].share.group] += 1
        for group, ratio in plan.identity["ratios"].items():
            asked = count * ratio / sum(plan.identity["ratios"].values())
            assert unit == "tokens" or abs(rows[group] - asked) < 1
    assert [counts.positions for counts in plan.counts] == emitted


def test_a_share_too_small_for_a_document_is_not_behind_by_more_than_a_row():
    plan, _ = made_plan({"g": (1, {"s:a": (1000, [7]), "s:b": (1, [256])})}, context=256, window=16)
    emitted = [0, 0]
    for _ in range(3000):
        for entry in plan.next_row():
            emitted[entry.stream] += entry.length
        assert abs(emitted[1] - sum(emitted) / 1001) <= 256
    assert emitted[1] // 256 in (2, 3)  # of 3000 rows a thousand and first part


def test_rows_of_one_group_each_in_exact_ratio():
    plan, _ = made_plan(
        {"pairs": (12, {"s": (1, PAIRS)}), "text": (2, {"s": (1, ARTICLES)}), "speech": (2, {"s": (1, UTTERANCES)})},
        unit="rows",
        context=2800,
        window=128,
    )
    seen: Counter[str] = Counter()
    for row in range(1, 161):
        groups = {plan.streams[entry.stream].share.group for entry in plan.next_row()}
        assert len(groups) == 1
        seen.update(groups)
        assert all(
            abs(seen[group] - row * share / 16) < 1 for group, share in zip(("pairs", "text"), (12, 2), strict=True)
        )
    assert seen == {"pairs": 120, "text": 20, "speech": 20}
    assert ledger(plan.state())["mixture"]["pairs"]["rows"] == 120


def test_inside_a_group_of_rows_sources_and_directions_share_the_tokens():
    plan, _ = made_plan(
        {"a": (1, {"s:in": (1, BOOKS), "s:out": (2, PAIRS), "t": (1, UTTERANCES)}), "b": (3, {"u": (1, ARTICLES)})},
        unit="rows",
        context=2800,
        window=256,
    )
    for _ in range(2000):
        plan.next_row()
    group = ledger(plan.state())["mixture"]["a"]
    assert group["achieved"] == pytest.approx(0.25, abs=1 / 2000)
    assert group["sources"]["s"]["achieved"] == pytest.approx(0.75, abs=0.003)
    assert group["sources"]["s"]["directions"]["out"]["achieved"] == pytest.approx(2 / 3, abs=0.003)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=4),
    unit=st.sampled_from(["tokens", "rows"]),
    window=st.integers(1, 20),
)
def test_no_document_is_lost_split_or_moved_out_of_its_place(lengths, unit, window):
    lengths = [[*own, 5] for own in lengths]
    plan, streams = made_plan(
        {f"g{i}": (1 + i, {"s": (1, own)}) for i, own in enumerate(lengths)}, unit=unit, context=32, window=window
    )
    rows = [plan.next_row() for _ in range(60)]
    entries = [entry for row in rows for entry in row]
    assert len({(entry.stream, entry.n) for entry in entries}) == len(entries)
    for row in rows:
        assert 0 < sum(entry.length for entry in row) <= 32
    for stream, n, length, truncated in entries:
        whole = streams[stream].lengths[n % len(streams[stream])]
        assert (length, truncated) == ((32, True) if whole > 32 else (whole, False))
    # what was drawn is emitted, skipped or waiting
    waiting = Counter(stream for pool in plan.state()["pools"] for stream, *_ in pool)
    for stream, counts in enumerate(plan.counts):
        emitted = sum(entry.stream == stream for entry in entries)
        assert counts.documents == emitted
        assert counts.next == emitted + waiting[stream] + sum(counts.skipped.values())
        assert sum(counts.skipped.values()) == sum(
            streams[stream].lengths[n % len(streams[stream])] == 0 for n in range(counts.next)
        )


@settings(max_examples=30, deadline=None)
@given(stop=st.integers(0, 120), unit=st.sampled_from(["tokens", "rows"]), window=st.integers(1, 100))
def test_a_plan_restored_from_json_goes_on_as_if_nothing_had_happened(stop, unit, window):
    def fresh():
        return made_plan(
            {"a": (3, {"s:x": (1, PAIRS), "s:y": (2, [40, 0, 300, 90])}), "b": (1, {"t": (1, UTTERANCES)})},
            unit=unit,
            context=512,
            window=window,
        )[0]

    whole = fresh()
    rows = [whole.next_row() for _ in range(150)]
    first = fresh()
    for _ in range(stop):
        first.next_row()
    saved = json.dumps(first.state())
    first.next_row()  # the state is a copy: going on does not reach it
    second = fresh()
    second.restore(json.loads(saved))
    assert json.dumps(second.state()) == saved
    assert [second.next_row() for _ in range(150 - stop)] == rows[stop:]
    assert second.state() == whole.state()


@pytest.mark.parametrize(
    ("policy", "expected"), [("truncate", {"truncated": 3, "skipped": {}}), ("skip", {"truncated": 0})]
)
def test_too_long_documents(policy, expected):
    plan, _ = made_plan({"a": (1, {"s": (1, [64, 100])})}, context=64, window=4, too_long=policy)
    rows = [plan.next_row() for _ in range(6)]
    assert all(sum(entry.length for entry in row) == 64 for row in rows)
    report = ledger(plan.state())
    for key, value in expected.items():
        assert report["packing"][key] == value
    if policy == "skip":
        assert report["packing"]["skipped"] == {"longer than the context": plan.counts[0].next // 2}
        assert "record 1: longer than the context" in report["packing"]["skipped_examples"][0]


def test_too_long_document_as_an_error_names_record_and_remedy():
    plan, _ = made_plan({"a": (1, {"s": (1, [10, 100])})}, context=64, window=4, too_long="error")
    with pytest.raises(DataError, match=r"a/s: record 1 has 101 tokens.*data\.packing\.context"):
        plan.next_row()


def test_a_stream_without_a_usable_document_is_an_error_and_not_an_endless_loop():
    plan, _ = made_plan({"a": (1, {"s": (1, [0, 0, 0])})})
    with pytest.raises(DataError, match=r"a/s: none of its 3 records can be used: broken \(6\)"):
        plan.next_row()


def test_state_of_other_data_is_refused_with_what_changed():
    plan, _ = made_plan({"a": (1, {"s": (1, [5, 6])}), "b": (1, {"t": (1, [7])})})
    state = plan.state()
    other, _ = made_plan({"a": (2, {"s": (1, [5, 6, 7])}), "c": (1, {"t": (1, [7])})}, context=128)
    with pytest.raises(DataError) as caught:
        other.restore(state)
    for words in ("`context` was 256, is 128", "`b/t` is gone", "`c/t` is new", "`a/s` has another share, records"):
        assert words in str(caught.value)
    with pytest.raises(DataError, match="layout 0"):
        plan.restore({**state, "version": 0})


def test_ledger_counts_rows_emitted_and_nothing_else():
    plan, _ = made_plan({"a": (1, {"s": (1, [10, 0, 30])}), "b": (1, {"t": (1, [20])})}, context=64, window=16)
    rows = [plan.next_row() for _ in range(50)]
    report = ledger(plan.state())
    by_stream = Counter()
    for row in rows:
        for entry in row:
            by_stream[entry.stream] += entry.length
    assert report["tokens"] == sum(by_stream.values())
    assert report["documents"] == sum(map(len, rows))
    groups = report["mixture"]
    assert (groups["a"]["tokens"], groups["b"]["tokens"]) == (by_stream[0], by_stream[1])
    assert groups["a"]["achieved"] == pytest.approx(by_stream[0] / sum(by_stream.values()), abs=1e-6)
    assert groups["a"]["target"] == 0.5
    assert report["packing"]["skipped"]["broken"] == groups["a"]["skipped"] > 0


@settings(max_examples=30, deadline=None)
@given(stops=st.lists(st.integers(0, 40), max_size=5), unit=st.sampled_from(["tokens", "rows"]))
def test_a_plan_that_is_told_the_changes_of_another_has_its_state(stops, unit):
    def fresh():
        return made_plan(
            {"a": (3, {"s:x": (1, PAIRS), "s:y": (2, [40, 0, 300, 900])}), "b": (1, {"t": (1, UTTERANCES)})},
            unit=unit,
            context=512,
            window=30,
            too_long="skip",
        )[0]

    leading, following = fresh(), fresh()
    for rows in stops:
        leading.changes = Changes()
        for _ in range(rows):
            leading.next_row()
        following.follow(pickle.loads(pickle.dumps(leading.changes)))
        assert following.state() == leading.state()
    restored = fresh()
    restored.restore(following.state())
    assert restored.next_row() == leading.next_row()
