"""The handwritten digits: scikit-learn's 1,797 scans of 8 x 8 pixels, split once and for ever, and small variations.

The scans are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI, 1998).
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mio import DataError

TEST = 500
"""Scans held out; the other 1,297 are for training."""
SIDE = 8
NOISE = 8.0
"""Standard deviation of the noise on ink, in grey levels of 255."""

Pixels = npt.NDArray[np.uint8]


@cache
def scans() -> tuple[Pixels, npt.NDArray[np.int64]]:
    """All scans, uint8 `[1797, 8, 8]` with ink at 255, and their digits, int64 `[1797]`."""
    table = np.loadtxt(_file(), np.int64, delimiter=",")  # per scan: 64 levels of ink, 0 to 16, and the digit
    pixels = np.rint(table[:, :-1].reshape(-1, SIDE, SIDE) * (255 / 16)).astype(np.uint8)
    pixels.flags.writeable = False
    return pixels, table[:, -1].copy()


def _file() -> Path:
    """scikit-learn's file of the scans. Its `load_digits` takes a second to import, with pandas and scipy."""
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else Path()
    if not path.is_file():
        raise DataError("the handwritten digits are not where scikit-learn has them; install scikit-learn again")
    return path


@cache
def indices(split: str) -> tuple[int, ...]:
    """Numbers of the scans of `train` or `test`. Raises `DataError` for another split."""
    if split not in ("train", "test"):
        raise DataError(f"the handwritten digits have the splits `train` and `test`, not `{split}`")
    # RandomState, unlike numpy's newer generators, promises the same stream in every version
    order = np.random.RandomState(0).permutation(len(scans()[0]))
    return tuple(int(index) for index in (order[:TEST] if split == "test" else order[TEST:]))


@cache
def by_digit(split: str) -> tuple[tuple[int, ...], ...]:
    """Numbers of the split's scans of each digit, zero first."""
    digits = scans()[1]
    return tuple(tuple(index for index in indices(split) if digits[index] == digit) for digit in range(10))


@cache
def vary(index: int, variant: int, noise: float = NOISE) -> Pixels:
    """Scan `index` as uint8 `[8, 8]`: itself for variant 0, else lighter or darker, with noise, perhaps shifted.

    It is shifted by a pixel at most, and never so that ink leaves the picture. A function of the three numbers.
    """
    scan: Pixels = scans()[0][index]
    if variant == 0:
        return scan
    draw = np.random.default_rng((index, variant))
    # paper stays blank: noise there would make a codebook spend a quarter of its codes on it
    pixels = scan * draw.uniform(0.8, 1.0) + draw.normal(0, noise, scan.shape) * (scan > 0)
    for axis in (0, 1):
        step = int(draw.integers(-1, 2))
        leaving = np.take(scan, -1 if step > 0 else 0, axis)
        if step and leaving.max() == 0:
            pixels = np.roll(pixels, step, axis)
    varied: Pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    varied.flags.writeable = False
    return varied
