"""Plain data checked against dataclasses, and made into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import mio
from mio.core.contract.checker import Checker, keys_of


@dataclass
class Window:
    size: int = mio.number(8, 1, 64)
    kind: str = mio.one_of("hann", "hann", "box")


@dataclass
class Options:
    window: Window = field(default_factory=Window)
    other: Window | None = None
    windows: Sequence[Window] = ()
    named: dict[str, list[Window]] = field(default_factory=dict)
    shares: Mapping[str, float] = mio.number(dict, 0, 1)
    free: Any = None


RIGHT = {
    "window": {"size": 9},
    "other": {"kind": "box"},
    "windows": [{}, {"size": 1}],
    "named": {"a": [{"size": 2}]},
    "shares": {"x": 1},
    "free": {"y": [1, {"z": None}]},
}


def test_options_are_made_with_the_dataclasses_inside_them():
    made = mio.read_options(Options, RIGHT, "plugins.sketch")
    assert made == Options(
        window=Window(9),
        other=Window(kind="box"),
        windows=[Window(), Window(1)],
        named={"a": [Window(2)]},
        shares={"x": 1.0},
        free={"y": [1, {"z": None}]},
    )
    assert isinstance(made.shares["x"], float)
    assert mio.read_options(Options, {}, "plugins.sketch") == Options()


def test_a_checker_returns_mappings_and_names_each_problem_by_its_key():
    checker = Checker()
    assert checker.check(Options, RIGHT) == RIGHT
    assert checker.problems == []
    wrong = {
        "window": {"siz": 1, "size": 65},
        "other": {"kind": "hamm"},
        "windows": 5,
        "named": {"a": [{}, {"size": True}], 3: []},
        "shares": {"x": "1"},
        "free": {"y": {1: 2}},
    }
    checker.check(Options, wrong, ("top",))
    assert checker.problems == [
        (("top", "window", "siz"), "has no option `top.window.siz`; did you mean `size`?; it has size, kind"),
        (("top", "window", "size"), "`top.window.size` is 65; it must be at most 64"),
        (("top", "other", "kind"), "`top.other.kind` is `hamm`, not one of `hann`, `box`; did you mean `hann`?"),
        (("top", "windows"), "`top.windows` must be a list, not 5"),
        (("top", "named", "a", "1", "size"), "`top.named.a[1].size` must be a whole number, not true"),
        (("top", "named", "3"), "`top.named`: the key 3 must be text; put it in quotes"),
        (("top", "shares", "x"), "`top.shares.x` must be a number, not the text '1'"),
        (("top", "free", "y", "1"), "`top.free.y`: the key 1 must be text; put it in quotes"),
    ]
    with pytest.raises(mio.UserError, match="`windows` must be a list, not 5"):
        mio.read_options(Options, {"windows": 5}, "plugins.sketch")


def test_keys_are_listed_with_what_they_may_be():
    keys = {key: str(allowed or "") for key, _, allowed in keys_of(Options)}
    assert keys == {
        "window": "",
        "window.size": "1 to 64",
        "window.kind": "`hann`, `box`",
        "other": "",
        "windows": "",
        "named": "",
        "named.*[].size": "1 to 64",
        "named.*[].kind": "`hann`, `box`",
        "shares": "0 to 1",
        "free": "",
    }
