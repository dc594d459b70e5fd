"""What heads say of items, each answer checked: their own positions, what is learnt, and what is drawn."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mio.core.contract.encoders import Arrays
from mio.core.contract.heads import Head
from mio.core.contract.plugins import EnabledPlugins
from mio.core.errors import DataError, PluginError
from mio.core.tokens.item_arrays import Preparing


def item_heads(plugins: EnabledPlugins) -> dict[str, ItemHead]:
    """Heads of the modalities that are made by one, in the modalities' order."""
    heads = {}
    for _, declared in plugins.modalities():
        if not (declared.text or declared.parts) and (found := plugins.head(declared.name)) is not None:
            heads[declared.name] = ItemHead(declared.name, *found)
    return heads


class ItemHead(Preparing):
    """The head of one modality."""

    stand_in = "`target` of its `example`"

    def __init__(self, modality: str, owner: str, head: Head) -> None:
        super().__init__(f"the head of `{modality}`, which plugin `{owner}` supplies,")
        self.head = head

    def _stand_in(self) -> Any:
        return self.head.target(self.head.example())

    def positions(self, key: str, data: Any) -> int:
        """Own positions of an item, whose file's data or `probe` are `data`. Raises as `ItemEncoder.positions`."""
        return self.count(key, self.call(key, lambda: self.head.positions(data)), 0)

    def target(self, key: str, data: Any) -> Arrays:
        """What is learnt of an item. Raises as `ItemEncoder.prepare`, and `DataError` for NaN and infinities, of which
        the loss of a whole step would be none."""
        arrays = self.call(key, lambda: self.head.target(data))
        arrays = self.like_dummy(key, arrays, self.dummy, "has the target")
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{key}: {self.name} cannot learn it: `{name}` of its target holds NaN or infinities")
        return arrays

    def check(self, where: str, key: str, data: Any, positions: int) -> None:
        """Prepares what is learnt of an item of the record `where`, to be given to the network (see
        `mio.core.model.network_check`)."""
        random = np.random.Generator(np.random.Philox(0))
        self.see(where, self.drawn(self.target(key, data), random), positions)

    def drawn(self, target: Arrays, random: np.random.Generator) -> Arrays:
        """A target with what is random about learning it."""
        noise = self.head.noise(target, random)
        return {
            **target,
            **self.like_dummy("an item", noise, self._dummy_noise, "draws", "what it draws for its `example`"),
        }

    @cached_property
    def dummy_drawn(self) -> Arrays:
        """What the network runs on where there is no item."""
        return {**self.dummy, **self._dummy_noise}

    @cached_property
    def _dummy_noise(self) -> Arrays:
        random = np.random.Generator(np.random.Philox(0))
        noise = self.usable(self.head.noise(self.dummy, random), "draws noise for its `example`")
        if both := set(noise) & set(self.dummy):
            raise PluginError(f"{self.name} draws `{min(both)}`, which its target has too; give it another name")
        return noise
