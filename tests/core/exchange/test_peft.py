"""Runs with adapters out and in: what PEFT and transformers make of an export, and what an import restores."""

from __future__ import annotations

import json
import shutil
import warnings

import peft
import pytest
import torch
import transformers
from conftest import TUNES, once, tunes_in
from safetensors.torch import load_file

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.model.cache import KVCache
from mio.core.runs.adapters import FoldedWeights
from mio.core.runs.run import Run

PLAIN = "\n".join(line for line in TUNES.splitlines() if "melody/tunes" not in line)
PLAIN = PLAIN.replace("name: tunes", "name: plain").replace(", melody: {}", "").replace("melody: 3, ", "")
ADAPT = """
include: [tunes.yaml]
name: {name}
start_from: runs/plain
train:
  steps: 6
  lora: {{rank: 4, alpha: 8, dora: {dora}}}
  optimizer: {{kind: adamw, lr: 2e-2}}
"""
PROMPT = list(b"melody number ")


def made(folder):
    """A chain of a plain stage and one with adapters, new rows and a tied head; and one with DoRA, untied, in which
    other sizes and parameters are trained too."""
    with tunes_in(folder):
        (folder / "plain.yaml").write_text(PLAIN)
        (folder / "lora.yaml").write_text(ADAPT.format(name="lora", dora="false"))
        (folder / "dora.yaml").write_text(ADAPT.format(name="dora", dora="true"))
        short = ["train.steps=6", "train.precision=fp32", "runtime.checkpoint_every=3"]
        more = [
            "train.lora.rules={ffn: {pattern: 'layers.0.ffn.*', alpha: 3}, query: {pattern: '*.query', rank: 2}}",
            "train.lora.train=[norm.weight, layers.1.ffn_norm.weight, layers.0.attention.value.weight]",
            "train.lora.targets=['layers.*.attention.query', 'layers.*.attention.output', 'layers.*.ffn.*']",
        ]
        assert app.run(["fit", "plain.yaml", *short]) == 0
        assert app.run(["fit", "lora.yaml", *short]) == 0
        untied = ["name=plain2", "model.tied_embeddings=false", "model.qk_norm=false"]
        assert app.run(["fit", "plain.yaml", *short, *untied]) == 0
        start = ["start_from=runs/plain2", *untied[1:]]
        assert app.run(["fit", "dora.yaml", *short, *start, *more]) == 0
        for name in ("lora", "dora"):
            assert app.run(["export", f"runs/{name}", f"out/{name}"]) == 0
            assert app.run(["export", f"runs/{name}", f"out/{name}-merged", "--merge"]) == 0


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    return once(tmp_path_factory, "adapted", made)


@pytest.fixture(scope="module", params=["lora", "dora"])
def name(request):
    return request.param


@pytest.fixture
def work(adapted, tmp_path):
    """Works in a copy."""
    shutil.copytree(adapted, tmp_path / "work")
    with tunes_in(tmp_path / "work"):
        yield tmp_path / "work"


def opened(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def run_of(folder, name):
    return Run(folder / "runs" / name, PluginManager.discover())


@torch.no_grad()
def greedy(run, count):
    transformer, size = run.transformer, run.vocabulary.size
    cache = KVCache(transformer.config, 1, len(PROMPT) + count)
    tokens, out = torch.tensor([PROMPT]), []
    while len(out) < count:
        hidden = transformer(tokens, cache.positions(tokens.shape[1]), cache=cache).hidden[:, -1]
        cache.advance(tokens.shape[1])
        tokens = transformer.logits(hidden, size).argmax(-1, keepdim=True)
        out.append(int(tokens))
    return out


def generated(model, count):
    ids = torch.tensor([PROMPT])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count)
    return out[0, len(PROMPT) :].tolist()


@torch.no_grad()
def logits(run, tokens):
    hidden = run.transformer(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape)).hidden
    return run.transformer.logits(hidden, run.vocabulary.size)


def test_peft_opens_an_export_and_gives_the_same_logits_and_tokens(work, name):
    run = run_of(work, name)
    tokens = torch.arange(run.vocabulary.size).view(1, -1)
    base = opened(work / "out" / name)
    with torch.no_grad():
        before = base(tokens).logits
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns about keys that it misses, and about what is not tied
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.PeftModel.from_pretrained(base, work / "out" / name / "adapter").eval()
    with torch.no_grad():
        theirs = model(tokens).logits
    ours = logits(run, tokens)
    assert (theirs - ours).abs().max() < 1e-5
    assert (before - ours).abs().max() > 1e-2
    assert generated(model, 64) == greedy(run, 64)
    merged = model.merge_and_unload()
    with torch.no_grad():
        assert (merged(tokens).logits - ours).abs().max() < 1e-5
    if name == "lora":
        assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()


def test_a_merged_export_opens_without_peft(work, name):
    run = run_of(work, name)
    tokens = torch.arange(run.vocabulary.size).view(1, -1)
    model = opened(work / "out" / f"{name}-merged")
    assert not (work / "out" / f"{name}-merged" / "adapter").exists()
    with torch.no_grad():
        assert (model(tokens).logits - logits(run, tokens)).abs().max() < 1e-5
    assert generated(model, 64) == greedy(run, 64)
    assert model.config.tie_word_embeddings == (name == "lora")


def test_the_base_of_an_export_is_the_stage_before_with_new_rows(work, name):
    parent = load_file(work / "runs" / ("plain" if name == "lora" else "plain2") / "model.safetensors")
    base = load_file(work / "runs" / name / "base.safetensors")
    known = run_of(work, name).saved.known
    for key, tensor in parent.items():
        rows = slice(known) if key in ("embedding.weight", "head.weight") else slice(None)
        assert torch.equal(base[key][rows], tensor[rows]), key
    exported = load_file(work / "out" / name / "model.safetensors")
    assert torch.equal(exported["model.layers.0.mlp.up_proj.weight"], base["layers.0.ffn.up.weight"])


def test_the_keys_of_peft_are_those_that_peft_writes(work, name):
    """Loaded and saved again by PEFT: the same names and shapes, and the same settings."""
    adapter = work / "out" / name / "adapter"
    model = peft.PeftModel.from_pretrained(opened(work / "out" / name), adapter)
    model.save_pretrained(work / "theirs")
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, work / "theirs"))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    written, again = (json.loads((folder / "adapter_config.json").read_text()) for folder in (adapter, work / "theirs"))
    same = ("r", "lora_alpha", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
    assert {key: written[key] for key in same} == {key: again[key] for key in same}
    assert written["r"] == 4
    if name == "dora":
        assert written["rank_pattern"] == {"q_proj": 2}
        assert written["target_modules"] == ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("merged", [False, True])
def test_an_import_restores_the_run(work, name, merged):
    before = run_of(work, name)
    tokens = torch.arange(before.vocabulary.size).view(1, -1)
    expected = logits(before, tokens)
    (work / "runs").rename(work / "elsewhere")
    assert app.run(["import", f"out/{name}{'-merged' * merged}"]) == 0
    after = run_of(work, name)
    assert torch.equal(logits(after, tokens), expected)
    assert isinstance(after.saved, FoldedWeights) != merged
    if not merged:
        for file in ("model.safetensors", "base.safetensors"):
            ours, theirs = (load_file(work / place / name / file) for place in ("runs", "elsewhere"))
            assert ours.keys() == theirs.keys()
            size = after.vocabulary.size
            assert all(torch.equal(ours[key][:size], theirs[key][:size]) for key in ours)
    assert app.run(["recipe", "lock", f"runs/{name}", "--accept"]) == 0
    assert app.run(["export", f"runs/{name}", "out/again"]) == 0


def test_a_checkpoint_is_exported_too(work, name):
    step = f"runs/{name}/checkpoints/step-00000003"
    assert app.run(["export", step, "out/early"]) == 0
    run = Run.open(work / step, PluginManager.discover())
    model = peft.PeftModel.from_pretrained(opened(work / "out/early"), work / "out/early/adapter")
    tokens = torch.arange(run.vocabulary.size).view(1, -1)
    with torch.no_grad():
        assert (model(tokens).logits - logits(run, tokens)).abs().max() < 1e-5
    assert (logits(run, tokens) - logits(run_of(work, name), tokens)).abs().max() > 1e-3


def test_mistakes_are_told(work, capsys):
    assert app.run(["export", "runs/plain", "out/new", "--merge"]) == 2
    assert "has no adapters: there is nothing to merge" in capsys.readouterr().err
    shutil.rmtree(work / "runs/lora")
    (work / "out/lora/adapter/adapter_model.safetensors").unlink()
    assert app.run(["import", "out/lora"]) == 2
    assert "adapter_model.safetensors" in capsys.readouterr().err
    assert not (work / "runs/lora").exists()
