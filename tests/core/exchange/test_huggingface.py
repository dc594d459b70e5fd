"""Parity with transformers' own models, through checkpoints as they lie on disk, both ways."""

import json
from dataclasses import fields, replace

import pytest
import torch
from repositories import LLAMA3
from safetensors.torch import load_file, save_file

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.document_mask import DocumentMask
from mio.core.errors import UserError
from mio.core.exchange.huggingface import huggingface_name, is_redundant
from mio.core.exchange.huggingface_config import config_from_huggingface, config_to_huggingface, unread_keys
from mio.core.exchange.huggingface_keys import DEFAULTS, HARMLESS, NEUTRAL, REQUIRED
from mio.core.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
QWEN3_MOE = {
    "head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
FAMILIES = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {"use_sliding_window": False}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}),
    "qwen2-some": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}),
    "qwen2-defaults": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-mixed": (
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        },
    ),
    "ministral": (
        "Ministral",
        {"head_dim": 8, "sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"] * 2},
    ),
    "mixtral-window": ("Mixtral", {"num_local_experts": 4, "sliding_window": 5}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "router_aux_loss_coef": 0.3, "output_router_logits": True}),
    "qwen3_moe": ("Qwen3Moe", QWEN3_MOE | {"router_aux_loss_coef": 0.3, "output_router_logits": True}),
    "qwen3_moe-window": ("Qwen3Moe", QWEN3_MOE | {"use_sliding_window": True, "sliding_window": 5}),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def theirs(family):
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():  # norms and biases start out as ones and zeros, which would hide a wrong mapping
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def ours_from(folder):
    config = config_from_huggingface(json.loads((folder / "config.json").read_text()))
    model = Transformer(config, SIZES["vocab_size"])
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if not is_redundant(name, config)}
    model.load_state_dict({name: tensors.pop(huggingface_name(name, config.qk_norm)) for name in model.state_dict()})
    assert not tensors
    return model


@torch.no_grad()
def test_logits_equal(family, tmp_path):
    reference = theirs(family)
    reference.save_pretrained(tmp_path)
    model = ours_from(tmp_path)
    tokens = torch.randint(96, (2, 40))
    expected = reference(tokens)
    out = model(tokens, torch.arange(40).expand(2, -1), DocumentMask.from_lengths([[40], [40]], 40))
    logits = model.logits(out.hidden, 96)
    assert expected.logits.std() > 0.5
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-4)
    if family in ("mixtral", "qwen3_moe"):
        assert expected.aux_loss > 1.5
        torch.testing.assert_close(out.auxiliary, 0.3 * expected.aux_loss, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_export_loads_in_transformers(family, tmp_path):
    theirs(family).save_pretrained(tmp_path / "in")
    model = ours_from(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config_to_huggingface(model.config, 96, 256)))
    tensors = {huggingface_name(name, model.config.qk_norm): value for name, value in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.randint(96, (1, 40))
    logits = model.logits(model(tokens, torch.arange(40)[None]).hidden, 96)
    torch.testing.assert_close(logits, loaded(tokens).logits, atol=1e-4, rtol=1e-4)
    config = config_from_huggingface(json.loads((out / "config.json").read_text()))
    assert config == replace(model.config, head_width=model.config.head_size)


def test_configuration_of_older_checkpoints():
    """Yi-6B's and Llama 3.1's `config.json`, abridged: theta beside `rope_scaling`, kinds under two names."""
    yi = {
        "model_type": "Yi",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-05,
        "rope_theta": 5000000.0,
    }
    config = config_from_huggingface(yi)
    assert (config.rope_theta, config.kv_heads, config.rope_scaling.kind) == (5e6, 4, "none")
    scaled = {**yi, "model_type": "llama", "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 8192}}
    assert config_from_huggingface(scaled).rope_scaling.original_context == 8192
    old = config_from_huggingface({**yi, "model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert (old.rope_scaling.kind, old.rope_scaling.factor, old.rope_theta) == ("linear", 2.0, 5e6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"is_causal": False}, "is_causal"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 4}, "use_sliding_window"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers"),
        ({"hidden_size": 32.0}, "hidden_size"),
        ({"num_attention_heads": "4"}, "num_attention_heads"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_key_value_heads": -2}, "num_key_value_heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"model_type": "qwen3_moe"}, "norm_topk_prob"),
        ({"model_type": "qwen3_moe", **QWEN3_MOE, "decoder_sparse_step": 2}, "decoder_sparse_step"),
        ({"model_type": "qwen3_moe", **QWEN3_MOE, "mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"model_type": "qwen3_moe", **QWEN3_MOE, "moe_intermediate_size": 0}, "moe_intermediate_size"),
    ],
)
def test_what_is_not_supported_is_refused(changes, named):
    with pytest.raises(UserError, match=named):
        config_from_huggingface({"model_type": "llama", **SIZES, **changes})


@pytest.mark.parametrize("family", DEFAULTS)
def test_what_is_missing_has_the_default_of_transformers(family):
    name = {"qwen3_moe": "Qwen3Moe"}.get(family, family.capitalize())
    config = getattr(transformers, f"{name}Config")
    defaults = {field.name: field.default for field in fields(config)}
    ours = {"rope_theta": config.default_theta, "num_experts": None}
    if "num_experts" in defaults:  # two names, of which it takes both
        ours["num_local_experts"] = defaults["num_experts"]
        assert DEFAULTS[family]["num_local_experts"] == defaults["num_experts"]
    assert {key: value for key, value in DEFAULTS[family].items() if key not in ours} == {
        key: defaults.get(key) for key in DEFAULTS[family] if key not in ours
    }
    assert DEFAULTS[family]["rope_theta"] == config.default_theta
    unknown = defaults.keys() - DEFAULTS[family].keys() - HARMLESS - NEUTRAL.keys() - set(REQUIRED)
    assert not unknown, "a key of transformers that nothing is known of"


def test_keys_that_the_family_does_not_read_are_told():
    data = {
        "model_type": "llama",
        **SIZES,
        "sliding_window": 5,
        "layer_types": ["full_attention"],
        "note": "x",
        "no": None,
    }
    assert config_from_huggingface(data).sliding_window == 0
    assert unread_keys(data) == ("sliding_window", "layer_types", "note")
    assert unread_keys({"model_type": "qwen2", **SIZES, "attention_bias": True}) == ("attention_bias",)


def test_not_a_model_folder_is_refused():
    with pytest.raises(UserError, match="hidden_size"):
        config_from_huggingface({"model_type": "llama"})


def test_unknown_tensors_are_refused():
    config = TransformerConfig()
    assert is_redundant("model.layers.0.self_attn.rotary_emb.inv_freq", config)
    assert not is_redundant("model.layers.0.self_attn.q_proj.lora_A", config)
    for name in ("layers.0.adapters.weight", "layers.0.ffn.experts.1.router.weight", "layers.0.w1.weight"):
        with pytest.raises(UserError, match=f"`{name}` is not a tensor"):
            huggingface_name(name)


def test_features_that_no_family_has_together_are_refused():
    with pytest.raises(UserError, match="mixtral and qwen2"):
        config_to_huggingface(TransformerConfig(experts=2, qkv_bias=True), 128, 256)
    with pytest.raises(UserError, match="mixtral and windows in some of the layers"):
        config_to_huggingface(TransformerConfig(experts=2, sliding_window=4, full_attention_layers=[1]), 128, 256)
    with pytest.raises(UserError, match="a bias on its head"):
        config_to_huggingface(TransformerConfig(head_bias=True), 128, 256)
