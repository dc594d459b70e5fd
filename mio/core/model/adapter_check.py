"""Before training: whether the networks inside layers take the maps that they are to read, and change nothing yet.

B rows, L positions, D width, N items, S cells of a map, C its channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mio.core.contract.adapters import Adapter
from mio.core.errors import PluginError, UserError
from mio.core.model.running import CPU, META, made, reason, shape_of

_ROWS, _LENGTH, _ITEMS = 2, 5, 2
_MOST = 20_000_000
"""Parameters of a network that is run for real to see that it begins as nothing; a larger one takes long."""


@torch.no_grad()
def check_adapter(plugin: str, adapter: Adapter, width: int, shape: tuple[int, int]) -> None:
    """Runs the network of a layer on hidden states and maps of this shape, cells and channels.

    Raises `PluginError`, naming the plugin, where it cannot be made or run, gives something else than `[B, L, D]`, or
    does not begin as 0, where no pretrained values take the place of those that it draws.
    """
    name = f"the adapters of plugin `{plugin}`"
    network = made(name, adapter.module, width, META)
    size = sum(parameter.numel() for parameter in network.parameters())
    try:
        found = network(*_given(width, shape, META))
    except Exception:  # it asks for a value, or an operation has no kernel there
        found = _for_real(name, made(name, adapter.module, width, CPU), width, shape)
    due = [_ROWS, _LENGTH, width]
    if not isinstance(found, Tensor) or list(found.shape) != due or not found.is_floating_point():
        raise PluginError(
            f"{name}: a network gives {shape_of(found)} of hidden states {due} and maps "
            f"{[_ROWS, _ITEMS, *shape]} of `{adapter.reads}`; it must be what is added to the hidden states"
        )
    if size <= _MOST and not hasattr(adapter, "weights"):
        found = _for_real(name, made(name, adapter.module, width, CPU), width, shape)
        if bool(found.any()):
            raise PluginError(
                f"{name}: a network does not begin as 0, so that the model would not begin as what it is added to; "
                "multiply what it gives by a parameter that begins as 0"
            )


def _given(width: int, shape: tuple[int, int], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, maps, and who sees them: the second half of each row, the second row's second item nobody."""
    generator = None if device == META else torch.Generator().manual_seed(0)
    hidden = torch.zeros(_ROWS, _LENGTH, width, device=device)
    maps = torch.zeros(_ROWS, _ITEMS, *shape, device=device)
    visible = torch.zeros(_ROWS, _LENGTH, _ITEMS, dtype=torch.bool, device=device)
    if generator is not None:
        hidden.normal_(generator=generator)
        maps.normal_(generator=generator)
        visible[:, _LENGTH // 2 :] = True
        visible[1, :, 1] = False
    return hidden, maps, visible


def _for_real(name: str, network: nn.Module, width: int, shape: tuple[int, int]) -> Any:
    try:
        return network(*_given(width, shape, CPU))
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"{name}: a network cannot be run on maps {list(shape)}: {reason(error)}") from error
