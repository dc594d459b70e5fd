"""Differences of recipes in a researcher's terms: the right words, and nothing left out."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace

import pytest

from mio import Frames, Modality
from mio.core.contract.checker import build
from mio.core.recipe.comparison import compare
from mio.core.recipe.data_schema import (
    DataConfig,
    GroupConfig,
    MixtureConfig,
    PackingConfig,
    RampPoint,
    SourceConfig,
    TemplateConfig,
)
from mio.core.recipe.resolved import diff, flat
from mio.core.recipe.schema import Recipe

CONTENT = Recipe(
    name="stage3",
    start_from="runs/stage2",
    requires=["mio>=0.1"],
    plugins={"text": {"tokenizer": "bytes"}, "image": {"codes": 64}},
    model={"width": 64, "layers": 2},
    data=DataConfig(
        groups={
            "pairs": GroupConfig(
                sources={"a": SourceConfig("digits/captions", templates="caption"), "b": SourceConfig()}
            ),
            "talk": GroupConfig(sources={"c": SourceConfig("jsonl", options={"path": "c.jsonl"})}),
        },
        templates={"caption": [TemplateConfig("understand", "{image}", "{text}")]},
        packing=PackingConfig(context=256),
    ),
    mixture=MixtureConfig(ratios={"pairs": 3, "talk": 1}, ramp=[RampPoint(0.5, {"pairs": 1, "talk": 1})]),
    generate={"image": {"temperature": 0.5}},
)


def said(first, second, declared=((), ())):
    return {section.title: [str(one) for one in section.differences] for section in compare(first, second, declared)}


def changed(**fields):
    recipe = copy.deepcopy(CONTENT)
    for key, value in fields.items():
        at = recipe
        *path, last = key.split("__")
        for name in path:
            at = at[name] if isinstance(at, dict) else getattr(at, name)
        if isinstance(at, dict):
            at[last] = value
        else:
            setattr(at, last, value)
    return recipe


def test_equal_recipes_do_not_differ():
    assert compare(CONTENT, copy.deepcopy(CONTENT)) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (changed(start_from="elsewhere/stage1"), {"stage": ["starts from: stage2 -> stage1"]}),
        (
            changed(mixture__ratios={"pairs": 1, "talk": 3}, mixture__ramp=[]),
            {
                "mixture": [
                    "pairs: 75 %, 50 % at 0.5 of tokens -> 25 % of tokens",
                    "talk: 25 %, 50 % at 0.5 of tokens -> 75 % of tokens",
                ]
            },
        ),
        (changed(mixture__ratios={"pairs": 6, "talk": 2}), {}),
        (
            changed(mixture__ratios={"pairs": 3.001, "talk": 1}),
            {
                "mixture": [
                    "pairs: 75 %, 50 % at 0.5 of tokens -> 75.0062 %, 50 % at 0.5 of tokens",
                    "talk: 25 %, 50 % at 0.5 of tokens -> 24.9938 %, 50 % at 0.5 of tokens",
                ]
            },
        ),
        (
            changed(mixture__ramp=[RampPoint(0.50001, {"pairs": 1, "talk": 1})]),
            {
                "mixture": [
                    "pairs: 75 %, 50 % at 0.5 of tokens -> 75 %, 50 % at 0.50001 of tokens",
                    "talk: 25 %, 50 % at 0.5 of tokens -> 25 %, 50 % at 0.50001 of tokens",
                ]
            },
        ),
        (changed(mixture__ramp=[RampPoint(0.5, {"pairs": 1})]), {}),
        (
            changed(mixture__ramp=[RampPoint(0.5), RampPoint(0.5, {"pairs": 1})]),
            {
                "mixture": [
                    "pairs: 75 %, 50 % at 0.5 of tokens -> 75 %, 75 % at 0.5, 50 % at 0.5 of tokens",
                    "talk: 25 %, 50 % at 0.5 of tokens -> 25 %, 25 % at 0.5, 50 % at 0.5 of tokens",
                ]
            },
        ),
        (
            changed(data__groups__talk__sources={"c": CONTENT.data.groups["talk"].sources["c"],
                                                 "d": SourceConfig("digits/quiz", templates="quiz")}),
            {"data": ["+ source talk/d: digits/quiz train, templates quiz"]},
        ),
        (changed(data__groups__talk__sources__c__weight=2.0), {"data": ["groups.talk.sources.c.weight: 1.0 -> 2.0"]}),
        (
            changed(train__steps=500),
            {"training": ["positions in all: 2,048,000 -> 1,024,000", "steps: 1000 -> 500"]},
        ),
        (changed(train__optimizer__lr=0.5), {"training": ["optimizer.lr: 3e-05 -> 0.5"]}),
        (changed(evaluate__tasks=["draw", "caption"]), {"evaluation": ["+ tasks: draw, caption"]}),
        (
            changed(plugins={"image": {"codes": 64}, "text": {"tokenizer": "bytes"}}),
            {"vocabulary": ["order of plugins: text, image -> image, text"]},
        ),
        (changed(runtime__devices=4), {"execution": ["devices: 1 -> 4"]}),
    ],
)  # fmt: skip
def test_what_is_said(other, expected):
    assert said(CONTENT, other) == expected


def test_vocabulary_is_that_of_the_plugins():
    image = Modality(
        name="image", codebooks=(64, 64, 8), begin="<i>", end="</i>", layout="frame_major", frames=Frames()
    )
    film = Modality(name="film", parts="image")
    before, after = [("a", image)], [("a", replace(image, views={"understand": (0,)})), ("b", film)]
    assert said(CONTENT, CONTENT, (before, after)) == {
        "vocabulary": [
            "modality image: 2 x 64 + 1 x 8 codes, frame_major, 1 to 4096 frames, <i> </i> -> 2 x 64 + 1 x 8 codes, "
            "frame_major, 1 to 4096 frames, <i> </i>, understand by [0]",
            "+ modality film: made of image",
        ]
    }


OTHER = {bool: lambda value: not value, int: lambda value: value + 1, float: lambda value: value + 0.25,
         str: lambda value: value + "x", list: lambda value: [*value, "new"], dict: lambda value: {**value, "new": 1},
         type(None): lambda _: 0.5}  # fmt: skip
RECORDS = ("ramp", "betas", "rules", "heads", "directions")
"""Keys that hold records of their own."""
KEYS = [key for key, value in flat(asdict(CONTENT)) if not key.endswith(RECORDS)]


TITLES = dict.fromkeys(("name", "start_from", "seed", "requires", "license"), "stage") | {
    "plugins": "vocabulary",
    "train": "training",
    "evaluate": "evaluation",
    "validate": "evaluation",
    "generate": "evaluation",
    "runtime": "execution",
}


@pytest.mark.parametrize("key", KEYS)
def test_no_key_is_left_out(key):
    content = asdict(CONTENT)
    *path, last = key.split(".")
    at = content
    for name in path:
        at = at[name]
    at[last] = OTHER[type(at[last])](at[last])
    if key.startswith("data.templates"):
        at[last] = [{"direction": "generate", "prompt": "", "response": "x"}]
    other = build(Recipe, content)
    assert diff(CONTENT, other, runtime=True)
    found = said(CONTENT, other)
    assert found, key
    section = (path or [last])[0]
    assert TITLES.get(section, section) in found
