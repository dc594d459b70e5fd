"""What encoders say of items, each answer checked: their positions and arrays."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from mio.core.contract.encoders import Arrays, Encoder
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Modality
from mio.core.errors import PluginError
from mio.core.tokens.item_arrays import Preparing


def only_read(modalities: Mapping[str, Modality], name: str, made: Container[str] = ()) -> bool:
    """Whether media of a modality cannot be written: it has neither text nor codes, nor is `made` by a head, or it has
    parts of which that is so."""
    declared = modalities[name]
    if declared.parts:
        return any(only_read(modalities, part, made) for part in declared.part_names)
    return not (declared.text or declared.codebooks or name in made)


def without_network(modality: str, owner: str) -> str:
    """What is wrong with a recipe in which nothing reads or makes a modality that has no codes."""
    return (
        f"`{modality}`, which plugin `{owner}` declares, has no codes, and no plugin of the recipe supplies an encoder "
        "that reads it; add one under `plugins:`, or give it a tokenizer"
    )


def item_encoders(plugins: EnabledPlugins, made: Container[str] = ()) -> dict[str, ItemEncoder]:
    """Encoders of the modalities that are read by one, in the modalities' order. Raises `PluginError` where a modality
    has neither codes nor an encoder, nor is `made` by a head."""
    encoders = {}
    for owner, declared in plugins.modalities():
        if declared.text or declared.parts:
            continue
        if (found := plugins.encoder(declared.name)) is not None:
            encoders[declared.name] = ItemEncoder(declared.name, *found)
        elif not (declared.codebooks or declared.name in made):
            raise PluginError(without_network(declared.name, owner))
    return encoders


class ItemEncoder(Preparing):
    """The encoder of one modality."""

    stand_in = "`dummy`"

    def __init__(self, modality: str, owner: str, encoder: Encoder) -> None:
        super().__init__(f"the encoder of `{modality}`, which plugin `{owner}` supplies,")
        self.encoder = encoder
        self.maps: tuple[int, int] | None = getattr(encoder, "maps", None)
        """Cells and channels of the maps that it makes of items."""
        self.together: bool = bool(getattr(encoder, "together", False))
        """Whether the positions of an item see each other."""

    def _stand_in(self) -> Any:
        return self.encoder.dummy()

    def positions(self, key: str, data: Any) -> int:
        """Positions of an item, whose file's data or `probe` are `data`. Raises `DataError` where the encoder cannot
        read it, and `PluginError` where it says something else than a whole number above 0."""
        return self.count(key, self.call(key, lambda: self.encoder.positions(data)), 1)

    def prepare(self, key: str, data: Any) -> Arrays:
        """What the network is given of an item. Raises `DataError` where the encoder cannot read it, and `PluginError`
        where the arrays are not of the names, types and shapes that its `dummy` has."""
        arrays = self.call(key, lambda: self.encoder.prepare(data))
        return self.like_dummy(key, arrays, self.dummy, "prepares")

    def check(self, where: str, key: str, data: Any, positions: int) -> None:
        """Prepares an item of the record `where`, to be given to the network (see `mio.core.model.network_check`)."""
        self.see(where, self.prepare(key, data), positions)
