"""An average of the weights over the steps, kept beside them and split over devices like them.

Exponential: Polyak and Juditsky 1992; its decay rises as in TensorFlow's `ExponentialMovingAverage`, so that the first
weights are soon forgotten. Plain: stochastic weight averaging, Izmailov et al. 2018, arXiv 1803.05407.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from mio.core.distributed.regions import local, zeros_like
from mio.core.model.parallel import reshard
from mio.core.recipe.schema import AverageConfig

if TYPE_CHECKING:
    from mio.core.training.module import MioModule


class WeightAverage:
    """The average of a model's trainable weights; frozen ones are their own.

    Args:
        module: the model, on its devices.
        steps: steps of the stage.
    """

    def __init__(self, module: nn.Module, config: AverageConfig, steps: int) -> None:
        self.config = config
        self.updates = 0
        """Steps that are averaged over. Without any there is no average yet."""
        self._first = min(round(config.start * steps), steps - 1)
        self._module = module
        self._parameters = {name: one for name, one in module.named_parameters() if one.requires_grad}
        self.tensors = {name: zeros_like(one) for name, one in self._parameters.items()}
        """By parameter, each with its type and split like it."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after a step, counted from 0."""
        if step < self._first:
            return
        averages = [local(average) for average in self.tensors.values()]
        weights = [local(parameter) for parameter in self._parameters.values()]
        if not self.updates:
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
        elif self.config.kind == "mean":
            get_swa_multi_avg_fn()(averages, weights, self.updates)
        else:
            decay = min(self.config.decay, (1 + self.updates) / (10 + self.updates))
            get_ema_multi_avg_fn(decay)(averages, weights, None)
        self.updates += 1

    @torch.no_grad()
    def exchange(self) -> None:
        """Puts the average into the model and its weights here, or back again, if there is an average yet. Not a bit
        changes on the way."""
        if not self.updates:
            return
        reshard(self._module)
        for name, parameter in self._parameters.items():
            weight, average = local(parameter), local(self.tensors[name])
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)


@contextlib.contextmanager
def averaged(module: MioModule) -> Iterator[None]:
    """Inside, the model has the average for its weights, if there is one yet. Nothing may be trained inside."""
    average = module.average
    if average is None:
        yield
        return
    average.exchange()
    try:
        yield
    finally:
        average.exchange()
