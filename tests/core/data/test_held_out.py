"""Which records are held out: by their content alone, for ever, from files and from shards alike."""

from __future__ import annotations

import base64
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recipe import Characters, Plugins, made_recipe

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "benchmarks"))

from token_world import FINGERPRINTS, KINDS, Text, tokenise  # noqa: E402

from mio.core.contract.values import Codes, Media, MemoryFile  # noqa: E402
from mio.core.data.hashing import FileHashes  # noqa: E402
from mio.core.data.held_out import KEYS, HeldOut, record_key  # noqa: E402
from mio.core.data.loader import MioDataModule  # noqa: E402
from mio.core.data.readers import open_reader  # noqa: E402
from mio.core.data.shards.store import TokenStore  # noqa: E402
from mio.core.data.streams import HELD_OUT  # noqa: E402
from mio.core.errors import DataError  # noqa: E402
from mio.core.recipe.data_schema import SourceConfig  # noqa: E402

NOTHING = FileHashes(None)
READER, PICTURES = "jsonl", 40


def key(record, *by):
    return record_key(record, by, NOTHING)


def written(folder, rows, name="captions.jsonl"):
    folder.mkdir(exist_ok=True)
    draw = random.Random(0)
    for index in range(PICTURES):
        content = draw.randbytes(300)
        if not (folder / f"{index}.png").exists():
            (folder / f"{index}.png").write_bytes(content)
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return {"path": str(folder / name)}


def row(index):
    return {"image": f"{index}.png", "caption": f"picture {index}"}


def sides(options, share):
    """Captions of the records held out and of the others."""
    source = open_reader(READER, "train", options, KINDS)
    held_out = HeldOut(share, (), NOTHING)
    found = {True: set(), False: set()}
    for index in range(len(source)):
        found[held_out(index, source[index])].add(source[index]["caption"])
    return found[True], found[False]


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(max_size=8), unique=True, min_size=2, max_size=60),
    more=st.lists(st.text(max_size=8), max_size=30),
    share=st.floats(0.05, 0.9),
    larger=st.floats(0, 0.5),
    data=st.data(),
)
def test_growth_order_and_repetition_move_no_record(texts, more, share, larger, data):
    """Over any sequence of records, the sides of those that were there stay what they were, whatever comes to them."""

    def split(records, share):
        held_out = HeldOut(share, (), NOTHING)
        return {text for index, text in enumerate(records) if held_out(index, {"text": text})}

    before = split(texts, share)
    after = split(data.draw(st.permutations(texts + more + texts[:3])), share)
    assert after & set(texts) == before
    assert before <= split(texts, share + larger * (1 - share))


def test_the_share_is_met_and_keys_are_spread_evenly():
    keys = [key({"text": f"record {index}"}) for index in range(20_000)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= one < KEYS for one in keys)
    for share in (0.01, 0.3):
        held_out = sum(one < share * KEYS for one in keys)
        assert abs(held_out - share * 20_000) < 5 * (share * (1 - share) * 20_000) ** 0.5


def test_files_that_grow_are_sorted_split_copied_and_touched_move_no_record(tmp_path):
    rows = [row(index) for index in range(PICTURES)]
    held, trained = sides(written(tmp_path / "a", rows[:30]), 0.3)
    assert held
    assert trained
    for name, some in (("grown", rows), ("sorted", rows[::-1]), ("first", rows[:15]), ("second", rows[15:])):
        other, others = sides(written(tmp_path / name, some), 0.3)
        assert not other & trained
        assert not others & held
    for path in (tmp_path / "a").iterdir():
        os.utime(path, (1, 1))
    (tmp_path / "a").rename(tmp_path / "moved")
    assert sides({"path": str(tmp_path / "moved/captions.jsonl")}, 0.3) == (held, trained)


def test_records_about_the_same_media_are_on_one_side(tmp_path):
    (tmp_path / "copy.png").write_bytes(b"same")
    (tmp_path / "0.png").write_bytes(b"same")
    options = written(
        tmp_path, [row(0), {**row(0), "caption": "another"}, {"image": "copy.png", "caption": "a copy"}, row(1)]
    )
    source = open_reader(READER, "train", options, KINDS)
    keys = [key(source[index]) for index in range(4)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    (tmp_path / "0.png").write_bytes(b"changed")
    assert key(open_reader(READER, "train", options, KINDS)[0]) != keys[0]


def test_a_file_and_its_bytes_in_a_table_have_one_key(tmp_path):
    options = written(tmp_path, [row(3)])
    content = (tmp_path / "3.png").read_bytes()
    address = "data:image/png;base64," + base64.b64encode(content).decode()
    other = written(tmp_path, [{"image": address, "caption": "elsewhere"}], "bytes.jsonl")
    in_file, in_table = (open_reader(READER, "train", one, KINDS)[0] for one in (options, other))
    assert isinstance(in_table["image"].data, MemoryFile)
    assert key(in_file) == key(in_table)


def test_a_key_is_made_of_media_or_texts_or_the_fields_that_are_named():
    cat, dog = (Media("image", None, key=name) for name in ("cat", "dog"))
    assert key({"image": cat, "a": "x"}) == key({"a": "y", "image": cat}) != key({"image": dog, "a": "x"})
    assert key({"image": [cat, dog]}) != key({"image": [dog, cat]})
    assert key({"a": "x", "b": "y"}) == key({"b": "y", "a": "x"}) != key({"a": "y", "b": "x"})
    assert key({"a": ["x", "y"]}) != key({"a": ["xy"]})
    assert key({"a": "x", "b": None}) == key({"a": "x"})
    talk = {"messages": [{"role": "user", "content": [cat, "what?"]}, {"role": "assistant", "content": ["a cat"]}]}
    assert key(talk) == key({"image": cat})
    codes = Codes("image", [[1, 2]])
    assert key({"image": codes, "a": "x"}) == key({"image": codes}) != key({"image": Codes("image", [[1], [2]])})
    arrays = [np.array([1.0]), np.array([2.0]), np.array([1.0], np.float32), np.array([[1.0]])]
    assert len({key({"target": one}) for one in arrays}) == len(arrays)
    assert key({"target": arrays[0]}) == key({"target": np.array([1.0, 5.0])[:1]})
    by_speaker = [
        key({"speaker": name, "text": text}, "speaker") for name, text in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    assert by_speaker[0] == by_speaker[1] != by_speaker[2]
    assert key({"speaker": "a", "image": cat}, "speaker", "image") != key(
        {"speaker": "a", "image": dog}, "speaker", "image"
    )
    with pytest.raises(DataError, match="has no field `speaker`, by which `held_out_by` holds records out"):
        key({"text": "x"}, "speaker")


def test_shards_hold_the_keys_of_what_was_tokenised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row(index) for index in range(25)]
    rows[7]["image"] = "gone.png"  # its caption can be used
    options = written(tmp_path / "data", rows)
    tokenise(tmp_path / "tokens", READER, options, 10)
    raw = open_reader(READER, "train", options, KINDS)
    config = SourceConfig(READER, options=options)
    shards = TokenStore(tmp_path / "tokens", FINGERPRINTS, Text.fingerprint).find("group/source", config, raw)
    assert [shards.key(index) for index in range(25)] == [key(raw[index]) for index in range(25)]


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_held_out_records_are_in_no_row_and_counted(unit):
    recipe = made_recipe(unit=unit, steps=40, held_out=0.2)
    module = MioDataModule(recipe, Plugins(), Characters())
    plan, seen = module._plan(), {}
    for _ in range(recipe.train.steps * recipe.train.rows):
        for entry in plan.next_row():
            seen.setdefault(entry.stream, set()).add(module.streams[entry.stream].order(entry.n))
    for number, stream in enumerate(module.streams):
        keys = {record: key(stream.source[record]) for record in range(len(stream))}
        trained = {record for record, one in keys.items() if one >= 0.2 * KEYS}
        if stream.share.group == "pairs":
            assert seen[number] == trained != set(keys)
            assert plan.counts[number].skipped[HELD_OUT] >= len(keys) - len(trained)
        else:
            assert seen[number] == set(keys)
    assert not plan.examples
    report = module.preflight()["pairs/letters"]
    assert report["skipped"] == {HELD_OUT: 2 * sum(one < 0.2 * KEYS for one in keys_of(module))}


def keys_of(module):
    source = module.streams[0].source
    return [key(source[index]) for index in range(len(source))]


def test_the_share_is_part_of_what_a_run_goes_on_with():
    def cursor(**sources):
        return MioDataModule(made_recipe(**sources), Plugins(), Characters())

    for other in ({}, {"held_out": 0.3}, {"held_out": 0.2, "held_out_by": ["number"]}):
        with pytest.raises(DataError, match="`pairs/letters/read` has another content"):
            cursor(**other).load_state_dict(cursor(held_out=0.2).state_dict())
    # a split that validates changes no row
    cursor(validation_split="test").load_state_dict(cursor().state_dict())


def test_a_source_of_which_nothing_is_left_to_train_on_is_an_error():
    with pytest.raises(DataError, match=r"none of 50 records checked is left: held out \(100\); lower the share"):
        MioDataModule(made_recipe(held_out=0.9999999), Plugins(), Characters()).preflight()
