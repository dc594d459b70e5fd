"""Arrays that plugins prepare of items for their networks, each checked: the same names and types for every item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.encoders import Arrays
from mio.core.errors import DataError, PluginError, UserError

_NUMBERS = "biuf"
"""Kinds of arrays that become tensors: truth values, whole numbers and floating-point ones."""
RUN = 2
"""Items of different shapes whose values are kept for a check."""
_MOST_SEEN = 64
"""Items whose shapes are."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shape of each array of an item, by name."""


class Prepared(NamedTuple):
    """An item that was prepared for a check."""

    where: str
    """Names its record, or its key."""
    arrays: Arrays
    positions: int


class Preparing:
    """What a plugin's object says of items, for one of its networks. `name` is for messages."""

    stand_in = ""
    """What the object calls that on which its network runs where there is no item."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: dict[tuple[Shapes, int], Prepared] = {}
        """The first item of each shape that was prepared for a check, by its shapes and positions."""

    @cached_property
    def dummy(self) -> Arrays:
        """What the network runs on where there is no item. Raises `PluginError` for what is none."""
        try:
            arrays = self._stand_in()
        except UserError:
            raise
        except Exception as error:
            raise PluginError(f"{self.name} has no {self.stand_in}: {type(error).__name__}: {error}") from error
        return self.usable(arrays, f"has a {self.stand_in}")

    def _stand_in(self) -> Any:
        raise NotImplementedError

    def usable(self, arrays: Any, where: str) -> Arrays:
        """Arrays that can be tensors. Raises `PluginError` for everything else, which the plugin's object `where`."""
        if not isinstance(arrays, Mapping) or not arrays or (wrong := unfit(arrays)):
            told = f"`{wrong}` is no array of numbers with an axis" if isinstance(arrays, Mapping) and arrays else ""
            raise PluginError(f"{self.name} {where} that is no mapping of names to arrays{f': {told}' if told else ''}")
        return {name: np.asarray(array) for name, array in arrays.items()}

    def like_dummy(self, key: str, arrays: Any, dummy: Arrays, verb: str, at_dummy: str = "") -> Arrays:
        """Arrays of an item. Raises `PluginError` where they are not of the names, types and shapes of the dummy's."""
        if (found := kinds(arrays)) != (due := kinds(dummy)):
            there = at_dummy or f"its {self.stand_in}"
            raise PluginError(
                f"{self.name} {verb} {told(found)} of {key}, where {there} has {told(due)}; names, types and shapes "
                "behind the first axis must be the same for all items"
            )
        return {name: np.asarray(arrays[name]) for name in dummy}

    def see(self, where: str, arrays: Arrays, positions: int) -> None:
        """Keeps an item of the record `where`, if it has other shapes than those before, for a check of the network
        (see `mio.core.model.network_check`)."""
        of_shapes = tuple((name, np.shape(array)) for name, array in arrays.items()), positions
        if of_shapes in self.seen or len(self.seen) == _MOST_SEEN:
            return
        if len(self.seen) >= RUN:
            arrays = {name: np.broadcast_to(np.zeros((), one.dtype), one.shape) for name, one in arrays.items()}
        self.seen[of_shapes] = Prepared(where, arrays, positions)

    def count(self, key: str, positions: Any, least: int) -> int:
        """A number of positions. Raises `PluginError` for what is none."""
        if isinstance(positions, bool) or not isinstance(positions, int | np.integer) or positions < least:
            due = "a whole number above 0" if least else "a whole number, 0 or more"
            raise PluginError(f"{self.name} says that {key} takes {positions!r:.40} positions; it must be {due}")
        return int(positions)

    def call(self, key: str, call: Callable[[], Any]) -> Any:
        """The result of asking about an item. Raises `DataError` where that fails."""
        try:
            return call()
        except UserError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            why = f"{error}" or type(error).__name__
            raise DataError(f"{key}: {self.name} cannot read it: {why}") from error


Kinds = dict[str, tuple[str, tuple[int, ...]]]
"""By name: type, and shape behind the first axis."""


def kinds(arrays: Any) -> Kinds:
    """What a mapping of arrays consists of."""
    if not isinstance(arrays, Mapping):
        return {type(arrays).__name__: ("no mapping", ())}
    return {str(name): _kind(array) for name, array in arrays.items()}


def _kind(array: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        return type(array).__name__, ()
    return array.dtype.name if array.dtype.isnative else array.dtype.str, array.shape[1:]


def unfit(arrays: Mapping[str, Any]) -> str:
    """Name of an array that can be no tensor; empty if there is none."""
    for name, array in arrays.items():
        usable: npt.NDArray[Any] | None = array if isinstance(array, np.ndarray) else None
        if usable is None or not usable.ndim or usable.dtype.kind not in _NUMBERS or usable.dtype.itemsize > 8:
            return str(name)
        if not usable.dtype.isnative:
            return str(name)
    return ""


def told(found: Kinds) -> str:
    """In words."""
    return (
        ", ".join(f"`{name}` {dtype} {['n', *shape]}".replace("'", "") for name, (dtype, shape) in found.items())
        or "nothing"
    )
