"""Folders with and without tables: what is a record, what costs one, and what is told."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest
from test_readers import KINDS

from mio.core.data.partial import notes_of
from mio.core.data.readers import open_reader
from mio.core.data.readers.endings import Endings
from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""What `str.splitlines` takes for the end of a line."""


@pytest.fixture
def folder(tmp_path):
    for name in ("a.skt", "b.skt", "c.hum"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def opened(folder, split="train", **options):
    return open_reader("folder", split, {"path": str(folder), **options}, KINDS)


def records(folder, split="train", **options):
    """Fields, media as file names; for what cannot be read, its error."""
    source, found = opened(folder, split, **options), []
    for index in range(len(source)):
        try:
            record = source[index]
        except DataError as error:
            found.append(str(error))
            continue
        if failed := notes_of(record).failed:
            found += [failure.reason for failure in failed.values()]
            continue
        found.append({name: v if isinstance(v, str) else v.data.name for name, v in record.items()})
    return found


def written(folder, content, name="metadata.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_nothing_but_line_breaks_splits_lines(folder, end, mark):
    texts = [f"x{letter}y" for letter in SEPARATORS]
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end).writerows([["file_name", "caption"], *(["a.skt", text] for text in texts)])
    wanted = [{"sketch": "a.skt", "caption": text} for text in texts]
    written(folder, mark + file.getvalue().encode())
    assert records(folder) == wanted
    (folder / "metadata.csv").unlink()
    lines = [json.dumps({"file_name": "a.skt", "caption": text}, ensure_ascii=False) for text in texts]
    written(folder, mark + end.join(lines).encode(), "metadata.jsonl")
    assert records(folder) == wanted


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.skt,x,y", "has 3 fields, the header has 2"),
        ("a.skt", "has 1 fields, the header has 2"),
        ('a.skt,"x', "not a line of CSV"),
        (',"x"', "`file_name` is empty"),
        ("a.xyz,x", "nothing reads files like 'a.xyz'"),
        ("gone.skt,x", "no such file"),
        ("a.skt,x\0", "zero byte"),
        (b"a.skt,x\xf6", "not UTF-8"),
    ],
)
def test_a_broken_line_of_csv_costs_one_record(folder, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    written(folder, b"file_name,caption\nb.skt,1\n" + line + b'\nb.skt,"2\n3"\nc.hum,4\n')
    first, broken, third, fourth = records(folder)
    assert (first["caption"], third["caption"], fourth) == ("1", "2\n3", {"hum": "c.hum", "caption": "4"})
    assert broken.startswith(f"{folder / 'metadata.csv'}:3: ")
    assert words in broken


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "a record is a JSON object"),
        ('{"caption": "x"}', "has no `file_name`"),
        ('{"file_name": 3}', "must be the name of a file"),
        (b'{"file_name": "\xf6"}', "not valid JSON"),
    ],
)
def test_a_broken_line_of_json_costs_one_record(folder, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    written(folder, b'{"file_name": "a.skt"}\n' + line + b'\n\n{"file_name": "b.skt"}', "metadata.jsonl")
    first, broken, last = records(folder)
    assert (first, last) == ({"sketch": "a.skt"}, {"sketch": "b.skt"})
    assert broken.startswith(f"{folder / 'metadata.jsonl'}:2: ")
    assert words in broken


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file_name,x\na.skt,y".encode("utf-16"), "UTF-16"),
        ("file_name,x\na.skt,y".encode("utf-16-le"), "header cannot be read"),
        (b"file_name,x,x\na.skt,y,z", "column `x` occurs twice"),
        (b"file_name;x\na.skt;y", "no column `file_name`, separated by commas"),
        (b"file_name,x\n", "holds no records"),
    ],
)
def test_a_table_that_cannot_be_read_at_all_is_told(folder, content, words):
    with pytest.raises(DataError, match=words):
        opened(written(folder, content))


def test_fields_may_be_long_and_the_limit_of_others_stays(folder):
    before = csv.field_size_limit()
    assert records(written(folder, f"file_name,x\na.skt,{'y' * 200_000}"))[0]["x"] == "y" * 200_000
    assert csv.field_size_limit() == before


def test_a_table_above_the_splits_tells_of_each(tmp_path):
    lines = []
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.skt").write_bytes(b"a")
        lines.append(json.dumps({"file_name": f"{split}/a.skt", "caption": split}))
    written(tmp_path, "\n".join(lines), "metadata.jsonl")
    (tmp_path / "train/more.skt").write_bytes(b"b")
    for split in ("train", "test"):
        assert records(tmp_path, split) == [{"sketch": "a.skt", "caption": split}]
    assert opened(tmp_path).notes == [
        f"1 media files without a line in a table, left out, as {tmp_path}/train/more.skt"
    ]
    with pytest.raises(DataError, match="has no split `validation`; it has test, train"):
        opened(tmp_path, "validation")
    written(tmp_path, '{"file_name": "a.skt"}', "metadata.jsonl")
    with pytest.raises(DataError, match=r"none of its 1 lines names a file in .*train"):
        opened(tmp_path)


def test_tables_lie_at_any_level_and_the_nearest_counts(tmp_path):
    for name in ("x", "y/z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.skt").write_bytes(name.encode())
        written(tmp_path / name, f"file_name,caption\na.skt,{name}")
    written(tmp_path, "file_name,caption\nx/a.skt,far")
    source = opened(tmp_path)
    assert [(source[n]["sketch"].data.read_text(), source[n]["caption"]) for n in (0, 1)] == [
        ("x", "x"),
        ("y/z", "y/z"),
    ]
    assert len(source) == 2
    assert "1 lines of tables of which a table nearer" in source.notes[0]
    written(tmp_path, "file_name\nx/a.skt", "metadata.jsonl")
    with pytest.raises(DataError, match=r"several tables \(metadata\.csv, metadata\.jsonl\)"):
        opened(tmp_path)


def test_a_cell_of_a_parquet_table_that_python_cannot_hold_costs_its_field_alone(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    dates = pa.array([0, 2**62], pa.timestamp("us"))  # the second is after the year 9999
    pq.write_table(pa.table({"file_name": ["a.skt", "b.skt"], "date": dates}), folder / "metadata.parquet")
    source = opened(folder)
    assert source[1]["sketch"].data.name == "b.skt"
    with pytest.raises(DataError, match=r"metadata\.parquet: row 2: `date` must be text"):
        source[1]["date"]
    assert source.fingerprint == opened(folder).fingerprint


def test_parquet_tables_and_lists_of_files(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"file_names": [["a.skt", "b.skt"], ["a.skt", "c.hum"]], "hum_file_name": ["c.hum", None]}
    pq.write_table(pa.table(rows), folder / "metadata.parquet")
    source = opened(folder)
    assert [media.data.name for media in source[0]["sketch"]] == ["a.skt", "b.skt"]
    assert source[0]["hum"].data.name == "c.hum"
    with pytest.raises(DataError, match=r"row 2: `file_names`: 'c\.hum' is no sketch file like the others"):
        source[1]
    (folder / "metadata.parquet").write_bytes((folder / "metadata.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"metadata\.parquet: is no whole Parquet file"):
        opened(folder)


def test_a_column_of_files_holds_one_modality_and_no_column_hides_another(folder):
    lines = ['{"x_file_name": "a.skt"}', '{"x_file_name": "c.hum"}', '{"file_name": "a.skt", "sketch": "words"}']
    first, second, third = records(written(folder, "\n".join(lines), "metadata.jsonl"))
    assert first == {"x": "a.skt"}
    assert "'c.hum' is no sketch file like the others" in second
    assert "two columns are the field `sketch`" in third


def test_hidden_files_are_no_records_and_links_are_followed(tmp_path):
    names = [
        "cats/a.skt",
        ".ipynb_checkpoints/a.skt",
        "cats/._a.skt",
        "__MACOSX/a.skt",
        "cats/.b.skt",
        "cats/Thumbs.db",
    ]
    for name in names:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"x")
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs/d.skt").write_bytes(b"d")
    (tmp_path / "all/dogs").symlink_to(tmp_path / "dogs")
    (tmp_path / "all/cats/round").symlink_to(tmp_path / "all")
    os.mkfifo(tmp_path / "all/pipe.skt")
    assert opened(tmp_path / "all").notes == ["files that nothing reads: .db (1)"]
    cat, dog, pipe = records(tmp_path / "all")
    assert cat == {"sketch": "a.skt", "name": "a", "label": "cats"}
    assert dog == {"sketch": "d.skt", "name": "d", "label": "dogs"}
    assert "pipe.skt: is a pipe or device" in pipe


def test_an_ending_that_two_modalities_read_has_to_be_told():
    kinds = Kinds(KINDS.modalities, lambda: {"sketch": (".a", ".b"), "hum": (".b",)})
    assert Endings(kinds, ()).modality("x.a") == "sketch"
    assert Endings(kinds, ["hum"]).modality("d/x.B") == "hum"
    assert Endings(kinds, ()).modality("x.c") == ""
    with pytest.raises(DataError, match=r"`\.b` may be sketch or hum; say which by the option `fields`"):
        Endings(kinds, ()).modality("x.b")
