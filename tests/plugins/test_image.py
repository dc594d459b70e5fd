"""The image plugin against other implementations: NumPy loops, SciPy, scikit-learn's k-means, Pillow."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mio import Codes, DataError, Media, MemoryFile, UserError
from mio.plugins import image
from mio.plugins.image import files
from mio.plugins.image.patch_vq import from_patches, resized, to_patches

OPTIONS = {"tokenizer": "patch_vq"}
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def from_memory_too(monkeypatch):
    """Every file that these tests read is read from memory too: the same comes of it, or the same error."""
    by_path = files.read

    def read(path, **options):
        content = MemoryFile(path.read_bytes()) if path.is_file() else None
        try:
            found = by_path(path, **options)
        except DataError as error:
            if content is not None:
                with pytest.raises(DataError) as other:
                    by_path(content, **options)
                assert str(other.value).removeprefix(f"{content}") == str(error).removeprefix(f"{path}")  # noqa: PT017
            raise
        again = by_path(content, **options)
        assert len(found) == len(again)
        assert all(np.array_equal(*pair) for pair in zip(found, again, strict=True))
        return found

    monkeypatch.setattr(files, "read", read)


@pytest.fixture(scope="module")
def pictures():
    from sklearn.datasets import load_digits

    return [
        Media("image", np.rint(scan * 255 / 16).astype(np.uint8), str(index))
        for index, scan in enumerate(load_digits().images[:600])
    ]


@pytest.fixture(scope="module")
def tokenizer(pictures):
    made = image.mio_tokenizer("image", OPTIONS)
    made.fit(pictures, seed=0)
    return made


@pytest.fixture
def detokenizer(tokenizer, tmp_path):
    tokenizer.save_weights(tmp_path)
    made = image.mio_detokenizer("image", OPTIONS)
    made.load(tmp_path)
    return made


# ---- declaration


def test_seed_is_declared_as_in_mio():
    (declared,) = image.mio_modalities({"tokenizer": "seed"})
    assert declared.codebooks == (8192,)
    assert declared.frames.minimum == declared.frames.maximum == 32
    assert (declared.begin, declared.end, declared.code_token) == ("<image>", "</image>", "<img{}>")


def test_tokens_may_be_those_of_anygpt():
    for tokenizer in ("seed", "janus", "patch_vq"):
        (declared,) = image.mio_modalities({"tokenizer": tokenizer, "tokens": "anygpt"})
        assert (declared.begin, declared.end, declared.code_token) == ("<soim>", "<eoim>", "<\U0001f440{}>")


def test_patches_are_declared_as_they_are_encoded(tokenizer, pictures):
    (declared,) = image.mio_modalities({**OPTIONS, "size": 8, "patch": 2})
    (codes,) = tokenizer.encode([pictures[0].data])
    assert codes.shape == (len(declared.codebooks), declared.frames.maximum) == (1, 16)
    assert tokenizer.frames(pictures[0].data) == declared.frames.minimum == 16
    assert codes.dtype == np.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "vqgan"}, "`vqgan`; known are seed, janus, patch_vq"),
        ({"tokenizer": "seed", "tokens": "emu"}, "`tokens` is `emu`, not one of `mio`, `anygpt`"),
        ({"tokenizer": "patch_vq", "pach": 2}, "pach"),
        ({"tokenizer": "seed", "size": 8}, "size"),
        ({"tokenizer": "patch_vq", "size": 9}, "multiple"),
        ({"tokenizer": "patch_vq", "channels": 2}, "channels"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        image.mio_modalities(options)


def test_other_modalities_are_left_to_others():
    assert image.mio_tokenizer("speech", OPTIONS) is None
    assert image.mio_detokenizer("speech", OPTIONS) is None
    assert image.mio_datamodule("speech", {}) is None


def test_templates_are_those_of_mio():
    understand, generate = image.TEMPLATES["image_text"]
    assert understand.prompt + understand.response == "{image} The caption of this image is: {caption}"
    assert generate.prompt + generate.response == "Please generate an image of “{caption}”: {image}"


# ---- tokenizer


@given(hnp.arrays(np.uint8, st.sampled_from([(8, 8, 1), (8, 8, 3), (4, 4, 1)])), st.sampled_from([1, 2, 4]))
def test_patches_are_cut_in_reading_order_and_put_back(picture, patch):
    patches = to_patches(picture, patch)
    cut = [
        picture[top : top + patch, left : left + patch].reshape(-1)
        for top in range(0, len(picture), patch)
        for left in range(0, len(picture), patch)
    ]
    np.testing.assert_allclose(patches, np.stack(cut) / 255, atol=1e-7)
    np.testing.assert_array_equal(from_patches(patches, patch), picture)


def test_codes_are_the_nearest_entries_and_decode_to_them(tokenizer, detokenizer, pictures):
    from scipy.spatial.distance import cdist

    entries = tokenizer.codebook.entries
    for item in pictures[:50]:
        (codes,) = tokenizer.encode([item.data])
        distances = cdist(to_patches(item.data[..., None], 2), entries)
        np.testing.assert_allclose(distances[np.arange(16), codes[0]], distances.min(1), atol=1e-6)
        decoded = detokenizer.decode(codes)
        assert decoded.shape == (8, 8)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded[2:4, 4:6].reshape(-1), np.rint(entries[codes[0, 6]] * 255))


def test_codebook_is_as_good_as_scikit_learns_kmeans(pictures):
    from sklearn.cluster import KMeans

    patches = np.concatenate([to_patches(item.data[..., None], 2) for item in pictures])
    best = KMeans(64, n_init=1, random_state=0).fit(patches).inertia_ / patches.size
    figures = image.mio_tokenizer("image", OPTIONS).fit(pictures, seed=3)
    assert figures["pixel_mse"] < 1.15 * best
    assert figures["codes_used"] == 1.0


def test_training_is_a_function_of_items_and_seed(tokenizer, pictures):
    import torch

    state = torch.random.get_rng_state()
    again = image.mio_tokenizer("image", OPTIONS)
    untrained = again.fingerprint
    again.fit(pictures, seed=0)
    assert again.fingerprint == tokenizer.fingerprint != untrained
    again.fit(pictures, seed=1)
    assert again.fingerprint != tokenizer.fingerprint
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_survive_saving(tokenizer, pictures, tmp_path):
    tokenizer.save_weights(tmp_path)
    loaded = image.mio_tokenizer("image", OPTIONS)
    loaded.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    items = [item.data for item in pictures[:20]]
    np.testing.assert_array_equal(loaded.encode(items), tokenizer.encode(items))
    np.testing.assert_array_equal(loaded.encode(items)[7], loaded.encode([items[7]])[0])
    with pytest.raises(UserError, match="patch"):
        image.mio_tokenizer("image", {**OPTIONS, "patch": 4}).load(tmp_path)
    with pytest.raises(UserError, match="no codebook"):
        image.mio_tokenizer("image", OPTIONS).load(tmp_path / "elsewhere")


def test_untrained_tokenizer_says_so():
    with pytest.raises(UserError, match="train"):
        image.mio_tokenizer("image", OPTIONS).encode([np.zeros((8, 8), np.uint8)])


def test_one_image_is_encoded_in_a_fifth_of_a_millisecond(tokenizer, pictures):
    times = []
    for item in pictures[:200]:
        start = time.perf_counter()
        tokenizer.encode([item.data])
        times.append(time.perf_counter() - start)
    assert np.median(times) < 2e-4


def test_resizing_averages_areas_and_keeps_flat_images_flat():
    large = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    areas = large.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(resized(large, 8, 1)[..., 0], areas, atol=1.01)  # Pillow rounds twice, once per axis
    for shape in [(3, 5), (100, 20), (8, 8, 3)]:
        np.testing.assert_array_equal(resized(np.full(shape, 77, np.uint8), 8, 1), np.full((8, 8, 1), 77))
    assert resized(large, 16, 3).shape == (16, 16, 3)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8), np.zeros((0, 8), np.uint8)]
)
def test_what_is_no_image_is_refused(tokenizer, wrong):
    with pytest.raises(DataError, match="uint8"):
        tokenizer.encode([wrong])


@pytest.mark.parametrize("codes", [np.zeros((1, 15), int), np.zeros((2, 16), int), np.full((1, 16), 64)])
def test_wrong_codes_are_refused(detokenizer, codes):
    with pytest.raises(DataError):
        detokenizer.decode(codes)


def test_colour_images_keep_their_colours(tmp_path):
    options = {**OPTIONS, "channels": 3, "codebook_size": 4}
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    items = [
        Media("image", palette[RNG.integers(0, 4, (4, 4))].repeat(2, 0).repeat(2, 1), str(number))
        for number in range(30)
    ]
    tokenizer, detokenizer = image.mio_tokenizer("image", options), image.mio_detokenizer("image", options)
    tokenizer.fit(items, seed=0)
    tokenizer.save_weights(tmp_path)
    detokenizer.load(tmp_path)
    for item in items:
        np.testing.assert_array_equal(detokenizer.decode(tokenizer.encode([item.data])[0]), item.data)


def test_files_written_are_large_enough_to_see_and_exact(detokenizer, tmp_path):
    picture = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    path = detokenizer.save(picture, tmp_path / "answer-0.1")
    assert path.name == "answer-0.1.png"
    written = np.asarray(Image.open(path))
    assert written.shape == (128, 128)
    np.testing.assert_array_equal(written[8::16, 8::16], picture)


# ---- files


def test_reading_gives_the_pixels(tmp_path):
    grey, colour = RNG.integers(0, 256, (5, 7), dtype=np.uint8), RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for name, pixels in [("grey.png", grey), ("colour.png", colour), ("colour.bmp", colour), ("grey.tif", grey)]:
        Image.fromarray(pixels).save(tmp_path / name)
        np.testing.assert_array_equal(files.read(tmp_path / name), pixels)


def test_reading_undoes_rotation_transparency_palettes_and_depth(tmp_path):
    colour = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    rotated = Image.fromarray(colour)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be turned by 90 degrees clockwise
    rotated.save(tmp_path / "rotated.png", exif=exif)
    np.testing.assert_array_equal(files.read(tmp_path / "rotated.png"), np.rot90(colour, -1))

    clear = np.dstack([colour, np.full((4, 6), 255, np.uint8)])
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    expected = colour.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(files.read(tmp_path / "clear.png"), expected)

    Image.fromarray(colour).quantize(24).save(tmp_path / "palette.png")
    assert files.read(tmp_path / "palette.png").shape == (4, 6, 3)

    deep = (np.arange(24, dtype=np.uint16) * 2700).reshape(4, 6)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(files.read(tmp_path / "deep.png"), deep // 256)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes = b"", before: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + before + data + _chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_clear_grey_of_a_png_is_white(tmp_path, depth):
    """Samples 0, 1 and the greatest, packed by hand as PNG says (section 7.2); the second is clear."""
    most = (1 << depth) - 1
    bits = "".join(format(value, f"0{depth}b") for value in (0, 1, most)).ljust(48, "0")
    row = b"\0" + int(bits, 2).to_bytes(6, "big")[: -(-3 * depth // 8)]
    path = tmp_path / "grey.png"
    path.write_bytes(_png(3, 1, depth, 0, row))
    plain = [0, 255 // most if depth < 16 else 0, 255]
    np.testing.assert_array_equal(files.read(path), [plain])
    path.write_bytes(_png(3, 1, depth, 0, row, _chunk(b"tRNS", struct.pack(">H", 1))))
    np.testing.assert_array_equal(files.read(path), [[0, 255, 255]])


def test_the_clear_colour_of_a_png_is_compared_in_its_full_depth(tmp_path):
    pixels = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC]]], ">u2")
    clear = _chunk(b"tRNS", pixels[0, 0].tobytes())
    (tmp_path / "deep.png").write_bytes(_png(2, 1, 16, 2, b"\0" + pixels.tobytes(), clear))
    np.testing.assert_array_equal(files.read(tmp_path / "deep.png"), [[[255, 255, 255], [0x12, 0x56, 0x9A]]])


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_what_is_half_transparent_is_half_white(tmp_path, mode):
    picture = Image.new("RGBA", (2, 1), (100, 100, 100, 51))
    picture.convert(mode).save(tmp_path / "half.png")
    assert np.unique(files.read(tmp_path / "half.png")).tolist() == [224]  # 255 - 0.2 * 155


def test_floats_go_from_0_to_1_and_pixels_without_a_known_range_are_refused(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "deep.tif"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(files.read(path), np.rint(values * 255))
    for wrong in (values * 255, values - 1, values * np.float32("nan"), (values * 65535).astype(np.int32)):
        Image.fromarray(wrong).save(path)
        with pytest.raises(DataError, match=r"deep\.tif: .*does not say what is white"):
            files.read(path)


def test_a_deep_tiff_may_call_0_white(tmp_path):
    values = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    content, tag = (tmp_path / "a.tif").read_bytes(), struct.pack("<HHIH", 262, 3, 1, 1)
    assert content.count(tag) == 1
    (tmp_path / "b.tif").write_bytes(content.replace(tag, struct.pack("<HHIH", 262, 3, 1, 0)))
    np.testing.assert_array_equal(files.read(tmp_path / "b.tif"), 255 - files.read(tmp_path / "a.tif"))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "turned"), [(3, lambda p: p[::-1, ::-1]), (8, np.rot90)])
def test_every_format_is_turned_upright(tmp_path, suffix, orientation, turned):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    found = files.read(tmp_path / f"a.{suffix}")
    assert found.shape == turned(picture).shape
    assert np.abs(found.astype(int) - turned(picture)).mean() < 3


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_long_texts_in_a_png_cost_nothing(tmp_path, kind, place):
    beginning = b"key\0\1\0\0\0" if kind == b"iTXt" else b"key\0\0"
    text = _chunk(kind, beginning + zlib.compress(bytes(2_000_000)))
    content = _png(2, 1, 8, 0, b"\0\x10\x20")
    at = 33 if place == "before" else -12
    (tmp_path / "a.png").write_bytes(content[:at] + text + content[at:])
    assert files.read(tmp_path / "a.png").tolist() == [[16, 32]]


def test_nothing_waits_for_a_pipe(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.png")
    for reads in (files.read, files.size):
        with pytest.raises(DataError, match=r"a\.png: .*pipe"):
            reads(tmp_path / "a.png")


@pytest.mark.parametrize("side", [8_100, 12_000, 100_000])
def test_enormous_images_are_refused_by_their_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(side, side, 8, 2))
    with pytest.raises(DataError, match=r"too (many|large)"):
        files.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not an image at all", "not one of"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not one of")],
)
def test_what_is_no_image_file_is_refused(tmp_path, content, message):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        files.read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_truncated_images_are_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\."):
        files.read(path)
    with pytest.raises(DataError, match="no such file"):
        files.read(Path(tmp_path / "missing.png"))


# ---- filters


def test_filters_look_at_every_image_of_a_record(tmp_path):
    Image.new("L", (300, 130)).save(tmp_path / "wide.png")
    wide = Media("image", tmp_path / "wide.png", "wide")
    square = Media("image", np.zeros((224, 224), np.uint8), "square")
    assert files.aspect_ratio({"image": square, "caption": "x"}, {}) == ""
    assert files.aspect_ratio({"parts": ["x", square, wide]}, {}) == "aspect ratio above 2"
    assert files.aspect_ratio({"image": wide}, {"maximum": 3}) == ""
    assert files.min_side({"image": square}, {}) == ""
    assert files.min_side({"messages": [{"content": [square, wide]}]}, {"pixels": 200}) == "side below 200 pixels"
    assert files.min_side({"image": Codes("image", np.zeros((1, 16), np.int64))}, {}) == ""
    with pytest.raises(UserError, match="max"):
        files.aspect_ratio({"image": square}, {"max": 2})
    for wrong in (float("nan"), float("inf"), 0, "200", True, None):
        with pytest.raises(UserError, match=r"filter `min_side`: `pixels` (is|must be) "):
            files.min_side({"image": square}, {"pixels": wrong})
