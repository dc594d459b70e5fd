"""Codecs: what is loaded once, remembered by key, trained, saved and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mio import Codes, DataError, DataModule, Frames, Media, MemoryFile, Modality, PluginError, UserError
from mio.core.tokens import encoding
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenizer_files import FINGERPRINTS, save_record, tokenizer_record
from mio.core.tokens.tokenizer_training import train_tokenizers

TEXT = Modality(name="text", text=True)
TONES = Modality(name="tones", codebooks=(4, 4), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", views={"generate": (1,)})  # fmt: skip
REEL = Modality(name="reel", parts="tones", frames=Frames(minimum=1, maximum=9))


class Shift:
    """A tokenizer with one weight: codes are the numbers plus it."""

    def __init__(self):
        self.shift = 0
        self.encoded = []

    @property
    def fingerprint(self):
        return f"shift-{self.shift}"

    def encode(self, media):
        self.encoded += media
        return [np.stack([np.array(item) + self.shift, np.array(item)]) for item in media]

    def frames(self, media):
        return len(media)

    def fit(self, items, seed):
        self.shift = len(items) + seed
        return {"items": len(items)}

    def save_weights(self, folder):
        (folder / "shift.json").write_text(str(self.shift))

    def load(self, folder):
        self.shift = json.loads((folder / "shift.json").read_text())


class Back:
    """The detokenizer; has the tokenizer's weight where it was loaded."""

    shift = None

    def decode(self, codes):
        return [number for row in codes for number in row] if isinstance(codes, list) else codes[0].tolist()

    def save(self, media, stem):
        raise NotImplementedError

    def load(self, folder):
        self.shift = json.loads((folder / "shift.json").read_text())


class Splits:
    fingerprint = "splits"

    def split(self, media):
        return [Media("tones", part, f"{media.key}/{index}") for index, part in enumerate(media.data)]


class Bytes:
    fingerprint, size, specials = "bytes", 256, {}

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode()

    def token(self, index):
        return str(index)


def read(path):
    return json.loads(path.read_text())


class Plugins:
    """Makes a new tokenizer at every call, as plugins do."""

    def __init__(self, tones=TONES, **files):
        self.made = []
        self.tones, self.files = tones, files

    def modalities(self):
        return [("made", TEXT), ("made", self.tones), ("made", REEL)]

    def encoder(self, modality):  # noqa: ARG002
        return None

    def head(self, modality):  # noqa: ARG002
        return None

    def tokenizer(self, modality):
        self.made.append(modality)
        return {"text": Bytes, "tones": Shift, "reel": Splits}[modality]()

    def detokenizer(self, modality):
        return None if modality == "text" else Back()

    def datamodule(self, modality):
        return DataModule(read=read if modality == "tones" else None, **self.files)


def media(numbers, key="k"):
    return Media("tones", numbers, key)


@pytest.mark.parametrize("stored", [np.uint8, np.uint16, np.uint32, np.int32, np.int64])
def test_codes_are_int64_whatever_a_shard_or_a_tokenizer_gives(stored):
    codecs, grid = Codecs(Plugins()), np.array([[1, 2], [0, 3]], stored)
    codecs.tokenizer("tones").encode = lambda items: [grid for _ in items]
    whole = codecs.codes(media([1, 2]))
    assert (whole.dtype, whole.tolist()) == (np.int64, [[1, 2], [0, 3]])
    for item in (Codes("tones", grid), media([1, 2])):
        written = codecs.written(item)
        assert (written.dtype, written.tolist()) == (np.int64, [[0, 3]])


def test_a_tokenizer_is_made_once_and_an_item_encoded_once_by_its_key():
    plugins = Plugins()
    codecs = Codecs(plugins)
    first = codecs.codes(media([1, 2]))
    assert first.tolist() == [[1, 2], [1, 2]]
    assert codecs.codes(media([9, 9])) is first  # the same key means the same codes
    assert codecs.codes(media([3], "other")).tolist() == [[3], [3]]
    assert codecs.tokenizer("tones").encoded == [[1, 2], [3]]
    assert plugins.made == ["tones"]


def test_the_items_asked_for_longest_ago_are_forgotten_first():
    codecs = Codecs(Plugins(), remembered=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        codecs.codes(media([1], key))
    assert len(codecs.tokenizer("tones").encoded) == 4  # a, b, c, and b again


def test_trained_weights_are_saved_and_reach_another_process_and_the_detokenizer(tmp_path):
    codecs = Codecs(Plugins())
    before = codecs.codes(media([0])).tolist()
    assert codecs.trainable() == ["tones"]
    figures = train_tokenizers(codecs, ["tones"], {"tones": [media([0]), media([1], "b")]}, tmp_path, seed=1)
    assert figures == {"tones": {"items": 2}}
    assert before == [[0], [0]]
    assert codecs.codes(media([0])).tolist() == [[3], [0]]  # not the codes remembered from before
    other = Codecs(Plugins())
    other.load(tmp_path)
    assert other.codes(media([0])).tolist() == [[3], [0]]
    assert other.detokenizer("tones").shift == 3
    assert other.fingerprints() == {"text": "bytes", "tones": "shift-3"} == tokenizer_record(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_training_passes_over_files_that_cannot_be_read_and_needs_one_that_can(tmp_path):
    (tmp_path / "good.json").write_text("[1]")
    (tmp_path / "bad.json").write_text("[1")
    bad, gone = media(tmp_path / "bad.json", "bad"), media(tmp_path / "gone.json", "gone")
    codecs = Codecs(Plugins())
    figures = train_tokenizers(
        codecs, ["tones"], {"tones": [bad, media(tmp_path / "good.json"), gone]}, tmp_path / "weights", seed=0
    )
    assert figures == {"tones": {"items": 1}}
    for items in ({"tones": [bad, gone]}, {}):
        with pytest.raises(DataError, match="tokenizer of `tones` has to be trained, but the recipe's sources hold no"):
            train_tokenizers(Codecs(Plugins()), ["tones"], items, tmp_path / "none", seed=0)


def test_another_tokenizer_than_the_run_was_made_with_is_refused(tmp_path):
    train_tokenizers(Codecs(Plugins()), ["tones"], {"tones": [media([0])]}, tmp_path, seed=0)
    save_record(tmp_path, {"tones": "shift-7"})
    with pytest.raises(UserError, match="tokenizer of `tones` is shift-1, but the run was made with shift-7"):
        Codecs(Plugins()).load(tmp_path)


def test_files_of_a_tokenizer_that_changed_are_refused_for_media_too(tmp_path):
    train_tokenizers(Codecs(Plugins()), ["tones"], {"tones": [media([0])]}, tmp_path, seed=0)
    weights = tmp_path / "tones/shift.json"
    for content, problem in (("7", "is not what was trained"), (None, "is missing")):
        weights.unlink() if content is None else weights.write_text(content)
        codecs = Codecs(Plugins())
        codecs.attach(tmp_path)  # nothing is read yet
        for use in (codecs.tokenizer, codecs.detokenizer):
            with pytest.raises(DataError, match=rf"tones/shift\.json: {problem}"):
                use("tones")


def test_a_record_of_fingerprints_alone_is_believed_and_still_compared(tmp_path):
    """As earlier versions wrote it."""
    train_tokenizers(Codecs(Plugins()), ["tones"], {"tones": [media([0])]}, tmp_path, seed=0)
    (tmp_path / FINGERPRINTS).write_text('{"text": "bytes", "tones": "shift-1"}')
    Codecs(Plugins()).load(tmp_path)
    (tmp_path / "tones/shift.json").write_text("7")
    codecs = Codecs(Plugins())
    codecs.attach(tmp_path)
    with pytest.raises(UserError, match="tokenizer of `tones` is shift-7, but the run was made with shift-1"):
        codecs.detokenizer("tones")
    assert json.loads((tmp_path / FINGERPRINTS).read_text()) == {"text": "bytes", "tones": "shift-1"}


def test_the_fingerprint_of_a_tokenizer_that_is_not_in_use_is_kept(tmp_path):
    train_tokenizers(Codecs(Plugins()), ["tones"], {"tones": [media([0])]}, tmp_path, seed=0)
    save_record(tmp_path, {"gone": "gone-1"})
    Codecs(Plugins()).load(tmp_path)
    assert tokenizer_record(tmp_path)["gone"] == "gone-1"


@pytest.mark.parametrize(("file", "content"), [(FINGERPRINTS, "{"), ("tones/shift.json", "{")])
def test_damaged_weights_are_the_users_to_restore(tmp_path, file, content):
    train_tokenizers(Codecs(Plugins()), ["tones"], {"tones": [media([0])]}, tmp_path, seed=0)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match="restore"):
        Codecs(Plugins()).load(tmp_path)


def test_files_are_read_by_the_data_module_and_errors_name_them(tmp_path):
    (tmp_path / "a.json").write_text("[2, 1]")
    (tmp_path / "b.json").write_text("{")
    codecs = Codecs(Plugins())
    assert codecs.codes(media(tmp_path / "a.json")).tolist() == [[2, 1], [2, 1]]
    with pytest.raises(DataError, match=r"b\.json: cannot be read as tones"):
        codecs.codes(media(tmp_path / "b.json", "b"))
    with pytest.raises(DataError, match=r"c\.json: no such file"):
        codecs.codes(media(tmp_path / "c.json", "c"))
    with pytest.raises(PluginError, match="no plugin reads files of `reel`"):
        codecs.split(Media("reel", tmp_path / "a.json", "reel"))


def test_a_round_trip_goes_through_the_codebooks_that_are_written():
    codecs = Codecs(Plugins())
    codecs.tokenizer("tones").shift = 2
    reel = Media("reel", [[1], [2, 3]], "reel")
    assert codecs.round_trip([media([1, 0]), reel]) == [[1, 0], [1, 2, 3]]


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (DataError("no such tone"), DataError, "codes of `tones` that cannot be decoded: no such tone"),
        (UserError("no weights"), UserError, "no weights"),
        (ValueError("odd"), ValueError, "odd"),
    ],
)
def test_errors_of_detokenizers_name_the_modality_and_defects_stay_defects(error, expected, words):
    codecs = Codecs(Plugins())

    def fail(codes):  # noqa: ARG001
        raise error

    codecs.detokenizer("tones").decode = fail
    with pytest.raises(expected) as caught:
        codecs.decode("tones", np.zeros((2, 1), int))
    assert str(caught.value) == words
    assert type(caught.value) is expected
    notes = getattr(caught.value, "__notes__", [])
    assert notes == (["raised by the detokenizer of `tones`"] if expected is ValueError else [])


def test_items_are_found_wherever_they_are_and_parts_count_one_by_one():
    codecs = Codecs(Plugins())
    codes = Codes("tones", np.zeros((2, 1), int))
    record = {"a": "text", "b": [media([1]), {"c": codes}], "d": Media("reel", [[1], [2]], "reel"), "e": 3}
    found = codecs.items(record)
    assert [item.key if isinstance(item, Media) else "codes" for item in found] == ["k", "codes", "reel/0", "reel/1"]


def test_what_nobody_supplies_is_said():
    codecs = Codecs(Plugins())
    with pytest.raises(PluginError, match="no plugin supplies a detokenizer for `text`"):
        codecs.detokenizer("text")
    del codecs.modalities["text"]
    with pytest.raises(PluginError, match="no plugin of the recipe declares `text`"):
        _ = codecs.text


def test_frames_are_foretold_by_declaration_data_or_header_and_nothing_is_encoded(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]")
    codecs = Codecs(Plugins())
    assert [codecs.frames(one) for one in (media([1, 2]), media(path, "file"))] == [2, 3]
    path.unlink()
    assert codecs.frames(media(path, "file")) == 3  # remembered by its key
    probing = Codecs(Plugins(probe=lambda file: range(int(file.name[0]))))
    (tmp_path / "5.json").write_text("x")
    assert probing.frames(media(tmp_path / "5.json", "five")) == 5
    fixed = Modality(name="tones", codebooks=(4, 4), begin="<t>", end="</t>", code_token="<t{}>",
                     frames=Frames(minimum=7, maximum=7))  # fmt: skip
    plugins = Plugins(fixed)
    assert Codecs(plugins).frames(media(tmp_path / "none.json")) == 7
    assert plugins.made == []
    assert codecs.tokenizer("tones").encoded == []


def test_items_are_learnt_together_once_each_and_one_that_fails_costs_no_other(tmp_path):
    (tmp_path / "bad.json").write_text("[")
    codecs, calls = Codecs(Plugins()), []
    tokenizer = codecs.tokenizer("tones")

    def encode(items):
        calls.append(len(items))
        if [9] in items:
            raise DataError("nine")
        return [np.array([item, item]) for item in items]

    tokenizer.encode = encode
    items = [media([1], "a"), media([2], "b"), media([1], "a"), media(tmp_path / "bad.json", "bad")]
    failed = codecs.learn(items)
    assert list(failed) == ["tones:bad"]
    assert "bad.json: cannot be read as tones" in str(failed["tones:bad"])
    assert calls == [2]
    assert codecs.learn(items[:3]) == {}
    assert calls == [2]
    failed = codecs.learn([media([3], "c"), media([9], "nine"), media([4], "d")])
    assert {name: str(error) for name, error in failed.items()} == {"tones:nine": "nine"}
    assert calls == [2, 3, 1, 1, 1]
    assert [codecs.codes(media(None, key)).tolist() for key in "abcd"] == [[[n], [n]] for n in (1, 2, 3, 4)]
    codecs.learn([media([n % 4], str(n)) for n in range(150)])
    assert calls[5:] == [64, 64, 22]


def test_other_errors_than_of_data_are_defects_and_other_frames_than_foretold_mistakes():
    codecs = Codecs(Plugins())
    codecs.tokenizer("tones").encode = lambda items: [np.array([item * 2] * 2) for item in items]
    [error] = codecs.learn([media([1], "a")]).values()
    assert isinstance(error, PluginError)
    assert "which plugin `made` declares, gave 2 frames for a, of which its `frames` had said 1" in str(error)

    def broken(items):  # noqa: ARG001
        raise RuntimeError("out of memory")

    codecs.tokenizer("tones").encode = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        codecs.learn([media([1], "b")])


def test_a_file_in_memory_is_a_file_on_a_disk_for_plugins_that_read_paths_alone():
    content = MemoryFile(b"[1, 2]", ".json")
    seen = []

    def reading(file):
        seen.append(file)
        return json.loads(file.read_text())

    for in_memory in (False, True):
        module = DataModule(read=reading, in_memory=in_memory)
        opened = encoding.opened(media(content), module, module.read)
        assert opened.data == [1, 2]
    assert isinstance(seen[0], Path)
    assert seen[0].suffix == ".json"
    assert seen[1] is content
    assert content.open().read() == content.read_bytes() == b"[1, 2]"
    with pytest.raises(ValueError, match="`rb` alone"):
        content.open("w")
    with pytest.raises(DataError, match="media given as bytes: cannot be read as tones"):
        encoding.opened(media(MemoryFile(b"[")), module, module.read)


def test_a_file_is_checked_once_and_one_that_is_gone_is_no_damage(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    codecs = Codecs(Plugins())
    codecs.check_readable(media(path))
    encoding.check_present(media(path))
    path.unlink()
    codecs.check_readable(media(path))  # remembered
    for gone in (path, tmp_path):
        with pytest.raises(DataError, match=r"cannot be read any more \(.*\); when it is back"):
            encoding.check_present(media(gone))
    encoding.check_present(media([1]))


def test_where_a_tokenizer_encodes_is_its_own_word():
    codecs = Codecs(Plugins())
    assert codecs.elsewhere == set()
    for device, elsewhere in (("cpu", set()), ("cuda:1", {"tones"})):
        codecs = Codecs(Plugins())
        codecs.tokenizer("tones").device = device
        assert codecs.elsewhere == elsewhere
