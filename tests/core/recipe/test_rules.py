"""Patterns of parameters' names beside networks of which only the beginnings of names are known."""

import fnmatch
import random

import pytest

from mio.core.recipe.rules import like_names, may_be_of_network

NETWORKS = ["encoders.image", "layers.0.adapters.reader", "layers.4.adapters.reader", "heads.image"]


@pytest.mark.parametrize(
    ("pattern", "may"),
    [
        ("encoders.*", True),
        ("encoders.image.blocks.*.weight", True),
        ("encoders.imagex.*", False),
        ("encoders.image", False),
        ("heads.*.bias", True),
        ("heads.[a-i]*", True),
        ("heads.[!i]*", False),
        ("head.weight", False),
        ("layers.*.adapters.reader.gate", True),
        ("layers.[0-9].adapters.*", True),
        ("layers.1.adapters.*", False),
        ("layers.?.adapters.writer.*", False),
        ("layers.*.adapters.raeder.*", False),
        ("*.adapters.reader.*", True),
        ("*", True),
        ("*.bias", True),
        ("", False),
    ],
)
def test_a_pattern_may_match_what_begins_so(pattern, may):
    assert may_be_of_network(pattern, NETWORKS) == may


def test_random_patterns_agree_with_trying_all_short_names():
    draw = random.Random(0)
    names = ["ab." + "".join(rest) for rest in [*((c,) for c in "ab."), *((c, d) for c in "ab." for d in "ab.")]]
    for _ in range(400):
        pattern = "".join(draw.choices(["a", "b", ".", "*", "?", "[ab]", "[!a]"], k=draw.randrange(6)))
        literal = len(pattern.replace("[ab]", "x").replace("[!a]", "x").replace("*", ""))
        if literal <= (2 if "*" in pattern else 5):  # so that a name of two more characters shows it
            matches = any(fnmatch.fnmatchcase(name, pattern) for name in names)
            assert may_be_of_network(pattern, ["ab"]) == matches, pattern


def test_what_was_meant_is_told_by_the_kind_of_network():
    names = ["embedding.weight", "norm.weight"]
    assert like_names("x.*", names, NETWORKS) == "; names look like `embedding.weight`"
    assert like_names("heads.imgae.*", names, NETWORKS) == "; heads make `image`; did you mean `image`?"
    assert like_names("layers.*.adapters.raeder.*", names, NETWORKS) == (
        "; adapters are those of the plugins `reader`; did you mean `reader`?"
    )
    assert like_names("heads.a.*", names) == "; no modality of the recipe is made by a head"
    found = like_names("heads.zzz.qqq", [*names, "heads.image.out.bias"])
    assert found == "; names of heads look like `heads.image.out.bias`"
