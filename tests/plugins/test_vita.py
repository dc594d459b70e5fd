"""VITA's state tokens, its backbone, and its published layout."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import mio
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.exchange.reading import import_folder
from mio.core.runs.run import Run
from mio.plugins import vita
from mio.plugins.text.backbones import BACKBONES

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "core/exchange"), str(TESTS / "plugins"), str(TESTS.parent / "benchmarks")]

SPEECH = mio.Media("speech", None, "a")


def labelled(record, number=0, prompt=(), **options):
    return vita.mio_control_tokens(options).label(mio.Turn(record, number, prompt))


@pytest.mark.parametrize(
    ("record", "number", "prompt", "name"),
    [
        ({}, 0, ["What is this?"], "written"),
        ({}, 0, ["What is this?", mio.Media("image", None, "a")], "written"),
        ({}, 1, [mio.Media("image", None, "a"), SPEECH], "spoken"),
        ({}, 0, [mio.Codes("speech", None)], "spoken"),
        # VITA's files number the messages, questions too
        ({"inserted_id": 1}, 0, [SPEECH], "unaddressed"),
        ({"inserted_id": "3"}, 1, [SPEECH], "unaddressed"),
        ({"inserted_id": 3}, 0, [SPEECH], "spoken"),
        ({"inserted_id": [1, 5]}, 2, [SPEECH], "unaddressed"),
        ({"inserted_id": True}, 4, [SPEECH], "unaddressed"),
        ({"inserted_id": False}, 0, [SPEECH], "spoken"),
        ({"inserted_id": None}, 0, ["text"], "written"),
    ],
)
def test_answers_are_labelled_by_what_they_answer(record, number, prompt, name):
    assert labelled(record, number, prompt) == name


def test_field_and_modalities_are_options():
    assert labelled({"noise": "true"}, prompt=[SPEECH], negative="noise") == "unaddressed"
    assert labelled({}, prompt=[mio.Media("voice", None, "a")], speech=["voice"]) == "spoken"
    assert labelled({}, prompt=[SPEECH], speech=["voice"]) == "written"


@pytest.mark.parametrize(("tokens", "plain"), [("text", True), ("ids", False)])
def test_tokens_are_text_or_have_ids(tokens, plain):
    declared = vita.mio_control_tokens({"tokens": tokens, "weight": 2.0}).tokens
    assert [(one.name, one.token, one.action) for one in declared] == [
        ("spoken", "<1>", "interrupt"),
        ("unaddressed", "<2>", "silence"),
        ("written", "<3>", "interrupt"),
    ]
    assert {(one.plain_text, one.weight) for one in declared} == {(plain, 2.0)}


def test_wrong_options_are_refused_by_name():
    with pytest.raises(mio.UserError, match=r"plugins\.vita: `tokens` is `id`, not one of `text`, `ids`"):
        vita.mio_control_tokens({"tokens": "id"})


def test_the_backbone_is_mixtral_without_the_routers_loss():
    (fields,) = vita.mio_backbones().values()
    assert TransformerConfig(**fields).windows == (0,) * 32
    assert TransformerConfig(**BACKBONES["mixtral-8x7b"] | {"router_aux_weight": 0.0}) == TransformerConfig(**fields)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder in VITA's layout, everything small: Mixtral with both towers; a recipe that reads it; Mixtral itself."""
    import test_audio_tower
    import test_vision_tower
    from repositories import make_model, write_bpe

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "VITA"
    folder.mkdir()
    model = make_model("mixtral", write_bpe(folder))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    towers = {
        "vision_tower": test_vision_tower.SMALL_VISION,
        "audio_tower": test_audio_tower.SMALL_AUDIO | test_audio_tower.statistics(),
    }
    for tests, name in ((test_vision_tower, "vision_tower"), (test_audio_tower, "audio_tower")):
        file = tests.checkpoint(tmp_path, tests.encoder(**towers[name]).module(32)) / "model.safetensors"
        weights |= {name: value for name, value in load_file(file).items() if name != "model.norm.weight"}
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vita-mixtral", "mm_hidden_size": 128}))
    plugins = {"text": {}, "image": {"tokenizer": "none"}, "speech": {"tokenizer": "none"}, "vita": {}}
    plugins |= {name: {**options, "checkpoint": str(folder)} for name, options in towers.items()}
    (tmp_path / "vita.yaml").write_text(yaml.safe_dump({"plugins": plugins}))
    return folder, model, weights


def test_the_published_layout_is_imported_with_its_towers(published):
    folder, model, weights = published
    manager = PluginManager.discover()
    imported = import_folder(folder, ["vita.yaml"], [], manager)
    ((fate, networks),) = imported.beside.items()
    assert fate == "left to plugins, which read them by their option `checkpoint`"
    assert set(networks) == {
        "model.vision_tower (46 tensors)",
        "model.mm_projector (4 tensors)",
        "model.audio_encoder (77 tensors)",
    }
    assert "`mm_hidden_size`" in imported.unread
    transformer = Run(imported.folder, manager).transformer
    own = dict(transformer.named_parameters())
    assert torch.equal(own["encoders.image.projector.0.weight"], weights["model.mm_projector.0.weight"])
    name = "model.audio_encoder.encoder.enc.1.encoders.1.self_attn.pos_bias_u"
    assert torch.equal(own["encoders.speech.layers.1.attention.key_bias"], weights[name])
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        logits = transformer.logits(transformer(tokens, torch.arange(12)[None]).hidden, model.config.vocab_size)
        torch.testing.assert_close(logits, model(tokens).logits, atol=2e-5, rtol=0)


def test_without_plugins_the_language_model_alone_is_imported(published):
    folder, _, _ = published
    imported = import_folder(folder, [], [], PluginManager.discover())
    ((_, networks),) = imported.beside.items()
    assert len(networks) == 3
    assert not Run(imported.folder, PluginManager.discover()).transformer.encoders


CONVERSATIONS = [
    {
        "set": "a",
        "id": "1",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is this?"},
            {"from": "gpt", "value": "A wave."},
            {"from": "human", "value": "<audio>"},
            {"from": "gpt", "value": "It is grey."},
        ],
        "image": "a.png",
        "audio": ["a.wav"],
    },
    {
        "set": "b",
        "id": "2",
        "conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "Be quiet."}],
        "audio": ["a.wav"],
        "inserted_id": 1,
        "end_tag": False,
    },
]
"""As in the repository of VITA, README.md, and its noisy data."""


def test_records_of_vitas_form_become_documents(tmp_path, monkeypatch):
    """Read by the recipes' own columns and prompts, with small towers and bytes as text."""
    import soundfile
    from PIL import Image
    from vita_parity import picture, recording

    from mio.core.data.sources import build_streams
    from mio.core.recipe.compose import compose
    from mio.core.tokens.codecs import Codecs
    from mio.core.tokens.rendering import Renderer
    from mio.core.tokens.vocabulary import Vocabulary

    monkeypatch.chdir(tmp_path)
    Path("data/vita").mkdir(parents=True)
    Image.fromarray(picture(40, 28)).save("data/vita/a.png")
    soundfile.write("data/vita/a.wav", recording(0.5, 200), 16_000)
    Path("data/vita/image-spoken.json").write_text(json.dumps(CONVERSATIONS[:1]))
    Path("data/vita/noisy-audio.json").write_text(json.dumps(CONVERSATIONS[1:]))
    small = {
        "vision_tower": {"image_size": 28, "patch": 7, "width": 8, "heads": 1, "layers": 1, "ffn_width": 8},
        "audio_tower": {"width": 8, "heads": 1, "layers": 1, "ffn_width": 8},
    }
    plugins = {"text": {"tokenizer": "bytes"}, "image": {"tokenizer": "none"}, "speech": {"tokenizer": "none"}}
    plugins |= {"video": {}, "vita": {}, **small}
    Path("tiny.yaml").write_text(yaml.safe_dump({"plugins": plugins}))
    manager = PluginManager.discover()
    recipe = compose(["data/vita", "tiny.yaml"], ["mixture.ratios={spoken: 1, noise: 1}"], manager)
    for unused in ("video_spoken", "text_spoken"):
        del recipe.data.groups["spoken"].sources[unused]
    enabled = manager.enable(recipe.plugins)
    codecs = Codecs(enabled)
    vocabulary = Vocabulary.build(codecs.text, enabled.modalities(), enabled.control_tokens())
    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    streams, _ = build_streams(recipe, enabled, renderer)
    found = {}
    for stream in streams:
        rendered = renderer.render(stream.to_document(stream.source[0], 0))
        text = codecs.text.decode([int(token) for token in rendered.tokens if token < vocabulary.blocks[0].size])
        ends = rendered.weights[rendered.tokens == vocabulary.specials.im_end].tolist()
        found[stream.share.group] = (text, [(item.modality, item.positions) for item in rendered.items], ends)
    spoken, items, ends = found["spoken"]
    assert ends == [0, 0, 1, 0, 1]  # of the system prompt, two questions and two answers
    assert items == [("image", 7 * 4), ("speech", 6)]  # 3 x 2 tiles, and the whole image
    assert "you are seeing the image, not the video" in spoken
    assert "<3>A wave." in spoken
    assert "<1>It is grey." in spoken
    noise, items, ends = found["noise"]
    assert ends == [0, 0, 0]
    assert items == [("speech", 6)]
    assert noise.count("discuss the correct answer with the user") == 1
    assert "you are seeing" not in noise
    assert "<2>Be quiet." in noise
