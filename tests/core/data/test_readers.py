import json

import pytest

from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError, RecipeError
from mio.core.modality import Media, Modality

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
