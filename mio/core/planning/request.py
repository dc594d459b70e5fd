"""What a plan needs beside the recipe: how many devices of which kind, and what they cost. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mio.core.contract.ranges import ALLOWED, Range, number
from mio.core.errors import UserError, nearest
from mio.core.planning.hardware import Gpu, Network, find_gpu, find_network
from mio.core.recipe.layers import override_layer
from mio.core.recipe.schema import Recipe, RuntimeConfig


@dataclass(frozen=True)
class Request:
    """Values of `key=value` that are the plan's own. 0 and the empty string leave a choice to the recipe or the GPU."""

    world: int = number(0, 0, 10**6)
    """Devices in all; 0: the recipe's `runtime.devices` times `runtime.nodes`."""
    gpus_per_node: int = number(0, 0, 1024)
    """Devices of a node; 0: 8, or all of them where there are fewer."""
    gpu: str = "h100"
    network: str = ""
    """What joins the nodes; empty: what clusters of the GPU usually have."""
    price: float = number(0.0, 0, 1e6)
    """US dollars per GPU and hour; 0: the catalogue's round figure."""
    efficiency: float = number(0.0, 0, 1e3)
    """Share of the GPU's peak that computation reaches while nothing waits for a network; 0: the catalogue's."""
    document: int = number(0, 0, 2**22)
    """Positions of a document, which decides what attention costs; 0: rows are one document each, the most it can."""
    text_tokens: int = number(0, 0, 10**7)
    """Tokens of the text tokenizer; 0: taken from its plugin."""
    media: float | Mapping[str, float] = 0.25
    """Share of the positions that encoders fill, all of them in equal parts, or by modality. A guess: it takes the data
    to know."""

    @classmethod
    def split(cls, overrides: Sequence[str]) -> tuple[Request, list[str]]:
        """The request in `key=value` arguments, and the arguments that are the recipe's. Raises `UserError`."""
        kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        most = {field.name: field.metadata.get(ALLOWED) for field in fields(cls)}
        values: dict[str, Any] = {}
        rest = []
        for argument in overrides:
            key, _, value = argument.partition("=")
            if key not in kinds:
                own = [*kinds, *(field.name for field in fields(Recipe))]
                if "." not in key and key not in own:
                    raise UserError(f"`{argument}`: unknown key `{key}`{nearest(key, own)}")
                rest.append(argument)
                continue
            if key == "media":
                values[key] = _shares(argument)
            else:
                values[key] = value if kinds[key] is str else _number(argument, key, kinds[key], most[key])
        return cls(**values), rest

    def resolve(self, runtime: RuntimeConfig) -> Request:
        """The request with every choice made. Raises `UserError` for what does not exist or does not divide."""
        gpu = find_gpu(self.gpu)
        network = self.network or gpu.network
        find_network(network)
        world = self.world or runtime.devices * runtime.nodes
        per_node = self.gpus_per_node or min(8, world)
        if world % per_node:
            nearest = " or ".join(
                f"world={n}" for n in (world // per_node * per_node, -(-world // per_node) * per_node) if n
            )
            raise UserError(f"`world={world}` is no multiple of the {per_node} GPUs of a node; give {nearest}")
        efficiency = self.efficiency or gpu.efficiency
        if efficiency > 1:
            raise UserError(f"`efficiency={efficiency:g}` is a share of the GPU's peak, at most 1")
        return replace(
            self,
            world=world,
            gpus_per_node=per_node,
            network=network,
            price=self.price or gpu.price,
            efficiency=efficiency,
        )

    def shares(self, modalities: Sequence[str]) -> dict[str, float]:
        """Share of the positions of each modality that an encoder reads. Raises `UserError` for other names, and for
        shares that are more than all positions."""
        if not isinstance(self.media, Mapping):
            return {name: self.media / len(modalities) for name in modalities}
        for name in self.media:
            if name not in modalities:
                listed = ", ".join(f"`{one}`" for one in modalities) or "none"
                raise UserError(f"`media`: no encoder reads `{name}`{nearest(name, modalities)} (encoders: {listed})")
        if sum(self.media.values()) > 1:
            raise UserError(f"`media`: the shares add up to {sum(self.media.values()):g}, more than all positions")
        return {name: self.media.get(name, 0.0) for name in modalities}

    @property
    def hardware(self) -> tuple[Gpu, Network]:
        """Of a resolved request."""
        return find_gpu(self.gpu), find_network(self.network)


def _number(argument: str, key: str, kind: type, allowed: Range | None) -> Any:
    """The number of a `key=value`. Raises `UserError`."""
    value = override_layer(argument).content[key]
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise UserError(f"`{argument}`: `{key}` must be {'a whole number' if kind is int else 'a number'}")
    if not value > 0:
        raise UserError(f"`{argument}`: `{key}` must be above 0")
    if problem := allowed.problem(value) if allowed else "":
        raise UserError(f"`{argument}`: `{key}` {problem}")
    return value


def _shares(argument: str) -> float | dict[str, float]:
    """The value of `media=`. Raises `UserError`."""
    value = override_layer(argument).content["media"]
    shares = value if isinstance(value, dict) else {"": value}
    for share in shares.values():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise UserError(
                f"`{argument}`: `media` is a share of the positions from 0 to 1, of all encoders together or as in "
                "`media={NAME: 0.2}`"
            )
    return {str(name): float(share) for name, share in shares.items()} if isinstance(value, dict) else float(value)
