"""The networks that read media, made without memory: their names beside the recipe's, their shapes beside the parent's.

The checks that need no torch come before (`mio.core.stages.check_chain`); they do not know a network's names.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import torch

from mio.core.contract.encoders import Encoder
from mio.core.errors import RecipeError, nearest
from mio.core.model.encoders import make_networks
from mio.core.recipe.model import ENCODERS
from mio.core.recipe.schema import TrainConfig
from mio.core.runs.run import Run
from mio.core.runs.weights import check_shapes


def check_encoders(encoders: Mapping[str, Encoder], width: int, train: TrainConfig, parent: Run | None) -> None:
    """Whether a stage's encoders can be trained as its recipe says.

    Raises:
        PluginError: for a network that cannot be made.
        RecipeError: with every pattern that begins with `encoders.` and matches none of their parameters.
        UserError: the parent has an encoder of the same modality that is another network.
    """
    if not encoders:
        return
    with torch.device("meta"):
        networks = make_networks(encoders, width)
    names = [f"{ENCODERS}{name}" for name, _ in networks.named_parameters()]
    patterns = {f"train.optimizer.rules[{at}]": rule.pattern for at, rule in enumerate(train.optimizer.rules)}
    patterns |= {f"train.lora.train[{at}]": pattern for at, pattern in enumerate(train.lora.train)}
    problems = [
        f"`{key}`: `{pattern}` matches no parameter{nearest(pattern, names) or f'; names look like `{names[0]}`'}"
        for key, pattern in patterns.items()
        if names and pattern.startswith(ENCODERS) and not fnmatch.filter(names, pattern)
    ]
    if problems:
        raise RecipeError(problems)
    if parent is not None:
        stored = (*networks.named_parameters(), *networks.named_buffers())
        check_shapes(parent, {f"{ENCODERS}{name}": tuple(tensor.shape) for name, tensor in stored})
