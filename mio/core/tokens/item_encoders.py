"""What encoders say of items, each answer checked: positions, and arrays of the same names and types for every item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.encoders import Arrays, Encoder
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Modality
from mio.core.errors import DataError, PluginError, UserError

_KINDS = "biuf"
"""Of arrays that become tensors: truth values, whole numbers and floating-point ones."""

RUN = 2
"""Items of different shapes whose values are kept for a check."""
_MOST_SEEN = 64
"""Items whose shapes are."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shape of each array of an item, by name."""


def only_read(modalities: Mapping[str, Modality], name: str) -> bool:
    """Whether media of a modality cannot be written: it has neither text nor codes, nor parts that have."""
    declared = modalities[name]
    if declared.parts:
        return only_read(modalities, declared.parts)
    return not (declared.text or declared.codebooks)


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


class ItemEncoder:
    """The encoder of one modality."""

    def __init__(self, modality: str, owner: str, encoder: Encoder) -> None:
        self.encoder = encoder
        self.seen: dict[tuple[Shapes, int], Prepared] = {}
        """The first item of each shape that was prepared for a check (see `check`), by its shapes and positions."""
        self.name = f"the encoder of `{modality}`, which plugin `{owner}` supplies,"
        """For messages."""

    def positions(self, key: str, data: Any) -> int:
        """Positions of an item, whose file's data or `probe` are `data`. Raises `DataError` where the encoder cannot
        read it, and `PluginError` where it says something else than a whole number above 0."""
        positions = self._call(key, lambda: self.encoder.positions(data))
        if isinstance(positions, bool) or not isinstance(positions, int | np.integer) or positions < 1:
            raise PluginError(
                f"{self.name} says that {key} takes {positions!r:.40} positions; it must be a whole number above 0"
            )
        return int(positions)

    def prepare(self, key: str, data: Any) -> Arrays:
        """What the network is given of an item. Raises `DataError` where the encoder cannot read it, and `PluginError`
        where the arrays are not of the names, types and shapes that its `dummy` has."""
        arrays = self._call(key, lambda: self.encoder.prepare(data))
        due = self._due
        if (found := _kinds(arrays)) != due:
            raise PluginError(
                f"{self.name} prepares {_told(found)} of {key}, where its `dummy` has {_told(due)}; names, types and "
                "shapes behind the first axis must be the same for all items"
            )
        return {name: np.asarray(arrays[name]) for name in self.dummy}

    def check(self, where: str, key: str, data: Any, positions: int) -> None:
        """Prepares an item of the record `where`, to be given to the network (see `mio.core.model.encoder_check`)."""
        arrays = self.prepare(key, data)
        of_shapes = tuple((name, np.shape(array)) for name, array in arrays.items()), positions
        if of_shapes in self.seen or len(self.seen) == _MOST_SEEN:
            return
        if len(self.seen) >= RUN:
            arrays = {name: np.broadcast_to(np.zeros((), one.dtype), one.shape) for name, one in arrays.items()}
        self.seen[of_shapes] = Prepared(where, arrays, positions)

    @cached_property
    def dummy(self) -> Arrays:
        """What the network runs on where there is no item. Raises `PluginError` for what is none."""
        try:
            arrays = self.encoder.dummy()
        except UserError:
            raise
        except Exception as error:
            raise PluginError(f"{self.name} has no `dummy`: {type(error).__name__}: {error}") from error
        if not isinstance(arrays, Mapping) or not arrays or (wrong := _unfit(arrays)):
            told = f"`{wrong}` is no array of numbers with an axis" if isinstance(arrays, Mapping) and arrays else ""
            raise PluginError(
                f"{self.name} has a `dummy` that is no mapping of names to arrays{f': {told}' if told else ''}"
            )
        return {name: np.asarray(array) for name, array in arrays.items()}

    @cached_property
    def _due(self) -> _Kinds:
        return _kinds(self.dummy)

    def _call(self, key: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except UserError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            why = f"{error}" or type(error).__name__
            raise DataError(f"{key}: {self.name} cannot read it: {why}") from error


_Kinds = dict[str, tuple[str, tuple[int, ...]]]
"""By name: type, and shape behind the first axis."""


def _kinds(arrays: Any) -> _Kinds:
    if not isinstance(arrays, Mapping):
        return {type(arrays).__name__: ("no mapping", ())}
    return {str(name): _kind(array) for name, array in arrays.items()}


def _kind(array: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        return type(array).__name__, ()
    return array.dtype.name if array.dtype.isnative else array.dtype.str, array.shape[1:]


def _unfit(arrays: Mapping[str, Any]) -> str:
    """Name of an array that can be no tensor; empty if there is none."""
    for name, array in arrays.items():
        usable: npt.NDArray[Any] | None = array if isinstance(array, np.ndarray) else None
        if usable is None or not usable.ndim or usable.dtype.kind not in _KINDS or usable.dtype.itemsize > 8:
            return str(name)
        if not usable.dtype.isnative:
            return str(name)
    return ""


def _told(kinds: _Kinds) -> str:
    return (
        ", ".join(f"`{name}` {dtype} {['n', *shape]}".replace("'", "") for name, (dtype, shape) in kinds.items())
        or "nothing"
    )
