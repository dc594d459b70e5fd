"""A whole Janus in the layout of transformers, small and random, imported: beside `JanusForConditionalGeneration`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig

from mio import CodeRows, Media, Template, UserError
from mio.cli import app
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.data.items import pack_items, prepared
from mio.core.exchange.huggingface_config import config_from_huggingface
from mio.core.exchange.reading import ImportOptions, import_folder
from mio.core.runs.run import Run
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.plugins.janus import BACKBONES, layout

sys.path.append(str(Path(__file__).parents[1] / "core" / "exchange"))

from repositories import write_bpe, write_json

WIDTH, CODES, SIDE = 32, 16_384, 48
TOWER = {"tower": "siglip", "image_size": SIDE, "width": 16, "heads": 2, "layers": 2, "ffn_width": 40}
SPECIALS = ["<begin_of_image>", "<image_placeholder>", "<end_of_image>", "<|User|>"]
VQ = {"base_channels": 32, "latent_channels": 32, "channel_multiplier": [1, 1, 1, 1, 1], "num_res_blocks": 1}
ACCOUNTED = {
    "left to the plugin `vision_tower`": {"model.vision_model", "model.aligner"},
    "left to the plugin `image`": {"model.vqmodel"},
    "folded into rows of the embedding, exactly": {"model.generation_embeddings", "model.generation_aligner"},
    "not kept as it is": {"model.generation_head"},
}


def make_janus(rows, **outer):
    torch.manual_seed(3)
    config = JanusConfig(
        text_config={"model_type": "llama", "vocab_size": rows, "hidden_size": WIDTH, "intermediate_size": 48,
                     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
                     "max_position_embeddings": 256, "initializer_range": 0.2},
        vision_config={"image_size": SIDE, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
                       "mlp_ratio": 2.5, "projection_dim": WIDTH, "num_image_tokens": 9},
        vq_config={**VQ, "projection_dim": WIDTH, "image_token_embed_dim": WIDTH},
        image_token_id=rows - 3, tie_word_embeddings=False, **outer,
    )  # fmt: skip
    model = JanusForConditionalGeneration(config).eval()
    with torch.no_grad():  # everything differs from its neutral value
        for name, parameter in model.named_parameters():
            if "vqmodel" not in name:
                parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.1))
    return model


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, model): as transformers saves it, with the files of a text tokenizer."""
    folder = tmp_path_factory.mktemp("published") / "Janus"
    folder.mkdir()
    size = write_bpe(folder)
    write_json(folder / "added_tokens.json", {token: size + place for place, token in enumerate(SPECIALS)})
    model = make_janus(size + len(SPECIALS))
    model.save_pretrained(folder)
    return folder, model


def recipe(folder, path):
    plugins = {
        "text": {},
        "image": {"tokenizer": "janus", "tokens": "janus", "size": SIDE, "checkpoint": str(folder), "device": "cpu"},
        "vision_tower": {**TOWER, "checkpoint": str(folder)},
    }
    path.write_text(yaml.safe_dump({"name": "janus", "plugins": plugins}))
    return str(path)


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    place = tmp_path_factory.mktemp("work")
    options = [f"runtime.runs={place / 'runs'}"]
    manager = PluginManager.discover()
    made = import_folder(published[0], [recipe(published[0], place / "janus.yaml")], options, manager)
    return made, Run(made.folder, manager)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def pixels(images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def test_text_after_images_that_are_read_scores_as_in_transformers(published, imported):
    _, model = published
    run = imported[1]
    images = [picture(0), picture(1)]
    record = {"image": [Media("image", image, key=str(number)) for number, image in enumerate(images)]}
    template = CompiledTemplate(Template(direction="x", prompt="{image} say the number", response=""))
    prompt = run.renderer.prompt(to_document(record, template, asked=True))
    items = pack_items(((0, item) for item in prepared(prompt.items, run.codecs)), run.codecs)
    tokens = torch.from_numpy(prompt.tokens.astype(np.int64))[None]
    hidden = run.transformer(tokens, torch.arange(tokens.shape[1])[None], items=items).hidden
    logits = run.transformer.logits(hidden, run.vocabulary.size)

    begin, place, end = (run.vocabulary.begin("image"), model.config.image_token_id, run.vocabulary.end("image"))
    theirs = tokens.clone()
    placed = torch.zeros_like(theirs, dtype=torch.bool)
    for item in prompt.items:
        placed[0, item.first : item.end] = True
    assert placed.sum() == 18
    names = {begin: model_id(published, "<begin_of_image>"), end: model_id(published, "<end_of_image>")}
    for ours, other in names.items():
        theirs[tokens == ours] = other
    theirs[placed] = place
    outputs = model.model(input_ids=theirs, pixel_values=pixels(images))
    torch.testing.assert_close(hidden, outputs.last_hidden_state, atol=1e-4, rtol=1e-4)
    text = run.vocabulary.blocks[0].size
    torch.testing.assert_close(
        logits[..., :text], model.lm_head(outputs.last_hidden_state)[..., :text], atol=1e-4, rtol=1e-4
    )
    assert logits.std() > 0.3


def model_id(published, token):
    return json.loads((published[0] / "added_tokens.json").read_text())[token]


@torch.no_grad()
def test_codes_that_are_written_stand_for_what_they_do_in_transformers(published, imported):
    _, model = published
    run = imported[1]
    ids = run.vocabulary.code_ids("image", 0)
    codes = torch.tensor([0, 5, 16_383, 77, 5])
    prompt = torch.tensor([run.codecs.text.encode("number")])
    tokens = torch.cat([prompt, ids.start + codes[None]], 1)
    hidden = run.transformer(tokens, torch.arange(tokens.shape[1])[None]).hidden
    embedded = torch.cat(
        [model.get_input_embeddings()(prompt), model.prepare_embeddings_for_image_generation(codes[None])], 1
    )
    expected = model.model.language_model(inputs_embeds=embedded).last_hidden_state
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_of_the_head_are_the_linear_function_nearest_to_the_published_head(published, imported):
    """By regression on hidden states whose pre-activations are normal around 0."""
    _, model = published
    run = imported[1]
    head = model.model.generation_head
    ids = run.vocabulary.code_ids("image", 0)
    rows = run.transformer.head_weight[ids.start : ids.stop][:50]
    hidden = torch.randn(400_000, WIDTH, generator=torch.Generator().manual_seed(0))
    scores = torch.nn.functional.gelu(hidden @ head.proj_out.weight.T) @ head.vision_head.weight[:50].T
    fitted = torch.linalg.lstsq(hidden, scores - scores.mean(0)).solution.T
    assert (fitted - rows).abs().max() < 0.02 * rows.std() + 0.02
    assert torch.corrcoef(torch.stack([fitted.flatten(), rows.flatten()]))[0, 1] > 0.999


def test_every_tensor_is_accounted_for(published, imported):
    folder, model = published
    made = imported[0]
    stored = load_file(folder / "model.safetensors").keys()
    counted = {}
    for fate, networks in made.beside.items():
        ((begin, expected),) = [(key, value) for key, value in ACCOUNTED.items() if fate.startswith(key)]
        assert {name.split(" (")[0] for name in networks} == expected, begin
        for network in networks:
            name, _, count = network.partition(" (")
            counted[name] = int(count.split()[0])
            assert counted[name] == sum(other.startswith(f"{name}.") for other in stored)
    language = [name for name in stored if name.startswith(("model.language_model.", "lm_head."))]
    assert sum(counted.values()) + len(language) == len(stored)
    assert stored <= model.state_dict().keys()
    assert made.codes == {"image": CODES}
    assert made.unmapped == ("<image_placeholder>", "<|User|>")
    assert not made.undeclared


def test_the_towers_weights_and_those_of_the_codec_are_the_published(published, imported):
    model = published[1]
    run = imported[1]
    own = dict(run.transformer.named_parameters())
    assert torch.equal(own["encoders.image.projector.2.weight"], model.model.aligner.hidden_layers[0].weight)
    codes = run.codecs.codes(Media("image", picture(3), key="3"))
    assert codes.shape == (1, 9)


def test_the_command_says_what_became_of_what(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.run(["import", str(published[0]), recipe(published[0], tmp_path / "janus.yaml"), "--name", "again"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "rows of codes: 16384 of image" in out
    for fate in ACCOUNTED:
        assert fate in out
    assert "have to be trained before images are drawn as they were" in out


def test_without_plugins_the_language_model_alone_is_imported(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = import_folder(published[0], [], [], PluginManager.discover(), ImportOptions(name="text"))
    assert made.undeclared == ("image",)
    assert set(made.unmapped) <= set(SPECIALS)


def test_a_tied_model_gets_a_head_of_its_own(published, tmp_path, monkeypatch):
    """A score of a code is not made with the row that stands for it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tied"
    shutil.copytree(published[0], folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    made = import_folder(folder, [recipe(folder, tmp_path / "janus.yaml")], [], PluginManager.discover())
    run = Run(made.folder, PluginManager.discover())
    transformer, ids = run.transformer, run.vocabulary.code_ids("image", 0)
    size = run.vocabulary.blocks[0].size
    assert torch.equal(transformer.head_weight[:size], transformer.embedding.weight[:size])
    assert not torch.equal(
        transformer.head_weight[ids.start : ids.stop], transformer.embedding.weight[ids.start : ids.stop]
    )


def changed(published, folder, change):
    shutil.copytree(published[0], folder)
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    change(config, weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, w: w.pop("model.generation_aligner.hidden_layers.0.bias"),
         "its weights lack the tensor `model.generation_aligner.hidden_layers.0.bias`"),
        (lambda _, w: w.update({"model.extra.weight": torch.zeros(2)}),
         "its tensor `model.extra.weight` has no place in the model that config.json describes"),
        (lambda c, _: c["vq_config"].update(hidden_act="relu"), "`vq_config.hidden_act` 'relu' is not supported"),
        (lambda c, _: c["text_config"].update(num_hidden_layers=3), "config.json says `num_hidden_layers` 3"),
        (lambda c, _: c.update(model_type="multi_modality"),
         "`model_type` 'multi_modality' is not supported; choose one of llama, Yi, mistral, ministral, qwen2, qwen3, "
         "mixtral, qwen3_moe, or, by plugins, of janus, mm_interleaved, vita-mixtral"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(published, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    folder = changed(published, tmp_path / "changed", change)
    with pytest.raises(UserError) as error:
        import_folder(folder, [recipe(folder, tmp_path / "janus.yaml")], [], PluginManager.discover())
    assert message in str(error.value)
    assert not (tmp_path / "runs" / "changed").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (CodeRows(torch.zeros(4, WIDTH), torch.zeros(4, 5)), "are [4, 32] and [4, 5], the model's are [codes, 32]"),
        (
            CodeRows(torch.zeros(4, WIDTH), torch.zeros(4, WIDTH)),
            "it has 4 codes of `image`, the recipe's plugin declares 16384",
        ),
    ],
)
def test_rows_that_do_not_fit_are_told(published, tmp_path, monkeypatch, rows, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layout, "code_rows", lambda *_: {"image": rows})
    with pytest.raises(UserError) as error:
        import_folder(published[0], [recipe(published[0], tmp_path / "janus.yaml")], [], PluginManager.discover())
    assert message in str(error.value)


def test_what_a_configuration_leaves_out_is_what_transformers_takes():
    ours = config_from_huggingface(layout.language_config({"text_config": {}}))
    defaults = LlamaConfig().to_dict() | {"tie_word_embeddings": True}
    assert ours.explicit == config_from_huggingface(defaults).explicit
    for fields in BACKBONES.values():
        TransformerConfig(**fields).check()
