"""FLOPs against the rule of six per parameter and token, and against what torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.flops import flops_per_token, peak_flops
from mio.core.model.transformer import Transformer
from mio.core.planning.hardware import GPUS

CONFIGS = [
    TransformerConfig(width=64, layers=3, heads=4),
    TransformerConfig(width=96, layers=2, heads=6, kv_heads=2, head_width=32, ffn_width=160, tied_embeddings=True),
]
ROWS = 256


@pytest.mark.parametrize("config", CONFIGS)
def test_it_is_six_per_parameter_of_the_matrices_and_the_attention_beside(config):
    model = Transformer(config, ROWS)
    matrices = sum(p.numel() for name, p in model.layers.named_parameters() if p.dim() == 2) + ROWS * config.width
    attention = 12 * config.layers * config.heads * config.head_size
    for length in (1.0, 100.0):
        # a token sees half of its document on average
        assert flops_per_token(config, ROWS, length) == pytest.approx(6 * matrices + attention * length / 2)


@pytest.mark.parametrize("config", CONFIGS)
def test_it_is_what_torch_counts_of_the_matrix_products(config):
    """Whole square products, as torch counts them, are attention to all positions: twice the causal half."""
    length = 64
    model = Transformer(config, ROWS)
    with FlopCounterMode(display=False) as counter:
        hidden = model(torch.randint(ROWS, (1, length)), torch.arange(length)[None]).hidden
        model.logits(hidden, ROWS).sum().backward()
    expected = flops_per_token(config, ROWS, 2 * length) * length
    # the gradient of the embedding's input is not needed, and a kernel may skip or repeat a product
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.1)


def test_experts_count_as_those_that_a_token_uses_and_windows_bound_what_it_sees():
    dense = TransformerConfig(width=64, layers=2, heads=4, ffn_width=128)
    sparse = TransformerConfig(width=64, layers=2, heads=4, ffn_width=128, experts=8, experts_per_token=2)
    one_expert = 6 * 2 * 3 * 64 * 128
    assert flops_per_token(sparse, ROWS, 10) - flops_per_token(dense, ROWS, 10) == pytest.approx(one_expert)
    windowed = TransformerConfig(width=64, layers=2, heads=4, ffn_width=128, sliding_window=16)
    assert flops_per_token(windowed, ROWS, 500) == flops_per_token(dense, ROWS, 16)
    mixed = replace(windowed, full_attention_layers=[0])
    assert (
        flops_per_token(mixed, ROWS, 500)
        == (flops_per_token(windowed, ROWS, 500) + flops_per_token(dense, ROWS, 500)) / 2
    )


def test_the_peak_of_this_machine_is_measured_and_plausible():
    assert 1e8 < peak_flops(torch.device("cpu"), "fp32") < 1e14


@pytest.mark.parametrize(
    ("name", "processors", "products", "clock"),
    [
        ("NVIDIA H100 80GB HBM3", 132, 512, 1.83e9),
        ("NVIDIA H200", 132, 512, 1.83e9),
        ("NVIDIA GH200 480GB", 132, 512, 1.83e9),
        ("NVIDIA H100 PCIe", 114, 512, 1.62e9),
        ("NVIDIA A100-SXM4-80GB", 108, 256, 1.41e9),
        ("NVIDIA A800-SXM4-80GB", 108, 256, 1.41e9),
        ("NVIDIA B200", 148, 1024, 1.85e9),
    ],
)
def test_the_peak_of_a_gpu_is_what_its_tensor_cores_multiply_in_a_second(
    monkeypatch, name, processors, products, clock
):
    """Multiprocessors, dense bfloat16 multiply-adds per clock of each of their four tensor cores, and the clock, of
    NVIDIA's architecture white papers (A100 2020, H100 2022; B200: cores twice as wide). Each is two operations."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    expected = 2 * processors * 4 * products * clock
    assert peak_flops(torch.device("cuda"), "bf16") == pytest.approx(expected, rel=0.01)
    planned = [gpu for key, gpu in GPUS.items() if key in name.lower() and "PCIe" not in name and "GH" not in name]
    assert [gpu.bf16 for gpu in planned] == [pytest.approx(expected, rel=0.01)] * len(planned)


def test_frozen_matrices_have_no_gradient_to_compute():
    config = TransformerConfig(width=64, layers=2, heads=2)
    attention = flops_per_token(config, ROWS, 10) - flops_per_token(config, ROWS, 0)
    without = flops_per_token(config, ROWS, 10, frozen=True) - attention
    assert without == pytest.approx(flops_per_token(config, ROWS, 0) * 4 / 6)
