"""Times of rectified flow, without torch: 0 is the data, 1 noise."""

from __future__ import annotations

import math

import numpy as np


def shifted(time: float, shift: float) -> float:
    """A time from 0 to 1 with more noise where `shift` is above 1: `shift t / (1 + (shift - 1) t)` (arXiv 2403.03206,
    equation 23)."""
    return shift * time / (1 + (shift - 1) * time)


def drawn(random: np.random.Generator, shift: float) -> float:
    """A logit-normal time, shifted."""
    return shifted(1 / (1 + math.exp(-random.standard_normal())), shift)
