"""What an edit of a source, or damage of its shards, does to the shards; with codes that are made of a file's bytes."""

from __future__ import annotations

import json
import os
import random
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[4]
sys.path.append(str(ROOT / "benchmarks"))

from replay_kinds import damaged_tokens, stale_data  # noqa: E402
from replays import judge  # noqa: E402
from token_world import (  # noqa: E402
    FINGERPRINTS,
    Images,
    Text,
    Tokenizers,
    codes_of,
    job_of,
    read,
    shards_of,
    tokenise,
    worker,
)

from mio.core.contract.values import Media  # noqa: E402
from mio.core.data import hashing  # noqa: E402
from mio.core.data.hashing import FileHashes  # noqa: E402
from mio.core.data.shards.encode import ShardEncoder  # noqa: E402
from mio.core.data.shards.store import HASHES, TokenStore  # noqa: E402
from mio.core.data.shards.work import claim, finish  # noqa: E402
from mio.core.errors import DataError, PluginError, UserError  # noqa: E402
from mio.core.files import locked  # noqa: E402

TOKENS, READER, OPTIONS = Path("tokens"), "jsonl", {"path": "captions.jsonl"}


@pytest.fixture
def captions(tmp_path, monkeypatch):
    """Thirty pictures with captions."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(draw.randbytes(500))
    write(tmp_path, [f"red {index}" for index in range(30)])
    return tmp_path


def write(folder, texts):
    rows = [json.dumps({"image": f"{index}.png", "caption": text}) for index, text in enumerate(texts)]
    (folder / "captions.jsonl").write_text("\n".join(rows))


def rebuilt(size=10):
    """Shards that are made again; they are then those of a folder that was not there before."""
    folder, made = tokenise(TOKENS, READER, OPTIONS, size)
    fresh, _ = tokenise(Path(f"fresh{len(list(Path().glob('fresh*')))}"), READER, OPTIONS, size)
    assert shards_of(folder) == shards_of(fresh)
    return {int(name.split(".")[0]) for name in made}


def test_an_edit_costs_the_shards_that_it_touches(captions):
    assert rebuilt() == {0, 1, 2}
    assert rebuilt() == set()
    lines = (captions / "captions.jsonl").read_text()
    (captions / "captions.jsonl").write_text(lines.replace("red 15", "tan 15"))
    with pytest.raises(DataError, match=r"has changed since it was tokenised \(captions\.jsonl\); give `mio tokenize`"):
        read(TOKENS, READER, OPTIONS)
    assert rebuilt() == {1}
    picture = captions / "3.png"
    state = picture.stat()
    picture.write_bytes(picture.read_bytes()[::-1])
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DataError, match=r"has changed since it was tokenised \(3\.png\)"):
        read(TOKENS, READER, OPTIONS)
    assert rebuilt() == {0}
    assert read(TOKENS, READER, OPTIONS)[3]["image"] == codes_of(picture.read_bytes())
    write(captions, [f"red {index}" for index in range(34)])  # the last four have no picture
    assert rebuilt() == {1, 3}
    write(captions, [f"red {index}" for index in range(12)])
    assert rebuilt() == {1}
    assert len(read(TOKENS, READER, OPTIONS)) == 12


def test_a_picture_that_is_gone_or_comes_is_a_change(captions):
    tokenise(TOKENS, READER, OPTIONS, 10)
    content = (captions / "25.png").read_bytes()
    (captions / "25.png").unlink()
    with pytest.raises(DataError, match=r"\(25\.png \(missing\)\)"):
        read(TOKENS, READER, OPTIONS)
    assert rebuilt() == {2}
    (captions / "25.png").write_bytes(content)
    with pytest.raises(DataError, match=r"\(25\.png\)"):
        read(TOKENS, READER, OPTIONS)
    assert rebuilt() == {2}


def test_a_source_that_is_edited_while_it_is_tokenised_is_not_complete(captions):
    job = job_of(TOKENS, READER, OPTIONS, 10)
    claim(job)
    worker().run(job, 0, 1, lambda: None, lambda _: None)
    whole = (captions / "captions.jsonl").read_text()
    (captions / "captions.jsonl").write_text(whole.replace("red 5", "tan 5"))
    with pytest.raises(DataError, match="its files were changed while they were tokenised"):
        finish(job, 3)
    with pytest.raises(LookupError):
        read(TOKENS, READER, OPTIONS)
    (captions / "captions.jsonl").write_text(whole)
    assert rebuilt() == set()


def test_shards_are_checked_once_when_they_are_first_read(captions, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(hashing, "_FINE", -(10**18))
    folder, _ = tokenise(TOKENS, READER, OPTIONS, 10)
    read(TOKENS, READER, OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("mio.core.data.shards.format.xxhash", None)  # hashing would fail
        store = TokenStore(TOKENS, FINGERPRINTS, Text.fingerprint)
        found = store.find("group/source", job_of(TOKENS, READER, OPTIONS, 10).source.config, None)
        assert len([found[index] for index in range(30)]) == 30
    shard = folder / "000001.shard"
    content = bytearray(shard.read_bytes())
    content[-70] ^= 1
    state = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UserError, match=r"000001\.shard: its content is damaged; give `mio tokenize` again") as caught:
        read(TOKENS, READER, OPTIONS)
    assert not isinstance(caught.value, DataError)  # which would cost its records, up to `data.max_skipped`


def test_shards_of_another_source_are_refused(captions):
    one, _ = tokenise(TOKENS, READER, OPTIONS, 10)
    (captions / "other.jsonl").write_text((captions / "captions.jsonl").read_text())
    other, _ = tokenise(TOKENS, READER, {"path": "other.jsonl"}, 10)
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    with pytest.raises(DataError, match=r"index\.json is of another source"):
        read(TOKENS, READER, OPTIONS, raw=False)


def test_media_of_any_kind_can_be_compared_with_what_is_decoded_of_them():
    """Plugins' media may be objects, tuples of them, or arrays whose elements are objects."""

    class Mesh:
        def __array__(self, *_, **__):
            raise RuntimeError("is no array")

    class Meshes(Tokenizers):
        decoded: object = None

        def decode(self, modality, codes):  # noqa: ARG002
            return self.decoded

        def tokenizer(self, modality):  # noqa: ARG002
            class Any(Images):
                def encode(self, media):
                    return [np.array([codes_of(b"any")]) for _ in media]

            return Any()

        def originals(self, media):
            return [one.data for one in media]

    made = [Mesh(), (), (Mesh(), 1), np.array([{}, None], dtype=object), [[1], [1, 2]], "text", np.array(["a"]), 1j]
    for data in [*made, np.zeros(0), None]:
        codecs = Meshes()
        codecs.decoded = data
        encoder = ShardEncoder(codecs, FINGERPRINTS, lambda _: "")
        encoder.encode([lambda data=data: {"image": Media("image", data, key="k")}], 0, str, lambda: None)
        assert encoder.sample()["image"] == {"frames": 16, "kept": 1.0}, data
    codecs.decoded = np.array([1.0, 2.0, 2.0])
    encoder = ShardEncoder(codecs, FINGERPRINTS, lambda _: "")
    media = Media("image", (np.array([1, 2, 3]), 16_000), key="k")
    encoder.encode([lambda: {"image": media}], 0, str, lambda: None)
    assert encoder.sample()["image"]["snr_db"] == pytest.approx(10 * np.log10(14), abs=0.05)


def test_a_tokenizer_that_gives_another_number_of_codes_is_named():
    class Short(Tokenizers):
        def tokenizer(self, modality):  # noqa: ARG002
            class Silent(Images):
                def encode(self, media):  # noqa: ARG002
                    return []

            return Silent()

        def originals(self, media):
            return [one.data for one in media]

    encoder = ShardEncoder(Short(), FINGERPRINTS, lambda _: "")
    with pytest.raises(PluginError, match="the tokenizer of `image` gave 0 code arrays for 1 media"):
        encoder.encode([lambda: {"image": Media("image", b"", key="k")}], 0, str, lambda: None)


def test_partial_files_of_living_processes_stay(captions):  # noqa: ARG001
    folder, _ = tokenise(TOKENS, READER, OPTIONS, 10)
    host = os.uname().nodename
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    for process in (os.getpid(), child):
        (folder / f"000000.shard.{host}-{process}-abc.partial").write_bytes(b"")
    (folder / f"000000.shard.elsewhere-{child}-abc.partial").write_bytes(b"")
    tokenise(TOKENS, READER, OPTIONS, 10)
    left = {path.name for path in folder.glob("*.partial")}
    assert left == {f"000000.shard.{host}-{os.getpid()}-abc.partial", f"000000.shard.elsewhere-{child}-abc.partial"}


@pytest.mark.parametrize("kind", [stale_data, damaged_tokens])
def test_some_of_what_the_replays_try(kind, tmp_path, monkeypatch):
    """The whole of it is `benchmarks/replays.py`."""
    monkeypatch.setattr(hashing, "_FINE", -(10**18))
    made = kind.variants(tmp_path, random.Random(7))
    quick = (one for one in made if not one.name.startswith(("hub", "stream", "parquet", "arrow")))
    for variant in islice(quick, 4):
        assert judge(variant)[0] in ("right", "refused"), (variant.name, judge(variant))


def test_the_memory_of_hashes_may_be_locked(captions):
    """Another process at work on it delays nobody for ever, and a run goes on without it."""
    tokenise(TOKENS, READER, OPTIONS, 10)
    (captions / "tokens" / HASHES).chmod(0o400)
    with locked(captions / "tokens", "busy"):
        assert FileHashes(TOKENS / HASHES).of(["3.png"]) == FileHashes(None).of(["3.png"])
        assert len(read(TOKENS, READER, OPTIONS)) == 30
