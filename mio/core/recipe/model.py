"""The transformer that a recipe describes. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.checker import build
from mio.core.contract.networks import Networks
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.layers import checker
from mio.core.recipe.merging import merge
from mio.core.recipe.schema import Recipe

EMBEDDING, HEAD, HEAD_BIAS = "embedding.weight", "head.weight", "head.bias"
ROW_PARAMETERS = (EMBEDDING, HEAD, HEAD_BIAS)
"""Parameters whose rows are vocabulary ids: [rows, D], the bias [rows]."""
ENCODERS, HEADS = "encoders.", "heads."
"""Begin the names of parameters and buffers of networks that read and make media; the modality follows."""
LAYERS, ADAPTERS = "layers.", "adapters"
"""Those of networks inside layers are named `layers.LAYER.adapters.PLUGIN.` and so on."""


def network_of(name: str) -> str:
    """The network of a plugin that a tensor belongs to: `encoders.MODALITY`, `heads.MODALITY`, `adapters.PLUGIN`, whose
    networks of all layers are one. Empty for the transformer's own."""
    parts = name.split(".", 4)
    if name.startswith((ENCODERS, HEADS)):
        return f"{parts[0]}.{parts[1]}"
    return f"{ADAPTERS}.{parts[3]}" if len(parts) > 4 and parts[2] == ADAPTERS else ""


def network_names(networks: Networks, layers: int) -> Iterator[str]:
    """With what the names of each network's parameters begin, in a transformer with so many layers, without the dot.
    Raises `PluginError` as `Networks.adapted_layers`."""
    yield from (f"{ENCODERS}{name}" for name in networks.encoders)
    for name, chosen in networks.adapted_layers(layers).items():
        yield from (f"{LAYERS}{layer}.{ADAPTERS}.{name}" for layer in chosen)
    yield from (f"{HEADS}{name}" for name in networks.heads)


def transformer_config(recipe: Recipe, manager: PluginManager) -> TransformerConfig:
    """The transformer of a recipe: its preset, if it names one, with the fields that the recipe sets.

    Raises `RecipeError` for an unknown preset, wrong values in it, and sizes that do not fit together.
    """
    own = dict(recipe.model)
    preset = own.pop("preset", "")
    content: Any = {}
    if preset:
        known = manager.backbones()
        if preset not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise RecipeError(
                [f"`model.preset`: no plugin has a preset `{preset}`{nearest(preset, known)} (known: {listed})"]
            )
        literal = checker(literal=True)
        content = literal.check(TransformerConfig, known[preset][1], ("model",))
        if literal.problems:
            raise RecipeError([f"preset `{preset}`: {text}" for _, text in literal.problems])
    config = build(TransformerConfig, merge(content, own))
    if problems := list(config.problems()):
        raise RecipeError(problems)
    return config


def parameter_names(config: TransformerConfig) -> Iterator[str]:
    """Names of the parameters of `mio.core.model.transformer.Transformer`, in its order, without making it."""
    attention = ["query", "key", "value", "output"]
    projections = [
        f"attention.{name}.{kind}"
        for name in attention
        for kind in ("weight", "bias")
        if kind == "weight" or (config.qkv_bias and name != "output")
    ]
    norms = ["attention.query_norm.weight", "attention.key_norm.weight"] if config.qk_norm else []
    networks = [f"ffn.experts.{expert}" for expert in range(config.experts)] or ["ffn"]
    yield EMBEDDING
    for layer in range(config.layers):
        names = ["attention_norm.weight", *projections, *norms, "ffn_norm.weight"]
        names += ["ffn.router.weight"] if config.experts else []
        names += [f"{network}.{name}.weight" for network in networks for name in ("gate", "up", "down")]
        yield from (f"layers.{layer}.{name}" for name in names)
    yield "norm.weight"
    if not config.tied_embeddings:
        yield HEAD
    if config.head_bias:
        yield HEAD_BIAS
