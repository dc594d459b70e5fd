"""The transformer that a recipe describes."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import yaml
from recipe_files import NONE, problems

from mio.core.contract.backbone import FIXED, RopeScaling, TransformerConfig
from mio.core.model.transformer import Transformer
from mio.core.recipe.compose import compose
from mio.core.recipe.model import parameter_names, transformer_config
from mio.core.recipe.schema import Recipe


class Presets:
    def backbones(self):
        return {"tiny-llama": ("acme", {"width": 64, "heads": 8, "rope_scaling": {"kind": "linear"}})}


def test_a_preset_is_changed_by_the_recipes_own_fields():
    made = Recipe(model={"preset": "tiny-llama", "heads": 4, "rope_scaling": {"factor": 2.0}})
    config = transformer_config(made, Presets())
    assert (config.width, config.heads, config.layers) == (64, 4, 4)
    assert (config.rope_scaling.kind, config.rope_scaling.factor) == ("linear", 2.0)
    assert (
        "did you mean `tiny-llama`?"
        in problems(transformer_config, Recipe(model={"preset": "tiny-lama"}), Presets())[0]
    )


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"width": 30, "heads": 4}, "no multiple of"),
        ({"width": 12, "heads": 4}, "must be even"),
        ({"kv_heads": 3}, "multiple of `model.kv_heads`"),
        ({"layers": 0}, "`model.layers` is 0"),
        ({"experts": 1}, "experts_per_token"),
        ({"head_bias": True, "tied_embeddings": True}, "`model.head_bias` needs a head of its own"),
        ({"rope_scaling": {"kind": "yarn"}}, "rope_scaling.kind"),
        ({"init_std": -1.0}, "`model.init_std` is -1; it must be at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(write, model, problem):
    def made(path):
        return transformer_config(compose([path], [], NONE), NONE)

    assert problem in problems(made, write("a.yaml", yaml.safe_dump({"model": model})))[0]


def names(**settings):
    config = TransformerConfig(**({"width": 16, "layers": 2, "heads": 2} | settings))
    with torch.device("meta"):
        transformer = Transformer(config, rows=128)
    return config, {name: tuple(value.shape) for name, value in transformer.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"qkv_bias": True, "qk_norm": True},
        {"tied_embeddings": True, "kv_heads": 1},
        {"experts": 3, "layers": 1, "head_bias": True},
    ],
)
def test_names_of_parameters_are_known_without_making_them(settings):
    config, shapes = names(**settings)
    assert list(parameter_names(config)) == list(shapes)


CHANGED = {
    "width": 32, "layers": 3, "heads": 4, "kv_heads": 1, "head_width": 4, "ffn_width": 96, "norm_eps": 1e-6,
    "rope_theta": 5e5, "rope_scaling": RopeScaling("linear", 2.0), "qkv_bias": True, "qk_norm": True,
    "tied_embeddings": True, "head_bias": True, "sliding_window": 4, "full_attention_layers": [1], "experts": 2,
    "experts_per_token": 1, "router_aux_weight": 0.1, "init_std": 0.1,
}  # fmt: skip
"""Another value of each field."""


def test_fields_that_trained_weights_fix_are_those_that_change_shapes():
    """And `heads`, which may divide the same matrices otherwise."""
    assert CHANGED.keys() == {field.name for field in fields(TransformerConfig)}
    base = {"experts": 3, "sliding_window": 8}
    plain = names(**base)[1]
    changing = {name for name, value in CHANGED.items() if names(**base | {name: value})[1] != plain}
    assert changing | {"heads"} == FIXED
