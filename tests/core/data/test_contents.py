"""Fingerprints of sources follow every byte of their content, and tell which files changed."""

from __future__ import annotations

import json
import os

import pytest

from mio.core.contract.values import Modality
from mio.core.data import contents
from mio.core.data.contents import FileList, SourceContent
from mio.core.data.hashing import FileHashes
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds

KINDS = Kinds(
    {
        "text": Modality(name="text", text=True),
        "image": Modality(name="image", codebooks=(8,), begin="<i>", end="</i>"),
    },
    lambda: {"image": (".png",)},
)


@pytest.fixture
def captions(tmp_path, monkeypatch):
    """Twenty pictures named by lines of all forms, one of which names a picture that is not there."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for index in range(20):
        (tmp_path / f"{index}.png").write_bytes(bytes([index]) * 100)
        part = {"type": "image", "image": f"{index}.png"}
        forms = [{"image": f"{index}.png", "caption": "red"}, {"parts": ["red", part]}, {"image": [f"{index}.png"]}]
        forms.append({"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "red"}]})
        rows.append(forms[index % 4])
    rows[8]["image"] = "gone.png"
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def content_of(reader="jsonl", hashes=None, **options):
    return SourceContent(
        open_reader(reader, "train", options or {"path": "captions.jsonl"}, KINDS), hashes or FileHashes(None)
    )


def digests(content, size=5):
    return [content.digest(start, start + size) for start in range(0, 20, size)]


def test_media_that_records_name_are_part_of_a_fingerprint(captions):
    hashes = FileHashes(captions / "hashes")
    before = content_of(hashes=hashes)
    ranges = digests(before)
    pictures = [name for name, _, _, _ in before.files.entries if name.endswith(".png")]
    assert set(pictures) == {f"{index}.png" for index in range(20) if index != 8} | {"gone.png"}
    for index in (0, 5, 10, 15):
        path = captions / f"{index}.png"
        state = path.stat()
        path.write_bytes(bytes([index + 100]) * 100)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        now = content_of(hashes=hashes)
        assert now.fingerprint != before.fingerprint
        assert before.files.changes(now.files) == [f"{index}.png"]
        assert [at for at, (old, new) in enumerate(zip(ranges, digests(now), strict=True)) if old != new] == [
            index // 5
        ]
        before, ranges = now, digests(now)
    (captions / "gone.png").write_bytes(b"here now")
    now = content_of(hashes=hashes)
    assert before.files.changes(now.files) == ["gone.png"]
    (captions / "3.png").unlink()
    assert now.files.changes(content_of(hashes=hashes).files) == ["3.png (missing)"]


def test_a_folder_that_moves_as_a_whole_keeps_its_fingerprint(captions, monkeypatch):
    fingerprint, ranges = content_of().fingerprint, digests(content_of())
    captions.rename(captions.with_name("elsewhere"))
    monkeypatch.chdir(captions.parent)
    assert content_of(path="elsewhere/captions.jsonl").fingerprint == fingerprint
    assert digests(content_of(path="elsewhere/captions.jsonl")) == ranges


def test_which_media_records_name_is_found_once(captions, monkeypatch):
    hashes = FileHashes(captions / "hashes")
    found = content_of(hashes=hashes).fingerprint
    monkeypatch.setattr(contents, "files_named", None)  # reading records would fail
    assert content_of(hashes=hashes).fingerprint == found
    with (captions / "captions.jsonl").open("a") as file:
        file.write("\n{}")
    with pytest.raises(TypeError):
        _ = content_of(hashes=hashes).fingerprint


def test_blocks_of_records_change_nothing(captions, monkeypatch):  # noqa: ARG001
    whole = content_of()
    monkeypatch.setattr(contents, "BLOCK", 3)
    cut = content_of()
    assert digests(cut) == digests(whole)
    assert cut.files.entries == whole.files.entries


def test_a_folder_without_a_table_is_told_by_names_and_bytes(captions):
    options = {"reader": "folder", "path": "."}
    before = content_of(**options)
    (captions / "3.png").rename(captions / "30.png")
    renamed = content_of(**options)
    assert renamed.fingerprint != before.fingerprint
    (captions / "7.png").write_bytes(b"other")
    assert renamed.files.changes(content_of(**options).files) == ["7.png"]


def test_plugins_have_their_own_word(captions):  # noqa: ARG001
    class Shipped(list):
        fingerprint = "v1"

    assert SourceContent(Shipped([1]), FileHashes(None)).fingerprint == "v1"
    assert SourceContent([1], FileHashes(None)).fingerprint == ""
    assert SourceContent([1], FileHashes(None)).digest(0, 1) != SourceContent([1, 2], FileHashes(None)).digest(0, 1)


def test_of_many_files_several_share_an_entry(monkeypatch):
    monkeypatch.setattr(contents, "NAMED", 8)
    lists = []
    for other in (None, 37):
        files = FileList()
        for index in range(50):
            files.add(f"{index}", f"{index}{'x' * (index == other)}")
        assert len(files.entries) <= 8
        assert sum(entry[2] for entry in files.entries) == 50
        lists.append(FileList.from_json(json.loads(json.dumps(files.to_json()))))
    assert lists[0].changes(lists[1]) == ["one of the 8 files from 32 to 39"]
    assert not lists[0].changes(lists[0])


def test_nothing_is_remembered_of_files_that_change_while_they_are_read(captions):
    """What was read after the change must not pass for what the files held before, once they are set back."""
    hashes = FileHashes(captions / "hashes")
    table = captions / "captions.jsonl"
    whole = table.read_text()
    right = digests(content_of())
    disturbed = content_of(hashes=hashes)
    assert disturbed.fingerprint
    table.write_text(whole.replace("red", "tan"))
    assert digests(disturbed) != right
    table.write_text(whole)
    assert digests(content_of(hashes=hashes)) == right


def test_files_that_changed_places_or_names_are_told_by_their_names():
    before = FileList([("a", "a", 1, "1"), ("b", "b", 1, "2"), ("c", "c", 1, "3")])
    assert before.changes(FileList([("b", "b", 1, "2"), ("a", "a", 1, "4"), ("c", "c", 1, "3")])) == ["a"]
    renamed = FileList([("a", "a", 1, "1"), ("x", "x", 1, "2"), ("c", "c", 1, "3")])
    assert before.changes(renamed) == ["x (new)", "b (no longer read)"]
    moved = FileList([(f"else/{name}", f"else/{name}", 1, digest) for name, digest in zip("abc", "143", strict=True)])
    assert before.changes(moved) == ["else/b"]
