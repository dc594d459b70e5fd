"""The file format: whatever is written is read again, and what is damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.core.contract.values import Codes, Media, Modality
from mio.core.data.partial import Failed
from mio.core.data.shards.format import read_header, shard_name, verify
from mio.core.data.shards.reader import Shard, TokenIndex, TokenisedSource, dropped
from mio.core.data.shards.writer import ShardWriter
from mio.core.errors import DataError, UserError

MODALITIES = {
    "text": Modality(name="text", text=True),
    "sketch": Modality(name="sketch", codebooks=(256,)),
    "hum": Modality(name="hum", codebooks=(1024, 70_000)),
    "film": Modality(name="film", parts="sketch"),
}
FINGERPRINTS = {"sketch": "s1", "hum": "h1", "film": "f1"}


def sketch(frames=3):
    return Codes("sketch", np.arange(frames).reshape(1, -1))


def written(path, *records, first=0):
    writer = ShardWriter(MODALITIES, FINGERPRINTS, first)
    for record in records:
        if isinstance(record, Failed):
            writer.fail(record.reason)
        elif isinstance(record, str):
            writer.drop(record)
        else:
            writer.add(record)
    writer.write(path, {"number": 0})
    return Shard(path)


def plain(value):
    """The value with codes as tuples, so that it can be compared."""
    if isinstance(value, Codes):
        return ("codes", value.modality, value.codes.shape, tuple(value.codes.ravel().tolist()))
    if isinstance(value, Media):
        return ("parts", value.modality, [plain(part) for part in value.data])
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def codes(modality):
    sizes = MODALITIES[modality].codebooks

    def grid(frames):
        rows = [st.lists(st.integers(0, size - 1), min_size=frames, max_size=frames) for size in sizes]
        return st.tuples(*rows).map(
            lambda made: Codes(modality, np.array(made, dtype=np.int64).reshape(len(sizes), frames))
        )

    return st.integers(0, 4).flatmap(grid)


VALUES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    codes("sketch"),
    codes("hum"),
    st.lists(codes("sketch"), min_size=1, max_size=3).map(lambda parts: Media("film", tuple(parts), "k")),
)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
TURNS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.lists(VALUES, max_size=3)})
RECORDS = st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, max_size=4), st.none(), st.booleans()), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(RECORDS, st.fixed_dictionaries({"messages": st.lists(TURNS, max_size=3)})), max_size=6))
def test_any_records_are_read_as_they_were_written(tmp_path_factory, records):
    shard = written(tmp_path_factory.mktemp("shards") / "a.shard", *records)
    assert len(shard) == len(records)
    assert [plain(shard[place]) for place in range(len(shard))] == [plain(record) for record in records]


def test_numbers_become_their_text(tmp_path):
    assert written(tmp_path / "a.shard", {"a": 3, "b": 0.5, "c": True})[0] == {"a": "3", "b": "0.5", "c": True}


def test_small_codebooks_take_two_bytes_per_code_and_an_array_given_twice_is_stored_once(tmp_path):
    item, big = sketch(200), Codes("hum", np.array([[1023], [69_999]]))
    shard = written(tmp_path / "a.shard", {"a": item, "b": item}, {"a": item}, {"a": big})
    arrays = shard.header["arrays"]
    assert arrays["codes/sketch"][1:] == ["uint16", 200]
    assert arrays["codes/hum"][1:] == ["uint32", 2]
    assert plain(shard[2]["a"]) == plain(big)
    assert shard.header["tokenizers"] == {"hum": "h1", "sketch": "s1"}


def test_the_tokenizers_of_all_that_occurs_are_named_those_of_parts_too(tmp_path):
    film = Media("film", (sketch(2), sketch(5)), "k")
    hum = Codes("hum", np.zeros((2, 7), int))
    shard = written(tmp_path / "a.shard", {"text": "x", "film": film, "more": [hum, "y"]}, Failed("gone"))
    assert shard.header["tokenizers"] == {"film": "f1", "hum": "h1", "sketch": "s1"}


def test_what_failed_leaves_a_hole_with_its_reason_and_moves_nothing(tmp_path):
    broken = {"text": "kept", "sketch": Failed("x.skt: damaged")}
    outside = {"sketch": Codes("sketch", np.array([[256]]))}
    shard = written(
        tmp_path / "a.shard",
        {"text": "a"},
        Failed("line 2: no JSON"),
        broken,
        "too long",
        outside,
        {"text": "z"},
        first=40,
    )
    assert (shard[0], shard[5]) == ({"text": "a"}, {"text": "z"})
    with pytest.raises(DataError, match="line 2: no JSON"):
        shard[1]
    assert shard[2]["text"] == "kept"
    assert "sketch" in shard[2]
    with pytest.raises(DataError, match=r"x\.skt: damaged"):
        shard[2]["sketch"]
    with pytest.raises(KeyError):
        shard[2]["hum"]
    assert [dropped(shard[place]) for place in (0, 2, 3)] == ["", "", "too long"]
    with pytest.raises(DataError, match="outside its codebook"):
        shard[4]["sketch"]
    assert [(index, field) for index, field, _ in shard.header["failed"]] == [(41, ""), (42, "sketch"), (44, "sketch")]
    assert shard.header["dropped"] == [[43, "too long"]]


def test_a_field_that_no_template_could_use_is_left_out_and_counted(tmp_path):
    shard = written(tmp_path / "a.shard", {"a": "x", "when": object()}, {"when": object(), "b": "y"})
    assert [shard[0], shard[1]] == [{"a": "x"}, {"b": "y"}]
    assert shard.header["unstorable"] == {"when (object)": 2}
    with pytest.raises(DataError, match="`when` holds a object, which no template can use"):
        shard[0]["when"]


def test_weights_of_turns_are_kept_as_numbers(tmp_path):
    turns = [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": ["b"], "weight": 0.25}]
    shard = written(tmp_path / "a.shard", {"messages": turns}, {"messages": [turns[0], {**turns[1], "weight": 0.0}]})
    assert shard[0]["messages"] == turns
    assert shard[1]["messages"][1]["weight"] == 0.0


def test_the_bytes_depend_on_the_records_alone(tmp_path):
    records = [{"text": "a", "sketch": sketch(4)}, Failed("gone"), {"text": "b"}]
    written(tmp_path / "a.shard", *records)
    written(tmp_path / "b.shard", *records)
    assert (tmp_path / "a.shard").read_bytes() == (tmp_path / "b.shard").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.shard", "b.shard"]


def test_no_damage_of_a_byte_or_end_goes_unseen(tmp_path):
    path = tmp_path / "a.shard"
    written(path, *({"text": f"number {index}", "sketch": sketch(index + 1)} for index in range(9)))
    whole = path.read_bytes()
    assert verify(path) == read_header(path)[0]
    padding = {place for place in range(len(whole)) if whole[place] == 0x20}  # after the header's JSON: also checked
    assert padding
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(DataError):
            verify(path)
    for size in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            verify(path)


def test_a_source_reads_across_shards_and_refuses_a_strange_one(tmp_path):
    checksums = []
    for number, first in enumerate((0, 3, 6)):
        records = [{"text": f"record {index}"} for index in range(first, min(first + 3, 8))]
        checksums.append(written(tmp_path / shard_name(number), *records, first=first).header["checksum"])
    index = TokenIndex(8, 3, "content", {}, 0, {}, checksums)
    source = TokenisedSource(tmp_path, index)
    assert [source[index]["text"] for index in (7, 0, 3, 2)] == ["record 7", "record 0", "record 3", "record 2"]
    with pytest.raises(IndexError):
        source[8]
    written(tmp_path / shard_name(1), {"text": "other"}, first=3)
    with pytest.raises(UserError, match="is not the shard that the folder's index names"):
        TokenisedSource(tmp_path, index)[4]


def test_thousands_of_shards_hold_no_file_open(tmp_path):
    from pathlib import Path

    shards = [written(tmp_path / f"{number}.shard", {"text": "x"}) for number in range(50)]
    held = [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(link.resolve())]
    assert len(shards) == 50
    assert not held
