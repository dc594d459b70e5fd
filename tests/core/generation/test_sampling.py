"""Sampling against closed forms."""

from __future__ import annotations

import pytest
import torch

from mio import Decoding, UserError
from mio.core.generation import sampling
from mio.core.generation.sampling import SEEDS, check_decoding, item_seed


def sample(logits, allowed, temperature, top_p, draws):
    """All rows with one `top_p`."""
    return sampling.sample(logits, allowed, temperature, torch.full((len(logits),), top_p), draws)


DRAWS = 40_000


def frequencies(probabilities, temperature, top_p, allowed=None):
    """Relative frequencies of what is drawn from given probabilities."""
    count = len(probabilities)
    logits = torch.tensor(probabilities).log().expand(DRAWS, count) + 3.0  # logits are known up to a constant
    mask = torch.ones(count, dtype=torch.bool) if allowed is None else torch.tensor(allowed)
    drawn = sample(
        logits,
        mask.expand(DRAWS, count),
        torch.full((DRAWS,), temperature),
        top_p,
        torch.rand(DRAWS, generator=torch.Generator().manual_seed(0)),
    )
    return torch.bincount(drawn, minlength=count) / DRAWS


def near(expected):
    # four standard errors of a frequency near one half
    return pytest.approx(expected, abs=4 * 0.5 / DRAWS**0.5)


P = [0.5, 0.3, 0.15, 0.05]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_raises_probabilities_to_its_inverse(temperature):
    powers = [p ** (1 / temperature) for p in P]
    assert frequencies(P, temperature, 1.0).tolist() == near([power / sum(powers) for power in powers])


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.94, 3), (0.96, 4), (1.0, 4), (0.0, 1)]
)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, kept):
    expected = [p / sum(P[:kept]) if index < kept else 0.0 for index, p in enumerate(P)]
    found = frequencies(P, 1.0, top_p)
    assert found.tolist() == near(expected)
    assert (found > 0).tolist() == [probability > 0 for probability in expected]


def test_the_nucleus_is_taken_among_the_allowed_tokens_after_temperature():
    """Of 0.3, 0.15 and 0.05 at temperature 1/2 the squares are 0.9, 0.225 and 0.025 of 1.15: two reach 0.9."""
    found = frequencies(P, 0.5, 0.9, allowed=[False, True, True, True])
    assert found.tolist() == near([0.0, 0.8, 0.2, 0.0])
    assert found[0] == found[3] == 0


def test_temperature_zero_is_greedy_beside_sequences_that_are_drawn():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0], [9.0, 1.0, 2.0]])
    allowed = torch.tensor([[True, True, True], [True, True, True], [False, True, True]])
    draws = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([sample(logits, allowed, torch.tensor([0.0, 1.0, 0.0]), 1.0, some) for some in draws])
    assert drawn[:, 0].unique().tolist() == [1]
    assert drawn[:, 1].unique().tolist() == [0, 1, 2]
    assert drawn[:, 2].unique().tolist() == [2]  # the largest logit is not allowed


def test_a_draw_is_the_place_in_the_cumulative_distribution():
    """0, 0.25, 0, 0.5, 0.25: the borders are at a quarter and three quarters, and what is impossible never comes."""
    draws = torch.tensor([0.0, 0.2499, 0.25, 0.5, 0.7499, 0.75, 1 - 2**-24, 1.0])
    logits = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25]).log().clamp(min=-100).expand(len(draws), 5)
    allowed = torch.tensor([False, True, True, True, True]).expand(len(draws), 5)
    drawn = sample(logits, allowed, torch.ones(len(draws)), 1.0, draws)
    assert drawn[:7].tolist() == [1, 1, 3, 3, 3, 4, 4]
    assert drawn[7] in (3, 4)


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_a_sequence_is_drawn_from_its_own_row_alone(top_p):
    generator = torch.Generator().manual_seed(0)
    logits, draws = torch.randn(50, 100, generator=generator), torch.rand(50, generator=generator)
    allowed = torch.rand(50, 100, generator=generator) < 0.5
    together = sample(logits, allowed, torch.ones(50), top_p, draws)
    assert len(together.unique()) > 20
    for rows in (torch.arange(49, -1, -1), torch.tensor([7]), torch.tensor([30, 3])):
        assert torch.equal(
            sample(logits[rows], allowed[rows], torch.ones(len(rows)), top_p, draws[rows]), together[rows]
        )


def test_seeds_of_items_differ_by_run_task_and_item():
    seeds = {item_seed(seed, task, item) for seed in (0, 1) for task in ("draw", "speak") for item in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < SEEDS for seed in seeds)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_told_where_they_could_be_drawn(wrong):
    logits, allowed = torch.tensor([[0.0, 1.0], [wrong, 1.0]]), torch.tensor([[True, True], [False, True]])
    draws = torch.tensor([0.3, 0.9])
    assert sample(logits, allowed, torch.ones(2), 1.0, draws)[1] == 1
    for temperature in (0.0, 1.0):
        every = torch.ones(2, 2, dtype=torch.bool)
        assert sample(logits, every, torch.full((2,), temperature), 1.0, draws).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("options", "seed", "message"),
    [
        ({"temperature": float("inf")}, 0, "`temperature` is inf; it must be at most 1e.308"),
        ({"temperature": float("nan")}, 0, "`temperature` is nan"),
        ({"media_temperature": -0.5}, 0, "`media_temperature` is -0.5; it must be at least 0"),
        ({"temperature": 10**400}, 0, "`temperature` is inf"),
        ({"temperature": "1"}, 0, "`temperature` must be a number, not the text '1'"),
        ({"temperature": True}, 0, "`temperature` must be a number, not true"),
        ({"top_p": float("nan")}, 0, "`top_p` is nan"),
        ({"top_p": 1.5}, 0, "`top_p` is 1.5"),
        ({"max_tokens": 0}, 0, "`max_tokens` is 0"),
        ({"max_tokens": 10**11}, 0, "`max_tokens` is 100,000,000,000; it must be at most 1,048,576"),
        ({"max_tokens": 5.0}, 0, "`max_tokens` must be a whole number, not 5.0"),
        ({}, 2**64, "`seed`: 18446744073709551616"),
        ({}, 2**63, "`seed`: "),
        ({}, -1, "`seed`: -1"),
    ],
)
def test_options_without_a_meaning_are_named(options, seed, message):
    with pytest.raises(UserError, match=f"^sampling: {message}"):
        check_decoding(Decoding(**options), seed)


def test_options_with_a_meaning():
    check_decoding(Decoding(temperature=0, media_temperature=5, top_p=0, max_tokens=1), 2**63 - 1)
