"""Packed copies compute what the transformer does, and each token's state alone, bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.packed import PackedLinear, can_pack, pack
from mio.core.model.transformer import Transformer

CPU = torch.device("cpu")
VOCABULARY = 70
KINDS = {
    "plain": {"kv_heads": 2, "ffn_width": 90},
    "window": {"qk_norm": True, "sliding_window": 9, "full_attention_layers": [1]},
    "biases": {"qkv_bias": True, "head_bias": True, "tied_embeddings": False},
    "experts": {"experts": 4, "kv_heads": 1},
    "wide": {"ffn_width": 1100},  # more inputs than oneDNN sums in one go at a single row
}
pytestmark = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="no packed products on this machine")


def made(kind, dtype=torch.float32):
    config = TransformerConfig(width=64, layers=2, heads=4, init_std=0.2, **KINDS[kind])
    plain = Transformer(config, VOCABULARY).eval()
    plain.reset_parameters(1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in plain.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, 1 if "norm" in name else 0, 0.2, generator)
    plain.to(dtype)
    packed = copy.deepcopy(plain)
    pack(packed)
    return plain, packed


def decoded(model, tokens, prompt, chunks=1):
    """Hidden states [B, L, D]: the prompt in so many pieces, then a token at a time."""
    cache, states = model.cache(len(tokens), tokens.shape[1]), []
    pieces = [
        *tokens[:, :prompt].chunk(chunks, 1),
        *(tokens[:, place, None] for place in range(prompt, tokens.shape[1])),
    ]
    with torch.inference_mode():
        for piece in pieces:
            if piece.shape[1] == 1 and cache.lengths[0] > 0:
                states.append(model.decode(piece[:, 0], cache)[:, None])
            else:
                states.append(model(piece, cache.positions(piece.shape[1]), cache=cache).hidden)
            cache.advance(piece.shape[1])
    return torch.cat(states, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_copy_computes_what_the_transformer_does(kind):
    plain, packed = made(kind)
    tokens = torch.randint(VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(40).expand(3, -1)
    with torch.inference_mode():
        whole = plain(tokens, positions).hidden
        close = {"atol": 2e-5, "rtol": 1e-4}
        torch.testing.assert_close(packed(tokens, positions).hidden, whole, **close)
        torch.testing.assert_close(decoded(packed, tokens, 30), whole, **close)
        torch.testing.assert_close(packed.logits(whole, 67), plain.logits(whole, 67), **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_that_of_its_own_past_bit_by_bit(kind, dtype):
    """Alone, beside up to sixty others, in one piece or several, read or decoded."""
    if not can_pack(CPU, dtype):
        pytest.skip("no packed products of this type here")
    if kind == "wide" and dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
        pytest.skip("with AMX, last bits of matrices this wide depend on the number of rows")
    _, packed = made(kind, dtype)
    tokens = torch.randint(VOCABULARY, (61, 150), generator=torch.Generator().manual_seed(0))
    together = decoded(packed, tokens, 145)
    for count in (1, 2, 3, 7):
        assert torch.equal(decoded(packed, tokens[:count], 145), together[:count])
    alone = together[4:5]
    for prompt, chunks in ((150, 1), (140, 3), (70, 1), (3, 1), (1, 1)):
        assert torch.equal(decoded(packed, tokens[4:5], prompt, chunks), alone)
    with torch.inference_mode():
        scores = packed.logits(together.flatten(0, 1), VOCABULARY)
        assert torch.equal(scores[150:151], packed.logits(together[1, :1], VOCABULARY))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_rows_are_the_same_beside_others_and_behind_what_was_read_before(dtype):
    """Beyond the positions whose scores exist at once."""
    if not can_pack(CPU, dtype):
        pytest.skip("no packed products of this type here")
    _, packed = made("plain", dtype)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (6, 300), generator=generator)
    lengths = [300, 129, 60, 200, 128, 255]
    cache = packed.cache(6, 310)
    with torch.inference_mode():
        together = packed(tokens, cache.positions(300), cache=cache).hidden
        for row, length in enumerate(lengths):
            for first in (0, 1, 17, 100, 127, 128, 200):
                if first >= length:
                    continue
                cache = packed.cache(1, 310)
                states = []
                for start, end in ((0, first), (first, length)):
                    if start < end:
                        part = tokens[row : row + 1, start:end]
                        states.append(packed(part, cache.positions(end - start), cache=cache).hidden)
                        cache.advance(end - start)
                assert torch.equal(torch.cat(states, 1)[0], together[row, :length]), (row, length, first)
        alone = decoded(packed, tokens[:1], 120)
        assert torch.equal(alone[0], together[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inputs", [48, 64, 90, 320])
def test_what_a_row_gets_does_not_depend_on_how_many_there_are(dtype, inputs):
    """Of 960 rows, as one in some thousand elements is rounded otherwise where sums have another order."""
    if not can_pack(CPU, dtype):
        pytest.skip("no packed products of this type here")
    generator = torch.Generator().manual_seed(0)
    layer = PackedLinear(torch.randn(180, inputs, generator=generator).to(dtype), None)
    x = torch.randn(960, inputs, generator=generator).to(dtype)
    together = layer(x)
    for rows in (1, 2, 3, 7, 16, 33, 160):
        assert torch.equal(torch.cat([layer(part) for part in x.split(rows)]), together), rows


def test_a_row_is_the_same_beside_longer_ones():
    """A ragged batch looks at as many slots as its longest row fills."""
    _, packed = made("plain")
    tokens = torch.randint(VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(0))
    alone = decoded(packed, tokens, 8)
    rows = torch.randint(VOCABULARY, (3, 300), generator=torch.Generator().manual_seed(1))
    rows[1, :8] = tokens[0, :8]
    cache = packed.cache(3, 310)
    with torch.inference_mode():
        read = packed(rows, cache.positions(300), cache=cache).hidden
        assert torch.equal(read[1, :8], alone[0, :8])
        cache.advance(torch.tensor([300, 8, 120]))
        for place in range(8, 12):
            step = torch.stack([rows[0, 0], tokens[0, place], rows[2, 0]])[:, None]
            found = packed(step, cache.positions(1), cache=cache).hidden
            cache.advance(1)
            assert torch.equal(found[1, 0], alone[0, place])
