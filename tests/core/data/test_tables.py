"""Parquet and Arrow files that are damaged, differ, or hold what Python cannot: held against pyarrow's own readers."""

from __future__ import annotations

import datetime
import io

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_readers import KINDS

from mio.core.data.readers import open_reader
from mio.core.data.readers.arrow_files import Unreadable, check_parquet, check_streams, open_arrow_files, rows_of
from mio.core.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(folder, *tables):
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    for path, columns in zip(paths, tables, strict=True):
        pq.write_table(pa.table(columns), path)
    return paths


def captions(folder, ending, **options):
    source = open_reader(ending, "train", {"path": str(folder / f"*.{ending}"), **options}, KINDS)
    return [source[index].get("caption") for index in range(len(source))]


def stream(*batches):
    """A stream of one batch per text, and where each ends."""
    buffer = io.BytesIO()
    writer = pa.ipc.new_stream(buffer, pa.schema([("caption", pa.string())]))
    ends = []
    for text in batches:
        writer.write_table(pa.table({"caption": [text]}))
        ends.append(buffer.tell())
    writer.close()
    return buffer.getvalue(), ends


def test_files_with_other_columns_widths_and_nulls_are_read_together(tmp_path):
    text = pa.array(["a"], pa.large_string())
    parquet(
        tmp_path,
        {"caption": text, "number": pa.array([1], pa.int32())},
        {"caption": pa.nulls(1), "number": pa.array([2], pa.int64()), "more": ["x"]},
        {"caption": pa.array([], pa.string())},
        {"number": pa.array([3], pa.int8()), "caption": ["b"]},
        {"caption": [7]},  # whole numbers are the same as text
    )
    assert captions(tmp_path, "parquet") == ["a", None, "b", "7"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"caption": [1.5]}, r"1\.parquet: column `caption` is double, in .*0\.parquet it is string"),
        ({"caption": [["a"]]}, "column `caption` is list"),
        ({"caption": [{"a": 1}]}, "column `caption` is struct"),
    ],
)
def test_columns_of_several_types_are_told_unless_nothing_reads_them(tmp_path, other, words):
    paths = parquet(tmp_path, {"caption": ["a"], "x": ["b"]}, {**other, "x": ["c"]})
    with pytest.raises(DataError, match=words):
        check_parquet(paths, None)
    assert "caption" not in check_parquet(paths, {"x"}).arguments["features"]


def test_columns_that_datasets_has_no_type_for_are_left_out_and_told(tmp_path):
    maps = pa.array([[("key", 1)]], pa.map_(pa.string(), pa.int64()))
    paths = parquet(tmp_path, {"caption": ["a"], "map": maps})
    assert check_parquet(paths, None).notes == ["columns that cannot be read: map"]
    assert captions(tmp_path, "parquet") == ["a"]


def test_damaged_parquet_files_are_named(tmp_path):
    whole, hurt = parquet(tmp_path, {"caption": ["a"]}, {"caption": [str(number) * 900 for number in range(99)]})
    content = hurt.read_bytes()
    for number in range(100, 400):
        content = content[:number] + bytes([content[number] ^ 85]) + content[number + 1 :]
    hurt.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{hurt}: is damaged"):
        captions(tmp_path, "parquet")
    hurt.write_bytes(content[:-9])
    with pytest.raises(DataError, match=rf"^{hurt}: is no whole Parquet file"):
        check_parquet([whole, hurt], None)
    empty = parquet(tmp_path, {"caption": pa.array([], pa.string())})
    with pytest.raises(DataError, match="holds no rows"):
        check_parquet(empty, None)


def test_a_cell_that_python_cannot_hold_costs_nothing_but_itself():
    no_text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    far = pa.array([2**62], pa.timestamp("us"))
    [row] = rows_of(pa.table({"caption": ["a"], "far": far, "text": no_text}))
    assert row["caption"] == "a"
    assert isinstance(row["far"], Unreadable)
    assert isinstance(row["text"], Unreadable)
    dates = rows_of(pa.table({"caption": ["a", "b"], "date": pa.array([0, 2**30], pa.date32())}))
    assert (dates[0], dates[1]["caption"]) == ({"caption": "a", "date": datetime.date(1970, 1, 1)}, "b")
    assert isinstance(dates[1]["date"], Unreadable)


def test_both_forms_of_arrow_files_are_read(tmp_path):
    (tmp_path / "a.arrow").write_bytes(stream("a", "b")[0])
    table = pa.table({"caption": ["c"], "number": [1]})
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    assert captions(tmp_path, "arrow") == ["a", "b", "c"]


def test_an_arrow_stream_is_read_to_its_end_or_refused(tmp_path):
    content, ends = stream("a", "b", "c")
    path = tmp_path / "a.arrow"
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match="has no end, as if it were cut"):
            check_streams([path])
    path.write_bytes(content[: ends[1] + 40])
    with pytest.raises(DataError, match="is no whole Arrow file"):
        check_streams([path])
    path.write_bytes(content * 2)
    with pytest.raises(DataError, match="bytes lie behind the end"):
        check_streams([path])
    path.write_bytes(content)
    check_streams([path])
    datasets.Dataset.from_dict({"caption": ["a"]}).save_to_disk(tmp_path / "saved")
    check_streams((tmp_path / "saved").glob("*.arrow"))


def test_arrow_files_of_other_types_are_cast_or_told(tmp_path):
    paths = [tmp_path / f"{number}.arrow" for number in range(2)]
    for path, type_ in zip(paths, (pa.int32(), pa.int64()), strict=True):
        table = pa.table({"number": pa.array([5], type_)})
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    assert open_arrow_files(paths)["number"][:] == [5, 5]
    table = pa.table({"number": [1.5]})
    with pa.ipc.new_stream(paths[1], table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"1\.arrow: column `number` is double, in .*0\.arrow it is int32"):
        open_arrow_files(paths)
