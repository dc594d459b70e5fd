"""The same three records in every format, and the forms of published corpora."""

from __future__ import annotations

import gc
import io
import json
import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_readers import KINDS

from mio.core.contract.values import Codes, Media
from mio.core.data.readers import READERS, open_reader
from mio.core.data.readers.coded import CodedText
from mio.core.data.readers.tables import Stream
from mio.core.errors import DataError, RecipeError
from mio.core.tokens.layouts import layout

FILES = [b"first", b"second", b"third"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def cells(form):
    if form == "bytes":
        return [{"bytes": content, "path": f"{index}.skt"} for index, content in enumerate(FILES)]
    return [f"{index}.skt" for index in range(3)]


def table(form):
    return pa.table({"sketch": cells(form), "caption": ["one", "two", "three"], "count": [1, 2, 3]})


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write(folder, reader, form="bytes"):
    """Writes the records in a format; returns the reader's options."""
    for index, content in enumerate(FILES):
        (folder / f"{index}.skt").write_bytes(content)
    if reader == "parquet":
        pq.write_table(table(form), folder / "data.parquet")
        return {"path": "data.parquet"}
    if reader == "arrow":
        datasets.Dataset(table(form)).save_to_disk(folder / "saved")
        return {"path": "saved", "folder": "."}
    if reader == "hub":
        (folder / "hub").mkdir(exist_ok=True)
        pq.write_table(table("bytes"), folder / "hub/train.parquet")
        return {"name": "hub"}
    if reader == "jsonl":
        rows = [
            {"sketch": f"{i}.skt", "caption": word, "count": i + 1} for i, word in enumerate(("one", "two", "three"))
        ]
        (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return {"path": "data.jsonl"}
    if reader == "folder":
        lines = [
            {"file_name": f"{i}.skt", "caption": word, "count": i + 1} for i, word in enumerate(("one", "two", "three"))
        ]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return {"path": "."}
    with tarfile.open(folder / "data.tar", "w") as archive:
        for index, word in enumerate(("one", "two", "three")):
            add(archive, f"{index:04}.skt", FILES[index])
            add(archive, f"{index:04}.json", json.dumps({"caption": word, "count": index + 1}).encode())
    return {"path": "data.tar"}


def opened(reader, options, split="train"):
    return open_reader(reader, split, options, KINDS)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["bytes", "paths"])
def test_every_format_gives_the_same_records(tmp_path, reader, form):
    source = opened(reader, write(tmp_path, reader, form))
    assert len(source) == 3
    for index in (2, 0, 1):
        record = source[index]
        assert (record["caption"], record["count"]) == (("one", "two", "three")[index], str(index + 1))
        media = record["sketch"]
        assert media.modality == "sketch"
        assert (media.data.read_bytes(), media.data.suffix) == (FILES[index], ".skt")
        assert source.locate(index)
    assert source[0]["sketch"].key == source[0]["sketch"].key != source[1]["sketch"].key
    again = opened(reader, {**write(tmp_path, reader, form)})
    assert again.fingerprint == source.fingerprint


@pytest.mark.parametrize("reader", READERS)
def test_columns_choose_and_rename(tmp_path, reader):
    ending = "skt" if reader == "webdataset" else "sketch"
    source = opened(reader, write(tmp_path, reader) | {"columns": {ending: "sketch", "caption": "title"}})
    assert source[1].keys() == {"sketch", "title"}
    assert source[1]["title"] == "two"


def test_media_of_bytes_are_files_for_as_long_as_somebody_holds_them(tmp_path):
    source = opened("parquet", write(tmp_path, "parquet"))
    path = source[0]["sketch"].data
    name = str(path)
    assert path.read_bytes() == b"first"
    del path
    gc.collect()
    from pathlib import Path

    assert not Path(name).exists()


def test_a_stream_is_read_in_its_order_and_only_by_tokenising(tmp_path):
    source = opened("hub", write(tmp_path, "hub") | {"streaming": True})
    assert isinstance(source, Stream)
    assert [call()["caption"] for call in source] == ["one", "two", "three"]


def test_a_folder_without_a_table_gives_each_file_with_its_name_and_label(tmp_path):
    for name in ("cats/a.skt", "cats/b.skt", "dogs/c.HUM", "d.txt"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"x")
    source = opened("folder", {"path": "all"})
    records = [source[index] for index in range(len(source))]
    assert [(record["name"], record["label"]) for record in records] == [("a", "cats"), ("b", "cats"), ("c", "dogs")]
    assert [next(iter(record)) for record in records] == ["sketch", "sketch", "hum"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no media files; endings that can be read: \.hm, \.hum, \.skt"):
        opened("folder", {"path": "empty"})


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader not in ("hub", "folder")])
def test_missing_and_damaged_files_are_told(tmp_path, reader):
    with pytest.raises(DataError, match=r"gone.*no such"):
        opened(reader, {"path": "gone.bin"})
    options = write(tmp_path, reader)
    if reader != "jsonl":
        from pathlib import Path

        path = next(iter(Path("saved").glob("*.arrow"))) if reader == "arrow" else Path(options["path"])
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(DataError):
            opened(reader, options)


def test_an_archive_that_ends_early_costs_what_it_lacks(tmp_path):
    options = write(tmp_path, "webdataset")
    source = opened("webdataset", options)
    path = tmp_path / "data.tar"
    path.write_bytes(path.read_bytes()[:4700])  # after indexing: the last sample's members are gone
    assert source[0]["caption"] == "one"
    with pytest.raises(DataError, match="cut short"):
        source[2]


def test_wrong_options_are_told_with_the_nearest_name():
    with pytest.raises(RecipeError, match=r"reader `parquet` has no option `pathh`; did you mean `path`"):
        opened("parquet", {"pathh": "x"})
    with pytest.raises(RecipeError, match=r"option `coded` must be `true` or `false`"):
        opened("jsonl", {"path": "x", "coded": "yes"})
    with pytest.raises(RecipeError, match=r"option `inserted` needs `place`"):
        opened("jsonl", {"path": "x", "inserted": {"texts": "a", "items": "b", "name": "c", "modality": "sketch"}})


# forms of published corpora


def from_rows(folder, *rows, **options):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for index, content in enumerate(FILES):
        (folder / f"{index}.skt").write_bytes(content)
    return opened("jsonl", {"path": "data.jsonl", **options})


def told(parts):
    return [part.data.name if isinstance(part, Media) else part for part in parts]


def test_obelics_form(tmp_path):
    """huggingface.co/datasets/HuggingFaceM4/OBELICS: lists of one length, the other side null; `general_metadata`."""
    row = {"images": ["0.skt", None, "1.skt"], "texts": [None, "between", None], "general_metadata": "{}"}
    source = from_rows(tmp_path, row, {"images": ["0.skt"], "texts": []}, aligned={"images": "sketch", "texts": "text"})
    assert told(source[0]["parts"]) == ["0.skt", "between", "1.skt"]
    with pytest.raises(DataError, match="differ in length"):
        source[1]


def test_mmc4_form(tmp_path):
    """github.com/allenai/mmc4: `image_info` with `matched_text_index` and `matched_sim` beside `text_list`."""
    items = [
        {"image_name": "1.skt", "matched_text_index": 1, "matched_sim": 0.3},
        {"image_name": "0.skt", "matched_text_index": 0, "matched_sim": 0.25},
        {"image_name": "2.skt", "matched_text_index": 1, "matched_sim": 0.1},
    ]
    source = from_rows(
        tmp_path,
        {"text_list": ["First.", "Second."], "image_info": items, "url": "x"},
        {"text_list": ["Only."], "image_info": [{"image_name": "1.skt", "matched_text_index": 4, "matched_sim": 1}]},
        inserted={
            "texts": "text_list",
            "items": "image_info",
            "name": "image_name",
            "place": "matched_text_index",
            "modality": "sketch",
            "score": "matched_sim",
            "least": 0.24,
        },
        columns={},
    )
    assert source[0].keys() == {"parts"}
    assert told(source[0]["parts"]) == ["0.skt", "First.", "1.skt", " Second."]
    with pytest.raises(DataError, match="`matched_text_index` is 4, there are 1 texts"):
        source[1]


def test_anygpt_pre_training_form(tmp_path):
    """github.com/OpenMOSS/AnyGPT, data/pretrain: `text` beside one modality as a string of its code tokens."""
    source = from_rows(tmp_path, {"text": "a cat", "sketch": "<s3><s0><s7>"}, {"sketch": "<s8>"}, coded=True)
    record = source[0]
    assert record["text"] == "a cat"
    assert record["sketch"].codes.tolist() == [[3, 0, 7]]
    with pytest.raises(DataError, match="code token 8 of `sketch`, which has 8 codes"):
        source[1]


def test_anygpt_conversation_form(tmp_path):
    """The same, data/instruction: a conversation, in some files inside another list, with spans inside messages."""
    turns = [
        {"role": "user", "message": "Draw <sk><s1><s2></sk> again"},
        {"role": "assistant", "message": "<hum><h0><h4><h3><h7></hum>"},
    ]
    source = from_rows(
        tmp_path,
        {"id": 1, "conversation": [turns]},
        {"id": 2, "conversation": turns},
        coded=True,
        turns={"column": "conversation", "content": "message"},
        columns={"conversation": "conversation"},
    )
    for index in (0, 1):
        first, second = source[index]["messages"]
        assert [part.codes.tolist() if isinstance(part, Codes) else part for part in first["content"]] == [
            "Draw ",
            [[1, 2]],
            " again",
        ]
        assert second["content"][0].codes.tolist() == [[0, 3], [0, 3]]


@pytest.mark.parametrize("frames", [1, 5])
def test_coded_text_is_the_inverse_of_the_layout(frames):
    declared = KINDS.modalities["hum"]
    codes = np.random.default_rng(frames).integers(0, 4, (2, frames))
    codebook, code = layout(declared.layout).flatten(codes)
    text = "".join(f"<h{4 * book + value}>" for book, value in zip(codebook, code, strict=True))
    coded = CodedText(KINDS.modalities.values())
    before, item, after = coded.parse(f"a<hum>{text}</hum>b", "")
    assert (before, after) == ("a", "b")
    assert np.array_equal(item.codes, codes)
    assert coded.parse("2 <s3 4> <h> 5", "") == ["2 <s3 4> <h> 5"]
    with pytest.raises(DataError, match=r"a\.jsonl:3: .*not a whole number of frames"):
        coded.parse(text[4:], "a.jsonl:3")
