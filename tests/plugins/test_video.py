"""The video plugin, on files written with PyAV and Pillow here."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mio import DataError, Media, UserError
from mio.plugins import video
from mio.plugins.video import files, sampling


def _frame(number: int, count: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 + 200 * number // max(1, count - 1), np.uint8)


def _write(path, count: int, codec: str) -> None:
    """A video whose frames get lighter one by one."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_frame(number, count), format="rgb24")))
        container.mux(stream.encode())


def _write_sound(path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _lightness(frames) -> list[float]:
    return [float(frame.mean()) for frame in frames]


@given(st.integers(0, 300), st.integers(1, 40))
def test_chosen_frames_are_even_and_in_order(count, chosen):
    indices = sampling.evenly(count, chosen)
    assert len(indices) == min(count, chosen)
    assert indices == sorted(set(indices))
    assert all(0 <= index < count for index in indices)
    if min(count, chosen) > 1:
        assert (indices[0], indices[-1]) == (0, count - 1)
        distances = [b - a for a, b in pairwise(indices)]
        assert max(distances) - min(distances) <= 1


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.MKV", "mpeg4")]
)
def test_files_are_sampled_evenly_from_first_to_last(tmp_path, name, codec):
    path = tmp_path / name
    _write(path, 10, codec)
    frames = files.read(path, frames=4)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    np.testing.assert_allclose(_lightness(frames), _lightness([_frame(n, 10) for n in (0, 3, 6, 9)]), atol=6)


def test_long_files_are_sampled_in_bounded_memory(tmp_path):
    _write(tmp_path / "long.mp4", 200, "mpeg4")
    frames = files.read(tmp_path / "long.mp4", frames=5)
    # while reading, every 8th frame was kept (200 / 8 < 5 * 8): the choice is even to within that
    found, wanted = _lightness(frames), _lightness([_frame(n, 200) for n in (0, 50, 100, 149, 199)])
    assert len(found) == 5
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 8 + 6
    assert found == sorted(found)


def test_frames_of_files_are_shrunk(tmp_path):
    _write(tmp_path / "a.mp4", 3, "mpeg4")
    assert {frame.shape for frame in files.read(tmp_path / "a.mp4", max_side=32)} == {(24, 32, 3)}


def test_written_gif_is_read_back(tmp_path):
    joiner = video.mio_detokenizer("video", {"fps": 4})
    frames = [np.full((8, 8), level, np.uint8) for level in (0, 90, 180)]
    path = joiner.save(joiner.decode(frames), tmp_path / "answer-0")
    with Image.open(path) as written:
        assert (written.format, written.n_frames, written.size) == ("GIF", 3, (128, 128))
        assert written.info["duration"] == 250
        assert written.info["loop"] == 0
    read = video.mio_datamodule("video", {}).read(path)
    np.testing.assert_allclose(_lightness(read), [0, 90, 180], atol=3)


def test_broken_files_are_refused(tmp_path):
    _write(tmp_path / "whole.mp4", 30, "mpeg4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    _write_sound(tmp_path / "sound.mp4")
    for name, content, message in [
        ("empty.mp4", b"", "empty"),
        ("cut.mp4", whole[: len(whole) // 2], "damaged"),
        ("text.avi", b"this is no video, only a few words " * 20, "damaged"),
        ("sound.mp4", None, "no video stream"),
        # a playlist that names another file of this machine
        ("list.mp4", f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/whole.mp4\n".encode(), "damaged"),
        ("notes.txt", b"words", "no known format"),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            files.read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        files.read(tmp_path / "missing.mp4")


def test_splitting_keeps_order_and_derives_keys():
    splitter = video.mio_tokenizer("video", {"min_frames": 2, "max_frames": 3})
    frames = [np.full((2, 2), number, np.uint8) for number in range(5)]
    parts = splitter.split(Media("video", frames, "clip"))
    assert [(part.modality, int(part.data[0, 0]), part.key) for part in parts] == [
        ("image", 0, "clip/0"),
        ("image", 2, "clip/2"),
        ("image", 4, "clip/4"),
    ]
    with pytest.raises(DataError, match="clip"):
        splitter.split(Media("video", frames[:1], "clip"))


def test_declaration_follows_the_options():
    (declared,) = video.mio_modalities({"min_frames": 3, "max_frames": 5})
    assert (declared.parts, declared.codebooks, declared.frames.minimum, declared.frames.maximum) == ("image", (), 3, 5)
    assert video.mio_tokenizer("image", {}) is None
    for wrong in ({"max_frame": 3}, {"min_frames": 5, "max_frames": 4}, {"fps": 0}):
        with pytest.raises(UserError):
            video.mio_modalities(wrong)


def test_templates_are_those_of_mio():
    describe, generate = video.TEMPLATES["video_text"]
    assert describe.prompt + describe.response == "Please describe the following video: {video} {description}"
    assert generate.prompt + generate.response == "Please generate a video for “{description}”: {video}"


def test_a_video_without_frames_is_refused():
    with pytest.raises(DataError, match="frame"):
        video.mio_detokenizer("video", {}).decode([])
