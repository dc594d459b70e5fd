"""Adapters against PEFT's own, and trained rows against a model that has them in its matrix."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers
from mio_world import TEXT, FakeText

from mio import Modality
from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import RecipeError
from mio.core.exchange.huggingface import huggingface_name
from mio.core.exchange.huggingface_config import config_to_huggingface
from mio.core.generation.replicas import decoding_copy
from mio.core.model.initial import draw_uniform
from mio.core.model.lora import AdaptedLinear, adapt, folded, kaiming_bound, row_pieces, trained_ranges
from mio.core.model.loss import linear_cross_entropy
from mio.core.model.parallel import compile_blocks
from mio.core.model.transformer import Transformer
from mio.core.recipe.adapters import linear_layers, plan_adapters, trained_parameters
from mio.core.recipe.schema import LoraConfig, LoraRuleConfig, TrainConfig
from mio.core.tokens.vocabulary import Vocabulary

SKETCH = Modality(name="sketch", codebooks=(6,), begin="<s>", end="</s>", code_token="<s{}>")
OLD = Vocabulary.build(FakeText(size=50), [("made", TEXT)])
VOCABULARY = Vocabulary.build(FakeText(size=50), [("made", TEXT), ("made", SKETCH)], base=OLD)
SHAPE = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn_width": 48}
TOKENS = torch.randperm(VOCABULARY.size, generator=torch.Generator().manual_seed(0)).view(1, -1)


def adapted(lora, precision="fp32", **model):
    """A transformer with adapters that do something, and its configuration."""
    config = TransformerConfig(**(SHAPE | model))
    transformer = Transformer(config, VOCABULARY.rows)
    transformer.reset_parameters(seed=1)
    adapt(transformer, TrainConfig(precision=precision, lora=lora), VOCABULARY, OLD.size)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                positive = parameter.dim() == 1  # a magnitude
                parameter.copy_(torch.randn(parameter.shape, generator=generator).mul(0.1).add(0.5 * positive))
    return transformer.eval(), config


def hidden_of(transformer, tokens=TOKENS):
    return transformer(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape)).hidden


def logits_of(transformer, tokens=TOKENS):
    with torch.no_grad():
        return transformer.logits(hidden_of(transformer, tokens), VOCABULARY.size)


def of_peft(transformer, config, lora, rows):
    """PEFT's model with the same weights."""
    settings = transformers.AutoConfig.for_model(**config_to_huggingface(config, VOCABULARY.size, 512))
    base = transformers.AutoModelForCausalLM.from_config(settings)
    state = {}
    for name, tensor in transformer.state_dict().items():
        if name in transformer.frozen:
            state[huggingface_name(name)] = (
                tensor[: VOCABULARY.size] if name in ("embedding.weight", "head.weight") else tensor
            )
    base.load_state_dict(state, strict=False)
    base.tie_weights()
    tokens = {
        "trainable_token_indices": {"embed_tokens": rows, **({} if config.tied_embeddings else {"lm_head": rows})}
    }
    model = peft.get_peft_model(
        base,
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            use_dora=lora.dora,
            use_rslora=lora.rslora,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            **(tokens if rows else {}),
        ),
    )
    theirs = dict(model.named_parameters())
    names = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}
    names["magnitude"] = "lora_magnitude_vector.default.weight"
    with torch.no_grad():
        for name, tensor in transformer.named_parameters():
            layer, _, kind = name.rpartition(".")
            if kind in names:
                of_layer = huggingface_name(f"{layer}.weight").removesuffix("weight")
                theirs[f"base_model.model.{of_layer}{names[kind]}"].copy_(tensor)
            elif name.startswith("rows."):
                place = "model.embed_tokens" if kind == "embedding" else "lm_head"
                theirs[f"base_model.model.{place}.token_adapter.trainable_tokens_delta.default"].copy_(tensor)
    return model.eval()


KINDS = {
    "lora": LoraConfig(rank=4, alpha=8),
    "rslora": LoraConfig(rank=4, alpha=8, rslora=True),
    "dora": LoraConfig(rank=4, alpha=8, dora=True),
}


@pytest.mark.parametrize("rows", ["with new rows", "without"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_peft(kind, tied, rows):
    lora = KINDS[kind]
    lora = LoraConfig(**(vars(lora) | {"rows": ["new"] if rows == "with new rows" else []}))
    transformer, config = adapted(lora, tied_embeddings=tied, qkv_bias=True)
    new = list(range(OLD.size, VOCABULARY.size)) if lora.rows else []
    model = of_peft(transformer, config, lora, new)
    with torch.no_grad():
        theirs = model(TOKENS).logits
    ours = logits_of(transformer)
    assert (theirs - ours).abs().max() < 1e-5
    with torch.no_grad(), model.disable_adapter():
        assert (model(TOKENS).logits - ours).abs().max() > 0.1  # the adapters do something


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_peft(kind):
    transformer, config = adapted(KINDS[kind], tied_embeddings=True)
    rows = list(range(OLD.size, VOCABULARY.size))
    model = of_peft(transformer, config, KINDS[kind], rows)
    model(TOKENS, labels=TOKENS).loss.backward()
    hidden, count = hidden_of(transformer)[:, :-1].flatten(0, 1), TOKENS.shape[1] - 1
    weights, targets = torch.full((count,), 1 / count), TOKENS[0, 1:]
    replaced = transformer.replaced_head_rows
    total, _ = linear_cross_entropy(
        hidden, transformer.head_weight, targets, weights, size=VOCABULARY.size, replaced=replaced
    )
    total.backward()
    theirs = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    ours = {name: parameter.grad for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    assert len(ours) == len(theirs)
    pairs = {
        "layers.1.ffn.down.lora_a": "model.layers.1.mlp.down_proj.lora_A.default.weight",
        "layers.0.attention.query.lora_b": "model.layers.0.self_attn.q_proj.lora_B.default.weight",
        "rows.embedding": "model.embed_tokens.token_adapter.trainable_tokens_delta.default",
    }
    if KINDS[kind].dora:
        pairs["layers.0.ffn.up.magnitude"] = "model.layers.0.mlp.up_proj.lora_magnitude_vector.default.weight"
    for own, other in pairs.items():
        torch.testing.assert_close(ours[own], theirs[f"base_model.model.{other}"], rtol=1e-4, atol=1e-7, msg=own)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_give_the_same_logits_without_adapters(kind, tied):
    transformer, config = adapted(KINDS[kind], tied_embeddings=tied, head_bias=not tied)
    state = transformer.state_dict()
    for name, module in transformer.named_modules():
        if isinstance(module, AdaptedLinear):
            magnitude = module.magnitude
            state[f"{name}.weight"] = folded(module.weight, module.lora_a, module.lora_b, module.scale, magnitude)
    for rows, whole in (("rows.embedding", "embedding.weight"), ("rows.head", "head.weight")):
        if rows in state:
            state[whole] = state[whole].clone()
            state[whole][OLD.size : VOCABULARY.size] = state[rows]
    plain = Transformer(config, VOCABULARY.rows)
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    assert (logits_of(plain) - logits_of(transformer)).abs().max() < 1e-5


def test_an_adapter_begins_as_nothing():
    transformer, _ = adapted(KINDS["dora"])
    layer = transformer.layers[0].ffn.up
    with torch.no_grad():
        layer.lora_b.zero_()
        layer.magnitude.copy_(layer.weight.norm(dim=1))
    x = torch.randn(3, SHAPE["width"])
    torch.testing.assert_close(layer(x), x @ layer.weight.T)


def test_norms_of_rows_are_those_of_the_whole_product():
    transformer, _ = adapted(KINDS["dora"])
    layer = transformer.layers[0].ffn.up
    whole = layer.weight + layer.scale * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(layer.row_norms(), whole.norm(dim=1))


def test_initial_values_are_bounded_as_in_peft():
    theirs = torch.empty(64, 512)
    torch.nn.init.kaiming_uniform_(theirs, a=5**0.5)
    ours = torch.empty(64, 512)
    draw_uniform(ours, "name", kaiming_bound(512), seed=0)
    assert ours.abs().max() <= 512**-0.5
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.02)


def test_a_frozen_matrix_in_bfloat16_gives_the_same_numbers_under_autocast():
    one, _ = adapted(LoraConfig(rank=2, rows=[]), precision="bf16")
    two, _ = adapted(LoraConfig(rank=2, rows=[]), precision="fp32")
    assert one.layers[0].ffn.up.weight.dtype == torch.bfloat16
    assert one.embedding.weight.dtype == one.norm.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits_of(one), logits_of(two))


def test_compiled_blocks_have_the_same_gradients(monkeypatch):
    """Without generating code: what is lost is lost when functions with a gradient of their own are traced."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **kinds: compiled(self, backend="aot_eager", **kinds))
    transformer, _ = adapted(KINDS["dora"], layers=1, experts=2, tied_embeddings=True)
    weights = torch.randn(TOKENS.shape[1], SHAPE["width"], generator=torch.Generator().manual_seed(3))
    found = []
    for _ in range(2):
        transformer.zero_grad()
        (hidden_of(transformer) * weights).sum().backward()
        found.append({name: one.grad for name, one in transformer.named_parameters() if one.requires_grad})
        compile_blocks(transformer, "cpu")
    eager, traced = found
    for name, gradient in eager.items():
        torch.testing.assert_close(traced[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item(), msg=name)


@pytest.mark.parametrize("experts", [0, 3])
def test_the_names_of_linear_layers_are_those_of_the_transformer(experts):
    config = TransformerConfig(**SHAPE, experts=experts)
    modules = Transformer(config, 8).layers.named_modules(prefix="layers")
    linear = {name: tuple(one.weight.shape) for name, one in modules if isinstance(one, torch.nn.Linear)}
    assert linear_layers(config) == {name: shape for name, shape in linear.items() if not name.endswith("router")}


def test_what_is_trained_and_what_is_not():
    lora = LoraConfig(
        rank=2, targets=["layers.*.attention.*"], train=["norm.weight", "*.ffn_norm.weight"], rows=["<s>"]
    )
    lora.rules = {"first": LoraRuleConfig("layers.0.*", alpha=2), "query": LoraRuleConfig("*.query", rank=8)}
    transformer, config = adapted(lora, tied_embeddings=False)
    trained = {name: tuple(one.shape) for name, one in transformer.named_parameters() if one.requires_grad}
    linear = linear_layers(config)
    expected = {"norm.weight": (32,), "rows.embedding": (1, 32), "rows.head": (1, 32)}
    for layer in range(2):
        expected[f"layers.{layer}.ffn_norm.weight"] = (32,)
        for name in ("query", "key", "value", "output"):
            layer_name, rank = f"layers.{layer}.attention.{name}", 8 if name == "query" else 2
            outputs, inputs = linear[layer_name]
            expected |= {f"{layer_name}.lora_a": (rank, inputs), f"{layer_name}.lora_b": (outputs, rank)}
    assert trained == expected
    plan = plan_adapters(config, lora)
    assert plan["layers.0.attention.query"].scale == 16 / 8  # the first rule wins
    assert plan["layers.0.attention.key"].scale == 2 / 2
    assert plan["layers.1.attention.key"].scale == 16 / 2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dora", [True, False])
@pytest.mark.parametrize("whole", [[], ["embedding.weight"], ["embedding.weight", "head.bias"]])
def test_the_names_of_what_is_trained_need_no_transformer(tied, dora, whole):
    whole = [name for name in whole if not (tied and name == "head.bias")]
    lora = LoraConfig(rank=2, dora=dora, train=["*norm.weight", *whole], targets=["*.ffn.*"])
    transformer, config = adapted(lora, tied_embeddings=tied, head_bias=not tied, qk_norm=True)
    trained = {name for name, one in transformer.named_parameters() if one.requires_grad}
    assert set(trained_parameters(config, lora)) == trained


def test_a_copy_that_decodes_has_adapters_and_rows_folded_in():
    transformer, _ = adapted(KINDS["dora"], precision="bf16", tied_embeddings=False, head_bias=True)
    copy, _ = decoding_copy(transformer, torch.device("cpu"), torch.float32)
    assert not copy.frozen
    with torch.no_grad():
        for parameter in transformer.parameters():  # it multiplies in float32 then
            parameter.data = parameter.data.float()
    assert (logits_of(copy) - logits_of(transformer)).abs().max() < 1e-5


def test_an_embedding_that_is_trained_as_a_whole_has_no_rows_of_its_own():
    transformer, _ = adapted(LoraConfig(rank=2, train=["embedding.weight"]), tied_embeddings=False)
    assert transformer.rows.embedding is None
    assert transformer.rows.head is not None
    transformer, _ = adapted(LoraConfig(rank=2, train=["embedding.weight"]), tied_embeddings=True)
    assert transformer.rows is None


def test_ids_of_trained_rows():
    size, old = VOCABULARY.size, OLD.size
    assert trained_ranges(VOCABULARY, ["new"], old) == ((old, size),)
    assert trained_ranges(VOCABULARY, ["new"], size) == ()
    assert trained_ranges(VOCABULARY, [], old) == ()
    first = VOCABULARY.blocks[0]
    assert trained_ranges(VOCABULARY, [first.name, "sketch/*"], old)[0] == (0, first.size)
    pieces = list(row_pieces(((3, 5), (9, 14)), 1, 4))
    assert pieces == [(4, 5), (9, 11)]
    with pytest.raises(RecipeError, match=r"`scetch/\*` matches no vocabulary block; did you mean"):
        trained_ranges(VOCABULARY, ["scetch/*"], old)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        (
            {"targets": ["layers.*.atention.query"]},
            r"matches no linear layer; did you mean `layers.\*.attention.query`",
        ),
        ({"targets": ["*.router"]}, "matches no linear layer"),
        ({"targets": []}, "`train.lora.targets` is empty"),
        ({"rank": 40}, "rank 40 is larger than the matrix of `layers.0.attention.query`, 32 x 32; give at most 32"),
        (
            {"targets": ["*.query"], "rules": {"key": LoraRuleConfig("*.key")}},
            "`*.key` is not among `train.lora.targets`",
        ),
        ({"rules": {"key": LoraRuleConfig("*.kee")}}, "`*.kee` matches no layer"),
        ({"rules": {"key": LoraRuleConfig("")}}, r"`train.lora.rules.key.pattern` is empty"),
        ({"train": ["norms"]}, "`norms` matches no parameter"),
        ({"train": ["*.experts.0.up.weight"]}, "`layers.0.ffn.experts.0.up.weight`, which has an adapter"),
        ({"rows": ["<t>"]}, "`<t>` matches no vocabulary block"),
        (
            {"rows": ["untrained"]},
            "`untrained` matches no vocabulary block; rows that no stage has trained are found for rules",
        ),
    ],
)
def test_mistakes_are_named(lora, told):
    with pytest.raises(RecipeError, match=told.replace("*.k", r"\*.k")):
        adapted(LoraConfig(**({"rank": 2} | lora)), experts=2)
