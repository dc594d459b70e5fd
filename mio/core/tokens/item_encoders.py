"""What encoders say of items, each answer checked: their positions and arrays."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import numpy as np

from mio.core.contract.encoders import Arrays, Encoder
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Modality
from mio.core.errors import PluginError
from mio.core.tokens.item_arrays import Preparing

RUN = 2
"""Items of different shapes whose values are kept for a check."""
_MOST_SEEN = 64
"""Items whose shapes are."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shape of each array of an item, by name."""


def only_read(modalities: Mapping[str, Modality], name: str, made: Container[str] = ()) -> bool:
    """Whether media of a modality cannot be written: it has neither text nor codes, nor is `made` by a head, nor has
    parts of which that is so."""
    declared = modalities[name]
    if declared.parts:
        return only_read(modalities, declared.parts, made)
    return not (declared.text or declared.codebooks or name in made)


def without_encoder(modality: str, owner: str) -> str:
    """What is wrong with a recipe in which nothing reads a modality that has no codes."""
    return (
        f"`{modality}`, which plugin `{owner}` declares, has no codes, and no plugin of the recipe supplies an encoder "
        "that reads it; add one under `plugins:`, or give it a tokenizer"
    )


def item_encoders(plugins: EnabledPlugins) -> dict[str, ItemEncoder]:
    """Encoders of the modalities that are read by one, in the modalities' order. Raises `PluginError` where a modality
    has neither codes nor an encoder."""
    encoders = {}
    for owner, declared in plugins.modalities():
        if declared.text or declared.parts:
            continue
        if (found := plugins.encoder(declared.name)) is not None:
            encoders[declared.name] = ItemEncoder(declared.name, *found)
        elif not declared.codebooks:
            raise PluginError(without_encoder(declared.name, owner))
    return encoders


class Prepared(NamedTuple):
    """An item that was prepared for a check."""

    where: str
    """Names its record, or its key."""
    arrays: Arrays
    positions: int


class ItemEncoder(Preparing):
    """The encoder of one modality."""

    def __init__(self, modality: str, owner: str, encoder: Encoder) -> None:
        super().__init__(f"the encoder of `{modality}`, which plugin `{owner}` supplies,", encoder)
        self.encoder = encoder
        self.maps: tuple[int, int] | None = getattr(encoder, "maps", None)
        """Cells and channels of the maps that it makes of items."""
        self.together: bool = bool(getattr(encoder, "together", False))
        """Whether the positions of an item see each other."""
        self.seen: dict[tuple[Shapes, int], Prepared] = {}
        """The first item of each shape that was prepared for a check (see `check`), by its shapes and positions."""

    def positions(self, key: str, data: Any) -> int:
        """Positions of an item, whose file's data or `probe` are `data`. Raises `DataError` where the encoder cannot
        read it, and `PluginError` where it says something else than a whole number above 0."""
        return self.count(key, self.call(key, lambda: self.encoder.positions(data)), 1)

    def prepare(self, key: str, data: Any) -> Arrays:
        """What the network is given of an item. Raises `DataError` where the encoder cannot read it, and `PluginError`
        where the arrays are not of the names, types and shapes that its `dummy` has."""
        arrays = self.call(key, lambda: self.encoder.prepare(data))
        return self.like_dummy(key, arrays, self.dummy, "prepares", "its `dummy`")

    def check(self, where: str, key: str, data: Any, positions: int) -> None:
        """Prepares an item of the record `where`, to be given to the network (see `mio.core.model.encoder_check`)."""
        arrays = self.prepare(key, data)
        of_shapes = tuple((name, np.shape(array)) for name, array in arrays.items()), positions
        if of_shapes in self.seen or len(self.seen) == _MOST_SEEN:
            return
        if len(self.seen) >= RUN:
            arrays = {name: np.broadcast_to(np.zeros((), one.dtype), one.shape) for name, one in arrays.items()}
        self.seen[of_shapes] = Prepared(where, arrays, positions)
