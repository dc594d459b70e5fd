"""What the server gave, by which a model is shown its own answer again as it was, and not as it was drawn."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import NamedTuple

from mio.core.contract.values import Codes, Media

KEPT_SECONDS = 3600
"""How long sound of an answer can be named in a further turn."""
_MOST = 4096


class _Kept(NamedTuple):
    value: Codes | Media
    until: float


class Remembered:
    """Items by name: of sound the one that the answer has, of other media a checksum of the bytes that were given."""

    def __init__(self, most: int = _MOST) -> None:
        self._items: OrderedDict[str, _Kept] = OrderedDict()
        self._most = most

    def keep(self, name: str, value: Codes | Media) -> int:
        """Keeps an item; until when, in seconds since 1970. The oldest ones leave first."""
        until = time.time() + KEPT_SECONDS
        self._items[name] = _Kept(value, until)
        self._items.move_to_end(name)
        while len(self._items) > self._most or next(iter(self._items.values())).until < time.time():
            self._items.popitem(last=False)
        return int(until)

    def find(self, name: str) -> Codes | Media | None:
        """The item of a name, as long as it is kept."""
        kept = self._items.get(name)
        return kept.value if kept is not None and kept.until >= time.time() else None


def name_of_bytes(content: bytes) -> str:
    """What an item that was given as these bytes is kept under."""
    return hashlib.sha256(content).hexdigest()
