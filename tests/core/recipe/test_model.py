"""The transformer that a recipe describes."""

from __future__ import annotations

import pytest
import yaml
from recipe_files import NONE, problems

from mio.core.recipe.compose import compose
from mio.core.recipe.model import transformer_config
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
        ({"rope_scaling": {"kind": "yarn"}}, "rope_scaling.kind"),
        ({"init_std": -1.0}, "`model.init_std` is -1; it must be at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(write, model, problem):
    def made(path):
        return transformer_config(compose([path], [], NONE), NONE)

    assert problem in problems(made, write("a.yaml", yaml.safe_dump({"model": model})))[0]
