"""The transformer's promises: isolation of documents, positions, cached decoding, construction."""

import contextlib
import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mio.core.contract.backbone import RopeScaling, TransformerConfig
from mio.core.data.document_mask import DocumentMask
from mio.core.errors import UserError
from mio.core.model.cache import KVCache
from mio.core.model.experts import SparseExperts, SwiGLU
from mio.core.model.parallel import as_compiled_for_training
from mio.core.model.transformer import Transformer

ROWS = 64
CONFIGS = {
    "plain": {},
    "grouped": {"kv_heads": 2, "qkv_bias": True, "tied_embeddings": True},
    "normed": {"qk_norm": True, "head_width": 24, "rope_scaling": RopeScaling("llama3", 4.0, original_context=32)},
    "window": {"sliding_window": 5},
    "mixed-windows": {"sliding_window": 5, "full_attention_layers": [1], "kv_heads": 2},
    "experts": {"experts": 4, "kv_heads": 2, "router_aux_weight": 0.1},
}
PACKED = [[37, 5, 60, 20], [90, 33], [128]]


def build(name, **changes):
    torch.manual_seed(0)
    settings = {"width": 64, "layers": 3, "heads": 4, "ffn_width": 96, "init_std": 0.2, **CONFIGS[name], **changes}
    return Transformer(TransformerConfig(**settings), ROWS)


@pytest.fixture(params=CONFIGS)
def model(request):
    return build(request.param)


def positions_of(rows, context):
    positions = torch.zeros(len(rows), context, dtype=torch.int64)
    for row, lengths in enumerate(rows):
        positions[row, : sum(lengths)] = torch.cat([torch.arange(n) for n in lengths])
    return positions


def batch(rows=PACKED, context=128):
    tokens = torch.randint(ROWS, (len(rows), context), generator=torch.Generator().manual_seed(1))
    return tokens, positions_of(rows, context), DocumentMask.from_lengths(rows, context)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_documents_never_see_each_other(model, precision):
    first, second = (isolation_run(model, precision, perturbed) for perturbed in (False, True))
    perturbed = torch.zeros(len(PACKED), 128, dtype=torch.bool)
    perturbed[0, 42:102] = True
    others = first[2] & ~perturbed
    for clean, changed in zip(first[:2], second[:2], strict=True):
        assert torch.equal(clean[others], changed[others])
        assert not torch.equal(clean[perturbed], changed[perturbed])


def isolation_run(model, precision, perturbed):
    tokens, positions, documents = batch()
    embeddings = model.embedding(tokens).detach()
    if perturbed:
        embeddings[0, 42:102] += torch.randn(60, 64, generator=torch.Generator().manual_seed(2))
    embeddings.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        hidden = model(tokens, positions, documents, embeddings=embeddings).hidden
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    (hidden * weight * documents.valid[..., None]).sum().backward()
    return hidden.detach(), embeddings.grad, documents.valid


def test_packed_equals_one_by_one(model):
    tokens, positions, documents = batch()
    packed = model(tokens, positions, documents).hidden
    for row, lengths in enumerate(PACKED):
        start = 0
        for length in lengths:
            piece = slice(start, start + length)
            alone = model(tokens[row : row + 1, piece], torch.arange(length)[None]).hidden[0]
            torch.testing.assert_close(packed[row, piece], alone, atol=1e-5, rtol=1e-5)
            start += length


def test_rope_is_relative():
    """Attention depends on distances alone: shifting all positions changes nothing."""
    model = build("plain")
    tokens = torch.randint(ROWS, (2, 20))
    at = torch.arange(20).expand(2, -1)
    shifted = model(tokens, at + 1000).hidden
    torch.testing.assert_close(model(tokens, at).hidden, shifted, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(model(tokens, at * 2).hidden, shifted, atol=2e-2)


@pytest.mark.parametrize("chunk", [1, 3])
@torch.no_grad()
def test_cached_decoding_equals_full_forward(model, chunk):
    lengths, total = torch.tensor([3, 11, 7]), 20
    tokens = torch.randint(ROWS, (3, total), generator=torch.Generator().manual_seed(1))
    full = model(tokens, torch.arange(total).expand(3, -1)).hidden
    cache = KVCache(model.config, batch=3, capacity=total + chunk)
    prompts = tokens[:, :11].clone()
    for row, length in enumerate(lengths):
        prompts[row, length:] = 0  # right padding
    hidden = model(prompts, cache.positions(11), cache=cache).hidden
    for row, length in enumerate(lengths):
        torch.testing.assert_close(hidden[row, :length], full[row, :length], atol=1e-5, rtol=1e-5)
    cache.advance(lengths)
    while cache.lengths.max() + chunk <= total:
        at = cache.positions(chunk)
        hidden = model(tokens.gather(1, at), at, cache=cache).hidden
        expected = full.gather(1, at[..., None].expand(-1, -1, 64))
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
        cache.advance(chunk)
    assert cache.lengths.tolist() == (lengths + (total - 11) // chunk * chunk).tolist()


@torch.no_grad()
def test_long_cached_prompts_equal_full_forward():
    """Beyond the size up to which scores are materialised."""
    model = build("grouped", layers=1, sliding_window=300)
    tokens, at = torch.randint(ROWS, (1, 600)), torch.arange(600)[None]
    cache = KVCache(model.config, batch=1, capacity=600)
    torch.testing.assert_close(model(tokens, at, cache=cache).hidden, model(tokens, at).hidden, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cache_keeps_sequences():
    model = build("grouped")
    tokens = torch.randint(ROWS, (3, 6))
    full = model(tokens, torch.arange(6).expand(3, -1)).hidden
    cache = KVCache(model.config, batch=3, capacity=6)
    model(tokens[:, :5], cache.positions(5), cache=cache)
    cache.advance(5)
    kept = torch.tensor([2, 0])
    cache.keep(kept)
    hidden = model(tokens[kept, 5:], cache.positions(1), cache=cache).hidden
    torch.testing.assert_close(hidden, full[kept, 5:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_sequence_of_a_cache_is_written_while_the_other_stays(model):
    tokens = torch.randint(ROWS, (2, 16), generator=torch.Generator().manual_seed(1))
    full = model(tokens, torch.arange(16).expand(2, -1)).hidden
    cache = KVCache(model.config, batch=2, capacity=16)
    for row, length in ((0, 9), (1, 4)):
        one = cache.sequence(row)
        hidden = model(tokens[row : row + 1, :length], one.positions(length), cache=one).hidden
        torch.testing.assert_close(hidden, full[row : row + 1, :length], atol=1e-5, rtol=1e-5)
        one.advance(length)
    assert cache.lengths.tolist() == [9, 4]
    for _ in range(6):
        at = cache.positions(1)
        hidden = model(tokens.gather(1, at), at, cache=cache).hidden
        expected = full.gather(1, at[..., None].expand(-1, -1, 64))
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
        cache.advance(1)
    cache.begin_with(1, 0, 12)
    one = cache.sequence(1)
    hidden = model(tokens[:1, 12:], one.positions(4), cache=one).hidden
    torch.testing.assert_close(hidden, full[:1, 12:], atol=1e-5, rtol=1e-5)
    assert cache.lengths.tolist() == [15, 12]


def test_cache_refuses_what_it_cannot_hold():
    model = build("plain")
    cache = KVCache(model.config, batch=1, capacity=4)
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match="capacity of 4"):
        model(tokens, cache.positions(5), cache=cache)
    with pytest.raises(ValueError, match="not both"):
        model(tokens[:, :4], cache.positions(4), DocumentMask.from_lengths([[4]], 4), cache)


def test_bfloat16_cache_under_autocast():
    model = build("grouped", init_std=0.05)
    tokens = torch.randint(ROWS, (2, 12))
    expected = model(tokens, torch.arange(12).expand(2, -1)).hidden
    cache = KVCache(model.config, batch=2, capacity=12, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(tokens[:, :9], cache.positions(9), cache=cache)
        cache.advance(9)
        hidden = model(tokens[:, 9:], cache.positions(3), cache=cache).hidden
    assert hidden.dtype == torch.bfloat16
    assert F.cosine_similarity(hidden.float(), expected[:, 9:], dim=-1).min() > 0.999


def test_gradients_of_the_norm():
    """The hand-written backward pass against autograd through the formula."""
    model = build("normed")
    norm = model.norm
    norm.weight.data.normal_()
    x = torch.randn(3, 5, 64, requires_grad=True)
    weight = torch.randn(3, 5, 64)
    formula = x * (x.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight
    torch.testing.assert_close(norm(x), formula)
    got = torch.autograd.grad((norm(x) * weight).sum(), (x, norm.weight))
    want = torch.autograd.grad((formula * weight).sum(), (x, norm.weight))
    torch.testing.assert_close(got, want)


def test_experts_equal_a_loop_over_tokens():
    torch.manual_seed(0)
    config = TransformerConfig(width=16, heads=2, ffn_width=24, experts=5, experts_per_token=2)
    layer, x = SparseExperts(config), torch.randn(2, 9, 16)
    out, balance = layer(x)
    probabilities = layer.router(x).softmax(-1)
    load = torch.zeros(5)
    for b, position in torch.cartesian_prod(torch.arange(2), torch.arange(9)).tolist():
        best = probabilities[b, position].topk(2)
        mix = best.values / best.values.sum()
        load[best.indices] += 1 / 18
        expected = sum(share * layer.experts[e](x[b, position]) for share, e in zip(mix, best.indices, strict=True))
        torch.testing.assert_close(out[b, position], expected)
    torch.testing.assert_close(balance, torch.stack((load, probabilities.mean((0, 1)))))
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.experts.parameters())


def test_padding_does_not_count_in_the_balance():
    model = build("experts")
    tokens, positions, documents = batch()
    changed = torch.where(documents.valid, tokens, (tokens + 1) % ROWS)
    assert not torch.equal(changed, tokens)
    assert torch.equal(model(tokens, positions, documents).auxiliary, model(changed, positions, documents).auxiliary)


def test_auxiliary_is_zero_without_experts():
    model = build("plain")
    tokens, positions, documents = batch()
    assert model(tokens, positions, documents).auxiliary == 0


def test_construction_on_meta():
    config = TransformerConfig(width=256, layers=8, heads=4, experts=0, qkv_bias=True)
    with torch.device("meta"):
        model = Transformer(config, 512)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    model.reset_parameters()
    residual = 0.02 / math.sqrt(16)
    expected = {"query": 0.02, "output": residual, "gate": 0.02, "down": residual}
    for name, std in expected.items():
        owner = model.layers[3].attention if name in ("query", "output") else model.layers[3].ffn
        assert getattr(owner, name).weight.std().item() == pytest.approx(std, rel=0.03)
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert torch.equal(model.norm.weight, torch.ones(256))
    assert not model.layers[0].attention.query.bias.any()
    torch.manual_seed(0)
    direct = Transformer(config, 512)
    direct.load_state_dict(model.state_dict())
    tokens, at = torch.randint(512, (1, 7)), torch.arange(7)[None]
    assert torch.equal(direct(tokens, at).hidden, model(tokens, at).hidden)


def test_bfloat16_weights_run():
    model = build("normed").bfloat16()
    tokens, positions, documents = batch()
    hidden = model(tokens, positions, documents).hidden
    assert hidden.dtype == torch.bfloat16
    hidden.float().sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name != "head.weight")


@pytest.mark.parametrize("head_bias", [False, True])
def test_logits_leave_out_the_padding_rows(head_bias):
    model = build("plain", head_bias=head_bias)
    hidden, bias = torch.randn(2, 3, 64), torch.zeros(50)
    if head_bias:
        assert not model.head.bias.any()
        bias = torch.nn.init.normal_(model.head.bias)[:50]
    logits = model.logits(hidden, 50)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, hidden @ model.head.weight[:50].T + bias)


def test_tied_embeddings_share_one_matrix():
    model = build("grouped")
    assert model.head_weight is model.embedding.weight
    assert "head.weight" not in model.state_dict()


def test_blocks_can_be_checkpointed(model):
    """Recomputing each block's activations gives the same gradients."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    recomputed = copy.deepcopy(model)
    for index, block in enumerate(recomputed.layers):
        recomputed.layers[index] = checkpoint_wrapper(block)
    tokens, positions, documents = batch()
    for each in (model, recomputed):
        out = each(tokens, positions, documents)
        (out.hidden.square().sum() + out.auxiliary).backward()
    for parameter, other in zip(model.layers.parameters(), recomputed.layers.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)


def test_ffn_width_follows_llama():
    assert SwiGLU(TransformerConfig(width=96, heads=4)).gate.weight.shape == (256, 96)
    assert TransformerConfig(width=100).ffn_size == 288


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 130}, "width"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"experts": 2, "experts_per_token": 3}, "experts_per_token"),
        ({"rope_scaling": RopeScaling("yarn")}, "rope_scaling"),
        ({"head_width": 7}, "head_width"),
    ],
)
def test_contradictions_are_refused(changes, named):
    with pytest.raises(UserError, match=named):
        Transformer(TransformerConfig(**changes), 128)


def test_passes_of_other_shapes_leave_compiled_layers_as_they_are():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    class Layer(torch.nn.Module):
        def forward(self, x):
            return x * 2

    layer = Layer()
    layer.compile(backend=backend)
    for rows in (2, 5, 2):
        with torch.set_grad_enabled(rows == 2), contextlib.ExitStack() as stack:
            if rows == 5:
                stack.enter_context(as_compiled_for_training("cpu"))
            assert layer(torch.ones(rows, 3)).shape == (rows, 3)
    assert len(graphs) == 1
