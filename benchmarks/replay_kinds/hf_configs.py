"""Configurations of models in the Hugging Face layout: what `mio import` makes of them, by the logits of transformers.

A tiny random model of a family, its `config.json` changed: windows in some layers, rotary scaling, heads, tying, keys
of other families, values that are no numbers. transformers opens the folder itself; where it cannot, nothing but a
refusal is right. Logits are compared over 40 positions, far beyond every window.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from replays import Variant
from safetensors.torch import load_file, save_file

from mio.core.contract.plugins import PluginManager
from mio.core.exchange.reading import ImportOptions, import_folder
from mio.core.runs.run import Run
from mio.plugins.text.byte_tokenizer import ByteTokenizer

ROWS = 261
SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
WINDOWED, FULL = "sliding_attention", "full_attention"
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
NAMES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "mixtral": "Mixtral"}
FAMILIES = list(NAMES)
DROP = object()
"""In place of a value: the key is taken out."""


def changes(chance: random.Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, family, changes of config.json)."""
    window = {"sliding_window": chance.randint(2, 9)}
    used = window | {"use_sliding_window": True}
    mixed = {"layer_types": [WINDOWED, WINDOWED, WINDOWED, FULL]}
    yield "windows in three of four layers", "qwen3", used | mixed
    yield "windows in one layer", "qwen2", used | {"layer_types": [FULL, FULL, WINDOWED, FULL]}
    yield "windows from layer 2", "qwen2", used | {"max_window_layers": 2, "layer_types": DROP}
    yield "windows from the default layer", "qwen2", used | {"max_window_layers": DROP, "layer_types": DROP}
    yield "windows not used", "qwen3", window | {"use_sliding_window": False, "layer_types": DROP}
    yield "windows in layers but not used", "qwen3", mixed | {"use_sliding_window": False}
    yield "layer types of no kind", "qwen3", used | {"layer_types": ["chunked_attention"] * 4}
    yield "too few layer types", "qwen3", used | {"layer_types": [FULL] * 3}
    yield "a window by default", "mistral", {"sliding_window": DROP}
    yield "no window", "mistral", {"sliding_window": None}
    yield "a window of one", "mistral", {"sliding_window": 1}
    yield "a window of nothing", "mistral", {"sliding_window": 0}
    yield "mistral with layer types", "mistral", window | {"layer_types": [FULL, WINDOWED, FULL, WINDOWED]}
    yield "mixtral with a window", "mixtral", window
    yield "a window that the family does not read", "llama", window
    yield "layer types that the family does not read", "llama", window | mixed
    for family in FAMILIES:
        yield "defaults of what is missing", family, {"rms_norm_eps": DROP, "rope_parameters": DROP}
        yield "theta the old way", family, {"rope_parameters": DROP, "rope_theta": float(chance.randint(100, 9000))}
        old = {"rope_parameters": DROP, "rope_theta": 500.0}
        yield "linear scaling the old way", family, old | {"rope_scaling": {"type": "linear", "factor": 3.0}}
    yield "both ropes", "llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 300.0}
    yield "llama3 without its context", "llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}}
    trained = {"original_max_position_embeddings": 32}
    yield "llama3", "llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0} | trained}
    yield "llama3, context beside", "llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}} | trained
    for kind in ("dynamic", "yarn", "longrope", "proportional", "nonsense"):
        yield f"rotary scaling {kind}", "qwen2", {"rope_parameters": {"rope_type": kind, "factor": 4.0}}
    yield "partial rotation", "llama", {"partial_rotary_factor": 0.5}
    yield (
        "rope of each kind of layer",
        "qwen3",
        {"rope_parameters": {FULL: {"rope_theta": 1e4, "rope_type": "default"}}},
    )
    yield "bias of attention", "llama", {"attention_bias": True}
    yield "bias of attention that is not read", "qwen2", {"attention_bias": True}
    yield "bias of attention", "qwen3", {"attention_bias": True}
    yield "bias of the feed-forward network", "llama", {"mlp_bias": True}
    yield "another activation", "qwen2", {"hidden_act": "gelu"}
    yield "the same activation otherwise named", "qwen2", {"hidden_act": "swish"}
    yield "dropout of attention", "llama", {"attention_dropout": 0.1}
    yield "parallel products", "llama", {"pretraining_tp": 2}
    yield "not causal", "llama", {"is_causal": False}
    yield "each layer its own", "llama", {"per_layer_config": {"1": {"intermediate_size": 16}}}
    yield "experts of a token", "mixtral", {"num_experts_per_tok": 1}
    yield "noise of the router", "mixtral", {"router_jitter_noise": 0.1}
    yield "more experts than there are", "mixtral", {"num_local_experts": 6}
    yield "heads without a size", "qwen2", {"head_dim": DROP}
    yield "keys of somebody's own", "llama", {"unsloth_version": "1", "my_note": "x", "auto_map": {"AutoConfig": "a.B"}}
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "num_key_value_heads"):
        for value in ("4", 2.5, 0, -1, 10**7, True):
            yield f"{name} {value!r}", chance.choice(FAMILIES), {name: value}
    yield "a family of another kind", "llama", {"model_type": "gpt2"}
    yield "quantised", "llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}


Tensors = dict[str, torch.Tensor]


def damages() -> Iterator[tuple[str, str, bool, Callable[[Tensors], Tensors]]]:
    """(name, family, whether the embedding is tied, change of the tensors)."""
    head = {"lm_head.weight": torch.randn(ROWS, 32)}
    yield "tied, but the head differs", "llama", True, lambda tensors: tensors | head
    embedding = "model.embed_tokens.weight"
    yield (
        "tied, the head alike",
        "qwen2",
        True,
        lambda tensors: tensors | {"lm_head.weight": tensors[embedding].clone()},
    )
    yield (
        "tied, only the head",
        "qwen3",
        True,
        lambda t: {"lm_head.weight" if n == embedding else n: w for n, w in t.items()},
    )
    norm = "model.layers.2.input_layernorm.weight"
    yield "a tensor of another shape", "mistral", False, lambda tensors: tensors | {norm: torch.ones(16)}


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    manager = PluginManager.discover()
    models = {family: _model(folder / f"model-{family}", family, False) for family in FAMILIES}
    tied = {family: _model(folder / f"tied-{family}", family, True) for family in ("llama", "qwen2", "qwen3")}
    for number, (name, family, is_tied, damage) in enumerate(damages()):
        place = folder / f"tensors-{number}"
        config, tensors = (tied if is_tied else models)[family]
        _write(place, config, damage(dict(tensors)))
        yield _variant(f"{family}: {name}", place, manager)
    place = folder / "index"
    _write(place, *models["llama"])
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "old.safetensors"}}))
    save_file({"x": torch.zeros(2)}, place / "old.safetensors", metadata={"format": "pt"})
    yield _variant("llama: an old index beside a whole file", place, manager)
    for number, (name, family, change) in enumerate(changes(random)):
        place = folder / f"config-{number}"
        config = models[family][0] | change
        _write(place, {key: value for key, value in config.items() if value is not DROP}, models[family][1])
        yield _variant(f"{family}: {name}", place, manager)


def _model(folder: Path, family: str, tied: bool) -> tuple[dict[str, Any], Tensors]:
    """config.json and tensors of a random model."""
    settings = {"tie_word_embeddings": tied} | ({"num_local_experts": 4} if family == "mixtral" else {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{NAMES[family]}Config")(**SIZES, **settings)
    model = getattr(transformers, f"{NAMES[family]}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def _write(folder: Path, config: dict[str, Any], tensors: Tensors) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps(ByteTokenizer().definition()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


@torch.no_grad()
def _variant(name: str, folder: Path, manager: PluginManager) -> Variant:
    tokens = torch.randint(ROWS, (1, 40), generator=torch.Generator().manual_seed(1))
    expected: torch.Tensor | None = None
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        config = json.loads((folder / "config.json").read_text())
        if all(config.get(key) != 10**7 for key in SIZES):  # transformers would make them all
            loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True, dtype=torch.float32
            )
            # what transformers draws at random, or leaves out, has no right value
            if not report["missing_keys"] and not report["unexpected_keys"]:
                logits = loaded(tokens).logits
                expected = logits if logits.isfinite().all() else None

    @torch.no_grad()
    def read() -> torch.Tensor:

        with contextlib.chdir(folder.parent):  # runs are made below the current folder
            run = Run.open(import_folder(folder, [], [], manager, ImportOptions(name=folder.name)).folder, manager)
            run.transformer.eval()
        hidden = run.transformer(tokens, torch.arange(40)[None]).hidden
        return run.transformer.logits(hidden, ROWS)

    def right(logits: torch.Tensor) -> str:
        assert expected is not None
        off = float((logits - expected).abs().max())
        return f"logits are off by {off:.3g}" if off > 1e-3 else ""

    refusable = _honest_refusals(folder)
    return Variant(name, read, right, False if expected is None else (None if refusable else True))


def _honest_refusals(folder: Path) -> bool:
    """Whether the model can be read by transformers in a way that mio says it has not: scaling, biases and the like."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return (
        rope.get("rope_type", rope.get("type", "default")) not in ("default", "linear", "llama3")
        or "partial_rotary_factor" in config
        or config.get("attention_bias")
        or config.get("mlp_bias")
        or config.get("is_causal") is False
        or config.get("hidden_act") not in ("silu", "swish")
        or "per_layer_config" in config
        or "quantization_config" in config
        or config.get("model_type") not in NAMES
    )
