import base64
import json
import os

import pytest

from mio.core.contract.values import Media, Modality
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError, RecipeError

KINDS = Kinds(
    {
        "text": Modality(name="text", text=True),
        "sketch": Modality(name="sketch", codebooks=(8,), begin="<sk>", end="</sk>", code_token="<s{}>"),
        "hum": Modality(
            name="hum", codebooks=(4, 4), begin="<hum>", end="</hum>", code_token="<h{}>", layout="frame_major"
        ),
    },
    lambda: {"sketch": (".skt",), "hum": (".hum", ".hm")},
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("a.skt", "b.skt", "c.hum"):
        (tmp_path / "media" / name).write_bytes(name.encode())
    return tmp_path


def opened(folder, *lines, **options):
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return open_reader("jsonl", "train", {"path": str(path), **options}, KINDS)


def test_columns_named_like_a_modality_are_media_and_others_text(folder):
    reader = opened(folder, {"sketch": "media/a.skt", "caption": "three", "count": 3, "ok": True, "none": None})
    record = reader[0]
    assert record == {"sketch": record["sketch"], "caption": "three", "count": "3", "ok": "true"}
    media = record["sketch"]
    assert (media.modality, media.data) == ("sketch", folder / "media/a.skt")
    assert media.key.startswith(f"{folder / 'media/a.skt'}#5-")


def test_fields_map_columns_and_lists_hold_several(folder):
    reader = opened(
        folder, {"pages": ["media/a.skt", "media/b.skt"], "hum": "la la"}, fields={"pages": "sketch", "hum": "text"}
    )
    record = reader[0]
    assert [page.data.name for page in record["pages"]] == ["a.skt", "b.skt"]
    assert all(isinstance(page, Media) and page.modality == "sketch" for page in record["pages"])
    assert record["hum"] == "la la"


def test_messages_and_parts_hold_typed_content(folder):
    user = {"role": "user", "content": [{"type": "text", "text": "draw"}, {"type": "hum", "hum": "media/c.hum"}]}
    reader = opened(
        folder,
        {"messages": [user, {"role": "assistant", "content": "done"}]},
        {"parts": ["once", {"type": "sketch", "sketch": "media/a.skt"}, "the end"]},
    )
    turns = reader[0]["messages"]
    assert turns[0]["content"][0] == "draw"
    assert turns[0]["content"][1].modality == "hum"
    assert turns[1] == {"role": "assistant", "content": ["done"]}
    assert [type(part).__name__ for part in reader[1]["parts"]] == ["str", "Media", "str"]


def test_key_changes_with_the_file_behind_it(folder):
    reader = opened(folder, {"sketch": "media/a.skt"})
    before = reader[0]["sketch"].key
    (folder / "media/a.skt").write_bytes(b"other content")
    assert reader[0]["sketch"].key != before


def test_blank_lines_and_line_endings(folder):
    path = folder / "data.jsonl"
    path.write_bytes(b'\n{"a": "1"}\r\n\r\n\n{"a": "2"}\r\n7\n{"a": "3"}')
    reader = open_reader("jsonl", "train", {"path": str(path)}, KINDS)
    assert len(reader) == 4
    assert [reader[i]["a"] for i in (0, 1, 3)] == ["1", "2", "3"]
    assert [reader.locate(i).rsplit(":", 1)[1] for i in range(4)] == ["2", "5", "6", "7"]
    with pytest.raises(DataError, match=r"data\.jsonl:6: a record is a JSON object, this is a number"):
        reader[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a": ', "not valid JSON"),
        (b'{"a": "\xff\xfe"}', "not valid JSON"),
        ({"sketch": "media/gone.skt"}, r"`sketch`: .*media/gone\.skt: no such file"),
        ({"sketch": 3}, "`sketch` must be the path of a sketch file, this is a number"),
        ({"caption": {"a": 1}}, "`caption` must be text, this is a object"),
        ({"messages": []}, "`messages` must be a list of turns"),
        ({"messages": [{"content": "x"}]}, r"`messages\[0\]` must have `role` and `content`"),
        ({"parts": [{"type": "sktch", "sktch": "x"}]}, "unknown part type `sktch`; did you mean `sketch`"),
        ({"parts": [{"type": "sketch"}]}, "a part is a string or an object like"),
        ({"parts": 3}, "must be a string or a list of parts, this is a number"),
    ],
)
def test_a_broken_line_costs_one_record_and_says_where(folder, line, words):
    reader = opened(folder, {"a": "before"}, line, {"a": "after"})
    assert (len(reader), reader[0]["a"], reader[2]["a"]) == (3, "before", "after")
    with pytest.raises(DataError, match=rf"data\.jsonl:2.*{words}"):
        reader[1]


def test_long_files_are_indexed_across_chunks(folder, monkeypatch):
    monkeypatch.setattr("mio.core.data.readers.jsonl.CHUNK", 7)
    reader = opened(folder, *({"a": "x" * i} for i in range(30)))
    assert [len(reader[i]["a"]) for i in range(30)] == list(range(30))


def test_fingerprint_follows_the_content(folder):
    first = opened(folder, {"a": "1"}, {"a": "2"}).fingerprint
    assert opened(folder, {"a": "1"}, {"a": "2"}).fingerprint == first
    assert opened(folder, {"a": "1"}, {"a": "2"}, {"a": "3"}).fingerprint != first


def test_what_is_wrong_with_the_file_or_its_options_is_said_at_once(folder):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        open_reader("jsonl", "train", {"path": str(folder / "gone.jsonl")}, KINDS)
    (folder / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no records"):
        open_reader("jsonl", "train", {"path": str(folder / "empty.jsonl")}, KINDS)
    with pytest.raises(RecipeError) as caught:
        open_reader("jsonl", "train", {"pth": "x"}, KINDS)
    assert len(caught.value.problems) == 2
    assert "no option `pth`; did you mean `path`?" in caught.value.problems[0]
    with pytest.raises(RecipeError, match=r"`fields\.x` names an unknown modality `sktch`; did you mean `sketch`"):
        opened(folder, {"x": "y"}, fields={"x": "sktch"})


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("NaN", "`a` is NaN, which is no number"),
        ("-1e999", "`a` is -Infinity, which is no number"),
        ("[1, NaN]", "`a` is NaN"),
        ('"\\ud800"', r"`a` holds half a surrogate pair \(\\ud800 at character 0\)"),
        ('{"b": 1}', "`a` must be text, this is a object"),
    ],
)
def test_a_field_that_is_no_content_costs_nothing_until_it_is_used(folder, written, words):
    reader = opened(folder, b'{"a": %s, "b": "x"}' % written.encode())
    assert dict(reader[0]) == {"b": "x"}
    assert "a" in reader[0]
    with pytest.raises(DataError, match=rf"data\.jsonl:1: {words}"):
        reader[0]["a"]


def test_numbers_are_the_text_that_json_writes(folder):
    values = ["0", "-3", "3.0", "0.1", "1e+22", "true", "9" * 20_000, '"NaN"']
    reader = opened(folder, *(b'{"a": %s}' % value.encode() for value in values))
    assert [reader[i]["a"] for i in range(len(values))] == [value.strip('"') for value in values]


@pytest.mark.parametrize(
    "value", ["", " ", [], [None], {"bytes": None, "path": None}, {"bytes": "", "path": ""}], ids=repr
)
def test_media_that_are_not_there_are_no_content(folder, value):
    assert opened(folder, {"sketch": value, "a": "x"})[0] == {"sketch": [], "a": "x"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"bytes": "a.skt"}, "`bytes`: is no base64"),
        ({"bytes": 3, "path": 4}, "`bytes` must be bytes, this is a number"),
        ({"path": ["a"]}, "`path` must be text, this is a list"),
        ({"array": [0.1], "rate": 3}, "must hold one of `bytes`, `path`.*; it holds `array`, `rate`"),
        ("media", "not a file"),
        ("a\0b", "a\\\\x00b: no such file"),
        ("x" * 9000, r"x{5,100}\.\.\.: no such file"),
        ("s3://a/b.skt", "mio fetches nothing|nothing is fetched"),
    ],
)
def test_cells_of_media_that_hold_none_say_so(folder, value, words):
    with pytest.raises(DataError, match=rf"data\.jsonl:1: `sketch`.*({words})"):
        opened(folder, {"sketch": value})[0]


def test_a_named_pipe_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "pipe.skt")
    with pytest.raises(DataError, match=r"pipe\.skt: is a pipe or device"):
        opened(folder, {"sketch": "pipe.skt"})[0]


def test_bytes_and_addresses_hold_media(folder):
    packed = base64.b64encode(b"drawn").decode()
    cells = [{"bytes": packed}, f"data:a/b;base64,{packed}", "data:,drawn", {"url": f"data:;base64,{packed}"}]
    cells += [{"data": packed, "format": "skt"}, (folder / "media/a.skt").as_uri()]
    found = [opened(folder, {"sketch": cell})[0]["sketch"] for cell in cells]
    assert [media.data.read_bytes() for media in found] == [b"drawn"] * 5 + [b"a.skt"]
    assert len({media.key for media in found[:5]}) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a": 1, "a": 2}', "key `a` occurs twice"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xed\xa0\x80"}', "not valid JSON: no utf-8"),
    ],
)
def test_json_that_is_not_clear_costs_one_record(folder, line, words):
    reader = opened(folder, {"a": "before"}, line)
    with pytest.raises(DataError, match=rf"data\.jsonl:2: .*{words}"):
        reader[1]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\n"])
def test_one_json_list_is_read_as_lines_are(folder, indent, begin):
    rows = [{"a": "é\u2028" * i, "b": "]["} for i in range(1, 5)]
    path = folder / "data.json"
    path.write_text(begin + json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    reader = open_reader("jsonl", "train", {"path": str(path)}, KINDS)
    assert [reader[i] for i in range(len(reader))] == rows
    assert reader.locate(1).endswith("data.json: record 2")


@pytest.mark.parametrize("records", [1, 2, 3])
@pytest.mark.parametrize(
    "form", ["[{}\n]", "[\n{}\n]", "[{}]", "\n[{}\r\n]\n"], ids=["end apart", "ends apart", "together", "blanks"]
)
@pytest.mark.parametrize("comma", [",\n", ",", "\n,", ", \r\n"])
def test_a_list_is_one_wherever_its_lines_break(folder, records, form, comma):
    rows = [{"a": f"{index}"} for index in range(records)]
    (folder / "data.json").write_text(form.format(comma.join(map(json.dumps, rows))))
    reader = open_reader("jsonl", "train", {"path": str(folder / "data.json")}, KINDS)
    assert [reader[i] for i in range(len(reader))] == rows


def test_lines_after_a_first_one_that_is_no_record_are_read(folder):
    reader = opened(folder, b"[1, 2]", {"a": "x"}, b" \t ", {"a": "y"}, b"  ")
    assert [reader.locate(i).rsplit(":", 1)[1] for i in range(len(reader))] == ["1", "2", "4"]
    assert [reader[1], reader[2]] == [{"a": "x"}, {"a": "y"}]


@pytest.mark.parametrize(
    "text", ["[", '[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1}] x', '[{"a": tru}]', "[" * 100_000]
)
def test_a_json_list_that_is_cut_or_damaged_is_refused(folder, text):
    (folder / "data.json").write_text(text)
    with pytest.raises(DataError, match=r"data\.json: is a JSON list that is broken in or after record \d"):
        open_reader("jsonl", "train", {"path": str(folder / "data.json")}, KINDS)


def test_utf_16_is_told(folder):
    (folder / "data.jsonl").write_text('{"a": "x"}\n', encoding="utf-16")
    with pytest.raises(DataError, match=r"data\.jsonl: is UTF-16"):
        open_reader("jsonl", "train", {"path": str(folder / "data.jsonl")}, KINDS)


def test_a_file_is_one_split(folder):
    opened(folder, {"a": "x"})
    with pytest.raises(RecipeError, match="`split` is `nope`, but what reader `jsonl` reads has no splits"):
        open_reader("jsonl", "nope", {"path": str(folder / "data.jsonl")}, KINDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"a": 3}}, r"`columns\.a` must name a column or field, not 3"),
        ({"columns": {"a": "x", "b": "x"}}, "gives the field `x` to two columns"),
        ({"fields": {"a": ["sketch"]}}, r"`fields\.a` names an unknown modality"),
        ({"turns": {"role": None}}, r"`turns\.role` must name a column or field, not None"),
        ({"folder": ""}, "option `folder` must be text"),
        ({"coded": "yes"}, "option `coded` must be `true` or `false`"),
        (
            {"inserted": {"texts": "a", "items": "b", "name": "c", "place": "d", "modality": 7, "least": "x"}},
            "`inserted.",
        ),
        ({3: "x"}, "has no option `3`"),
    ],
)
def test_options_of_the_wrong_type_are_told(folder, options, words):
    with pytest.raises(RecipeError, match=words):
        open_reader("jsonl", "train", {"path": str(folder / "data.jsonl"), **options}, KINDS)


@pytest.mark.parametrize("text", ["<s99999999999999999999>", "<s" + "9" * 5000 + ">", "<sk><s1>", "<s1></sk>"])
def test_code_tokens_that_are_none_are_refused(folder, text):
    with pytest.raises(DataError, match=r"data\.jsonl:1: `a`: (code token 9|a span of `sketch` has only one)"):
        opened(folder, {"a": text}, coded=True)[0]
