import subprocess
import sys

import pytest
from made_recipe import made_recipe

from mio.core.recipe.data_checks import check_data
from mio.core.recipe.data_schema import GroupConfig, SourceConfig


def problems(**changes):
    recipe = made_recipe()
    for path, value in changes.items():
        target = recipe
        *parents, last = path.split("__")
        for name in parents:
            target = target[name] if isinstance(target, dict) else getattr(target, name)
        if isinstance(target, dict):
            target[last] = value
        else:
            setattr(target, last, value)
    return check_data(recipe.data, recipe.mixture)


def test_a_right_recipe_has_no_problems():
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mixture__unit": "token"}, "`mixture.unit` is `token`, not one of `tokens`, `rows`; did you mean `tokens`?"),
        ({"mixture__ratios": {"pair": 1, "talk": 1}}, "unknown group `pair`; did you mean `pairs`?"),
        ({"mixture__ratios": {"pairs": -1, "talk": 1}}, "`mixture.ratios.pairs` is -1; it must be at least 0"),
        ({"mixture__ratios": {"pairs": float("nan"), "talk": 1}}, "`mixture.ratios.pairs` is nan"),
        ({"mixture__ratios": {"pairs": 0, "talk": 0}}, "no ratio above 0"),
        ({"mixture__ratios": {}}, "no ratio above 0"),
        ({"data__groups__pairs": GroupConfig()}, "has no sources"),
        ({"data__groups__pairs": GroupConfig({"a": SourceConfig(weight=0)})}, "no source with a weight above 0"),
        ({"data__groups__pairs": GroupConfig({"a": SourceConfig(weight=-2)})}, "sources.a.weight` is -2"),
        ({"data__groups__pairs": GroupConfig({"a": SourceConfig(directions={"x": 0})})}, "no share above 0"),
        ({"data__groups__pairs": GroupConfig({"a": SourceConfig(directions={"x": -1})})}, "directions.x` is -1"),
        ({"data__groups__pairs": GroupConfig({"a": SourceConfig(form="chatt")})}, "did you mean `chat`?"),
        ({"data__form": "plian"}, "`data.form` is `plian`"),
        ({"data__packing__context": 1}, "`data.packing.context` is 1"),
        ({"data__packing__window": 0}, "`data.packing.window` is 0"),
        ({"data__packing__too_long": "cut"}, "`data.packing.too_long` is `cut`"),
        ({"data__max_skipped": 1.5}, "`data.max_skipped` is 1.5"),
    ],
)
def test_each_problem_is_named_with_its_place(changes, words):
    found = problems(**changes)
    assert any(words in problem for problem in found), found


def test_all_problems_come_at_once():
    assert len(problems(mixture__unit="x", mixture__ratios={"pairs": -1}, data__form="y", data__max_skipped=2)) == 5


def test_planning_and_checking_need_no_torch():
    code = (
        "import mio.core.data.sources, mio.core.data.plan, mio.core.recipe.steps, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
