"""The vision tower, beside values of VITA's published code (github.com/VITA-MLLM/VITA at 360de22), which
`benchmarks/vita_parity.py REFERENCE --golden` prints. Weights are made by formula, so that nothing is needed of it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mio
from mio.plugins import image, vision_tower
from mio.plugins.vision_tower.options import VisionTowerOptions
from mio.plugins.vision_tower.tiles import grid_of, tiles
from mio.plugins.vision_tower.tower import pixel_shuffle

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from vita_parity import SMALL_MODEL, SMALL_VISION, formula, packed, picture

TINY = {"image_size": 8, "patch": 2, "channels": 1, "width": 16, "layers": 2, "heads": 2, "ffn_width": 32}
DIGITS = {**TINY, "max_tiles": 1}


def encoder(**options):
    return vision_tower.mio_encoder("image", options)


UNDONE = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj.", "embeddings.patch_embedding."),
    ("blocks.", "encoder.layers."),
    (".gamma", ""),
)
"""`NAMES` backwards."""


def published(name):
    """Name in VITA's layout of one of ours."""
    if not name.startswith("tower."):
        return f"model.mm_{name}"
    name = name.removeprefix("tower.")
    for ours, theirs in UNDONE:
        name = name.replace(ours, theirs)
    return f"model.vision_tower.vision_tower.{name}"


def checkpoint(folder, module):
    """A file in VITA's layout, with weights by formula."""
    state = module.state_dict()
    weights = {published(name): formula(published(name), tuple(value.shape)) for name, value in state.items()}
    save_file(weights | {"model.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Encoder and network of reduced size, weights read from a file in VITA's layout."""
    folder = checkpoint(tmp_path_factory.mktemp("vita"), encoder(**SMALL_VISION).module(SMALL_MODEL))
    found = encoder(**SMALL_VISION, checkpoint=str(folder))
    network = found.module(SMALL_MODEL).eval()
    network.load_state_dict(found.weights())
    return found, network


def test_embeddings_are_those_of_the_published_code(loaded):
    found, network = loaded
    with torch.no_grad():
        embeddings = network(packed(found, [picture(60, 40), picture(28, 28), picture(20, 90)]))
    assert embeddings.shape == (56, SMALL_MODEL)
    golden = [1.35651, 3.29942, -0.54557, -1.66767, -2.02307, 1.82846, 8.52289, 3.56447]
    assert embeddings[::7].sum(-1).tolist() == pytest.approx(golden, abs=5e-5)


def test_the_default_network_is_vitas():
    found = encoder()
    with torch.device("meta"):
        state = found.module(4096).state_dict()
    assert sum(value.numel() for name, value in state.items() if name.startswith("tower.")) == 304_012_288
    assert state["projector.0.weight"].shape == (4096, 4096)
    assert found.positions(np.zeros((448, 448, 3), np.uint8)) == 256
    assert found.positions(np.zeros((600, 800, 3), np.uint8)) == 13 * 256  # 4 x 3 tiles, and all of it


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        # values of `find_closest_aspect_ratio` of the reference
        (448, 448, (1, 1)),
        (700, 700, (2, 2)),
        (1600, 1600, (3, 3)),
        (500, 300, (3, 2)),
        (4000, 10, (12, 1)),
        (10, 4000, (1, 12)),
        (640, 480, (4, 3)),
    ],
)
def test_tiles_have_the_shape_of_the_image(width, height, grid):
    assert grid_of(width, height, 448, 1, 12) == grid


def test_tiles_are_cut_in_reading_order_with_the_whole_behind():
    options = VisionTowerOptions(image_size=4, patch=1, shuffle=1, width=8, heads=1)
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    cut = tiles(pixels, options)
    assert cut.shape == (7, 4, 4, 3)
    assert (cut[4] == pixels[4:, 4:8]).all()  # the image is of the grid's size: nothing is resized
    assert encoder(image_size=4, patch=1, shuffle=1, width=8, heads=1).positions(pixels) == 7 * 16


def test_pixel_shuffle_joins_squares_row_by_row():
    patches = torch.arange(16.0).view(1, 16, 1)
    assert pixel_shuffle(patches, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_an_items_embeddings_do_not_depend_on_others():
    found = encoder(**TINY)
    torch.manual_seed(0)
    network = found.module(12)
    one, other = picture(8, 8), picture(30, 9)
    alone, beside = network(packed(found, [one])), network(packed(found, [one, other]))
    assert torch.equal(alone, beside[: len(alone)])
    changed = network(packed(found, [one, 255 - other]))
    assert torch.equal(changed[: len(alone)], beside[: len(alone)])
    assert not torch.equal(changed, beside)


def test_a_dummy_is_an_item_and_a_video_frame_is_one_tile():
    found = encoder(**DIGITS)
    assert found.dummy()["tiles"].shape == (1, 8, 8, 1)
    assert found.positions(np.zeros((8, 8), np.uint8)) == 4
    assert encoder().positions(np.zeros((448, 448), np.uint8)) == 256
    with torch.device("meta"):
        assert found.module(12).projector[0].weight.is_meta


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (np.zeros((1, 1, 3), np.uint8), "an image of 1 x 1 pixels is smaller than `min_side`, 2"),
        (np.zeros((8, 8, 4), np.uint8), r"must be uint8 \[H, W\] or \[H, W, 3\], this is uint8 \[8, 8, 4\]"),
        (np.zeros((8, 8)), "this is float64"),
        ("a.png", "this is <U5"),
    ],
)
def test_what_is_no_image_is_one_line(media, message):
    for ask in (encoder().positions, encoder().prepare):
        with pytest.raises(mio.DataError, match=message) as caught:
            ask(media)
        assert "plugins.vision_tower" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "`image_size` 30 must be a multiple of `patch` x `shuffle`, 28"),
        ({"channels": 2, "width": 10}, "`channels` is 2.*`width` 10 must be a multiple of `heads` 16"),
        ({"min_tiles": 4, "max_tiles": 2}, "`min_tiles` is 4, must be at most `max_tiles`, 2"),
        ({"tile": 3}, "has no option `tile`"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(mio.UserError, match=message):
        encoder(**options)


def test_fingerprints_change_with_what_they_stand_for():
    same = encoder(**TINY).fingerprint
    assert encoder(**TINY, checkpoint="a", layer_scale=0.5).fingerprint == same
    assert encoder(**TINY, max_tiles=2).fingerprint != same


def test_checkpoints_that_do_not_fit_are_refused_in_one_line(tmp_path):
    module = encoder(**SMALL_VISION).module(SMALL_MODEL)
    folder = str(checkpoint(tmp_path, module))
    with pytest.raises(mio.UserError, match=r"missing: tower\.blocks\.3.* and 23 more"):
        encoder(**{**SMALL_VISION, "layers": 5}, checkpoint=folder).weights()
    with pytest.raises(mio.UserError, match=r"of another shape: tower\.pos_embed \[1, 17, 32\] instead of"):
        encoder(**{**SMALL_VISION, "image_size": 56}, checkpoint=folder).weights()
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "text.safetensors")
    with pytest.raises(mio.UserError, match=r"text\.safetensors holds no vision tower"):
        encoder(checkpoint=str(tmp_path / "text.safetensors")).weights()
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(mio.UserError, match=r"cut\.safetensors: not a file of weights"):
        encoder(checkpoint=str(tmp_path / "cut.safetensors")).weights()
    with pytest.raises(mio.UserError, match="no such file or folder"):
        encoder(checkpoint=str(tmp_path / "absent")).weights()
    assert encoder().weights() == {}


def test_a_tower_alone_and_a_projector_alone_are_read(tmp_path, loaded):
    whole = loaded[0].weights()
    theirs = {published(name): value for name, value in whole.items()}
    prefix = "model.vision_tower.vision_tower."
    save_file(
        {n.removeprefix(prefix): v for n, v in theirs.items() if n.startswith(prefix)}, tmp_path / "vit.safetensors"
    )
    torch.save({n: v for n, v in theirs.items() if "projector" in n}, tmp_path / "mm_projector.bin")
    files = {"checkpoint": str(tmp_path / "vit.safetensors")}
    tower = encoder(**SMALL_VISION, **files).weights()
    assert tower.keys() == {name for name in whole if name.startswith("tower.")}
    again = encoder(**SMALL_VISION, **files, projector_checkpoint=str(tmp_path / "mm_projector.bin")).weights()
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_images_without_a_tokenizer_are_declared_and_read():
    (declared,) = image.mio_modalities({"tokenizer": "none"})
    assert (declared.codebooks, declared.begin, declared.end) == ((), "", "")
    (marked,) = image.mio_modalities({"tokenizer": "none", "tokens": "mio"})
    assert (marked.begin, marked.end) == ("<image>", "</image>")
    assert image.mio_tokenizer("image", {"tokenizer": "none"}) is None
    assert image.mio_detokenizer("image", {"tokenizer": "none"}) is None
    module = image.mio_datamodule("image", {"tokenizer": "none"})
    assert {one.direction for templates in module.templates.values() for one in templates} == {"image_to_text"}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("orientation", [0, 1, 6, 8])
def test_the_probe_of_a_file_has_the_size_of_what_is_read(tmp_path, suffix, orientation):
    from PIL import Image

    path = tmp_path / f"a{suffix}"
    drawn = Image.fromarray(picture(12, 7))
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    drawn.save(path, **({} if suffix == ".bmp" else {"exif": exif}))
    module = image.mio_datamodule("image", {"tokenizer": "none"})
    assert module.probe(path).shape[:2] == module.read(path).shape[:2]
    assert encoder(image_size=4, patch=1).positions(module.probe(path)) == encoder(image_size=4, patch=1).positions(
        module.read(path)
    )


def test_the_tower_conforms_to_the_contract():
    from mio.testing import check_plugin

    samples = {"image": [picture(8, 8), picture(30, 9), picture(12, 12)]}
    results = check_plugin("vision_tower", TINY, samples, beside={"image": {"tokenizer": "none"}})
    checked = {result.check for result in results if result.outcome == "passed"}
    assert "image: an item's embeddings do not depend on other items" in checked, results
