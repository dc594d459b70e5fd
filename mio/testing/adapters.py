"""Checks of networks inside layers: nothing at the beginning, and what a position reads of the maps that it sees alone.

B rows, L positions, D width of the transformer, N items, S cells of a map, C its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mio.core.contract.adapters import Adapter
from mio.core.contract.networks import Networks
from mio.core.contract.plugins import EnabledPlugins
from mio.testing.networks import WIDTH, check_close, check_made, seeded, shaken
from mio.testing.outcomes import SkippedCheckError

if TYPE_CHECKING:
    from torch import Tensor

_DEPTHS = (2, 12, 32)
"""Numbers of layers of transformers that are asked about."""
_ROWS, _LENGTH, _ITEMS = 2, 6, 3


class AdapterChecks:
    """The checks of one plugin's adapters."""

    def __init__(self, plugins: EnabledPlugins, plugin: str) -> None:
        self._plugins = plugins
        self._plugin = plugin

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check."""
        yield "adapters are in layers that are there", self._layers
        yield "adapters: the network is made without memory, and the same again", self._made
        yield "adapters change nothing at the beginning", self._nothing
        yield "adapters: a position's result is its own", self._alone
        yield "adapters: what a position does not see changes nothing", self._unseen
        yield "adapters: gradients are finite, whatever is seen, and reach every parameter", self._gradients

    @cached_property
    def _adapter(self) -> Adapter:
        return self._plugins.adapters()[self._plugin]

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """Cells and channels of the maps."""
        reads = self._adapter.reads
        names = [declared.name for _, declared in self._plugins.modalities()]
        found = self._plugins.encoder(reads) if reads in names else None
        if found is None:
            raise SkippedCheckError(f"no plugin here reads `{reads}` by an encoder; give one beside it (`--with NAME`)")
        shape: tuple[int, int] | None = getattr(found[1], "maps", None)
        assert shape is not None, f"the encoder of `{reads}` makes no maps"
        return shape

    def _given(self) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, maps and visibility: the first positions see nothing, later ones more and more."""
        import torch

        draw = torch.Generator().manual_seed(0)
        hidden = torch.randn(_ROWS, _LENGTH, WIDTH, generator=draw)
        maps = torch.randn(_ROWS, _ITEMS, *self._shape, generator=draw)
        visible = torch.arange(_LENGTH)[:, None] > 1 + torch.arange(_ITEMS)
        return hidden, maps, visible.expand(_ROWS, -1, -1)

    def _layers(self) -> None:
        assert isinstance(self._adapter.fingerprint, str), "`fingerprint` is not a string"
        assert self._adapter.fingerprint, "`fingerprint` is empty"
        networks = Networks(adapters={self._plugin: self._adapter})
        for depth in _DEPTHS:
            assert networks.adapted_layers(depth) == networks.adapted_layers(depth), "other layers at the second time"

    def _made(self) -> None:
        weights: dict[str, Any] = dict(getattr(self._adapter, "weights", dict)())
        of_one: dict[str, dict[str, Any]] = {}
        for name, tensor in weights.items():
            layer, _, own = name.partition(".")
            assert layer.isdigit() and own, f"`weights` has `{name}`, which is no `LAYER.NAME`"  # noqa: PT018
            of_one.setdefault(layer, {})[own] = tensor
        for state in of_one.values() or [{}]:
            check_made(self._adapter.module, state)

    def _nothing(self) -> None:
        import torch

        if getattr(self._adapter, "weights", dict)():
            raise SkippedCheckError("it begins with pretrained weights")
        with torch.no_grad():
            found = seeded(self._adapter.module).eval()(*self._given())
        assert tuple(found.shape) == (_ROWS, _LENGTH, WIDTH), f"gives {list(found.shape)}, not what is added to a layer"
        assert not bool(found.any()), "is not 0 at the beginning; multiply it by a parameter that begins as 0"

    @cached_property
    def _network(self) -> Any:
        return shaken(self._adapter.module)

    def _run(self, hidden: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            found: Tensor = self._network(hidden, maps, visible)
        return found

    def _alone(self) -> None:
        import torch

        hidden, maps, visible = self._given()
        whole = self._run(hidden, maps, visible)
        other = hidden.clone()
        other[:, 3] += 1
        rest = [0, 1, 2, 4, 5]
        again = self._run(other, maps, visible)
        assert torch.equal(again[:, rest], whole[:, rest]), "a position's result depends on another position"
        for place in range(_LENGTH):
            one = self._run(hidden[:, place : place + 1], maps, visible[:, place : place + 1])
            check_close(one[:, 0], whole[:, place], f"position {place}: another result when it is alone")
        other_maps = maps.clone()
        other_maps[1] += 1
        assert torch.equal(self._run(hidden, other_maps, visible)[0], whole[0]), "a row's result depends on another row"

    def _unseen(self) -> None:
        import torch

        hidden, maps, visible = self._given()
        whole = self._run(hidden, maps, visible)
        assert bool(torch.isfinite(whole).all()), "gives NaN or infinities where a position sees nothing"
        for item in range(_ITEMS):
            other = maps.clone()
            other[:, item] += 1
            changed = self._run(hidden, other, visible) != whole
            assert not bool(changed[~visible[..., item]].any()), "an item changes the result of positions not seeing it"
        more = torch.cat((maps, torch.zeros_like(maps)), 1), torch.cat((visible, torch.zeros_like(visible)), 2)
        check_close(self._run(hidden, *more), whole, "another result where a row has more items, which nobody sees")
        none = torch.zeros_like(visible)
        nothing = self._run(hidden, maps, none)
        one = self._run(hidden, torch.zeros_like(maps[:, :1]), none[..., :1])
        check_close(one, nothing, "where nothing is seen, the result depends on maps or on how many there are")

    def _gradients(self) -> None:
        import torch

        hidden, maps, visible = self._given()
        network = shaken(self._adapter.module)
        for seen in (visible, torch.zeros_like(visible)):
            inputs = [hidden.clone().requires_grad_(), maps.clone().requires_grad_()]
            network.zero_grad()
            network(*inputs, seen).square().sum().backward()
            tensors = [*inputs, *network.parameters()]
            if seen is visible:
                unreached = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
                assert not unreached, f"no gradient reaches `{unreached[0]}`; leave it out, or freeze it"
            wrong = [one for one in tensors if one.grad is not None and not bool(torch.isfinite(one.grad).all())]
            assert not wrong, "gradients are NaN or infinite"
