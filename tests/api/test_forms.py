"""Forms of media against the readers of files: the same picture or sound, whichever way it comes."""

import io
import wave

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mio import MemoryFile, UserError
from mio.api import forms
from mio.api.forms import from_python, media_type_of
from mio.plugins.image.files import read

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
SOUND = (0.5 * np.sin(np.arange(800) / 9)).astype(np.float32), 8000


def as_file(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return MemoryFile(file.getvalue(), ".png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_picture_of_pillow_is_what_its_file_is_read_as(mode):
    image = Image.fromarray(RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8), "RGBA").convert(mode)
    assert np.array_equal(from_python(image, "image"), read(as_file(image)))


def test_pictures_of_more_bits_and_of_one_transparent_colour_are_read_as_their_files():
    deep = Image.fromarray(RANDOM.integers(0, 1 << 16, (6, 5), dtype=np.uint16))
    assert np.array_equal(from_python(deep, "image"), read(as_file(deep)))
    keyed = Image.open(as_file(Image.fromarray(COLOUR), transparency=tuple(COLOUR[2, 3].tolist())).open())
    content = read(as_file(Image.fromarray(COLOUR), transparency=tuple(COLOUR[2, 3].tolist())))
    assert np.array_equal(from_python(keyed, "image"), content)
    assert (content[2, 3] == 255).all()


def test_a_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "JPEG", exif=exif)
    turned = from_python(Image.open(file), "image")
    assert turned.shape == (7, 5, 3)
    assert np.array_equal(turned, read(MemoryFile(file.getvalue(), ".jpg")))


def test_arrays_and_tensors_are_the_same_picture():
    for same in (
        COLOUR,
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        COLOUR / 255,
        (torch.from_numpy(COLOUR).permute(2, 0, 1) / 255),
        np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)]),
        Image.fromarray(COLOUR),
    ):
        found = from_python(same, "image")
        assert found.dtype == np.uint8
        assert np.array_equal(found, COLOUR)
    for same in (GREY, GREY[..., None], torch.from_numpy(GREY)[None], torch.from_numpy(GREY)):
        assert np.array_equal(from_python(same, "image"), GREY)
    assert np.array_equal(from_python(GREY > 100, "image"), np.where(GREY > 100, 255, 0))


def test_transparent_pixels_lie_on_white():
    clear = np.dstack([COLOUR, np.zeros((5, 7), np.uint8)])
    assert (from_python(clear, "image") == 255).all()
    assert np.array_equal(from_python(clear, "image"), from_python(Image.fromarray(clear), "image"))


def test_sound_comes_as_pairs_tensors_and_records_of_datasets():
    samples, rate = SOUND
    for same in (SOUND, [samples, rate], (samples.tolist(), rate), {"array": samples, "sampling_rate": rate}):
        found = from_python(same, "audio")
        assert found[1] == rate
        assert np.array_equal(np.asarray(found[0], np.float32), samples)
    stereo = torch.from_numpy(np.stack([samples, -samples]))  # as torchaudio loads it
    assert from_python((stereo, rate), "audio")[0].shape == (800, 2)


def test_a_video_is_a_list_of_pictures():
    frames = np.stack([COLOUR, 255 - COLOUR])
    for same in (
        frames,
        list(frames),
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        list(map(Image.fromarray, frames)),
    ):
        assert np.array_equal(np.stack(from_python(same, "video")), frames)


def test_files_and_bytes_stay_files():
    content = forms.to_png(COLOUR)
    kept = from_python(content, "image")
    assert kept == MemoryFile(content, ".png")
    assert np.array_equal(read(kept), COLOUR)
    assert from_python("a.png", "image").name == "a.png"
    assert from_python(kept, "audio") is kept


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (np.zeros((2, 2, 2), np.uint8), "image", r"uint8 \[2, 2, 2\]"),
        (np.zeros((0, 2), np.uint8), "image", r"\[0, 2\]"),
        (np.full((2, 2), 3.0), "image", "from 3 to 3"),
        (np.full((2, 2), np.nan), "image", "from 0"),
        (np.zeros((2, 2), np.int32), "image", "what is white"),
        ({"a": 1}, "image", "not dict"),
        (np.zeros(4), "audio", "not ndarray"),
        ((np.zeros(4), 0), "audio", "whole number"),
        ((np.zeros(4), 0.5), "audio", "whole number"),
        ((np.zeros(4), np.nan), "audio", "not nan"),
        ((np.zeros(4), np.inf), "audio", "not inf"),
        ((np.zeros(4), 10**400), "audio", "whole number"),
        ((np.zeros(4), np.zeros((3, 3))), "audio", "whole number"),
        (([[], "a"], 8000), "audio", "samples of list"),
        ((np.zeros((4, 90)), 8000), "audio", r"\[4, 90\]"),
        ((np.array([np.inf]), 8000), "audio", "finite"),
        (([], 8000), "audio", r"\[0\]"),
        ([], "video", "empty list"),
        ([COLOUR, 5], "video", "frame 1 of the video"),
        (np.zeros((2, 2), np.uint8), "video", r"\[2, 2\]"),
    ],
)
def test_what_is_no_media_is_refused_in_one_line(value, kind, told):
    with pytest.raises(UserError, match=told) as caught:
        from_python(value, kind)
    assert "\n" not in str(caught.value)


def test_media_types_follow_from_objects_that_can_be_of_one_alone():
    assert media_type_of(Image.fromarray(COLOUR)) == media_type_of(COLOUR) == media_type_of(GREY) == "image"
    assert media_type_of(SOUND) == media_type_of({"array": SOUND[0], "sampling_rate": 8000}) == "audio"
    assert media_type_of([COLOUR, COLOUR]) == media_type_of(np.stack([COLOUR])) == "video"
    assert media_type_of(torch.from_numpy(COLOUR)) == "image"
    for unclear in (SOUND[0], np.zeros((4, 4)), [], [COLOUR, 5], 5, None, "text", {"a": 1}):
        assert media_type_of(unclear) == ""


def test_written_media_read_back():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(forms.to_png(GREY)))), GREY)
    samples, rate = SOUND
    with wave.open(io.BytesIO(forms.to_wav((np.stack([samples, samples * 4], 1), rate)))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (8000, 2, 2, 800)
        pcm = np.frombuffer(file.readframes(800), "<i2").reshape(-1, 2)
    assert np.abs(pcm[:, 0] / 32768 - samples).max() <= 0.5 / 32768
    assert pcm[:, 1].max() == 32767  # louder than full scale
    assert np.array_equal(forms.to_pcm(np.array([-32768, 5], np.int16)), [-32768, 5])


def test_a_video_is_written_for_players_and_for_browsers():
    flat = [np.full((9, 7, 3), value, np.uint8) for value in (10, 200, 90)]
    with av.open(io.BytesIO(forms.to_mp4(flat, fps=4))) as container:
        [stream] = container.streams.video
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 4)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in frames] == [(172, 134, 3)] * 3  # enlarged 19 times, to even sides
    assert all(abs(float(frame.mean()) - value) < 3 for frame, value in zip(frames, (10, 200, 90), strict=True))
    animated = Image.open(io.BytesIO(forms.to_apng(flat)))
    assert animated.n_frames == 3
    animated.seek(1)
    assert np.array_equal(np.asarray(animated.convert("RGB")), flat[1])


def test_types_without_a_form_say_so():
    assert forms.to_bytes(COLOUR, "image")[0] == "image/png"
    assert forms.to_bytes(SOUND, "audio")[0] == "audio/wav"
    assert forms.to_bytes([COLOUR], "video")[0] == "video/mp4"
    with pytest.raises(UserError, match="save them as files"):
        forms.to_bytes(object(), "model")


def test_a_rate_of_numpy_is_a_rate():
    assert media_type_of((np.zeros(8, np.float32), np.int64(16_000))) == "audio"
