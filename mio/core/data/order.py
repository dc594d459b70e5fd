"""The order in which a stream visits its records: a seeded bijection per epoch, seekable, without memory."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 6
_BLOCK = 1024
_BLOCKS = 16
"""Blocks that are remembered: a document is asked for when it is drawn, and again when its row is due."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_Words = npt.NDArray[np.uint64]


def derive_seed(seed: int, *names: str) -> int:
    """64-bit seed of a named part of a run. Depends on nothing but its arguments, on any machine."""
    digest = hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _mix(word: _Words) -> _Words:
    """Finaliser of splitmix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def permute(index: _Words, size: int, keys: _Words) -> _Words:
    """Sends each `index` below `size` to its place in the permutation of `range(size)` that its key selects.

    A generalised Feistel network on the rectangle a x b >= size, with cycle walking back into the range: Black and
    Rogaway, "Ciphers with Arbitrary Finite Domains" (2002). `index` and `keys` are uint64 of one shape.
    """
    width = np.uint64(max(1, int(np.ceil(np.sqrt(size)))))
    height = np.uint64(-(-size // int(width)))
    result = index.copy()
    walking = np.arange(len(result))
    while len(walking):
        left, right = result[walking] % width, result[walking] // width
        key = keys[walking]
        for turn in range(_ROUNDS):
            side = width if turn % 2 == 0 else height
            key = key + _GOLDEN
            left, right = right, (left + _mix(_mix(right + key) ^ key) % side) % side
        result[walking] = left + right * width
        walking = walking[result[walking] >= size]
    return result


class Order:
    """Record of the n-th document of a stream of `size` records: epoch `n // size` visits every record once."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._blocks: dict[int, list[int]] = {}

    def __call__(self, n: int) -> int:
        """Index of the record, below `size`."""
        block, offset = divmod(n, _BLOCK)
        records = self._blocks.get(block)
        if records is None:
            steps = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.uint64)
            epoch, index = np.divmod(steps, np.uint64(self.size))
            keys = _mix(_mix(epoch * _GOLDEN) + np.uint64(self.seed))
            records = self._blocks[block] = permute(index, self.size, keys).tolist()
            if len(self._blocks) > _BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        return records[offset]
