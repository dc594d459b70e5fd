"""From planned rows to tokens: what is measured is not encoded, what is encoded comes in batches, wherever that is."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mio import DataError, DataModule, Frames, Modality, PluginError, Template, hookimpl
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager
from mio.core.data import sample
from mio.core.data.batch import Slot
from mio.core.data.loader import MioDataModule
from mio.core.data.unreadable import Unreadable
from mio.core.recipe.compose import compose
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins import text

RECIPE = """
name: shots
plugins: {text: {tokenizer: bytes}, shot: {DEVICE}, reel: {}}
model: {width: 16, layers: 1, heads: 1}
data:
  packing: {context: 48, window: 8}
  groups:
    shots: {sources: {shots: {dataset: jsonl, options: {path: shots.jsonl}, templates: shot}}}
    reels: {sources: {reels: {dataset: jsonl, options: {path: reels.jsonl}, templates: reel}}}
mixture: {ratios: {shots: 3, reels: 1}}
train: {steps: 6, rows: 4, micro_rows: 2}
"""
PAD = 999
LOG = Path("encoded.log")
RECORDS = 40


class Shots:
    """Lists of numbers, each its own code in two codebooks. Notes who encodes what, several processes in one file."""

    fingerprint = "shots"
    foretold = 0

    def __init__(self, options):
        if "device" in options:
            self.device = options["device"]

    def encode(self, media):
        with LOG.open("a") as log:
            log.write("".join(f"{os.getpid()} {len(media)} {item}\n" for item in media))
        if any(99 in item for item in media):
            raise DataError("a number is too large")
        return [np.array([item, item[::-1]]) for item in media]

    def frames(self, media):
        return len(media) + self.foretold


class Reels:
    fingerprint = "reels"

    def split(self, media):
        return [type(media)("shot", part, f"{media.key}/{index}") for index, part in enumerate(media.data)]


class Plugin:
    def __init__(self, name, modality, tokenizer, prompt):
        self.name, self.modality, self.tokenizer, self.prompt = name, modality, tokenizer, prompt

    @hookimpl
    def mio_modalities(self):
        return [self.modality]

    @hookimpl
    def mio_tokenizer(self, modality, options):
        return self.tokenizer(options) if modality == self.name else None

    @hookimpl
    def mio_datamodule(self, modality):
        if modality != self.name:
            return None
        return DataModule(
            read=lambda path: json.loads(path.read_text()),
            suffixes=(f".{self.name}",),
            templates={
                self.name: (
                    Template(direction="read", prompt=self.prompt, response=" {name}"),
                    Template(direction="write", prompt="{name}:", response=self.prompt),
                )
            },
        )


SHOT = Modality(name="shot", codebooks=(64, 64), begin="<s>", end="</s>", code_token="<s{}>", layout="delayed",
                views={"understand": (0,)}, frames=Frames(maximum=9))  # fmt: skip
REEL = Modality(name="reel", parts="shot", frames=Frames(maximum=4))


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Shots, "foretold", 0)
    for name, content in (
        ("shot", lambda n: [n % 60, *range(n % 8)]),
        ("reel", lambda n: [[n % 50] * (2 + m + n % 3) for m in range(1 + n % 4)]),
    ):
        lines = []
        for n in range(RECORDS):
            (tmp_path / f"{n}.{name}").write_text(json.dumps(content(n)))
            lines.append(json.dumps({name: f"{n}.{name}", "name": "name" * (n % 3 + 1)}))
        (tmp_path / f"{name}s.jsonl").write_text("\n".join(lines))
    return tmp_path


def data_module(device="", workers=0, sampled=True, **packing):
    plugins = {
        "text": text,
        "shot": Plugin("shot", SHOT, Shots, "{shot}"),
        "reel": Plugin("reel", REEL, lambda _: Reels(), "{reel}"),
    }
    manager = PluginManager([Candidate(name, "test", "json", lambda one=one: one) for name, one in plugins.items()])
    Path("shots.yaml").write_text(RECIPE.replace("DEVICE", f"device: {device}" if device else ""))
    overrides = [f"runtime.workers={workers}", *(f"data.packing.{key}={value}" for key, value in packing.items())]
    recipe = compose(["shots.yaml"], overrides, manager)
    enabled = manager.enable(recipe.plugins)
    codecs = Codecs(enabled)
    renderer = Renderer(
        Vocabulary.build(codecs.text, enabled.modalities(), enabled.control_tokens()), codecs, recipe.train.loss
    )
    module = MioDataModule(recipe, enabled, renderer, PAD)
    if not sampled:
        for stream in module.streams:
            stream.sample = sample.CheckedSample()
    return module


def encoded():
    """(process, items together, item) of everything encoded so far."""
    return [line.split(" ", 2) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def digest(batches):
    seen = hashlib.sha256()
    for batch in batches:
        for tensor in (batch.tokens, batch.targets, batch.weights, batch.positions, batch.stream):
            seen.update(tensor.numpy().tobytes())
        seen.update(repr((batch.lengths, batch.documents, batch.digests, batch.step, batch.weight)).encode())
        assert not batch.waiting
    return seen.hexdigest()


def one_by_one(module):
    """The tokens of all rows by the plan alone, each document rendered by itself."""
    plan, rows = module._plan(), []
    for _ in range(24):
        rows.append(np.concatenate([module.streams[e.stream].document(e.n).tokens[:-1] for e in plan.next_row()]))
    return rows


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_wherever_media_are_encoded(workers):
    there = data_module("elsewhere", workers, sampled=False)
    batches = list(there.train_dataloader())
    log = encoded()
    assert {int(process) for process, _, _ in log} == {os.getpid()}  # data workers cannot use the device
    assert set(Counter(item for _, _, item in log).values()) == {1}
    assert max(int(together) for _, together, _ in log) > 1
    here = data_module("", workers, sampled=False)
    assert digest(here.train_dataloader()) == digest(batches)
    if workers:
        assert os.getpid() not in {int(process) for process, _, _ in encoded()[len(log) :]}
    flat = [row[row != PAD] for batch in batches for row in batch.tokens.numpy()]
    for row, expected in zip(flat, one_by_one(data_module(sampled=False)), strict=True):
        assert np.array_equal(row, expected)


def test_nothing_is_encoded_to_be_measured_and_each_item_once_to_be_trained_on():
    module = data_module()
    report = module.preflight()
    assert report["shots/shots"]["broken"] == report["reels/reels"]["broken"] == 0
    checked = len(encoded())
    most = sample.ENCODED * (1 + 4)  # a reel has at most four shots
    assert sample.ENCODED < checked <= most
    for stream in module.streams:
        lengths = [stream.length(n) for n in range(len(stream))]
        assert lengths == [len(stream.renderer.render(stream.draft(n))) - 1 for n in range(len(stream))]
    module = data_module(sampled=False)
    before = len(encoded())
    assert all(stream.length(n) for stream in module.streams for n in range(len(stream)))
    plan = module._plan()
    for _ in range(50):
        plan.next_row()
    assert len(encoded()) == before
    names = {
        item.key
        for batch in module.train_dataloader()
        for row in batch.documents
        for stream, n in row
        for item in module.streams[stream].renderer.codecs.items(
            [segment.content for segment in module.streams[stream].draft(n).segments]
        )
    }
    assert len(encoded()) - before == len(names)


@pytest.mark.parametrize("context", [12, 30])
@pytest.mark.parametrize("device", ["", "elsewhere"])
def test_what_is_cut_off_is_known_without_codes(context, device):
    module = data_module(device, sampled=False, context=context)
    batches = list(module.train_dataloader())
    expected = one_by_one(data_module(sampled=False, context=context))
    flat = [row[row != PAD] for batch in batches for row in batch.tokens.numpy()]
    assert all(np.array_equal(*pair) for pair in zip(flat, expected, strict=True))
    plan = module._plan()
    for _ in range(24):
        plan.next_row()
    assert sum(counts.truncated for counts in plan.counts) > 0


@pytest.mark.parametrize("device", ["", "elsewhere"])
@pytest.mark.parametrize("damage", ["file", "content"])
def test_a_document_whose_media_are_damaged_is_padding_and_told(world, device, damage):
    whole = list(data_module(device, sampled=False).train_dataloader())
    module = data_module(device, sampled=False)
    lines = []
    module.unreadable.tell = lines.append
    for stream in module.streams:
        for n in range(len(stream)):
            stream.length(n)
    stream, n = next(one for batch in whole for row in batch.documents for one in row if one[0] < 2)
    record = module.streams[stream].order(n)
    content = "[1, " if damage == "file" else json.dumps([99] * (1 + record % 8))
    (world / f"{record}.shot").write_text(content)
    batches = list(module.train_dataloader())
    lost = {(stream, n): reason for batch in batches for stream, n, reason in batch.lost}
    assert lost
    for (stream, n), reason in lost.items():
        assert module.streams[stream].order(n) == record
        assert f"{module.streams[stream].name}: shots.jsonl:{record + 1}" in reason
        assert ("a number is too large" if damage == "content" else f"{record}.shot: cannot be read as shot") in reason
    for batch, other in zip(batches, whole, strict=True):
        assert (batch.documents, batch.lengths, batch.digests) == (other.documents, other.lengths, other.digests)
        assert batch.weight == pytest.approx(float(batch.weights.sum()))
        for row, (documents, lengths) in enumerate(zip(batch.documents, batch.lengths, strict=True)):
            starts = np.cumsum([0, *lengths])
            for document, start, end in zip(documents, starts, starts[1:], strict=False):
                place = (row, slice(start, end))
                if document in lost:
                    assert set(batch.tokens[place].tolist()) == set(batch.targets[place].tolist()) == {PAD}
                    assert not batch.weights[place].any()
                else:
                    for name in ("tokens", "targets", "weights"):
                        assert np.array_equal(getattr(batch, name)[place], getattr(other, name)[place])
        module.commit(batch)
    state = module.state_dict()
    by_stream = Counter(module.streams[stream].name for stream, _ in lost)
    assert module.report()["unreadable"]["documents"] == state["unreadable"]["documents"] == dict(by_stream)
    assert len(lines) == len(lost)
    assert all(line.endswith("trained on as padding") for line in lines)
    resumed = Unreadable(module.stream_names)
    resumed.restore(state)
    assert resumed.report() == {"unreadable": module.report()["unreadable"]}
    assert "unreadable" not in data_module().state_dict()


def test_a_file_that_is_gone_is_no_damage(world):
    module = data_module(sampled=False)
    for stream in module.streams:
        for n in range(len(stream)):
            stream.length(n)
    for path in world.glob("*.shot"):
        path.unlink()
    with pytest.raises(DataError, match=r"shot: no such file"):
        list(module.train_dataloader())


@pytest.mark.parametrize("device", ["", "elsewhere"])
def test_frames_that_were_foretold_wrong_are_an_error_of_the_plugin(monkeypatch, device):
    monkeypatch.setattr(Shots, "foretold", 1)
    message = r"shots/shots/read: shots\.jsonl:1: the tokenizer of `shot`, which plugin `shot` declares, gave 1 frames"
    with pytest.raises(PluginError, match=message):
        data_module(device).preflight()
    with pytest.raises(PluginError, match=r"jsonl:\d+: the tokenizer of `shot`.* of which its `frames` had said"):
        list(data_module(device, sampled=False).train_dataloader())


def test_a_record_that_changes_its_length_after_it_was_planned_is_an_error(world):
    module = data_module(sampled=False)
    for stream in module.streams:
        for n in range(len(stream)):
            stream.length(n)
    for stream in module.streams:
        stream.memory._kept.clear()
        stream.to_document = lambda record, index, made=stream.to_document: made({**record, "name": "longer"}, index)
    with pytest.raises(DataError, match=r"jsonl:\d+: takes \d+ positions, and took \d+ when its place was planned"):
        list(module.train_dataloader())
    assert world


def test_a_span_at_either_end_of_its_document_is_written_as_it_would_be_rendered():
    import torch

    from mio.core.data.batch import assemble
    from mio.core.tokens.rendered import Rendered

    tokens = np.arange(1, 9, dtype=np.int32)
    for start, end in ((0, 3), (2, 5), (5, 8), (0, 8)):
        blank = tokens.copy()
        blank[start:end] = 0
        rows = [
            [(0, Rendered(np.array([70, 71], np.int32), np.ones(2, np.float32), np.zeros((0, 2), np.int32))),
             (0, Rendered(some, np.ones(8, np.float32), np.zeros((0, 2), np.int32)))]
            for some in (blank, tokens)
        ]  # fmt: skip
        waiting, due = assemble(rows[:1], 12, PAD), assemble(rows[1:], 12, PAD)
        Slot((0, 1), 0, 1, 7, start, None, "generate").write(waiting, tokens[start:end])
        assert torch.equal(waiting.tokens, due.tokens)
        assert torch.equal(waiting.targets, due.targets)
