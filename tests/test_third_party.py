"""A modality from another package: installed with pip, added to a trained model, taken away again; the core unchanged.

The model is small and its old tasks are a few of the digits world's, but every step is the one that a user takes.
"""

from __future__ import annotations

import importlib
import io
import os
import random
import subprocess
import sys

import pytest
import torch
from conftest import MELODY, ROOT, call
from rich.console import Console

from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.answering import answer_records
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.generation.model import Model
from mio.core.recipe.model import transformer_config
from mio.core.recipe.schema import TrainConfig
from mio.core.runs.run import Run
from mio.core.runs.weights import start_weights
from mio.core.stages.fit import fit_chain
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

BASE = """
name: base
plugins:
  text: {tokenizer: bpe, size: 320}
  image: {tokenizer: patch_vq}
  speech: {tokenizer: mel_rvq, max_seconds: 2}
  video: {}
  digits: {}
model: {width: 128, layers: 3, heads: 4, qk_norm: true}
data:
  groups:
    digits:
      sources:
        captions: {dataset: digits/captions, templates: captions}
        speech: {dataset: digits/speech, templates: speech}
    words: {sources: {notes: {dataset: jsonl, options: {path: notes.jsonl}, templates: words}}}
  templates:
    captions:
      - direction: read
        prompt: "Provide a one-sentence caption for the provided image. {image}"
        response: "{caption}"
    speech: [{direction: read, prompt: "Please transcribe this speech.{speech}", response: "{transcription}"}]
    words: [{direction: repeat, prompt: "Please repeat {notes}:", response: " {notes}"}]
  packing: {context: 128}
mixture: {ratios: {digits: 0.6, words: 0.4}}
train:
  steps: 500
  rows: 8
  loss: {prompt_text: 0, prompt_media: 0.1}
  optimizer: {kind: muon, lr: 3e-3, muon_lr: 0.02}
runtime: {threads: 1, accelerator: cpu, log_every: 100}
"""

GROWN = """
include: [base.yaml]
name: grown
start_from: runs/base
plugins: {melody: {}}
data: {groups: {melody: {sources: {tunes: {dataset: melody/tunes, templates: melody}}}}}
mixture: {ratios: {melody: 0.9, digits: 0.1, words: 0}}
train:
  steps: 180
  rows: 24
  optimizer:
    lr: 0.008
    muon_lr: 0.008
    rules:  # the new rows have a long way to go, everything else a short one
      rows: {pattern: "[eh]*.weight", rows: [new]}
      norms: {pattern: "*norm*", lr_scale: 0.1}
"""

WITHOUT = """
include: [base.yaml]
name: without
start_from: runs/grown
train: {steps: 2, optimizer: {lr: 0, muon_lr: 0}}
"""

OLD_TASKS = {"caption": 300, "transcribe": 200}
BARS = {"play": 0.90, "before": 0.80, "lost": 0.05}
"""Further from what is reached than chance and rounding move it, which differs from processor to processor.

With 200 steps of 32 rows and Muon at 0.006 six seeds reached 0.938 to 0.969 on `play` on one processor, and 0.880 was
reached on another: hence 0.008. Seen with that, and fewer steps and rows: `play` 0.973, `caption` 0.877 and then 0.860.
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package installed into a folder of its own, which Python looks into from now on."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", site, MELODY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.modules.pop("mio_melody", None)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield site
    sys.path.remove(str(site))
    sys.modules.pop("mio_melody", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, installed):
    """A working directory with the recipes and the text that the base is trained on."""
    assert installed.is_dir()
    folder = tmp_path_factory.mktemp("third_party")
    for name, text in (("base", BASE), ("grown", GROWN), ("without", WITHOUT)):
        (folder / f"{name}.yaml").write_text(text)
    draw = random.Random(0)
    notes = ["do", "re", "mi", "fa", "sol", "la", "ti", "high"]
    # half of them of two notes only: what follows a note that comes twice has to be learnt as well
    lines = [
        " ".join(draw.choices(draw.sample(notes, draw.choice((2, 8))), k=draw.choice((2, 3, 4)))) for _ in range(2000)
    ]
    (folder / "notes.jsonl").write_text("\n".join(f'{{"notes": "{line}"}}' for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MIO_PLUGINS", raising=False)
        yield folder


def fit(name):
    manager = PluginManager.discover()
    return Run.open(fit_chain([f"{name}.yaml"], [], manager, Console(file=io.StringIO())), manager)


@pytest.fixture(scope="module")
def base(folder):
    assert folder.is_dir()
    return fit("base")


@pytest.fixture(scope="module")
def grown(base):
    assert base.folder.is_dir()
    return fit("grown")


def accuracy(run, name, items):
    task = run.plugins.tasks()[name][1]
    records = task.records(items)
    assert len(records) >= 200
    right = task.judge(answer_records(Model.of(run), task, records), records)
    return sum(right) / len(right)


def test_the_package_is_found_by_its_entry_point(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    environment.pop("MIO_PLUGINS", None)
    code, out, err = call("plugins", "list", env=environment, cwd=tmp_path)
    assert code == 0, err
    [line] = [line for line in out.splitlines() if line.startswith("melody")]
    assert line.split(maxsplit=3)[:3] == ["melody", "mio-melody", "1.0"]
    for hook in ("modalities", "tokenizer", "detokenizer", "datamodule", "sources", "tasks"):
        assert hook in line


def test_the_core_does_not_know_it():
    assert "melody" in (MELODY / "mio_melody.py").read_text().lower()
    for path in (ROOT / "mio").rglob("*.py"):
        assert "melody" not in path.read_text(encoding="utf-8").lower(), path


def test_growth_keeps_every_row_and_every_logit(base):
    """Before any training: old rows are the same bit by bit, old sequences have the old logits, new rows are sane."""
    manager = PluginManager.discover()
    plugins = manager.enable({**base.recipe.plugins, "melody": {}})
    vocabulary = Vocabulary.build(base.codecs.text, plugins.modalities(), base=base.vocabulary)
    old = base.vocabulary.size
    assert vocabulary.size == old + 2 + 8
    assert vocabulary.blocks[: len(base.vocabulary.blocks)] == base.vocabulary.blocks
    module = MioModule(transformer_config(base.recipe, manager), vocabulary, TrainConfig())
    report = start_weights(module.transformer, module.vocabulary, base, seed=0)
    assert (report["kept"], report["new"]) == (old, 10)
    before, after = base.transformer, module.transformer.eval()
    assert torch.equal(after.embedding.weight[:old], before.embedding.weight[:old])
    assert torch.equal(after.head_weight[:old], before.head_weight[:old])

    renderer = Renderer(vocabulary, base.codecs, base.recipe.train.loss)
    for name in OLD_TASKS:
        task = base.plugins.tasks()[name][1]
        for record in task.records(20):
            document = to_document(record, CompiledTemplate(task.template, name), "plain", {})
            rendered = renderer.render(document).tokens
            assert rendered.tolist() == base.renderer.render(document).tokens.tolist()
            tokens = torch.as_tensor(rendered, dtype=torch.int64)[None]
            positions = torch.arange(tokens.shape[1])[None]
            with torch.inference_mode():
                was = before.logits(before(tokens, positions).hidden, old)
                now = after.logits(after(tokens, positions).hidden, vocabulary.size)
            torch.testing.assert_close(now[..., :old], was, rtol=0, atol=1e-6)
            # ten new ids beside 900 old ones take about their share of the probability
            assert float(now.softmax(-1)[..., old:].sum(-1).mean()) < 0.05


def test_the_new_task_is_learnt_and_the_old_ones_are_kept(base, grown):
    assert grown.recipe.train.steps <= 200
    shares = grown.summary["mixture"]
    assert shares["melody"]["achieved"] == pytest.approx(0.9, abs=0.01)
    assert shares["digits"]["achieved"] == pytest.approx(0.1, abs=0.01)
    assert accuracy(grown, "play", 300) >= BARS["play"]
    for name, items in OLD_TASKS.items():
        before, after = accuracy(base, name, items), accuracy(grown, name, items)
        assert before > BARS["before"], name
        assert after >= before - BARS["lost"], name


def test_without_the_package_its_block_stays_and_is_never_sampled(grown):
    run = fit("without")
    vocabulary = run.vocabulary
    absent = {block.name for block in vocabulary.blocks if block.absent}
    assert absent == {"<melody>", "</melody>", "melody/codebook0"}
    assert [(block.name, block.start, block.size) for block in vocabulary.blocks] == [
        (block.name, block.start, block.size) for block in grown.vocabulary.blocks
    ]
    ids = [index for block in vocabulary.blocks if block.absent for index in block.ids]
    for name in ("embedding.weight", "head.weight"):
        # two steps at learning rate 0: what the stage starts with is what it ends with
        assert torch.equal(run.weights()[name][ids], grown.weights()[name][ids])
    assert run.summary["vocabulary"]["rows"] == {"kept": vocabulary.size, "new": 0, "absent": 10}

    task = run.plugins.tasks()["caption"][1]
    template, grammar = CompiledTemplate(task.template, "caption"), Grammar.of(Model.of(run))
    prompts = [run.renderer.prompt(to_document(record, template, "plain", {})) for record in task.records(10)]
    generate_tokens(
        run.transformer, grammar, prompts, task.decoding, need_of("", run.codecs.modalities, False), range(10)
    )
    choices = grammar.allowed(AnswerGrammar(grammar, Need(), 999).state())
    assert len(choices) > 256
    assert not set(choices) & set(ids)

    plugins = PluginManager.discover().enable({**run.recipe.plugins, "melody": {}})
    again = Vocabulary.build(run.codecs.text, plugins.modalities(), base=vocabulary)
    assert again.blocks == grown.vocabulary.blocks
