"""`mio tokenize`: the same bytes whoever makes them and however often they are killed, and the batches of raw data."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image
from rich.console import Console

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore, open_tokens, tokenizer_fingerprints
from mio.core.errors import DataError, UserError
from mio.core.recipe.chain import chain
from mio.core.stages.tokenize import load_tokenizers, tokenize
from mio.core.tokens import temporary
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

SMALL = """
name: small
plugins:
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq, size: 8, patch: 2, codebook_size: 16}
  video: {min_frames: 3, max_frames: 5}
data:
  groups:
    pairs:
      sources:
        captions:
          {dataset: jsonl, options: {path: captions.jsonl}, templates: image_text, filters: {min_side: {pixels: 5}}}
    more:
      sources:
        videos: {dataset: jsonl, options: {path: videos.jsonl}, templates: video_text}
        stories: {dataset: jsonl, options: {path: stories.jsonl}}
  packing: {context: 512}
mixture: {ratios: {pairs: 1, more: 2}}
model: {width: 32, layers: 1, heads: 1}
train: {steps: 6, rows: 4}
runtime: {threads: 1, accelerator: cpu}
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A recipe of pictures with captions, every tenth of them too small, of videos, and of stories with pictures."""
    draw = np.random.default_rng(0)
    pictures = []
    for index in range(60):
        side = 4 if index % 10 == 3 else 8
        picture = Image.fromarray(draw.integers(0, 256, (side, side), np.uint8))
        picture.save(tmp_path / f"{index}.png")
        pictures.append(picture.resize((8, 8)))
    for index in range(15):
        frames = pictures[index : index + 4]
        frames[0].save(tmp_path / f"{index}.gif", save_all=True, append_images=frames[1:])
    rows = {
        "captions": [{"image": f"{index}.png", "caption": f"picture {index}"} for index in range(60)],
        "videos": [{"video": f"{index}.gif", "description": f"video {index}", "seconds": index} for index in range(15)],
        "stories": [
            {"parts": ["once ", {"type": "image", "image": f"{index}.png"}, f" upon {index}"]} for index in range(30)
        ],
    }
    for name, records in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*overrides, recipe="small.yaml", size=20):
    """Tokenises in this process; returns what was printed."""
    printed = io.StringIO()
    tokenize([recipe], list(overrides), PluginManager.discover(), shard_records=size,
             console=Console(file=printed, width=200))  # fmt: skip
    return printed.getvalue()


def content(folder):
    """Digest of every file but those of trained tokenizers, which may hold when they were saved, and remembered hashes,
    which hold when files were changed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(("tokenizers", "hashes.sqlite"))
    }


def batches(*overrides, recipe="small.yaml"):
    """All batches of the recipe, and which sources are read from shards."""
    manager = PluginManager.discover()
    [stage] = chain([recipe], list(overrides), manager)
    plugins = manager.enable(stage.plugins)
    codecs = Codecs(plugins)
    load_tokenizers(stage, None, plugins, codecs, Console(quiet=True))
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities())
    tokens = TokenStore(tokens_folder(stage), tokenizer_fingerprints(plugins, codecs), codecs.text.fingerprint)
    renderer = Renderer(vocabulary, codecs, stage.train.loss)
    data = MioDataModule(stage, plugins, renderer, vocabulary.specials.pad, tokens)
    data.preflight()
    made = list(data.train_dataloader())
    for batch in made:
        data.commit(batch)
    return made, data.tokenised, data.report()


def captions(small):
    """Folder of the captions' shards: the only one of its number of records."""
    [folder] = [
        path.parent
        for path in (small / "tokens").glob("*/source.json")
        if json.loads(path.read_text())["records"] == 60
    ]
    return folder


def tokens_folder(stage):
    from pathlib import Path

    return Path(stage.runtime.tokens)


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.tokens, b.tokens) and torch.equal(a.weights, b.weights) and a.lengths == b.lengths
        for a, b in zip(first, second, strict=True)
    )


def test_training_on_shards_sees_the_batches_of_the_sources_themselves(small):
    held_out = "data.held_out=0.2"
    printed = run(held_out)
    assert "training tokenizers: image" in printed
    assert "pairs/captions: 60 records in 3 shards, 0.0 MB; dropped 6 (min_side: side below 5 pixels)" in printed
    from_shards, tokenised, report = batches(held_out)
    assert tokenised == ["pairs/captions", "more/videos", "more/stories"]
    assert len(list(small.glob("tokens/*/*.ids"))) == len(list(small.glob("tokens/*/*.shard"))) > 0
    for folder in (small / "tokens").glob("jsonl-*"):
        folder.rename(small / f"away-{folder.name}")
    raw, tokenised, raw_report = batches(held_out)
    assert tokenised == []
    assert equal(from_shards, raw)
    assert report == raw_report
    assert report["packing"]["skipped"]["held out"] > 0
    assert report["packing"]["skipped"]["min_side: side below 5 pixels"] > 0


def test_failures_are_counted_alike(tunes):
    lines = (tunes / "names.jsonl").read_text().splitlines()
    lines[7], lines[20] = "no json", '{"text": {"a": 1}}'
    (tunes / "names.jsonl").write_text("\n".join(lines))
    overrides = ("data.max_skipped=0.1", "train.steps=30")
    raw, _, raw_report = batches(*overrides, recipe="tunes.yaml")
    printed = run(*overrides, recipe="tunes.yaml")
    assert "names/lines: 40 records in 2 shards" in printed
    assert "2 failed, listed in" in printed
    [folder] = [path for path in (tunes / "tokens").iterdir() if path.name.startswith("jsonl")]
    failed = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    assert [found["record"] for found in failed] == [7, 20]
    assert "names.jsonl:8: not valid JSON" in failed[0]["reason"]
    shards, tokenised, report = batches(*overrides, recipe="tunes.yaml")
    assert tokenised == ["melody/tunes", "names/lines"]
    assert equal(raw, shards)
    assert report == raw_report
    assert report["packing"]["skipped"] == {"broken": report["packing"]["skipped"]["broken"]}


def test_a_source_that_is_gone_is_read_from_its_shards_and_one_that_changed_is_refused(tunes):
    run(recipe="tunes.yaml")
    before, _, _ = batches(recipe="tunes.yaml")
    (tunes / "names.jsonl").rename(tunes / "elsewhere.jsonl")
    assert equal(batches(recipe="tunes.yaml")[0], before)
    (tunes / "names.jsonl").write_text('{"text": "another"}')
    with pytest.raises(DataError, match=r"names/lines: the source has changed since .*\(40 records then, 1 now\)"):
        batches(recipe="tunes.yaml")
    assert "names/lines: the source has changed and is tokenised anew" in run(recipe="tunes.yaml")
    batches(recipe="tunes.yaml")


def test_shards_do_not_stand_for_a_source_that_was_damaged_since(tunes):
    run(recipe="tunes.yaml")
    (tunes / "names.jsonl").write_text("[")  # the beginning of a list
    with pytest.raises(DataError, match=r"names\.jsonl: "):
        batches(recipe="tunes.yaml")
    (tunes / "names.jsonl").write_text("")
    with pytest.raises(DataError, match=r"names\.jsonl: holds no records"):
        batches(recipe="tunes.yaml")


def test_a_damaged_shard_ends_the_run_whatever_share_of_records_may_be_broken(tunes):
    run(recipe="tunes.yaml")
    [shard] = (tunes / "tokens").glob("jsonl*/000001.shard")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=r"000001\.shard: .*give `mio tokenize` again"):
        batches("data.max_skipped=1", recipe="tunes.yaml")


def test_what_of_the_files_is_no_record_is_told_from_shards_too(small, capsys):
    (small / "pictures").mkdir()
    for index in range(4):
        (small / f"{index}.png").rename(small / "pictures" / f"{index}.png")
    table = [{"file_name": f"{index}.png", "caption": "a picture"} for index in range(2)]
    (small / "pictures" / "metadata.jsonl").write_text("\n".join(map(json.dumps, table)))
    source = {"dataset": "folder", "options": {"path": "pictures"}, "templates": "image_text"}
    only = ("mixture.ratios.more=0", f"data.groups.pairs.sources={{_replace_: true, captions: {json.dumps(source)}}}")
    run(*only)
    assert app.run(["fit", "small.yaml", *only, "train.steps=1"]) == 0
    told = capsys.readouterr().out
    assert "read from tokens: pairs/captions" in told
    assert "pairs/captions: 2 media files without a line in a table" in told


def test_codes_of_another_tokenizer_are_refused(small, capsys):
    run()
    (small / "small.yaml").write_text(SMALL.replace("codebook_size: 16", "codebook_size: 32"))
    message = r"pairs/captions: \S+: codes of `image` were made by the tokenizer \S+, this recipe's is \S+; give"
    with pytest.raises(DataError, match=message):
        batches()
    with pytest.raises(DataError, match=message):
        run()
    assert app.run(["tokenize", "small.yaml", "--shard-records", "20"]) == 2
    assert capsys.readouterr().err.startswith("error: pairs/captions")


def test_incomplete_shards_are_not_read(small):
    run()
    folder = captions(small)
    (folder / "index.json").unlink()
    assert batches()[1] == ["more/videos", "more/stories"]


@pytest.mark.usefixtures("small")
def test_shards_of_another_size_are_not_mixed():
    run()
    with pytest.raises(UserError, match="give `--shard-records 20`"):
        run(size=10)


def test_a_header_tells_how_well_a_sample_is_reconstructed(small):
    run()
    folder = captions(small)
    source = open_tokens(folder)[0]
    source[0]
    sample = source._shards[0].header["sample"]["image"]
    assert sample["frames"] == 16
    assert sample["kept"] > 0.9  # the codec is a projection on its codebook, but for 8-bit rounding
    assert sample["snr_db"] > 3


def test_what_is_whole_is_kept_and_what_is_damaged_is_made_again(small):
    run()
    before = content(small / "tokens")
    folder = captions(small)
    shard = folder / "000001.shard"
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.shard")}
    damaged = bytearray(shard.read_bytes())
    damaged[-70] ^= 1
    shard.write_bytes(damaged)
    (folder / "000002.shard").unlink()
    run()
    assert content(small / "tokens") == before
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.shard")}
    assert {name for name in after if after[name] != times[name]} == {"000001.shard", "000002.shard"}


def test_killed_at_random_moments_the_shards_are_those_of_an_undisturbed_run(small):
    run()
    undisturbed = content(small / "tokens")
    draw = random.Random(0)
    killed = 0
    while killed < 20:
        for path in list((small / "tokens").glob("jsonl-*/*")):
            if draw.random() < 0.7:
                path.unlink()  # so that there is always something to be killed at
        child = os.fork()
        if not child:
            try:
                run()
            finally:
                os._exit(0)
        time.sleep(draw.random() * 0.4)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    run()
    assert content(small / "tokens") == undisturbed


def test_what_is_told_of_media_given_as_bytes_is_the_same_in_every_process(small, monkeypatch):
    rows = [json.loads(line) for line in (small / "captions.jsonl").read_text().splitlines()]
    rows[2]["image"] = {"bytes": "AAAA"}
    (small / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = []
    for number in range(2):
        monkeypatch.setattr(temporary, "_folders", {})  # as in another process
        run("mixture.ratios.more=0", f"runtime.tokens=tokens{number}")
        made.append(content(small / f"tokens{number}"))
    assert made[0] == made[1]
    [failed] = (small / "tokens0").glob("jsonl*/failed.jsonl")
    assert "captions.jsonl:3: media given as bytes: not an image" in failed.read_text()


def test_two_commands_at_once_make_the_shards_of_one(small):
    """The second waits for the first and finds everything done; neither takes the other's partial files away."""
    run()
    alone = content(small / "tokens")
    (small / "tokens").rename(small / "before")
    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                (small / f"printed{number}").write_text(run(size=20))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert content(small / "tokens") == alone
    assert "waiting for another `mio tokenize`" in "".join(
        (small / f"printed{number}").read_text() for number in (0, 1)
    )


def test_an_edit_is_tokenised_again_and_nothing_else(small):
    run()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(small / "15.png")
    lines = (small / "captions.jsonl").read_text()
    (small / "captions.jsonl").write_text(lines.replace("picture 45", "picture 99"))
    with pytest.raises(DataError, match=r"pairs/captions: the source has changed since .*\(captions\.jsonl, 15\.png\)"):
        batches()
    printed = run()
    assert (
        "pairs/captions: the source has changed and is tokenised anew where it did (captions.jsonl, 15.png)" in printed
    )
    assert "more/stories: the source has changed and is tokenised anew where it did (15.png)" in printed
    [line] = [line for line in printed.splitlines() if line.startswith("pairs/captions: 60 records")]
    assert "kept 1 of the shards, made 2" in line
    shards, tokenised, _ = batches()
    assert len(tokenised) == 3
    for folder in (small / "tokens").glob("jsonl-*"):
        folder.rename(small / f"away-{folder.name}")
    assert equal(shards, batches()[0])


def test_ranks_of_torchrun_share_the_work(small):
    run(size=10)
    alone = content(small / "tokens")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "mio", "tokenize", "small.yaml", "--shard-records", "10"]
    done = subprocess.run([*command, "runtime.tokens=shared"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert content(small / "shared") == alone
    assert done.stdout.count("pairs/captions: 60 records in 6 shards") == 1
    assert done.stdout.count("training tokenizers: image") == 1


def test_a_ray_cluster_makes_the_same_bytes(small):
    pytest.importorskip("ray")
    run(size=10)
    alone = content(small / "tokens")
    code, out, err = call("tokenize", "small.yaml", "--shard-records", "10", "--engine", "ray", "runtime.tokens=ray")
    assert code == 0, err
    assert "pairs/captions: 60 records in 6 shards" in out
    assert content(small / "ray") == alone


def test_a_stream_is_tokenised_like_a_file_and_trained_on_afterwards(small, monkeypatch):
    """Rows of `facts` as a Parquet folder, read as the Hub is: at random, and as a stream."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", small / "cache")
    (small / "facts").mkdir()
    pictures = [{"bytes": (small / f"{index}.png").read_bytes(), "path": None} for index in range(25)]
    made = {"picture": pictures, "caption": [f"picture {index}" for index in range(25)]}
    datasets.Dataset.from_dict(made).to_parquet(small / "facts/train.parquet")
    options = "{name: facts, columns: {picture: image, caption: caption}, streaming: %s}"
    source = "data.groups.pairs.sources.captions={_replace_: true, dataset: hub, templates: image_text, options: %s}"
    stream, table = (source % (options % streaming) for streaming in ("true", "false"))
    with pytest.raises(DataError, match="captions: is a stream, which only `mio tokenize` reads"):
        batches(stream)
    assert "pairs/captions: 25 records in 3 shards" in run(stream, size=10)
    before = content(small / "tokens")
    run(stream, size=10)
    assert content(small / "tokens") == before
    from_stream, tokenised, _ = batches(stream)
    assert "pairs/captions" in tokenised
    assert equal(from_stream, batches(table)[0])


def test_damaged_media_cost_their_record_and_nothing_else(small):
    """Truncated, empty, zeroed and flipped files, and files of another kind."""
    draw = random.Random(1)
    damages = {
        "cut": lambda content: content[: draw.randrange(1, len(content))],
        "empty": lambda _: b"",
        "zeros": lambda content: bytes(len(content)),
        "flipped": lambda content: bytes(byte ^ (draw.random() < 0.2) for byte in content),
        "other": lambda _: (small / "captions.jsonl").read_bytes(),
    }
    for index, (_, damage) in zip(range(10, 50), list(damages.items()) * 8, strict=True):
        path = small / f"{index}.png"
        path.write_bytes(damage(path.read_bytes()))
    printed = run("data.max_skipped=1")
    [line] = [line for line in printed.splitlines() if line.startswith("pairs/captions")]
    assert "60 records in 3 shards" in line
    failed = [json.loads(found) for found in (captions(small) / "failed.jsonl").read_text().splitlines()]
    assert 30 <= len({found["record"] for found in failed}) <= 40  # some flips leave a picture
    assert all(found["reason"] and 10 <= found["record"] < 50 for found in failed)
    raw = batches("data.max_skipped=1", "runtime.tokens=none")
    shards = batches("data.max_skipped=1")
    assert equal(raw[0], shards[0])
    assert raw[2]["packing"]["skipped"] == shards[2]["packing"]["skipped"]
