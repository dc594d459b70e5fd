"""Groups of positions that see each other, in a cache as among packed documents."""

import pytest
import torch

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.document_mask import DocumentMask, Together
from mio.core.model.cache import KVCache
from mio.core.model.transformer import Transformer

KINDS = {
    "plain": {},
    "grouped": {"kv_heads": 2},
    "window": {"sliding_window": 5},
    "mixed-windows": {"sliding_window": 5, "full_attention_layers": [1], "kv_heads": 2},
}
PROMPT, TOTAL = 20, 26
ITEM = slice(6, 15)
"""Longer than the window."""
OWN = 3


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    return Transformer(TransformerConfig(width=64, layers=3, heads=4, init_std=0.2, **KINDS[request.param]), 64)


def together(length, *groups):
    """int32 [1, L]."""
    numbers = torch.zeros(1, length, dtype=torch.int32)
    for number, place in groups:
        numbers[0, place] = number
    return numbers


@pytest.mark.parametrize("dropped", [False, True])
@torch.no_grad()
def test_prompts_with_items_and_passes_of_own_positions_are_those_of_training(model, dropped):
    """An item is read as a group; a head's positions are written, looked at, and overwritten by what follows."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(64, (1, TOTAL), generator=generator)
    own = torch.randint(64, (1, OWN), generator=generator)
    at = torch.arange(TOTAL)[None]
    row = torch.cat([tokens[:, :PROMPT], own, tokens[:, PROMPT:]], 1)
    places = torch.cat([at[:, :PROMPT], at[:, PROMPT : PROMPT + OWN], at[:, PROMPT:]], 1)
    groups = [Together(0, ITEM.start, ITEM.stop), Together(0, PROMPT, PROMPT + OWN, True, dropped)]
    mask = DocumentMask.from_lengths([[TOTAL + OWN]], TOTAL + OWN, together=groups)
    full = model(row, places, mask).hidden

    cache = KVCache(model.config, 1, TOTAL + OWN)
    prompt = model(tokens[:, :PROMPT], cache.positions(PROMPT), cache=cache, together=together(PROMPT, (7, ITEM)))
    cache.advance(PROMPT)
    number = -1 if dropped else 1
    of_own = model(own, cache.positions(OWN), cache=cache, together=together(OWN, (number, slice(None))))
    rest = []
    for token in tokens[:, PROMPT:].split(1, 1):
        rest.append(model(token, cache.positions(1), cache=cache).hidden)
        cache.advance(1)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(torch.cat([prompt.hidden, of_own.hidden, *rest], 1), full, **close)
    causal = model(tokens, at).hidden
    assert (causal[:, ITEM.start] - full[:, ITEM.start]).abs().max() > 0.1  # it did see what follows it


@torch.no_grad()
def test_groups_of_a_ragged_batch_are_their_own_sequences(model):
    tokens = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(1))
    cache = KVCache(model.config, 2, 24)
    model(tokens[:, :5], cache.positions(5), cache=cache)
    cache.advance(torch.tensor([5, 2]))  # of the second, three were padding
    numbers = together(7, (1, slice(2, 6))).repeat(2, 1)
    numbers[1] = 0
    rows = torch.stack([tokens[0, 5:], tokens[1, 2:9]])
    got = model(rows, cache.positions(7), cache=cache, together=numbers).hidden
    mask = DocumentMask.from_lengths([[12], [12]], 12, together=[Together(0, 7, 11)])
    full = model(tokens, torch.arange(12).expand(2, -1), mask).hidden
    torch.testing.assert_close(got[0], full[0, 5:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got[1], full[1, 2:9], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_long_prompt_with_groups():
    """Beyond the size up to which scores are materialised."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=32, layers=1, heads=2, init_std=0.2, sliding_window=300), 64)
    tokens, at = torch.randint(64, (1, 600)), torch.arange(600)[None]
    groups = [Together(0, 10, 500), Together(0, 500, 510, dropped=True)]
    full = model(tokens, at, DocumentMask.from_lengths([[600]], 600, together=groups)).hidden
    numbers = together(600, (1, slice(10, 500)), (-2, slice(500, 510)))
    got = model(tokens, at, cache=KVCache(model.config, 1, 600), together=numbers).hidden
    torch.testing.assert_close(got, full, atol=1e-5, rtol=1e-5)
