"""Sampling against closed forms, and against transformers' processors of logits."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mio import Decoding, UserError
from mio.core.generation.sampling import SEEDS, Settings, check_decoding, item_seed, sample

DRAWS = 40_000


def masked(logits, allowed):
    return logits.masked_fill(~torch.as_tensor(allowed), float("-inf"))


def frequencies(probabilities, allowed=None, **options):
    """Relative frequencies of what is drawn from given probabilities."""
    count = len(probabilities)
    logits = torch.tensor(probabilities).log().expand(DRAWS, count) + 3.0  # logits are known up to a constant
    logits = masked(logits, [True] * count if allowed is None else allowed)
    draws = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0)).tolist()
    return torch.bincount(torch.tensor(sample(logits, [Settings(**options)] * DRAWS, draws)), minlength=count) / DRAWS


def near(expected):
    # four standard errors of a frequency near one half
    return pytest.approx(expected, abs=4 * 0.5 / DRAWS**0.5)


P = [0.5, 0.3, 0.15, 0.05]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_raises_probabilities_to_its_inverse(temperature):
    powers = [p ** (1 / temperature) for p in P]
    assert frequencies(P, temperature=temperature).tolist() == near([power / sum(powers) for power in powers])


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [("top_p", value, kept) for value, kept in
     ((0.4, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.94, 3), (0.96, 4), (1.0, 4), (0.0, 1))]
    + [("top_k", value, kept) for value, kept in ((1, 1), (2, 2), (4, 4), (9, 4), (0, 4))]
    + [("min_p", value, kept) for value, kept in ((0.0, 4), (0.09, 4), (0.11, 3), (0.31, 2), (0.61, 1), (1.0, 1))],
)  # fmt: skip
def test_the_likeliest_tokens_are_kept(option, value, kept):
    expected = [p / sum(P[:kept]) if index < kept else 0.0 for index, p in enumerate(P)]
    found = frequencies(P, temperature=1.0, **{option: value})
    assert found.tolist() == near(expected)
    assert (found > 0).tolist() == [probability > 0 for probability in expected]


def test_the_nucleus_is_taken_among_the_allowed_tokens_after_temperature():
    """Of 0.3, 0.15 and 0.05 at temperature 1/2 the squares are 0.9, 0.225 and 0.025 of 1.15: two reach 0.9."""
    found = frequencies(P, [False, True, True, True], temperature=0.5, top_p=0.9)
    assert found.tolist() == near([0.0, 0.8, 0.2, 0.0])
    assert found[0] == found[3] == 0


def test_the_nucleus_is_one_of_the_likeliest_k():
    """Of the likeliest two, 5/8 and 3/8, the first reaches 0.6, which of all four it does not."""
    assert frequencies(P, temperature=1.0, top_k=2, top_p=0.6).tolist() == [1, 0, 0, 0]
    assert frequencies(P, temperature=1.0, top_k=2, top_p=0.63)[1] > 0


def test_tokens_that_are_equally_likely_stay_or_go_together():
    """A border between them would depend on how a kernel sorts."""
    assert (frequencies([0.4, 0.2, 0.2, 0.2], temperature=1.0, top_p=0.5) > 0).all()
    assert frequencies([0.4, 0.4, 0.1, 0.1], temperature=1.0, top_p=0.5).tolist() == near([0.5, 0.5, 0, 0])
    assert (frequencies([0.4, 0.2, 0.2, 0.2], temperature=1.0, top_k=2) > 0).all()


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_negative():
    logits = torch.tensor([[2.0, 1.5, -1.0, -1.5]] * 2)
    said = [np.array([0, 2]), None]
    assert sample(logits.clone(), [Settings(repetition_penalty=2.0)] * 2, [0.0, 0.0], said) == [1, 0]
    logits[:, :2] = -9
    assert sample(logits, [Settings(repetition_penalty=2.0)] * 2, [0.0, 0.0], said) == [3, 2]


def processed(logits, said, one):
    """Probabilities by transformers' processors, in the order in which its `generate` has them."""
    from transformers.generation import logits_process as processors

    chain = [
        processors.TemperatureLogitsWarper(one.temperature),
        processors.TopKLogitsWarper(one.top_k) if one.top_k else None,
        processors.TopPLogitsWarper(one.top_p),
        processors.MinPLogitsWarper(one.min_p) if one.min_p else None,
    ]
    if len(said):
        chain.insert(0, processors.RepetitionPenaltyLogitsProcessor(one.repetition_penalty))
    scores = logits[None].clone()
    for processor in filter(None, chain):
        scores = processor(torch.as_tensor(said)[None], scores)
    return scores[0].double().softmax(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.sampled_from([7, 40, 700]),
    chosen=st.lists(
        st.builds(
            Settings,
            temperature=st.sampled_from([0.3, 1.0, 1.7]),
            top_k=st.sampled_from([0, 1, 5, 300]),
            top_p=st.sampled_from([0.05, 0.4, 0.9, 1.0]),
            min_p=st.sampled_from([0.0, 0.02, 0.3]),
            repetition_penalty=st.sampled_from([0.7, 1.0, 1.3]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_what_each_draw_chooses_is_what_the_processors_of_transformers_leave(seed, width, chosen):
    """The middle of each token's share of [0, 1) draws that token, in a batch of other settings."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(size=(len(chosen), width)).astype(np.float32)) * 2
    logits[:, draw.random(width) < 0.2] = -np.inf
    logits[:, 3] = 1.0
    said = [draw.permutation(width)[: draw.integers(0, 5)] for _ in chosen]
    expected = [processed(row, ids, one) for row, ids, one in zip(logits, said, chosen, strict=True)]
    middles = [(row.cumsum(0) - row / 2).where(row > 1e-5, torch.nan) for row in expected]
    for token in range(0, width, 1 + width // 40):
        draws = [float(row[token].nan_to_num(0.5)) for row in middles]
        found = sample(logits.clone(), chosen, draws, said)
        for row, index in enumerate(found):
            assert expected[row][index] > 0
            assert middles[row][token].isnan() or index == token


def test_temperature_zero_is_greedy_beside_sequences_that_are_drawn():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0], [9.0, 1.0, 2.0]])
    logits = masked(logits, [[True, True, True], [True, True, True], [False, True, True]])
    draws = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [Settings(), Settings(temperature=1.0), Settings()]
    drawn = torch.tensor([sample(logits.clone(), chosen, some) for some in draws])
    assert drawn[:, 0].unique().tolist() == [1]
    assert drawn[:, 1].unique().tolist() == [0, 1, 2]
    assert drawn[:, 2].unique().tolist() == [2]  # the largest logit is not allowed


def test_a_draw_is_the_place_in_the_cumulative_distribution():
    """0, 0.25, 0, 0.5, 0.25: the borders are at a quarter and three quarters, and what is impossible never comes."""
    draws = [0.0, 0.2499, 0.25, 0.5, 0.7499, 0.75, 1 - 2**-24, 1.0]
    logits = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25]).log().clamp(min=-100).expand(len(draws), 5)
    logits = masked(logits, [False, True, True, True, True])
    drawn = sample(logits, [Settings(temperature=1.0)] * len(draws), draws)
    assert drawn[:7] == [1, 1, 3, 3, 3, 4, 4]
    assert drawn[7] in (3, 4)


def test_a_sequence_is_drawn_from_its_own_row_alone():
    """Whatever settings the others have: those that need all tokens in order, those that need the likeliest, or none.
    Logits are rounded to bfloat16, so that many are equal."""
    generator = torch.Generator().manual_seed(0)
    options = product((0.0, 0.7, 5.0), (0, 3, 400), (0.5, 0.999, 1.0), (0.0, 0.1), (1.0, 1.2))
    chosen = [Settings(*one) for one in options]
    count = len(chosen)
    logits = torch.randn(count, 600, generator=generator).bfloat16().float()
    logits = masked(logits, torch.rand(count, 600, generator=generator) < 0.8)
    draws = torch.rand(count, generator=generator).tolist()
    said = [np.arange(row % 4) * 7 for row in range(count)]
    together = sample(logits.clone(), chosen, draws, said)
    assert len(set(together)) > 20
    for rows in (range(count - 1, -1, -1), *([row] for row in range(count)), [30, 3]):
        some = [[values[row] for row in rows] for values in (chosen, draws, said)]
        assert sample(logits[list(rows)], *some) == [together[row] for row in rows]


def test_seeds_of_items_differ_by_run_task_and_item():
    seeds = {item_seed(seed, task, item) for seed in (0, 1) for task in ("draw", "speak") for item in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < SEEDS for seed in seeds)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_told_where_they_could_be_drawn(wrong, temperature):
    logits, chosen = torch.tensor([[0.0, 1.0], [wrong, 1.0]]), [Settings(temperature=temperature)] * 2
    assert sample(masked(logits, [[True, True], [False, True]]), chosen, [0.3, 0.9])[1] == 1
    assert sample(logits, chosen, [0.9, 0.9]) == [1, -1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_of_which_none_can_be_drawn_are_told(temperature):
    assert sample(torch.full((1, 3), -torch.inf), [Settings(temperature=temperature)], [0.3]) == [-1]


@pytest.mark.parametrize(
    ("options", "seed", "message"),
    [
        ({"temperature": float("inf")}, 0, "`temperature` is inf; it must be at most 100"),
        ({"temperature": float("nan")}, 0, "`temperature` is nan"),
        ({"media_temperature": -0.5}, 0, "`media_temperature` is -0.5; it must be at least 0"),
        ({"temperature": 10**400}, 0, "`temperature` is inf"),
        ({"temperature": "1"}, 0, "`temperature` must be a number, not the text '1'"),
        ({"temperature": True}, 0, "`temperature` must be a number, not true"),
        ({"top_p": float("nan")}, 0, "`top_p` is nan"),
        ({"top_p": 1.5}, 0, "`top_p` is 1.5"),
        ({"top_k": 2.5}, 0, "`top_k` must be a whole number, not 2.5"),
        ({"min_p": -1}, 0, "`min_p` is -1"),
        ({"repetition_penalty": 0}, 0, "`repetition_penalty` is 0; it must be at least 0.01"),
        ({"max_tokens": 0}, 0, "`max_tokens` is 0"),
        ({"max_tokens": 10**11}, 0, "`max_tokens` is 100,000,000,000; it must be at most 1,048,576"),
        ({"max_tokens": 5.0}, 0, "`max_tokens` must be a whole number, not 5.0"),
        ({"by": {"tones": {"topp": 1}}}, 0, "sampling has no option `by.tones.topp`; did you mean `top_p`"),
        (
            {"by": {"tones": {"media_temperature": 1}}},
            0,
            "sampling has no option `by.tones.media_temperature`; did you mean `te",
        ),
        ({"by": {"tones": {"top_p": 2}}}, 0, "`by.tones.top_p` is 2; it must be at most 1"),
        (
            {"by": {"tone": {"top_p": 0.5}}},
            0,
            "`by.tone`: no tokens of that modality .*did you mean `tones`.*; there a",
        ),
        ({"by": [1]}, 0, "`by` must be a mapping by name, not a list"),
        ({"stop": "x"}, 0, "`stop` must be a list, not the text 'x'"),
        ({"stop": [1]}, 0, r"`stop\[0\]` must be text, not 1"),
        ({"stop": ["a", ""]}, 0, "`stop` has an empty string"),
        ({"stop": ["a" * 1001]}, 0, "`stop` has a string of 1,001 characters"),
        ({"stop": ["a"] * 65}, 0, "`stop` has 65 strings"),
        ({"beams": 0}, 0, "`beams` is 0"),
        ({"beams": 2, "temperature": 1.0}, 0, "`beams` is 2: beam search draws nothing; set `temperature` to 0"),
        ({}, 2**64, "`seed`: 18446744073709551616"),
        ({}, 2**63, "`seed`: "),
        ({}, -1, "`seed`: -1"),
    ],
)
def test_options_without_a_meaning_are_named(options, seed, message):
    with pytest.raises(UserError, match=f"^(sampling: )?{message}"):
        check_decoding(Decoding(**options), seed, ["text", "tones"])


def test_options_with_a_meaning():
    check_decoding(Decoding(temperature=0, media_temperature=5, top_p=0, max_tokens=1), 2**63 - 1)
    check_decoding(Decoding(by={"tones": {"top_k": 3}}, stop=("\n",), beams=5, repetition_penalty=1.15))


def test_options_are_sent_to_other_ranks_as_plain_values():
    import json

    decoding = Decoding(top_k=3, by={"tones": {"temperature": 1.0, "top_k": 4}}, stop=("a", "b"), beams=2)
    assert Decoding(**json.loads(json.dumps(asdict(decoding)))) == decoding


def test_a_modality_has_what_is_said_of_it_and_else_what_is_said_of_all():
    decoding = Decoding(
        temperature=0.1, media_temperature=0.2, top_p=0.9, by={"text": {"top_k": 5}, "tones": {"temperature": 0.3}}
    )
    assert Settings.of(decoding) == Settings(0.1, 5, 0.9)
    assert Settings.of(decoding, "tones") == Settings(0.3, 0, 0.9)
    assert Settings.of(decoding, "image") == Settings(0.2, 0, 0.9)
