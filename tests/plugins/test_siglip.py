"""The vision tower as Janus has it, beside transformers' `JanusVisionModel`, `JanusVisionAlignerMLP` and its processor
of images, on copied random weights. The network of timm and that of transformers are two programs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mio
from mio import EncoderInput
from mio.plugins import vision_tower
from mio.plugins.vision_tower.weights import PUBLISHED
from mio.testing import check_plugin

transformers = pytest.importorskip("transformers")
from transformers.models.janus import modeling_janus as janus  # noqa: E402

SIZES = {"image_size": 48, "patch": 16, "width": 32, "heads": 4, "layers": 3, "ffn_width": 80}
WIDTH = 24
INTERNVIT = "vision-tower-9e4051357b1a33d0"
"""Fingerprint of the plugin's defaults before it had a second tower."""


def encoder(**options):
    return vision_tower.mio_encoder("image", {"tower": "siglip", **options})


@pytest.fixture(scope="module")
def published():
    """Tower and aligner of transformers, with weights that are far from their drawing."""
    torch.manual_seed(0)
    config = janus.JanusVisionConfig(
        image_size=48, patch_size=16, hidden_size=32, num_attention_heads=4, num_hidden_layers=3, mlp_ratio=2.5,
        projection_dim=WIDTH, depth=2, num_image_tokens=9,
    )  # fmt: skip
    modules = janus.JanusVisionModel(config).eval(), janus.JanusVisionAlignerMLP(config).eval()
    for module in modules:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return modules


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("janus")
    state = {f"model.{part}.{name}": value.contiguous()
             for part, module in zip(("vision_model", "aligner"), published, strict=True)
             for name, value in module.state_dict().items()}  # fmt: skip
    save_file(state | {"model.language_model.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return folder


def network(folder, **options):
    found = encoder(**SIZES, checkpoint=str(folder), **options)
    made = found.module(WIDTH).eval()
    made.load_state_dict(found.weights())
    return found, made


def test_embeddings_are_those_of_transformers(published, folder):
    _, made = network(folder)
    pixels = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    tower, aligner = published
    with torch.no_grad():
        features = tower(pixels).last_hidden_state
        torch.testing.assert_close(made.features(pixels), features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.projector(features), aligner(features), atol=1e-5, rtol=1e-5)
    assert features.std() > 0.1


@pytest.mark.parametrize("size", [(48, 48), (48, 30), (100, 201), (33, 20), (500, 20)])
def test_images_are_prepared_as_transformers_does(size):
    """Both resize with Pillow; `min_size` too is Janus's."""
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    theirs = JanusImageProcessorPil(size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    found = encoder(**SIZES)
    tiles = found.prepare(image)["tiles"]
    assert tiles.shape == (1, 48, 48, 3)
    made = found.module(WIDTH).normalised(torch.from_numpy(tiles))
    expected = theirs(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_the_default_network_is_that_of_janus_pro():
    with torch.device("meta"):
        tower = encoder().module(2048)
        published = (
            janus.JanusVisionModel(janus.JanusVisionConfig()),
            janus.JanusVisionAlignerMLP(janus.JanusVisionConfig()),
        )
    counts = [sum(value.numel() for value in module.parameters()) for module in published]
    assert [sum(p.numel() for p in part.parameters()) for part in (tower.tower, tower.projector)] == counts
    found = encoder()
    assert found.positions(np.zeros((100, 700, 3), np.uint8)) == 576
    assert found.dummy()["tiles"].shape == (1, 384, 384, 3)


def test_a_siglip_of_google_is_read_without_the_head_that_pools(folder, tmp_path):
    config = transformers.SiglipVisionConfig(
        image_size=48, patch_size=16, hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=80
    )
    torch.manual_seed(2)
    theirs = transformers.SiglipVisionModel(config).eval()
    state = theirs.state_dict()
    prefix = "" if any(name.startswith("vision_model.") for name in state) else "vision_model."
    save_file({prefix + name: value.contiguous() for name, value in state.items()}, tmp_path / "model.safetensors")
    assert any(".head." in prefix + name for name in state)
    found = encoder(**SIZES, checkpoint=str(tmp_path), activation="gelu_tanh", projector_checkpoint=str(folder))
    made = found.module(WIDTH).eval()
    made.load_state_dict(found.weights())  # the projector is that of Janus
    pixels = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(made.features(pixels), theirs(pixels).last_hidden_state, atol=1e-5, rtol=1e-4)


def test_timms_own_layout_is_read(tmp_path):
    import timm

    model = timm.create_model(
        "vit_large_patch16_siglip_384", img_size=48, embed_dim=32, depth=3, num_heads=4, mlp_ratio=2.5
    )
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert encoder(**SIZES, checkpoint=str(tmp_path)).weights().keys() == {
        f"tower.{name}" for name in model.state_dict() if not name.startswith("attn_pool.")
    }


def test_items_do_not_depend_on_others_and_cells_are_positions():
    found = encoder(**SIZES)
    torch.manual_seed(0)
    made = found.module(WIDTH).eval()
    images = [np.full((40 + 9 * n, 40, 3), 60 * n, np.uint8) for n in range(3)]

    def given(chosen):
        tiles = torch.from_numpy(np.concatenate([found.prepare(image)["tiles"] for image in chosen]))
        return EncoderInput({"tiles": tiles}, {"tiles": [1] * len(chosen)}, [9] * len(chosen))

    with torch.no_grad():
        together, alone = made(given(images)), torch.cat([made(given([image])) for image in images])
    assert together.shape == (27, WIDTH)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tower": "siglep"}, "unknown tower `siglep`; known are internvit, siglip"),
        ({"max_tiles": 4}, "`fit: pad` is for images that are not cut: give `max_tiles: 1`, or `fit: stretch`"),
        ({"layer_scale": 0.1}, "`layer_scale`"),
        ({"fit": "padd"}, "`fit`"),
        ({"image_size": 50}, "`image_size` 50 must be a multiple"),
        ({"tower": "internvit", "fit": "pad"}, "fit"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(mio.UserError) as error:
        encoder(**options)
    assert message in str(error.value)


def test_checkpoints_that_do_not_fit_are_told(folder, tmp_path):
    with pytest.raises(mio.UserError, match=r"missing: tower\.blocks\.3"):
        encoder(**{**SIZES, "layers": 4}, checkpoint=str(folder)).weights()
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(
        mio.UserError, match=r"holds no vision tower .* take google/siglip-large-patch16-384 or a whole Janus"
    ):
        encoder(**SIZES, checkpoint=str(tmp_path)).weights()


@pytest.mark.parametrize(
    ("kind", "vision", "problem"),
    [
        ("janus", {"num_attention_heads": 4}, ""),
        ("janus", {}, "`num_attention_heads` is 16 there, 4 here"),
        (
            "janus",
            {"num_attention_heads": 4, "hidden_act": "gelu_new"},
            "`hidden_act` is 'gelu_new' there, 'gelu' here",
        ),
        ("janus", {"num_attention_heads": 4, "use_qk_norm": True}, "`use_qk_norm` is True there, False here"),
        ("siglip", {"num_attention_heads": 4}, "`hidden_act` is 'gelu_pytorch_tanh' there, 'gelu' here"),
        ("llava", {"num_attention_heads": 9}, ""),
    ],
)
def test_what_shapes_do_not_show_is_compared_with_the_configuration(folder, tmp_path, kind, vision, problem):
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vision_config": vision}))
    found = encoder(**SIZES, checkpoint=str(tmp_path))
    if not problem:
        assert found.weights()
        return
    with pytest.raises(mio.UserError) as error:
        found.weights()
    assert problem in str(error.value)


def test_defaults_of_configurations_are_those_of_transformers():
    classes = {"janus": janus.JanusVisionConfig, "siglip": transformers.SiglipVisionConfig}
    for kind, fields in PUBLISHED.items():
        config = classes[kind]()
        assert fields == {name: getattr(config, name) for name in fields}


def test_the_plugin_conforms():
    small = {"tower": "siglip", "image_size": 16, "patch": 8, "width": 8, "heads": 2, "layers": 1, "ffn_width": 16}
    samples = {"image": [np.full((20, 9, 3), 7, np.uint8), np.zeros((16, 16), np.uint8)]}
    results = check_plugin("vision_tower", small, samples, beside={"image": {"tokenizer": "none"}})
    assert {result.outcome for result in results} <= {"passed", "skipped"}


def test_the_fingerprint_is_of_everything_but_the_weights(folder):
    plain = encoder(**SIZES).fingerprint
    assert encoder(**SIZES, checkpoint=str(folder)).fingerprint == plain
    others = [{"fit": "stretch"}, {"activation": "gelu_tanh"}, {"layers": 2}, {"mean": [0.4, 0.5, 0.5]}]
    made = {encoder(**{**SIZES, **other}).fingerprint for other in others}
    assert len(made | {plain}) == 1 + len(others)
    # what a run that has an InternViT was trained with stays what it is
    internvit = vision_tower.mio_encoder("image", {}).fingerprint
    assert internvit == vision_tower.mio_encoder("image", {"tower": "internvit"}).fingerprint == INTERNVIT
