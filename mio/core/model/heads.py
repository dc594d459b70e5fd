"""Networks that learn to make media, on top of the transformer.

N items of a modality, S positions of a head's own, C positions of a context, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mio.core.contract.heads import Condition
from mio.core.data.made import MadeItems
from mio.core.errors import PluginError
from mio.core.model.encoders import picked
from mio.core.model.networks import as_trained


def begin(x: Tensor, heads: nn.ModuleDict, made: Mapping[str, MadeItems]) -> tuple[Tensor, dict[str, Any]]:
    """[B, L, D] of the tokens' embeddings, with those of the heads' own positions in their places, and what heads keep
    for their loss. Every head runs, on every device."""
    kept: dict[str, Any] = {}
    for name, head in heads.items():
        if (one := made.get(name)) is None or not hasattr(head, "inputs"):
            continue
        with as_trained(x):
            embeddings, kept[name] = head.inputs(one.input)  # type: ignore[operator]
        if one.dummy:
            x = x + 0 * embeddings.sum().to(x.dtype)
            continue
        if embeddings.shape != (due := (len(one.places), x.shape[-1])):
            raise PluginError(
                f"the head of `{name}` gave {list(embeddings.shape)} embeddings, of which its `positions` had said "
                f"{list(due)}; correct `positions`, or `inputs`"
            )
        x = x.flatten(0, 1).index_copy(0, one.places, embeddings.to(x.dtype)).view_as(x)
    return x, kept


def losses(
    hidden: Tensor,
    heads: nn.ModuleDict,
    made: Mapping[str, MadeItems],
    maps: Mapping[str, Tensor],
    kept: Mapping[str, Any],
) -> dict[str, Tensor]:
    """float32 [N] by modality: the loss of each item, of hidden states [B, L, D] and the maps of what encoders read.

    Raises `PluginError` where a head gives something else.
    """
    found = {}
    for name, head in heads.items():
        if (one := made.get(name)) is None:
            continue
        with as_trained(hidden):
            loss = head(condition(hidden.flatten(0, 1), one, maps), one.input, kept.get(name))
        if tuple(loss.shape) != (due := tuple(one.weights.shape)):
            raise PluginError(f"the head of `{name}` gave losses {list(loss.shape)} for {due[0]} items")
        found[name] = loss.float()
    return found


def condition(hidden: Tensor, made: MadeItems, maps: Mapping[str, Tensor]) -> Condition:
    """What the items of a modality are conditioned on, of hidden states [B * L, D]."""
    there = made.context >= 0
    context = hidden.index_select(0, made.context.clamp(min=0).flatten()).view(*made.context.shape, hidden.shape[-1])
    given = {name: (picked(maps[name], numbers), numbers >= 0) for name, numbers in made.maps.items()}
    return Condition(torch.where(there[..., None], context, 0), there, hidden.index_select(0, made.places), given)
