"""Attention by blocks of queries against the definition, across the edges of blocks and where it computes twice."""

import pytest
import torch

from mio.core.model.causal import BLOCK, causal_attention, causal_bias


def reference(q, k, v, window):
    length = q.shape[2]
    back = torch.arange(length)[:, None] - torch.arange(length)
    hidden = (back < 0) | (back >= (window or length))
    scores = torch.einsum("ngme,nse->ngms", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("ngms,nse->ngme", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, 600])
@pytest.mark.parametrize("window", [0, 1, 100, BLOCK + 3, 550])
def test_values_and_gradients_are_those_of_the_definition(length, window):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, length, 4), (2, length, 4), (2, length, 4), (2, 3, length, 4))
    q, k, v, by_out = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    bias = causal_bias(min(length, window) if window else length, window, torch.float64, torch.device("cpu"))
    got, want = causal_attention(*inputs, bias, window), reference(*inputs, window)
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(
        torch.autograd.grad(got, inputs, by_out), torch.autograd.grad(want, inputs, by_out), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_long_documents_keep_no_probabilities():
    kept = {}
    for length in (512, 1024):
        q = torch.randn(1, 2, length, 4, requires_grad=True)
        out = causal_attention(q, q[0, :1].detach(), q[0, :1].detach(), causal_bias(length, 0, q.dtype, q.device))
        kept[length] = sum(tensor.numel() for tensor in out.grad_fn.saved_tensors)
    assert kept[512] > 2 * 512 * 512 / 2
    assert kept[1024] < kept[512]
