"""Schedules beside closed forms and the schedulers of torch and transformers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from mio.core.recipe.schema import OptimizerConfig, RuleConfig
from mio.core.training.schedule import Rate, Schedule, logged_rates

STEPS = 200


def factors(**keys: object) -> list[float]:
    """Of all steps, and of the one after the end."""
    schedule = Schedule.of(OptimizerConfig(**keys))  # type: ignore[arg-type]
    return [schedule.factor(step, STEPS) for step in range(STEPS + 1)]


def of_scheduler(make: object, steps: int) -> list[float]:
    """The rates that a scheduler of torch or transformers gives to a peak rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make(optimizer), []  # type: ignore[operator]
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1)])
def test_cosine_closed_form(step: int, expected: float) -> None:
    schedule = Schedule.of(OptimizerConfig(warmup=0.1, final=0.1))
    assert math.isclose(schedule.factor(step, 100), expected, abs_tol=1e-12)


def test_cosine_and_linear_are_those_of_torch() -> None:
    kinds = {
        "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS - 20, eta_min=0.1),
        "linear": lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS - 20),
    }
    for kind, make in kinds.items():
        found = factors(schedule=kind, warmup=0.1, final=0.1)
        assert found[:20] == [(step + 1) / 20 for step in range(20)]
        assert found[20:] == pytest.approx(of_scheduler(make, STEPS - 19), abs=1e-12)


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("final", [0.0, 0.25])
def test_warmup_stable_decay_is_that_of_transformers(shape: str, final: float) -> None:
    from transformers import get_wsd_schedule

    def make(optimizer: torch.optim.Optimizer) -> object:
        return get_wsd_schedule(optimizer, 10, 60, num_training_steps=STEPS, decay_type=shape, min_lr_ratio=final)

    found = factors(schedule="wsd", warmup=0.05, decay=0.3, decay_shape=shape, final=final)
    assert found[9:] == pytest.approx([1.0, *of_scheduler(make, STEPS + 1)[10:]], abs=1e-12)
    assert found[:10] == [(step + 1) / 10 for step in range(10)]  # transformers starts at 0, which trains nothing


def test_constant_stays_and_its_final_rate_says_nothing() -> None:
    assert factors(schedule="constant", warmup=0.0, final=0.5) == [1.0] * (STEPS + 1)
    assert factors(schedule="wsd", warmup=0.0, decay=0.0) == [1.0] * (STEPS + 1)


def test_the_shortest_runs_have_rates() -> None:
    for kind in ("cosine", "linear", "constant", "wsd"):
        schedule = Schedule.of(OptimizerConfig(schedule=kind, warmup=0.5, decay=0.5))
        for steps in (1, 2, 3):
            assert all(0 < schedule.factor(step, steps) <= 1 for step in range(steps))


def test_a_rule_replaces_single_keys() -> None:
    config = OptimizerConfig(schedule="wsd", warmup=0.2, final=0.1, decay=0.3, decay_shape="linear")
    assert Schedule.of(config, RuleConfig()) == Schedule.of(config)
    rule = RuleConfig(schedule="cosine", warmup=0.0, final=0.0)
    assert Schedule.of(config, rule) == Schedule("cosine", 0.0, 0.0, 0.3, "linear")


def test_rates_are_logged_once_per_schedule_under_names_that_loggers_take() -> None:
    rules = {
        "embedding": RuleConfig(pattern="embedding.*", schedule="constant"),
        "none": None,
        "head": RuleConfig(pattern="head.*", schedule="constant", lr_scale=0.5),
        "layers [01]": RuleConfig(pattern="layers.[01].*", warmup=0.5),
        "layers (01)": RuleConfig(pattern="layers.?01?.*", warmup=0.6),
        "layers": RuleConfig(pattern="layers.*", lr_scale=0.1),
    }
    config = OptimizerConfig(rules=rules)
    replacing = (None, rules["embedding"], rules["layers [01]"], rules["layers (01)"])
    own, constant, third, fourth = (Schedule.of(config, rule) for rule in replacing)
    rates = logged_rates([own, constant, own, constant, third, fourth], config)
    assert rates == {
        "lr": Rate(3e-5, own),
        "lr/embedding": Rate(3e-5, constant),
        "lr/layers_01_": Rate(3e-5, third),
        "lr/layers_01__": Rate(3e-5, fourth),
    }
    assert logged_rates([own, own], config) == {"lr": Rate(3e-5, own)}
    rules["embedding"].lr_scale = 2.0
    assert logged_rates([own, constant], config)["lr/embedding"] == Rate(6e-5, constant)


def test_a_logged_rate_is_that_of_the_step_itself() -> None:
    """Beside torch's `LambdaLR`, asked before each step."""
    schedule = Schedule("linear", 0.2, 0.1, 0.0, "linear")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, 10))
    for step in range(1, 11):
        assert Rate(0.5, schedule).at(step, 10) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
