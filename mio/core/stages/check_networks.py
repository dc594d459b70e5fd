"""The networks of plugins, made without memory: their names beside the recipe's, their shapes beside the parent's.

The checks that need no torch come before (`mio.core.stages.check_chain`); they do not know a network's names.
"""

from __future__ import annotations

import fnmatch

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.errors import RecipeError
from mio.core.model.networks import factories, make_network
from mio.core.recipe.model import ADAPTERS, ENCODERS, HEADS
from mio.core.recipe.rules import applied, like_names
from mio.core.recipe.schema import TrainConfig
from mio.core.runs.run import Run
from mio.core.runs.weights import check_shapes


def check_networks(networks: Networks, config: TransformerConfig, train: TrainConfig, parent: Run | None) -> None:
    """Whether the networks in a stage's transformer can be trained as its recipe says.

    Raises:
        PluginError: for a network that cannot be made.
        RecipeError: with every pattern that is about encoders, heads or adapters and matches none of their parameters.
        UserError: the parent has another network of the same name.
    """
    if not networks:
        return
    parameters: dict[str, Tensor] = {}
    stored: dict[str, Tensor] = {}
    with torch.device("meta"):
        for name, factory in factories(networks, config.layers):
            network = make_network(name, factory, config.width)
            parameters |= {f"{name}.{own}": tensor for own, tensor in network.named_parameters()}
            stored |= {f"{name}.{own}": tensor for own, tensor in network.named_buffers()}
    rules = applied(train.optimizer.rules)
    patterns = {f"train.optimizer.rules.{name}": rule.pattern for name, rule in rules.items()}
    patterns |= {f"train.lora.train[{at}]": pattern for at, pattern in enumerate(train.lora.train)}
    problems = []
    for key, pattern in patterns.items():
        about = pattern.startswith((ENCODERS, HEADS)) or f".{ADAPTERS}." in pattern
        if about and not fnmatch.filter(parameters, pattern):
            problems.append(f"`{key}`: `{pattern}` matches no parameter{like_names(pattern, list(parameters))}")
    if problems:
        raise RecipeError(problems)
    if parent is not None:
        check_shapes(parent, {name: tuple(tensor.shape) for name, tensor in (parameters | stored).items()})
