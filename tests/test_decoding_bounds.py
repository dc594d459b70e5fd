"""Recipes, the command line and requests to a server take the same values of sampling."""

from __future__ import annotations

import math
from dataclasses import fields

import pydantic
import pytest
import typer

from mio import Decoding
from mio.cli.generate import generate
from mio.core.contract.decoding import ModalityDecoding
from mio.core.contract.ranges import ALLOWED, Range
from mio.core.contract.validation import decoding_problems
from mio.plugins.vita.session import SessionOptions
from mio.serve.protocol.chat import ChatRequest


def ranges(kind: type) -> dict[str, Range]:
    return {one.name: one.metadata[ALLOWED] for one in fields(kind) if ALLOWED in one.metadata}


RANGES = ranges(Decoding)
WHOLE = {one.name for one in fields(Decoding) if one.type == "int"}


def beyond(name: str, bound: float, towards: float) -> float:
    return bound + int(math.copysign(1, towards)) if name in WHOLE else math.nextafter(bound, towards)


def in_recipe(name: str, value: float) -> bool:
    others = {"by": {"text": {name: value}}} if name in ranges(ModalityDecoding) else {}
    found = [decoding_problems(Decoding(**said)) for said in ({name: value}, others)]
    assert bool(found[0]) == bool(found[1]) or not others
    return not found[0]


def on_command_line(name: str, value: float) -> bool:
    app = typer.Typer()
    app.command()(generate)
    try:
        typer.main.get_command(app).make_context("generate", ["run", f"--{name.replace('_', '-')}={value!r}"])
    except typer.BadParameter:
        return False
    return True


def in_request(name: str, value: float) -> bool:
    try:
        ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], name: value})
    except pydantic.ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", RANGES)
def test_a_bound_is_the_same_wherever_it_can_be_said(name):
    least, most = RANGES[name].least, RANGES[name].most
    assert math.isfinite(most)
    takers = [in_recipe, on_command_line]
    if name != "beams":  # a server has no beams: its answers are given as they come
        takers.append(in_request)
    for taken in takers:
        assert taken(name, least), taken
        assert taken(name, most), taken
        assert not taken(name, beyond(name, most, math.inf)), taken
        if (taken, name) != (in_request, "top_k"):  # there -1 is all, as vLLM has it
            assert not taken(name, beyond(name, least, -math.inf)), taken
    assert not in_request("top_k", -2)


def test_live_talk_has_the_ranges_of_decoding():
    own = ranges(SessionOptions)
    shared = RANGES.keys() & own.keys()
    assert shared >= {"temperature", "media_temperature", "top_p", "max_tokens"}
    assert {name: own[name] for name in shared} == {name: RANGES[name] for name in shared}
