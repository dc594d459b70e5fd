"""What all networks of plugins have to do: be made without memory, the same each time, and fit their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mio.testing.outcomes import same

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTH = 32
"""Of the transformer that networks are made for."""
CLOSE = 1e-4
"""Largest difference between what a network makes of an item with and without others beside it, relative to the largest
value: matrix products of another shape are summed in another order."""


def seeded(module: Callable[[int], Any]) -> Any:
    """A network, with torch's random numbers seeded."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module(WIDTH)


def check_made(module: Callable[[int], Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Raises `AssertionError` for a network that takes memory under `torch.device("meta")`, has other values at the
    second time, or does not fit `weights`; returns it."""
    import torch

    with torch.device("meta"):
        planned = module(WIDTH)
    made, again = seeded(module), seeded(module)
    shapes = [{name: one.shape for name, one in network.named_parameters()} for network in (planned, made)]
    assert shapes[0] == shapes[1], "under `torch.device('meta')` it has other parameters"
    real = [name for name, one in planned.named_parameters() if not one.is_meta]
    assert not real, f"under `torch.device('meta')` `{real[0]}` takes memory all the same"
    for (name, one), other in zip(made.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), f"`{name}` has other initial values with the same seed of torch"
    state = made.state_dict()
    for name, tensor in weights.items():
        assert name in state, f"`weights` has `{name}`, the network does not"
        given, due = list(tensor.shape), list(state[name].shape)
        assert given == due, f"`weights` has `{name}` as {given}, the network as {due}"
    network: nn.Module = made
    return network


def shaken(module: Callable[[int], Any]) -> Any:
    """A network whose parameters are all drawn anew, so that none is 0 as it begins, in evaluation mode."""
    import torch

    network = seeded(module)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return network.eval()


def check_close(found: Tensor, due: Tensor, what: str) -> None:
    """Raises `AssertionError` where two results differ by more than rounding."""
    difference, largest = float((found - due).abs().max()), float(due.abs().max())
    assert difference <= CLOSE * max(largest, 1e-6), f"{what}, by {difference:g}"


def check_kinds(arrays: Mapping[str, Any], dummy: Mapping[str, Any], what: str) -> None:
    """Raises `AssertionError` for arrays of other names, types or inner shapes than the dummy's."""
    found, due = kinds(arrays), kinds(dummy)
    assert found == due, f"`dummy` gives {due}, {what} {found}"


def kinds(arrays: Mapping[str, Any]) -> str:
    """Types and inner shapes of arrays, for comparing and for messages."""
    told = (
        f"{name} {array.dtype} [n, {', '.join(map(str, array.shape[1:]))}]" for name, array in sorted(arrays.items())
    )
    return ", ".join(told)


def check_arrays(arrays: Any, what: str) -> None:
    """Raises `AssertionError` for what is no mapping of names to arrays that can be joined."""
    assert isinstance(arrays, Mapping), f"{what} gives {type(arrays).__name__}, not arrays by name"
    assert arrays, f"{what} gives nothing"
    for name, array in arrays.items():
        assert isinstance(array, np.ndarray), f"{what} gives {type(array).__name__} as `{name}`, not an array"
        assert array.ndim, f"{what} gives `{name}` without an axis to join items along"


def equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether arrays are of the same types and values."""
    types = all(first[name].dtype == second[name].dtype for name in first.keys() & second.keys())
    return types and same(first, second)


def in_place_of(prepared: Sequence[Mapping[str, Any]], chosen: int) -> list[Mapping[str, Any]]:
    """Items of which one has the content of another, at its own lengths."""
    other = prepared[chosen - 1]
    changed = {name: np.resize(other[name], array.shape) for name, array in prepared[chosen].items()}
    return [*prepared[:chosen], changed, *prepared[chosen + 1 :]]


def check_gradients(outputs: Sequence[Tensor], network: nn.Module) -> None:
    """Raises `AssertionError` unless what a network gives has finite gradients for each parameter that learns."""
    import torch

    network.zero_grad()
    total = torch.stack([one.float().square().sum() for one in outputs]).sum()
    assert total.requires_grad, "what it gives has no gradients"
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches `{name}`; leave it out, or freeze it"
            assert bool(torch.isfinite(parameter.grad).all()), f"the gradients of `{name}` are NaN or infinite"
