"""The image tokenizer of Janus against `JanusVQVAE` of transformers, on random weights of reduced width.

Codebook entries are of unit length in `model`, where encoding as published and as transformers does it agree.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import JanusVQVAE, JanusVQVAEConfig

import mio.testing
from mio import DataError, UserError
from mio.plugins import image
from mio.plugins.image import janus

CONFIG = {
    "base_channels": 32,
    "latent_channels": 32,
    "channel_multiplier": [1, 1, 1, 1, 1],
    "num_res_blocks": 1,
    "num_patches": 4,
}
SIZE = 64


def drawn(height=SIZE, width=SIZE, seed=0):
    """Noise of several scales: every part of it looks different."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height))
    return np.asarray(coarse) // 2 + rng.integers(0, 128, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = JanusVQVAE(JanusVQVAEConfig(**CONFIG)).eval()
    with torch.no_grad():
        made.quantize.embedding.weight.copy_(torch.nn.functional.normalize(torch.randn(16384, 8), dim=-1))
        for name, parameter in made.named_parameters():
            if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "norm_out.weight")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    made = tmp_path_factory.mktemp("janus")
    model.save_pretrained(made)
    return made


def options(folder, **more):
    return {"tokenizer": "janus", "checkpoint": str(folder), "size": SIZE, "device": "cpu", **more}


def tokenizer(folder, **more):
    return image.mio_tokenizer("image", options(folder, **more))


def detokenizer(folder, **more):
    return image.mio_detokenizer("image", options(folder, **more))


def copy(folder, to, tensors=None, **config):
    """The folder with other tensors, and other values in its configuration."""
    to.mkdir(exist_ok=True)
    written = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(written | config))
    save_file(load_file(folder / "model.safetensors") if tensors is None else tensors, to / "model.safetensors")
    return to


def whole(folder, to, prefix, shards):
    """A Janus around the tokenizer, in `shards` files, whose other weights cannot be of use."""
    to.mkdir()
    written = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({"model_type": "janus", "vq_config": written, "text_config": {}}))
    tensors = {prefix + name: value for name, value in load_file(folder / "model.safetensors").items()}
    tensors["model.language_model.embed_tokens.weight"] = torch.zeros(3)
    if shards == 1:
        save_file(tensors, to / "model.safetensors")
        return to
    names = sorted(tensors)
    place = {name: f"model-{1 + index % shards:05}-of-{shards:05}.safetensors" for index, name in enumerate(names)}
    for file in set(place.values()):
        save_file({name: tensors[name] for name in names if place[name] == file}, to / file)
    (to / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    return to


def pixels(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 127.5 - 1


def refused(given, *parts):
    for make in (image.mio_tokenizer, image.mio_detokenizer):
        with pytest.raises(UserError) as caught:
            make("image", {"tokenizer": "janus", **given})
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value)


def test_an_image_of_the_published_size_is_576_codes():
    (declared,) = image.mio_modalities({"tokenizer": "janus"})
    assert declared.codebooks == (16384,)
    assert declared.frames.minimum == declared.frames.maximum == 576


def test_the_plugin_stays_light():
    code = (
        "import sys; from mio.plugins import image; image.mio_modalities({'tokenizer': 'janus'});"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@torch.inference_mode()
def test_codes_and_pixels_are_those_of_transformers(model, folder):
    made, back = tokenizer(folder), detokenizer(folder)
    images = [drawn(seed=seed) for seed in range(3)]
    codes = made.encode(images)
    for picture, found in zip(images, codes, strict=True):
        assert np.array_equal(found[0], model.encode(pixels(picture)).image_tokens.numpy())
        expected = model.decode(torch.from_numpy(found))[0].permute(1, 2, 0).numpy()
        difference = back.decode(found) - (expected + 1) * 127.5
        inside = np.abs(expected) < 0.99
        assert inside.mean() > 0.5
        assert np.abs(difference[inside]).max() < 0.501  # half of a step, and float32's rounding
    assert len(np.unique(codes)) > 10
    assert made.frames(images[0]) == codes[0].shape[1] == 16
    assert codes[0].dtype == np.int64


@torch.inference_mode()
def test_entries_are_compared_at_unit_length(folder, tmp_path):
    # transformers' encode leaves them as they are, the published one does not
    tensors = load_file(folder / "model.safetensors")
    tensors[janus.CODEBOOK] *= torch.linspace(0.2, 3, 16384)[:, None]
    stretched = copy(folder, tmp_path / "stretched", tensors)
    picture = drawn()
    assert np.array_equal(tokenizer(stretched).encode([picture])[0], tokenizer(folder).encode([picture])[0])
    theirs = JanusVQVAE.from_pretrained(stretched).eval().encode(pixels(picture)).image_tokens.numpy()
    assert not np.array_equal(tokenizer(stretched).encode([picture])[0][0], theirs)


def test_the_square_in_the_middle_is_encoded(folder):
    made = tokenizer(folder)
    wide = drawn(SIZE, 100)
    [cut, expected] = made.encode([wide, np.ascontiguousarray(wide[:, 18:82])])
    assert np.array_equal(cut, expected)
    grey = drawn()[..., 0]
    [one, three] = made.encode([grey, np.repeat(grey[..., None], 3, axis=2)])
    assert np.array_equal(one, three)


def test_conformance(folder):
    mio.testing.check_plugin("image", options(folder), samples={"image": [drawn(), drawn(50, 80, 1)]})


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_dtypes_come_close(folder, dtype):
    picture = drawn()
    [codes] = tokenizer(folder).encode([picture])
    [other] = tokenizer(folder, dtype=dtype).encode([picture])
    assert other.shape == codes.shape
    close = detokenizer(folder, dtype=dtype).decode(codes).astype(int)
    assert np.abs(close - detokenizer(folder).decode(codes)).mean() < 2


@pytest.mark.parametrize(("prefix", "shards"), [("model.vqmodel.", 1), ("model.vqmodel.", 3), ("vqmodel.", 1)])
def test_of_a_whole_janus_only_the_tokenizer_is_read(folder, tmp_path, prefix, shards):
    inside = whole(folder, tmp_path / "whole", prefix, shards)
    assert tokenizer(inside).fingerprint == tokenizer(folder).fingerprint
    codes = np.arange(16)[None]
    assert np.array_equal(detokenizer(inside).decode(codes), detokenizer(folder).decode(codes))


def test_the_fingerprint_is_of_what_makes_codes(folder, tmp_path):
    def other(name="", **more):
        tensors = load_file(folder / "model.safetensors")
        if name:
            tensors[name].view(-1)[-1] += 1e-3
        return tokenizer(copy(folder, tmp_path / "other", tensors), **more).fingerprint

    same = tokenizer(folder).fingerprint
    assert other() == other("decoder.conv_in.bias") == other("post_quant_conv.bias") == same
    assert other(tokens="anygpt") == same
    changes = [
        other("encoder.conv_in.bias"),
        other("quant_conv.weight"),
        other(janus.CODEBOOK),
        other(dtype="bf16"),
        other(size=32),
    ]
    assert len({same, *changes}) == 6


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    tokenizer(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_saved_as_they_are(folder, tmp_path):
    back = detokenizer(folder)
    made = back.decode(np.arange(16)[None])
    assert made.shape == (SIZE, SIZE, 3)
    path = back.save(made, tmp_path / "a.b")
    assert path.name == "a.b.png"
    assert np.array_equal(np.asarray(Image.open(path)), made)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_images(folder, wrong):
    with pytest.raises(DataError, match=r"must be uint8 \[H, W\]"):
        tokenizer(folder).encode([wrong])


@pytest.mark.parametrize("codes", [np.zeros((1, 15)), np.zeros(16), np.full((1, 16), 16384), np.full((1, 16), -1)])
def test_codes_that_are_no_image(folder, codes):
    with pytest.raises(DataError, match="codes"):
        detokenizer(folder).decode(codes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 100}, "`size` is 100, must be a multiple of 16"),
        ({"size": 0}, "`size` is 0"),
        ({"dtype": "int8"}, "`dtype` is `int8`, not one of `float32`"),
        ({"steps": 3}, "has no option `steps`"),
        ({}, "set `checkpoint` to its folder; `hf download deepseek-community/Janus-Pro-1B"),
        ({"device": "tpux"}, "which torch does not know"),
    ],
)
def test_wrong_options(given, message):
    refused(given, message)


def test_missing_files(folder, tmp_path, monkeypatch):
    refused({"checkpoint": str(tmp_path)}, f"no config.json in {tmp_path}; `hf download")
    (tmp_path / "config.json").write_text("{}")
    refused({"checkpoint": str(tmp_path)}, f"no model.safetensors or model.safetensors.index.json in {tmp_path}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused(options(folder), 'needs transformers: pip install "mio[janus]"')


def test_weights_that_do_not_fit_are_named(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.conv_in.bias"]
    tensors |= {"head.weight": torch.zeros(1), "quant_conv.bias": torch.zeros(9)}
    refused(
        options(copy(folder, tmp_path / "a", tensors)),
        "missing: decoder.conv_in.bias; of another shape: quant_conv.bias [9] instead of [8]; surplus: head.weight",
    )
    # the layout of deepseek-ai/Janus-Pro-1B
    original = {f"gen_vision_model.{name}": value for name, value in tensors.items()}
    refused(
        options(copy(folder, tmp_path / "b", original)), "holds no image tokenizer of Janus", "must be that of trans"
    )


def test_weights_that_are_none(folder, tmp_path):
    wrong = copy(folder, tmp_path / "a")
    for content in (b"", b"no tensors", (folder / "model.safetensors").read_bytes()[:5000]):
        (wrong / "model.safetensors").write_bytes(content)
        refused(options(wrong), f"{wrong / 'model.safetensors'}: not a file of weights that can be read")
    sharded = whole(folder, tmp_path / "b", "model.vqmodel.", 2)
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(options(sharded), "model-00002-of-00002.safetensors: missing; the checkpoint is incomplete")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_embeddings": 8192}, "`num_embeddings` is 8192 instead of 16384"),
        ({"channel_multiplier": [1, 1, 1]}, "`channel_multiplier` must have 5 items"),
        ({"model_type": "chameleon"}, "`model_type` is 'chameleon'"),
        ({"model_type": "janus"}, "not a configuration of Janus"),
        ({"base_channels": "many"}, "not a configuration of Janus"),
    ],
)
def test_configurations_that_do_not_fit(folder, tmp_path, changes, message):
    wrong = copy(folder, tmp_path / "a", **changes)
    refused(options(wrong), f"{wrong / 'config.json'}: ", message)


def test_data_workers_do_not_use_a_gpu(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(options(folder, device="cuda"), "torch sees no GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = tokenizer(folder, device="cuda")
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: "a worker")
    with pytest.raises(UserError, match="cannot be used by data workers; set `device: cpu`"):
        made.encode([drawn()])
