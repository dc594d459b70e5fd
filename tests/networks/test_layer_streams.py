"""Stages against the layers that they run piece by piece: those of the package speechtokenizer, and torch's."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mio import networks
from mio.networks import seanet
from mio.networks.streams import Blocks, Chain, Convolution, Pointwise, Recurrent, Residual, Upsampling
from mio.plugins.speech.speechtokenizer_checkpoint import PACKAGE, network_class


def published(name):
    network_class()
    return getattr(sys.modules[f"{PACKAGE}.modules.{'lstm' if name == 'SLSTM' else 'conv'}"], name)


def made(kind, **options):
    """A layer of the package without weight normalisation, with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return published(kind)(**options).eval().requires_grad_(False)


def in_pieces(stage, features, cuts):
    given = [stage.push(piece) for piece in features.tensor_split(sorted(cuts), -1) if piece.shape[-1]]
    return [piece for piece in [*given, stage.finish()] if piece is not None]


steps = st.integers(1, 40)
cuts = st.lists(st.integers(1, 39), max_size=5)


@settings(max_examples=80, deadline=None)
@given(steps, cuts, st.integers(1, 8), st.integers(1, 3), st.booleans(), st.sampled_from(["reflect", "constant"]))
def test_a_convolution_gives_what_the_layer_gives(length, at, kernel, dilation, causal, mode):
    """Also where an item is shorter than its padding."""
    torch.manual_seed(length)
    layer = made("SConv1d", in_channels=3, out_channels=2, kernel_size=kernel, dilation=dilation, causal=causal,
                 norm="none", pad_mode=mode)  # fmt: skip
    features = torch.randn(1, 3, length)
    pieces = in_pieces(seanet.stages([layer])[0], features, [cut for cut in at if cut < length])
    assert torch.allclose(torch.cat(pieces, -1), layer(features), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(steps, cuts, st.integers(1, 5), st.integers(0, 7), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_transposed_convolution_gives_what_the_layer_gives(length, at, stride, more, causal, trim):
    torch.manual_seed(length)
    options = {"trim_right_ratio": trim} if causal else {}
    layer = made("SConvTranspose1d", in_channels=3, out_channels=2, kernel_size=stride + more, stride=stride,
                 causal=causal, norm="none", **options)  # fmt: skip
    features = torch.randn(1, 3, length)
    expected = layer(features)
    pieces = in_pieces(seanet.stages([layer])[0], features, [cut for cut in at if cut < length])
    found = torch.cat(pieces, -1) if pieces else expected[..., :0]
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_transposed_convolution_needs_no_bias():
    layer = nn.ConvTranspose1d(2, 3, 4, 2, bias=False).requires_grad_(False)
    features = torch.randn(1, 2, 7)
    pieces = in_pieces(Upsampling(layer, 1, 1), features, [3])
    assert torch.allclose(torch.cat(pieces, -1), layer(features)[..., 1:-1], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(steps, cuts)
def test_a_recurrent_layer_carries_its_state(length, at):
    torch.manual_seed(length)
    layer = made("SLSTM", dimension=4, num_layers=2)
    features = torch.randn(1, 4, length)
    pieces = in_pieces(seanet.stages([layer])[0], features, [cut for cut in at if cut < length])
    assert torch.allclose(torch.cat(pieces, -1), layer(features), atol=1e-6)


def decoder(seed):
    torch.manual_seed(seed)
    first, up = nn.Conv1d(3, 4, 7), nn.ConvTranspose1d(4, 2, 6, 3)
    branch = nn.Conv1d(2, 2, 5, dilation=2)
    layers = [layer.requires_grad_(False) for layer in (first, up, branch, nn.LSTM(4, 4, 1))]

    def stages():
        return [
            Convolution(layers[0], 3, 3),
            Recurrent(layers[3]),
            Pointwise(nn.functional.elu),
            Upsampling(layers[1], 2, 1),
            Residual([], [Pointwise(nn.functional.elu), Convolution(layers[2], 4, 4)]),
        ]

    return stages


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.lists(st.integers(1, 89), max_size=8))
def test_blocks_make_the_same_numbers_however_steps_come(length, at):
    stages, features = decoder(0), torch.randn(1, 3, length, generator=torch.Generator().manual_seed(length))
    whole = in_pieces(Blocks(stages(), 4, 16), features, [])
    pieces = in_pieces(Blocks(stages(), 4, 16), features, [cut for cut in at if cut < length])
    assert torch.equal(torch.cat(pieces, -1), torch.cat(whole, -1))
    at_once = in_pieces(Chain(stages()), features, [])
    assert torch.allclose(torch.cat(pieces, -1), torch.cat(at_once, -1), atol=1e-5)
    assert torch.cat(pieces, -1).shape == (1, 2, 3 * length)


def test_blocks_grow_with_what_was_given_before():
    sizes = []
    blocks = Blocks([Pointwise(lambda features: sizes.append(features.shape[-1]) or features)], 4, 16)
    for _ in range(75):
        blocks.push(torch.zeros(1, 1, 1))
    blocks.finish()
    assert sizes == [4, 4, 8, 16, 16, 16, 11]


def test_nothing_comes_of_nothing():
    assert Blocks(decoder(0)(), 4, 16).finish() is None


def test_layers_that_read_from_both_ends_are_refused():
    with pytest.raises(AssertionError):
        Recurrent(nn.LSTM(4, 4, bidirectional=True))


def test_the_modules_are_imported_when_they_are_used():
    assert networks.seanet.stages is seanet.stages
    assert networks.streams.Blocks is Blocks
    with pytest.raises(AttributeError, match="no attribute 'loops'"):
        networks.loops  # noqa: B018
