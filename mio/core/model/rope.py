"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864), in the half-split layout of Hugging Face."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mio.core.contract.backbone import RopeScaling


def frequencies(head_width: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Angle per position of each pair of dimensions: float32 [head_width / 2], on CPU.

    `linear` is position interpolation (Chen et al., 2023, arXiv:2306.15595); `llama3` is the smooth blend of Llama 3.1
    (arXiv:2407.21783; `_compute_llama3_parameters` in transformers' `modeling_rope_utils.py`).
    """
    # The device is explicit so that construction under `torch.device("meta")` still yields numbers.
    exponent = torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu") / head_width
    base = theta**-exponent
    if scaling.kind == "none":
        return base
    if scaling.kind == "linear":
        return base / scaling.factor
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_context * base / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * base / scaling.factor + kept * base


def tables(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for `rotate`: [B, L, 1, head width] in `dtype`, of positions int64 [B, L]."""
    angles = positions[..., None, None].float() * frequencies
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [B, L, heads, head width] turned by the angles of `tables`; dimension i pairs with i + half."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
