"""Guards: which steps are skipped, when a run stops."""

from __future__ import annotations

import json
import math

import pytest

from mio.core.recipe.schema import GuardConfig
from mio.core.training.guards import SKIP, STOP, TRAIN, Guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_is_skipped_and_counted(loss, norm):
    guard = Guard(GuardConfig(max_skipped=3))
    assert [guard.judge(2.0, 1.0), guard.judge(loss, norm), guard.judge(2.0, 1.0)] == [TRAIN, SKIP, TRAIN]
    assert guard.report() == {"not_finite": 1, "spikes": 0, "unweighted": 0}


def test_too_many_in_a_row_stop_the_run_and_good_steps_between_do_not():
    guard = Guard(GuardConfig(max_skipped=3))
    verdicts = [guard.judge(loss, 1.0) for loss in (math.nan, math.nan, 1.0, math.nan, math.nan, math.nan)]
    assert verdicts == [SKIP, SKIP, TRAIN, SKIP, SKIP, STOP]


@pytest.mark.parametrize(("policy", "verdict"), [("skip", SKIP), ("warn", TRAIN), ("stop", STOP)])
def test_spikes_exceed_the_mean_by_standard_deviations(policy, verdict):
    """Of losses 1 and 3 in turn, the mean is 2 and the standard deviation 1: the limit of 4 deviations is 6."""
    guard = Guard(GuardConfig(spike=4.0, spike_window=10, on_spike=policy))
    assert [guard.judge(9.0 if step == 3 else 2 + (-1.0) ** step, 1.0) for step in range(4)] == [TRAIN] * 4
    for step in range(10):  # the early high loss leaves the window
        guard.judge(2 + (-1.0) ** step, 1.0)
    assert guard.judge(5.99, 1.0) == TRAIN
    guard.load_state_dict({**guard.state_dict(), "losses": [1.0, 3.0] * 5})
    assert guard.judge(6.01, 1.0) == verdict
    assert guard.spikes == 1
    assert "above the limit of 6.0000" in guard.reason


def test_a_skipped_spike_does_not_raise_the_limit():
    guard = Guard(GuardConfig(spike=4.0, spike_window=4))
    for loss in (1.0, 3.0, 1.0, 3.0):
        guard.judge(loss, 1.0)
    assert [guard.judge(7.0, 1.0) for _ in range(5)] == [SKIP] * 5


def test_the_state_goes_through_json_and_goes_on_exactly():
    config = GuardConfig(spike=2.0, spike_window=3)
    one, other = Guard(config), Guard(config)
    losses = [2.0, 2.1, 1.9, 2.0, 9.0, math.nan, 2.0, 2.05]
    for loss in losses[:5]:
        one.judge(loss, 1.0)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert [one.judge(loss, 1.0) for loss in losses[5:]] == [other.judge(loss, 1.0) for loss in losses[5:]]
    assert one.state_dict() == other.state_dict()


def test_a_step_without_weight_is_skipped():
    guard = Guard(GuardConfig(max_skipped=3))
    assert [guard.judge(0.0, 0.0, weight=0.0), guard.judge(2.0, 1.0, weight=5.0)] == [SKIP, TRAIN]
    assert guard.report() == {"not_finite": 0, "spikes": 0, "unweighted": 1}
