"""A whole MM-Interleaved, small, in the published layout, imported: its language model beside transformers' Llama."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.exchange.reading import import_folder
from mio.core.runs.run import Run
from mio.plugins.mm_interleaved import published

sys.path.append(str(Path(__file__).parents[1] / "core" / "exchange"))
sys.path.append(str(Path(__file__).parent))

from repositories import write_bpe
from test_mm_interleaved_weights import SMALL, WIDTH, small_tensors

LAYERS = 2
NEW = ["<|beginofimage|>", "<|image|>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder, its tensors, the Llama in it)."""
    folder = tmp_path_factory.mktemp("published") / "MM-Interleaved"
    folder.mkdir()
    size = write_bpe(folder)
    (folder / "added_tokens.json").write_text(json.dumps({token: size + at for at, token in enumerate(NEW)}))
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
        initializer_range=0.2, tie_word_embeddings=False, max_position_embeddings=128,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()
    config.save_pretrained(folder)
    outer = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**outer, "model_type": "mm_interleaved"}))
    llama.model.embed_tokens.half().float()  # as it is stored
    state = llama.state_dict()
    tensors = {name.replace("model.", "mm_decoder."): one for name, one in state.items()}
    del tensors["lm_head.weight"]
    embedding = torch.cat([state["model.embed_tokens.weight"], torch.randn(2, WIDTH)])
    tensors["mm_decoder.embed_tokens.weight"] = embedding.half()
    tensors |= {f"mm_decoder.layers.{at}.self_attn.rotary_emb.inv_freq": torch.ones(6) for at in range(LAYERS)}
    weight = torch.cat([state["lm_head.weight"], torch.zeros(2, WIDTH)])
    bias = torch.cat([torch.zeros(size), torch.full((2,), -100.0)])
    own = (weight, bias, torch.randn(2, WIDTH), torch.tensor([95.5, 94.0]))
    tensors |= dict(zip(published.HEADS, own, strict=True))
    tensors[published.BEGIN] = torch.randn(1, WIDTH)
    tensors |= {name: one for name, one in small_tensors().items() if name not in tensors}
    tensors["mm_decoder.layers.0.llama_cross_attn.gate"] = torch.zeros(1)  # then it is a Llama
    tensors["visual_tokenizer.encoder.vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # no weight
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors")
    return folder, tensors, llama


def recipe(folder, path):
    plugins = {
        "text": {},
        "image": {"tokenizer": "none", "tokens": "mm_interleaved"},
        "mm_interleaved": {**SMALL, "checkpoint": str(folder)},
    }
    path.write_text(yaml.safe_dump({"name": "whole", "plugins": plugins}))
    return str(path)


@pytest.fixture(scope="module")
def imported(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("work")
    manager = PluginManager.discover()
    options = [f"runtime.runs={place / 'runs'}"]
    made = import_folder(model[0], [recipe(model[0], place / "whole.yaml")], options, manager)
    return made, Run(made.folder, manager)


def test_every_tensor_is_accounted_for(imported):
    made, run = imported
    fates = {name.split(" (")[0]: fate for fate, names in made.beside.items() for name in names}
    assert fates.keys() == {
        "mm_decoder.embed_tokens.weight", "soi_token", "text_decoder.head", "text_decoder.head_new",
        "visual_tokenizer", "image_decoder", "context_feat_proj", "mm_decoder.layers.*.llama_cross_attn",
    }  # fmt: skip
    assert "left to the plugin `mm_interleaved`" in fates["mm_decoder.layers.*.llama_cross_attn"]
    assert made.unmapped == ("<|image|>",)
    assert run.transformer.config.head_bias


@torch.no_grad()
def test_texts_score_as_by_the_two_heads_of_the_published_model(model, imported):
    _, tensors, llama = model
    run = imported[1]
    prompt = "the number 7 comes before 8"
    ids = run.codecs.text.encode(prompt)
    tokens = torch.tensor([ids])
    hidden = run.transformer(tokens, torch.arange(len(ids))[None]).hidden
    logits = run.transformer.logits(hidden, run.vocabulary.size)[0]
    theirs = llama.model(tokens).last_hidden_state[0]
    weight, bias, new, new_bias = (tensors[name] for name in published.HEADS)
    expected = functional.linear(theirs, weight, bias)
    expected[:, -2:] += functional.linear(theirs, new, new_bias)
    begin = run.vocabulary.begin("image")
    size = run.vocabulary.blocks[0].size
    torch.testing.assert_close(logits[:, :size], expected[:, :size], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits[:, begin], expected[:, -2], atol=2e-5, rtol=0)
    row = run.transformer.embedding.weight[begin]
    stored = tensors["mm_decoder.embed_tokens.weight"][-2].float() + tensors["soi_token"][0]
    assert torch.equal(row, stored)  # exactly, though the other rows are float16
    assert run.transformer.head.bias[begin] == -4.5


@torch.no_grad()
def test_the_networks_have_the_published_weights(model, imported):
    tensors, run = model[1], imported[1]
    layer = run.transformer.layers[0].adapters["mm_interleaved"]
    begin = "mm_decoder.layers.0.llama_cross_attn."
    assert all(torch.equal(one, tensors[begin + name]) for name, one in layer.named_parameters())
    painter = run.transformer.heads["image"]
    assert torch.equal(painter.neg_prompt_embeds, tensors["image_decoder.neg_prompt_embeds"])
    assert torch.equal(run.transformer.encoders["image"].proj.weight, tensors["visual_tokenizer.proj.weight"])


def test_mio_import_says_what_becomes_of_each_part(model, tmp_path, capsys):
    folder = model[0]
    with pytest.raises(SystemExit) as done:
        app.main(["import", str(folder), recipe(folder, tmp_path / "r.yaml"), f"runtime.runs={tmp_path}"])
    assert not done.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "folded into the row of `<|beginofimage|>` in the embedding, exactly" in printed
    assert "mm_decoder.layers.*.llama_cross_attn" in printed
