"""Hashes of files: right for every byte, remembered for as long as nothing changed, whatever became of the memory."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest
import xxhash

from mio.core.data import hashing
from mio.core.data.hashing import MISSING, NO_FILE, FileHashes, State


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: these tests leave no second between a change and its reading."""
    monkeypatch.setattr(hashing, "_FINE", -(10**18))


def test_a_hash_is_that_of_all_bytes(tmp_path):
    contents = [b"", b"a", bytes(range(256)) * 20_000]
    for index, content in enumerate(contents):
        (tmp_path / f"{index}").write_bytes(content)
    paths = [tmp_path / f"{index}" for index in (0, 1, 2, 1)]
    found = FileHashes(tmp_path / "hashes").of(paths)
    assert found == [xxhash.xxh3_128_hexdigest(contents[index]) for index in (0, 1, 2, 1)]


def test_what_has_not_changed_is_not_read_again(tmp_path, settled):  # noqa: ARG001
    path = tmp_path / "file"
    path.write_bytes(b"red" * 1000)
    memory = tmp_path / "memory" / "hashes.sqlite"
    first = FileHashes(memory)
    [found] = first.of([path])
    assert first.hashed == 3000
    second = FileHashes(memory)
    assert second.of([path]) == [found]
    assert second.hashed == 0


@pytest.mark.parametrize("change", ["in place", "replaced", "times set back", "longer"])
def test_any_change_is_seen(tmp_path, settled, change):  # noqa: ARG001
    path = tmp_path / "file"
    path.write_bytes(b"red")
    before = path.stat()
    hashes = FileHashes(tmp_path / "hashes")
    [found] = hashes.of([path])
    if change == "replaced":
        (tmp_path / "other").write_bytes(b"tan")
        (tmp_path / "other").replace(path)
    else:
        with path.open("r+b") as file:
            file.write(b"tan" if change != "longer" else b"redder")
    if change != "in place":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashes.of([path]) == [xxhash.xxh3_128_hexdigest(path.read_bytes())] != [found]


def test_a_file_that_changed_just_before_it_was_read_is_read_again(tmp_path):
    state = State(size=3, modified=0, changed=10**18 + 5, inode=1)
    assert not state.settled(10**18 + 6)
    assert state.settled(10**18 + 2 * 10**8)
    assert not state._replace(changed=10**18).settled(10**18 + 10**9)  # a file system that keeps whole seconds
    path = tmp_path / "file"
    path.write_bytes(b"red")
    hashes = FileHashes(tmp_path / "hashes")
    hashes.of([path])
    hashes.of([path])
    assert hashes.hashed == 6


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + bytes(500), None])
def test_a_damaged_memory_is_made_again(tmp_path, settled, damage):  # noqa: ARG001
    path, memory = tmp_path / "file", tmp_path / "hashes"
    path.write_bytes(b"red")
    FileHashes(memory).of([path])
    if damage is None:
        memory.unlink()
        with sqlite3.connect(memory) as foreign:
            foreign.execute("CREATE TABLE files (other TEXT)")
        foreign.close()
    else:
        memory.write_bytes(damage)
    assert FileHashes(memory).of([path]) == [xxhash.xxh3_128_hexdigest(b"red")]
    third = FileHashes(memory)
    assert third.of([path]) == [xxhash.xxh3_128_hexdigest(b"red")]
    assert third.hashed == 0


def test_an_entry_that_was_changed_counts_as_none(tmp_path, settled):  # noqa: ARG001
    path, memory = tmp_path / "file", tmp_path / "hashes"
    path.write_bytes(b"red")
    hashes = FileHashes(memory)
    right = hashes.of([path])
    hashes.keep("name", b"value")
    with sqlite3.connect(memory) as connection:
        connection.execute("UPDATE files SET value = ?", ("0" * 32,))
        connection.execute("UPDATE notes SET value = ?", (b"other",))
    connection.close()
    assert FileHashes(memory).of([path]) == right
    assert FileHashes(memory).noted("name") is None


def test_where_nothing_can_be_remembered_files_are_hashed_all_the_same(tmp_path):
    (tmp_path / "file").write_bytes(b"red")
    (tmp_path / "folder").mkdir()
    for memory in (None, tmp_path / "folder", tmp_path / "file" / "below"):
        assert FileHashes(memory).of([tmp_path / "file"]) == [xxhash.xxh3_128_hexdigest(b"red")]
    assert (tmp_path / "folder").is_dir()


def test_what_is_no_file_has_a_word_in_its_place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_bytes(b"red")
    hashes = FileHashes(None)
    assert hashes.of([tmp_path / "pipe", tmp_path / "link", tmp_path / "a\0b"]) == [NO_FILE, MISSING, MISSING]
    before = hashes.of([tmp_path / "folder"])
    (tmp_path / "folder" / "inside").write_bytes(b"tan")
    assert hashes.of([tmp_path / "folder"]) != before


def test_many_files_are_hashed_by_threads_and_asked_for_together(tmp_path, settled):  # noqa: ARG001
    draw = np.random.default_rng(0)
    contents = {tmp_path / f"{index}": draw.bytes(int(draw.integers(0, 50))) for index in range(1200)}
    for path, content in contents.items():
        path.write_bytes(content)
    right = [xxhash.xxh3_128_hexdigest(content) for content in contents.values()]
    assert FileHashes(tmp_path / "hashes").of(contents) == right
    again = FileHashes(tmp_path / "hashes")
    assert again.of(contents) == right
    assert again.hashed == 0
