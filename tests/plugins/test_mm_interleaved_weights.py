"""Weights of the plugin `mm_interleaved`: the published layout, CLIP's and Stable Diffusion's.

`mm_interleaved_keys.txt` has the names and shapes of the published code's state dict (github.com/OpenGVLab/
MM-Interleaved at ac539d0), which `benchmarks/mm_interleaved_keys.py` prints.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mio
from mio.plugins import mm_interleaved
from mio.plugins.mm_interleaved import published
from mio.plugins.mm_interleaved.weights import of_layers, of_painter, of_reader

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from mm_interleaved_keys import checksum, expanded
from mm_interleaved_parity import SMALL, WIDTH, options
from vita_parity import formula

SHAPES, WHOLES = expanded((Path(__file__).parent / "mm_interleaved_keys.txt").read_text().splitlines())
UNET, AUTOENCODER = "image_decoder.decoder.unet.", "image_decoder.decoder.vae."


def networks(sizes):
    """Encoder, networks in layers and head."""
    yield mm_interleaved.mio_encoder("image", sizes)
    yield mm_interleaved.mio_adapters(sizes)
    yield mm_interleaved.mio_head("image", sizes)


def parameters(network, width):
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in network.module(width).named_parameters()}


def published_names(painter):
    """All, with those of U-Net and autoencoder."""
    whole = {"decoder.unet.": UNET, "latents.vae.": AUTOENCODER}
    diffusers = {
        theirs + name.removeprefix(ours): shape
        for name, shape in painter.items()
        for ours, theirs in whole.items()
        if name.startswith(ours)
    }
    return SHAPES | diffusers


@pytest.fixture(scope="module")
def full():
    """Shapes of the networks of 13B: encoder, one layer, head."""
    return [parameters(network, 5120) for network in networks({})]


def test_every_published_tensor_has_its_place_and_every_parameter_its_tensor(full):
    reader, layer, painter = full
    names = published_names(painter)
    for prefix, (count, digest) in WHOLES.items():
        own = {name.removeprefix(prefix): shape for name, shape in names.items() if name.startswith(prefix)}
        assert (len(own), checksum(own)) == (count, digest)
    places = published.by_network(names)
    assert sum(map(len, places.values())) == 2659
    assert set(places) == {"reader", "layers", "painter", "language", "folded", "dropped"}
    assert {ours: names[theirs] for ours, theirs in places["painter"].items()} == painter
    numbers = range(0, 40, 4)
    assert {ours: names[theirs] for ours, theirs in places["layers"].items()} == {
        f"{number}.{name}": shape for number in numbers for name, shape in layer.items()
    }
    with torch.device("meta"):
        tensors = {ours: torch.empty(names[theirs]) for ours, theirs in places["reader"].items()}
        joined = {name: list(value.shape) for name, value in published.joined(tensors).items()}
    assert joined == reader
    assert set(places["folded"]) == {published.BEGIN, *published.HEADS}
    assert {name.partition(".")[0] for name in places["language"]} == {"embed_tokens", "layers", "norm"}


def test_the_networks_have_the_published_size(full):
    # of a layer: without `ignore_token`, 1,024 zeros; with norms and gate
    assert sum(map(np.prod, full[1].values())) == 36_302_513


def small_tensors():
    """Those of the networks in the published layout, of reduced size, with weights by formula of our names."""
    tensors = {}
    reader, layer, painter = (parameters(network, WIDTH) for network in networks(SMALL))
    shapes = {"reader": reader, "painter": painter, "layers": {f"0.{name}": shape for name, shape in layer.items()}}
    for network, named in published.by_network(published_names(painter)).items():
        for ours, theirs in named.items():
            own = shapes.get(network, {})
            if ours in own:
                tensors[theirs] = formula(ours, tuple(own[ours]))
            elif network == "reader" and ".attn." in ours and "_proj." in ours:
                whole = own.get(published_qkv(ours))
                if whole:
                    tensors[theirs] = formula(ours, (whole[0] // 3, *whole[1:]))
            elif theirs == "mm_decoder.layers.0.llama_cross_attn.attn.ignore_token":
                tensors[theirs] = torch.zeros(1)
    return tensors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file in the published layout, and its tensors."""
    folder = tmp_path_factory.mktemp("published")
    rest = ("soi_token", "text_decoder.head.weight", "mm_decoder.norm.weight", "visual_tokenizer.pos_embed")
    tensors = small_tensors() | {name: torch.ones(2) for name in rest}
    save_file(tensors, folder / "model.safetensors")
    return folder, tensors


def published_qkv(name):
    for one in "qkv":
        name = name.replace(f".{one}_proj.", ".qkv.")
    return name


def test_a_whole_checkpoint_becomes_the_networks_weights(checkpoint):
    folder, tensors = checkpoint
    chosen = options({**SMALL, "checkpoint": str(folder)})
    reader, painter, layers = of_reader(chosen), of_painter(chosen), of_layers(chosen)
    encoder, adapter, head = networks({**SMALL, "checkpoint": str(folder)})
    for network, weights in ((encoder, reader), (head, painter)):
        module = network.module(WIDTH)
        assert set(weights) == {name for name, _ in module.named_parameters()}
        module.load_state_dict(weights, strict=False)
    adapter.module(WIDTH).load_state_dict({name.removeprefix("0."): value for name, value in layers.items()})
    block = "clip.blocks.3.attn."
    assert torch.equal(reader[f"{block}qkv.bias"][32:64], formula(f"{block}k_proj.bias", (32,)))
    assert torch.equal(painter["perceiver.queries"], tensors["image_decoder.perceiver_resampler.queries"])
    assert encoder.weights().keys() == reader.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resampler": {**SMALL["resampler"], "positions": 6}}, r"of another shape: resampler.queries \[1, 5, 24\]"),
        ({"resampler": {**SMALL["resampler"], "layers": 2}}, "surplus: resampler.layers.2"),
        ({"layers": {**SMALL["layers"], "every": 2}}, ""),
    ],
)
def test_a_checkpoint_of_other_sizes_is_refused(checkpoint, change, message):
    chosen = options({**SMALL, **change, "checkpoint": str(checkpoint[0])})
    if message:
        with pytest.raises(mio.UserError, match=message):
            of_reader(chosen)
    else:
        assert of_layers(chosen)  # one layer alone says nothing of the rule


def test_what_is_not_mm_interleaveds_is_refused(checkpoint, tmp_path):
    _, tensors = checkpoint
    save_file({**tensors, "visual_tokenizer2.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(mio.UserError, match=r"holds what MM-Interleaved does not: visual_tokenizer2\.weight"):
        of_painter(options({**SMALL, "checkpoint": str(tmp_path)}))
    with pytest.raises(mio.UserError, match="no such file or folder"):
        of_reader(options({**SMALL, "checkpoint": str(tmp_path / "none")}))


def test_layers_that_a_checkpoint_does_not_have_are_an_error(checkpoint, tmp_path):
    _, tensors = checkpoint
    mark = "mm_decoder.layers.0.llama_cross_attn."
    own = {name.removeprefix(mark): one for name, one in tensors.items() if name.startswith(mark)}
    more = {mark.replace("0", "4") + name: one.clone() for name, one in own.items()}
    save_file(tensors | more, tmp_path / "model.safetensors")
    assert {name[0] for name in of_layers(options({**SMALL, "checkpoint": str(tmp_path)}))} == {"0", "4"}
    other = {**SMALL, "layers": {**SMALL["layers"], "every": 2}, "checkpoint": str(tmp_path)}
    with pytest.raises(mio.UserError, match=r"in the layers \[0, 4\], and not in every 2th"):
        of_layers(options(other))


def test_clip_alone_is_read_from_a_whole_clip(checkpoint, tmp_path):
    _, tensors = checkpoint
    begin = "visual_tokenizer.encoder."
    clip = {name.removeprefix(begin): one for name, one in tensors.items() if name.startswith(begin)}
    clip = {name: one for name, one in clip.items() if ".adapter_" not in name}
    clip |= {"vision_model.post_layernorm.weight": torch.ones(32), "text_model.final_layer_norm.bias": torch.ones(3)}
    save_file(clip, tmp_path / "model.safetensors")
    found = of_reader(options({**SMALL, "clip": str(tmp_path)}))
    whole = of_reader(options({**SMALL, "checkpoint": str(checkpoint[0])}))
    expected = {name: one for name, one in whole.items() if name.startswith("clip.")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(one, expected[name]) for name, one in found.items())
    del clip["vision_model.embeddings.class_embedding"]
    save_file(clip, tmp_path / "model.safetensors")
    with pytest.raises(mio.UserError, match="holds no vision transformer of CLIP"):
        of_reader(options({**SMALL, "clip": str(tmp_path)}))


def test_stable_diffusion_is_read_in_the_layout_of_diffusers(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    network = mm_interleaved.mio_head("image", SMALL).module(WIDTH)
    network.decoder.unet.save_pretrained(tmp_path / "unet")
    network.latents.vae.save_pretrained(tmp_path / "vae")
    found = of_painter(options({**SMALL, "diffusion_checkpoint": str(tmp_path)}))
    state = dict(network.named_parameters())
    assert {name.partition(".")[0] for name in found} == {"decoder", "latents"}
    assert all(torch.equal(one, state[name]) for name, one in found.items())
    # older files name attention otherwise
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, one in network.latents.vae.state_dict().items():
        new = next((new for new in old if f".{new}." in name), None)
        tensors[name if new is None else name.replace(f".{new}.", f".{old[new]}.")] = one
    save_file(tensors, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    again = of_painter(options({**SMALL, "diffusion_checkpoint": str(tmp_path)}))
    assert again.keys() == found.keys()
    # the condition of an empty text
    config = CLIPTextConfig(
        vocab_size=3, hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=7,
    )  # fmt: skip
    encoder = CLIPTextModel(config)
    encoder.save_pretrained(tmp_path / "text_encoder")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokens = {"!": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "!", "model_max_length": 7})
    )
    empty = of_painter(options({**SMALL, "diffusion_checkpoint": str(tmp_path)}))["neg_prompt_embeds"]
    with torch.no_grad():
        expected = encoder.eval()(torch.tensor([[1, 2, 0, 0, 0, 0, 0]])).last_hidden_state
    torch.testing.assert_close(empty, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision": {"image_size": 225}}, "`vision.image_size` 225 must be an even multiple of `patch`, 14"),
        (
            {"diffusion": {"channels": [320, 640]}},
            "`diffusion.heads` has 4 numbers, must have as many as",
        ),
        ({"diffusion": {"image_size": 500}}, "`diffusion.image_size` 500 must be a multiple of 64"),
        ({"layers": {"evry": 4}}, "did you mean `every`"),
        ({"diffusion": {"images": 10}}, "must be below `sync_images`, 10"),
        ({"resampler": {"heads": 7}}, "`resampler.width` 768 must be a multiple of its `heads`, 7"),
    ],
)
def test_options_that_do_not_fit_are_told(change, message):
    with pytest.raises(mio.UserError, match=message):
        mm_interleaved.mio_encoder("image", change)


def test_images_are_cut_from_the_middle_and_resized():
    image = np.zeros((40, 64, 3), np.uint8)
    image[:, 12:52] = 200
    sizes = {"vision": {"image_size": 16, "patch": 4}}
    encoder = mm_interleaved.mio_encoder("image", sizes)
    pixels = encoder.prepare(image)["pixels"]
    assert (pixels.shape, pixels.dtype) == ((1, 16, 16, 3), np.uint8)
    assert (pixels[0, :, 1:-1] == 200).all()
    whole = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (encoder.prepare(whole)["pixels"][0] == whole).all()  # nothing is resized
    assert encoder.positions(image) == 64
    with pytest.raises(mio.DataError, match="must be uint8"):
        encoder.positions(image.astype(float))
    head = mm_interleaved.mio_head("image", {**sizes, "grey": True})
    assert head.target(whole[..., 0])["pixels"].shape == (1, 512, 512, 1)


def test_noise_is_drawn_for_each_image():
    head = mm_interleaved.mio_head("image", {})
    one, again, other = (head.noise({}, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert {name: (value.shape, value.dtype.name) for name, value in one.items()} == {
        "noise": ((1, 4, 64, 64), "float32"),
        "times": ((1,), "int64"),
        "draw": ((1, 4, 64, 64), "float32"),
    }
    assert all((one[name] == again[name]).all() for name in one)
    assert (one["noise"] != other["noise"]).any()
