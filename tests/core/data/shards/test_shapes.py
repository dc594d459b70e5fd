"""Shapes are written as the table of `docs/data.md` says, byte for byte, and read back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media
from mio.core.data.shards.shapes import RecordShape, Unstorable, from_json, take_apart, to_json

SKETCH = Codes("sketch", np.zeros((1, 2), int))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("x", "0"),
        (3, "0"),
        (SKETCH, '"sketch"'),
        (Media("film", (SKETCH, SKETCH), "k"), '["","film","sketch",2]'),
        (Media("film", (), "k"), '["","film","",0]'),
        ([], "[]"),
        ((["x"], SKETCH), '[[0],"sketch"]'),
        ({}, "{}"),
        (None, '{"":null}'),
        ([Control("noise"), "x"], '[["","noise"],0]'),
        (False, '{"":false}'),
        ({"role": "user", "content": ["x", SKETCH], "weight": 0.5},
         '{"role":{"":"user"},"content":[0,"sketch"],"weight":{"":0.5}}'),
        ({"role": ["user"], "weight": "2"}, '{"role":[0],"weight":0}'),
    ],
)  # fmt: skip
def test_a_value_has_the_shape_that_the_format_says(value, written):
    node = take_apart(value, [], [])
    assert json.dumps(to_json(node), separators=(",", ":")) == written
    assert from_json(json.loads(written)) == node


def test_texts_and_items_are_given_back_in_the_order_in_which_they_were_taken():
    value = {"a": ["x", SKETCH, {"b": Media("film", (SKETCH,), "k")}], "c": 0.5, "d": True}
    texts, items = [], []
    node = take_apart(value, texts, items)
    assert (texts, [name for name, _ in items]) == (["x", "0.5"], ["sketch", "sketch"])
    first, second = Codes("sketch", 1), Codes("sketch", 2)
    film = Media("film", (second,), key="tokenised")
    assert node.restore(iter(texts), iter([first, second])) == {"a": ["x", first, {"b": film}], "c": "0.5", "d": True}


def test_fields_without_content_are_no_part_of_what_is_restored():
    shape = RecordShape({"a": 0, "b": -1, "c": ["!", "date"], "d": ["", "film", "sketch", 2], "e": ["hum"]})
    assert list(shape.fields.nodes) == ["a", "d", "e"]
    assert (shape.modalities, shape.parts) == (["sketch", "sketch", "hum"], {"film"})
    assert {name: failed.kind for name, failed in shape.unusable.items()} == {"c": "date"}


def test_a_mapping_without_names_cannot_be_stored():
    with pytest.raises(Unstorable, match="a mapping with the keys"):
        take_apart({"": "x"}, [], [])
