"""Conversations in the forms of published data sets: what is bound to what, and what is refused."""

import base64
import json
from dataclasses import replace

import pytest

from mio.core.contract.controls import Control
from mio.core.contract.values import Media, Modality
from mio.core.data.partial import notes_of
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError, RecipeError
from mio.core.tokens.templates import to_document

KINDS = Kinds(
    {
        "text": Modality(name="text", text=True),
        "sketch": Modality(name="sketch", codebooks=(8,), begin="<sk>", end="</sk>", code_token="<s{}>"),
        "hum": Modality(name="hum", codebooks=(4,), begin="<hum>", end="</hum>", code_token="<h{}>"),
    },
    lambda: {"sketch": (".skt",), "hum": (".hum",)},
    lambda: {"hum": ("tune",)},
)
A, B, C = "a.skt", "b.skt", "c.hum"


@pytest.fixture
def read(tmp_path):
    for name in (A, B, C):
        (tmp_path / name).write_text(name)

    def read(row, **options):
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps(row))
        return open_reader("jsonl", "train", {"path": str(path), **options}, KINDS)[0]

    return read


def told(record):
    return [
        (turn["role"], [part.data.read_text() if isinstance(part, Media) else part for part in turn["content"]])
        for turn in record["messages"]
    ]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


DATA = f"data:x/y;base64,{base64.b64encode(A.encode()).decode()}"
SEEN = [("user", [A, "What?"]), ("assistant", ["Red."])]
ASKED = [{"type": "sketch"}, {"type": "text", "text": "What?"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [user("<sketch>What?"), assistant("Red.")], "sketchs": [A]}, SEEN),
        ({"messages": [user("<sketch>What?"), assistant("Red.")], "sketch": A}, SEEN),
        ({"messages": [user("<sketch>What?"), assistant("Red.")], "sketchs": [{"path": A, "bytes": None}]}, SEEN),
        ({"messages": [user("<sketch>What?"), assistant("Red.")], "sketchs": [DATA], "hum": None, "tunes": []}, SEEN),
        (
            {
                "conversations": [{"from": "human", "value": "<sketch>\n<tune>"}, {"from": "gpt", "value": "<sketch>"}],
                "sketchs": [A, B],
                "tune": C,
            },
            [("user", [A, "\n", C]), ("assistant", [B])],
        ),
        ({"messages": [user(ASKED), assistant("Red.")], "sketchs": [A]}, SEEN),
        ({"messages": [user([{"type": "sketch", "text": None, "path": A}, "What?"]), assistant("Red.")]}, SEEN),
        ({"messages": [user([{"type": "sketch_url", "sketch_url": {"url": DATA}}, "What?"]), assistant("Red.")]}, SEEN),
        ({"messages": [user([{"sketch": A, "text": None}, {"text": "What?"}]), assistant("Red.")]}, SEEN),
        (
            {
                "messages": [
                    user([{"type": "sketch", "index": 1}, {"type": "sketch", "index": 0}]),
                    assistant([{"type": "sketch", "index": 1}]),
                ],
                "sketchs": [A, B],
            },
            [("user", [B, A]), ("assistant", [B])],
        ),
        (
            {"messages": [user("\\<sketch> <b> \\<tune><sketch>"), assistant("x")], "sketchs": [A]},
            [("user", ["<sketch> <b> <tune>", A]), ("assistant", ["x"])],
        ),
        (
            {"system": "Be brief.", "messages": [user("x"), assistant("y")], "sketchs": 3, "answer": "a.b"},
            [("system", ["Be brief."]), ("user", ["x"]), ("assistant", ["y"])],
        ),
    ],
)
def test_media_are_bound_in_order(read, row, expected):
    assert told(read(row)) == expected


def test_openai_audio_is_base64(read):
    held = {"data": base64.b64encode(b"sound").decode(), "format": "hum"}
    record = read({"messages": [user([{"type": "input_tune", "input_tune": held}]), assistant("x")]})
    assert told(record)[0] == ("user", ["sound"])
    assert record["messages"][0]["content"][0].modality == "hum"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [user("<sketch>"), assistant("x")]}, "1 placeholders of `sketch`.*no column `sketch`"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": [A, B]}, "1 placeholders.*`sketchs` holds 2"),
        ({"messages": [user("<sketch><sketch>"), assistant("x")], "sketchs": [A]}, "2 placeholders.*holds 1"),
        ({"messages": [user("hi"), assistant("x")], "sketch": A}, "0 placeholders.*`sketch` holds 1"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": [None, A]}, "`sketchs` has an empty place"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": [A], "sketch": A}, "both `sketch"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": ["gone.skt"]}, r"gone\.skt: no such file"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": ["https://a.b/c.skt"]}, "download it"),
        ({"messages": [user("<sketch>"), assistant("x")], "sketchs": ["data:;base64,a*"]}, "is no base64"),
        ({"messages": [user("<film>"), assistant("x")], "films": ["a.mp4"]}, "<film>.*no plugin of the recipe reads"),
        ({"messages": [user([{"type": "film", "film": A}]), assistant("x")]}, "unknown part type `film`"),
        ({"messages": [user([{"type": "text", "text": "x", "sketch": A}]), assistant("x")]}, "holds `sketch` as well"),
        ({"messages": [user([{"type": "sketch", "index": 2}]), assistant("x")], "sketchs": [A]}, "holds 1"),
        ({"messages": [user("a"), {"role": "tool", "content": "x"}]}, r"`messages\[1\]`: .*role `tool`"),
        ({"messages": [user("a"), assistant("x", weight=-1)]}, r"`messages\[1\]`: `weight`.* is -1"),
        ({"messages": [user("a"), assistant("x", weight=float("nan"))]}, "`weight` of a turn is nan"),
        ({"messages": [user("a"), assistant("x", weight=10**400)]}, "`weight` of a turn is 1000"),
        ({"messages": [user("a"), assistant("x", train="no")]}, "`train` of a turn is 'no'"),
        ({"messages": [user("a\ud800"), assistant("x")]}, "half a surrogate pair"),
        ({"messages": [user("a")], "conversations": [user("a")]}, "both `messages` and `conversations`"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_record(read, row, words):
    with pytest.raises(DataError, match=rf"data\.jsonl:1: .*{words}"):
        read(row)["messages"]


def test_other_records_keep_columns_that_only_look_like_media(read):
    assert read({"sketchs": ["3", "4"], "conversations": "a text <sketch>"}) == {
        "sketchs": ["3", "4"],
        "conversations": "a text <sketch>",
    }


def test_options_name_columns_and_placeholders(read):
    row = {"messages": [user("<|sk_1|><film>"), assistant("x")], "films": [B], "sketch": A, "more": A}
    found = read(row, placeholders={"<|sk_1|>": "sketch"}, fields={"films": "hum"})
    assert told(found) == [("user", [A, B]), ("assistant", ["x"])]
    assert "hum" in {part.modality for part in found["messages"][0]["content"]}
    with pytest.raises(RecipeError, match=r"`placeholders\.<x>` names an unknown modality `skt`"):
        read(row, placeholders={"<x>": "skt"})


def test_turns_have_weights_and_unknown_keys_are_noted(read):
    turns = [user("a"), assistant("b", weight=0), assistant("c", loss=True), assistant("d", train=False, mood=1)]
    record = read({"messages": [*turns, assistant("e", weight=0.5), {**user("f"), "weight": 1}, assistant("g")]})
    assert [turn.get("weight", 1) for turn in record["messages"]] == [1, 0, 1, 0, 0.5, 1, 1]
    assert record.notes.unknown == (
        "key `mood` of a turn",
        "key `weight` of a turn of the user, which is never learnt",
    )
    segments = to_document(record, None, "chat").segments
    assert [(s.content, s.supervised) for s in segments if s.content in ("b", "c", "d", "e", "g")] == [
        ("b", 0), ("c", 1), ("d", 0), ("e", 0.5), ("g", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "turns",
    [
        [user(""), assistant("x")],
        [user([]), assistant("x")],
        [user("x"), assistant(None)],
        [user("x"), assistant([{"type": "text", "text": " \n"}])],
        [user("x"), assistant("y"), user(None), assistant("z")],
    ],
)
def test_an_empty_turn_costs_the_record(read, turns):
    with pytest.raises(DataError, match=r"`messages\[\d\]`: the turn of the (user|assistant) is empty"):
        to_document(read({"messages": turns}), None, "chat")


SPEAKING = replace(KINDS, controls=("noise", "query"))


@pytest.fixture
def spoken(tmp_path):
    def spoken(row, **options):
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps(row))
        return open_reader("jsonl", "train", {"path": str(path), **options}, SPEAKING)[0]

    return spoken


NOISE, QUERY = Control("noise"), Control("query")


@pytest.mark.parametrize(
    ("turn", "content"),
    [
        (assistant("Yes.", control="query"), [QUERY, "Yes."]),
        (assistant("", control="noise"), [NOISE, ""]),
        (assistant([{"type": "control", "name": "query"}, "Yes."]), [QUERY, "Yes."]),
        (assistant(["Well.", {"type": "control", "name": "noise"}]), ["Well.", NOISE]),
        (assistant("Yes.", control=None), ["Yes."]),
    ],
)
def test_turns_name_the_control_token_that_they_begin_with(spoken, turn, content):
    record = spoken({"messages": [user("What?"), turn]})
    assert record == {"messages": [user(["What?"]), assistant(content)]}
    assert not notes_of(record).unknown


def test_what_a_turn_says_of_its_end_is_kept(spoken):
    record = spoken({"messages": [user("What?"), assistant("Yes.", control="noise", end_tag=False)]})
    assert record["messages"][1] == assistant([NOISE, "Yes."], end_tag=False)


def test_a_field_may_name_a_control_token(spoken):
    assert spoken({"state": "noise", "text": "x"}, fields={"state": "control"}) == {"state": NOISE, "text": "x"}
    record = spoken({"state": "noise", "messages": [user("What?"), assistant("Yes.")]}, fields={"state": "control"})
    assert record["state"] == NOISE


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"messages": [user("a"), assistant("b", control="nois")]}, {},
         r"`messages\[1\]`: `control` is 'nois', not one of noise, query; did you mean `noise`"),
        ({"messages": [user("a"), assistant([{"type": "control", "nam": "noise"}])]}, {},
         r"`messages\[1\]`: `name` of a part `control` is None, not one of noise, query"),
        ({"messages": [user("a"), assistant("b", end_tag="no")]}, {}, r"`messages\[1\]`: `end_tag` of a turn is 'no'"),
        ({"state": 3}, {"fields": {"state": "control"}}, r"`state` is 3, not one of noise, query"),
    ],
)  # fmt: skip
def test_names_of_no_control_token_are_told_with_their_place(spoken, row, options, message):
    with pytest.raises(DataError, match=rf"data\.jsonl:1: {message}"):
        spoken(row, **options)


def test_without_control_tokens_they_are_keys_that_nothing_reads(read):
    record = read({"messages": [user("What?"), assistant("Yes.", control="query")]})
    assert record["messages"][1] == assistant(["Yes."])
    assert notes_of(record).unknown == ("key `control` of a turn",)
    with pytest.raises(RecipeError, match="names an unknown modality `control`"):
        read({"state": "noise"}, fields={"state": "control"})
    with pytest.raises(DataError, match="unknown part type `control`"):
        read({"messages": [user("What?"), assistant([{"type": "control", "name": "noise"}])]})
