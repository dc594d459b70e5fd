"""Averages of the weights beside recurrences in NumPy, and the exchange that puts them into the model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mio.core.recipe.schema import AverageConfig
from mio.core.training.average import WeightAverage, averaged


def trained(
    config: AverageConfig, steps: int, taken: int | None = None
) -> tuple[nn.Module, WeightAverage, list[np.ndarray]]:
    """A module whose weights take a random walk of so many steps, all by default; its average, and the walk."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    average, walk = WeightAverage(module, config, steps), []
    for step in range(steps if taken is None else taken):
        with torch.no_grad():
            module.weight += torch.randn(2, 3)
        average.update(step)
        walk.append(module.weight.detach().numpy().copy())
    return module, average, walk


def test_exponential_average_is_the_recurrence() -> None:
    _, average, walk = trained(AverageConfig(kind="ema", decay=0.6), 40)
    expected = walk[0].astype(np.float64)
    for count, weights in enumerate(walk[1:], 1):
        decay = min(0.6, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * weights
    assert average.updates == 40
    np.testing.assert_allclose(average.tensors["weight"].numpy(), expected, atol=1e-5)
    assert set(average.tensors) == {"weight"}, "a frozen parameter is its own average"


@pytest.mark.parametrize("start", [0.0, 0.75])
def test_plain_average_is_the_mean_from_its_start_on(start: float) -> None:
    _, average, walk = trained(AverageConfig(kind="mean", start=start), 40)
    first = round(40 * start)
    assert average.updates == 40 - first
    np.testing.assert_allclose(average.tensors["weight"].numpy(), np.mean(walk[first:], axis=0), atol=1e-5)


def test_an_average_that_begins_late_has_the_last_step_at_least() -> None:
    _, average, walk = trained(AverageConfig(kind="ema", start=0.99), 20)
    assert average.updates == 1
    np.testing.assert_array_equal(average.tensors["weight"].numpy(), walk[-1])


def test_the_model_has_the_average_inside_and_its_own_weights_again_after() -> None:
    module, average, walk = trained(AverageConfig(kind="ema"), 5)
    owner, kept = SimpleNamespace(average=average), average.tensors["weight"].clone()
    with averaged(owner):  # type: ignore[arg-type]
        assert torch.equal(module.weight, kept)
        assert not torch.equal(module.weight, torch.from_numpy(walk[-1]))
    assert torch.equal(module.weight, torch.from_numpy(walk[-1]))
    assert torch.equal(average.tensors["weight"], kept)

    def fails() -> None:
        with averaged(owner):  # type: ignore[arg-type]
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fails()
    assert torch.equal(module.weight, torch.from_numpy(walk[-1]))


def test_before_there_is_an_average_the_model_is_left_as_it_is() -> None:
    module, average, walk = trained(AverageConfig(kind="mean", start=0.5), 20, taken=10)
    assert not average.updates
    with averaged(SimpleNamespace(average=average)):  # type: ignore[arg-type]
        assert torch.equal(module.weight, torch.from_numpy(walk[-1]))
