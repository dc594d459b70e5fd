"""Media that encoders read, in shards: as they were given, and the batches of the sources themselves."""

import io
import json
from pathlib import Path

import beads
import numpy as np
import pytest
import torch
from rich.console import Console

from mio import Codes, Media
from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import MemoryFile
from mio.core.data.shards.kept import pack, unpack
from mio.core.errors import DataError
from mio.core.stages.tokenize import tokenize
from mio.core.tokens.tokenised import CodedMedia

GRID = np.arange(12, dtype=">i2").reshape(3, 4)


@pytest.mark.parametrize(
    "data",
    [
        Path("/a/b \udcff.png"),
        MemoryFile(b"\n\0\xff", ".png"),
        GRID,
        GRID.T[::2],
        np.float32(0.25),
        np.zeros((0, 3), bool),
        np.array(7.5),
        (GRID, 16000),
        [GRID, [GRID, None, True, "a\n", 0.1]],
        (1, 2, 3),
    ],
)
def test_media_come_back_as_they_were(data):
    media = Media("sketch", data, "a key\n", "läbel")
    back = unpack("sketch", pack(media))
    assert (back.modality, back.key, back.label) == ("sketch", "a key\n", "läbel")
    alike(back.data, data)
    assert np.array_equal(pack(back), pack(media))


def alike(found, data):
    assert type(found) is type(data)
    if isinstance(data, list | tuple):
        assert len(found) == len(data)
        for pair in zip(found, data, strict=True):
            alike(*pair)
    elif isinstance(data, np.ndarray):
        assert found.shape == data.shape
        assert found.dtype.name == data.dtype.name
        assert found.dtype.isnative
        assert np.array_equal(found, data)
    else:
        assert found == data


def test_what_cannot_be_kept_is_told():
    for data, kind in ((object(), "object"), ([{1}], "set"), (np.array(["a"]), "ndarray")):
        with pytest.raises(DataError, match=f"k: media of `sketch` cannot be kept in a shard: they hold a {kind}"):
            pack(Media("sketch", data, "k"))


def tokenise(*overrides):
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    tokenize(["beads.yaml"], list(overrides), PluginManager.discover(), shard_records=10, console=console)
    return printed.getvalue()


def same(batch, other):
    assert torch.equal(batch.tokens, other.tokens)
    assert torch.equal(batch.weights, other.weights)
    assert batch.digests == other.digests
    assert batch.items.keys() == other.items.keys()
    for name, one in batch.items.items():
        assert one.dummy == other.items[name].dummy
        assert torch.equal(one.places, other.items[name].places)
        for array, own in one.input.arrays.items():
            assert torch.equal(own, other.items[name].input.arrays[array])
    return True


def test_training_on_shards_sees_the_batches_of_the_sources(beads_world):
    held_out = "data.held_out=0.2"
    printed = tokenise(held_out)
    assert "failed" not in printed
    raw, _ = beads.opened(held_out)
    shards, _ = beads.opened(held_out, tokenised=True)
    assert shards.tokenised == ["beads/lines", "strings/lines", "melody/tunes"]
    found = [data.preflight() for data in (raw, shards)]
    for label, report in found[0].items():
        assert report["skipped"]["held out"] == found[1][label]["skipped"]["held out"] > 0
    pairs = zip(raw.train_dataloader(), shards.train_dataloader(), strict=True)
    assert sum(same(*pair) for pair in pairs) == 12
    sources = {stream.share[0]: stream.source for stream in shards.streams}
    melody = sources["melody"][3]["melody"]
    assert isinstance(melody, CodedMedia)  # both what its encoder is given, and its codes
    [own] = [stream.source[3]["melody"] for stream in raw.streams if stream.name == "melody/tunes/understand"]
    assert (melody.data, melody.key, melody.codes.codes.tolist()) == (own.data, own.key, [list(own.data)])
    thread = sources["strings"][2]["string"]
    assert (type(thread), thread.data) == (Media, beads_world / "2.string")  # nothing of it is tokenised


def test_what_shards_refer_to_is_needed_where_it_is_read(beads_world):
    tokenise()
    before, _ = beads.opened(tokenised=True)
    whole = list(before.train_dataloader())
    only = ("mixture.ratios.beads=0", "mixture.ratios.strings=0")
    (beads_world / "elsewhere").mkdir()
    for name in [*beads_world.glob("*.beads"), *beads_world.glob("*.jsonl")]:
        name.rename(beads_world / "elsewhere" / name.name)
    beads.opened(*only, tokenised=True)[0].preflight()
    gone, _ = beads.opened(tokenised=True)
    with pytest.raises(DataError, match=r"beads/lines: 24 of 24 records checked cannot be used.*\.beads"):
        gone.preflight()
    for name in (beads_world / "elsewhere").iterdir():
        name.rename(beads_world / name.name)
    again, _ = beads.opened(tokenised=True)
    assert all(map(same, again.train_dataloader(), whole))


def test_shards_without_what_encoders_read_are_not_taken_for_those_that_have_it(beads_world):
    """A recipe that reads melodies as codes makes shards of its own."""
    codes = "plugins={_replace_: true, text: {tokenizer: bytes}, melody: {}}"
    only = (
        "mixture={_replace_: true, ratios: {melody: 1}}",
        "data.groups={_replace_: true, melody: {sources: {tunes: {dataset: melody/tunes, templates: melody}}}}",
    )
    tokenise(codes, *only)
    [coded] = [json.loads(path.read_text()) for path in (beads_world / "tokens").glob("melody*/source.json")]
    assert "kept" not in coded
    assert beads.opened(*only, tokenised=True)[0].tokenised == []
    tokenise(*only)
    shards, _ = beads.opened(*only, tokenised=True)
    assert shards.tokenised == ["melody/tunes"]
    plain, _ = beads.opened(codes, *only, tokenised=True)
    assert plain.tokenised == ["melody/tunes"]
    assert isinstance(plain.streams[0].source[0]["melody"], Codes)
