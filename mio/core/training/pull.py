"""A pull of every step toward what the stage starts from: weight decay whose aim is the start, and not zero.

L2-SP (Li et al. 2018, arXiv 1802.01483), apart from the gradient as the decay of AdamW is, as in RecAdam (Chen et al.
2020, arXiv 2004.12651).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mio.core.distributed.regions import local, local_region
from mio.core.model.lora import ROWS
from mio.core.model.transformer import Transformer
from mio.core.recipe.model import ROW_PARAMETERS, network_of


class Pull:
    """Where a model's weights were when it was made, and how far back each step moves them.

    What a stage adds, rows of new ids and networks of new plugins, has no start to go back to and is left alone.

    Args:
        module: the model, on its devices, with the weights that the stage starts from.
        groups: of the optimizer; each has its `pull`.
        known: ids that the stage starts with.
        added: networks of plugins that the stage adds (see `network_of`).
    """

    def __init__(
        self, module: nn.Module, groups: Sequence[Mapping[str, Any]], known: int, added: Collection[str] = ()
    ) -> None:
        pulled = {id(parameter) for group in groups if group["pull"] for parameter in group["params"]}
        self._parameters = {
            parameter: _known(module, name, parameter, known)
            for name, parameter in module.named_parameters()
            if id(parameter) in pulled and network_of(name) not in added
        }
        """By parameter, how many rows of this device's part have a start."""
        self.starts = {parameter: part.clone() for parameter, part in self._parts()}

    @torch.no_grad()
    def apply(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """After a step with these groups: each weight loses learning rate times pull of its distance."""
        rates = {parameter: group["lr"] * group["pull"] for group in groups for parameter in group["params"]}
        for parameter, part in self._parts():
            part.lerp_(self.starts[parameter], rates[parameter])

    def _parts(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for parameter, rows in self._parameters.items():
            part = local(parameter.detach())
            yield parameter, part if rows is None else part[:rows]


def _known(module: nn.Module, name: str, parameter: nn.Parameter, known: int) -> int | None:
    """Rows of this device's part of a parameter that belong to the first `known` ids; None of one without rows."""
    if name in ROWS:  # the ranges of their ids ascend
        assert isinstance(module, Transformer)
        assert module.rows is not None
        known = sum(max(0, min(end, known) - start) for start, end in module.rows.ranges)
    elif name not in ROW_PARAMETERS:
        return None
    (rows, *_), (first, *_) = local_region(parameter)
    return max(0, min(rows, known - first))
