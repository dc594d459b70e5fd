"""FLOPs of a training step and the peak of the device, for the model FLOPs utilisation (MFU).

Counting follows the PaLM paper (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): 6 per parameter and token, plus
12 per layer, head size, head and attended position, of which causal attention needs half.
"""

from __future__ import annotations

import time

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from mio.core.contract.backbone import TransformerConfig

_BF16 = {
    "gb200": 2500e12,
    "b200": 2250e12,
    "gh200": 989.4e12,
    "h200 nvl": 835.5e12,
    "h200": 989.4e12,
    "h800": 989.4e12,
    "h100 nvl": 835.5e12,
    "h100 pcie": 756e12,
    "h100": 989.4e12,
    "a800": 312e12,
    "a100": 312e12,
}
"""FLOP/s of dense bfloat16 products by what the device's name contains, first match, from NVIDIA's data sheets, whose
headline figures are twice as high (sparse matrices). Lightning's table lacks these names, or has the sparse figure."""


def flops_per_token(config: TransformerConfig, rows: int, mean_length: float, frozen: bool = False) -> float:
    """FLOPs of forward and backward for one token of documents with `mean_length` tokens; `rows` of the head.

    Matrices that are `frozen` beside adapters have no gradient: 4 per parameter and token. Adapters and encoders are
    not counted.
    """
    head = config.head_size
    attention = config.width * head * (2 * config.heads + 2 * (config.kv_heads or config.heads))
    experts = min(config.experts, config.experts_per_token) if config.experts else 1
    weights = config.layers * (attention + 3 * config.width * config.ffn_size * experts) + rows * config.width
    spans = sum(min(mean_length, window) if window else mean_length for window in config.windows)
    return (4.0 if frozen else 6.0) * weights + 6.0 * config.heads * head * spans


def peak_flops(device: torch.device, precision: str) -> float:
    """Peak FLOP/s of the device: from its data sheet on a GPU, measured with a matrix product on a CPU."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device).lower()
        known = next((flops for part, flops in _BF16.items() if part in name), 0.0) if precision == "bf16" else 0.0
        return known or float(get_available_flops(device, dtype) or 0)
    size = 1024
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    left @ right
    best = min(_seconds(left, right) for _ in range(4))
    return 2.0 * size**3 / best


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    left @ right
    return time.perf_counter() - start
