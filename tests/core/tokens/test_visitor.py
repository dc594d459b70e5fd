from collections import OrderedDict
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest

from mio import Codes, Media
from mio.core.contract.controls import Control
from mio.core.tokens.documents import Special
from mio.core.tokens.tokenised import TokenisedText
from mio.core.tokens.visitor import Visitor, key_of

GRID = np.zeros((1, 2), int)
CODES = Codes("image", GRID)


class Named(Visitor[str]):
    """Says which method was called."""


def says(name):
    return lambda *_: name


for _name in ("text", "tokenised_text", "special", "control", "media", "tokenised_media", "codes", "sequence"):
    setattr(Named, _name, says(_name))
for _name in ("mapping", "number", "constant", "other"):
    setattr(Named, _name, says(_name))


class OwnMedia(Media):
    """A plugin's own."""


@pytest.mark.parametrize(
    ("value", "method"),
    [
        ("a", "text"),
        (np.str_("a"), "text"),
        (TokenisedText("a", GRID[0]), "tokenised_text"),
        (Special.BOS, "special"),
        (Control("silence"), "control"),
        (Media("image", GRID, "k"), "media"),
        (OwnMedia("image", GRID, "k"), "media"),
        (Media("video", [CODES], "k"), "media"),  # a splitter's own list of parts
        (Media("video", (CODES, CODES), "k"), "tokenised_media"),
        (Media("video", (CODES, GRID), "k"), "media"),
        (Media("video", (), "k"), "media"),
        (CODES, "codes"),
        ([1], "sequence"),
        ((1,), "sequence"),
        (MappingProxyType({}), "mapping"),
        (OrderedDict(), "mapping"),
        (1, "number"),
        (np.float32(1), "number"),
        (Fraction(1, 2), "number"),
        (True, "constant"),
        (None, "constant"),
        (np.bool_(True), "other"),
        (b"a", "other"),
        ({1}, "other"),
    ],
)
def test_every_value_goes_to_the_method_of_its_kind(value, method):
    assert [Named().visit(value) for _ in range(2)] == [method] * 2


class Lengths(Visitor[int]):
    def text(self, text):
        return len(text)


def test_a_kind_that_a_visitor_does_not_know_is_refused_by_name():
    assert Lengths().visit(TokenisedText("abc", GRID[0])) == 3
    for value, name in ((Control("silence"), "Control"), (CODES, "Codes"), (1.5, "float"), ([], "list")):
        with pytest.raises(TypeError, match=f"Lengths knows no values of the type {name}"):
            Lengths().visit(value)


def test_keys():
    assert (key_of(Media("image", GRID, "k")), key_of(CODES)) == ("k", "")
