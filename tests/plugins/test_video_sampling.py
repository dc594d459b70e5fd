"""Choice of frames by time and by scene, on files written with PyAV here."""

from __future__ import annotations

import resource
import sys
import time
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mio
from mio import DataError, UserError
from mio.plugins import video
from mio.plugins.video import decoding, files, sampling
from mio.plugins.video.scenes import Scenes

WIDTH, HEIGHT = 64, 48
COLOURS = [(20, 20, 20), (230, 230, 230), (150, 20, 20), (20, 250, 250), (90, 90, 90), (60, 60, 250), (250, 250, 40)]
"""Neighbours differ by more than PySceneDetect's threshold, 27: the mean difference of hue, saturation and value."""


def write(path, frames, rate=10, codec="mpeg4", gop=12):
    """`frames` are pairs of seconds and colour; times are kept to a millisecond."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.options = {"sc_threshold": "1000000000"}  # no further key frames
        stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()
        for seconds, colour in frames:
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), colour, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def colours(frames):
    """Index of the nearest of `COLOURS` for each frame."""
    means = np.stack([frame.reshape(-1, 3).mean(0) for frame in frames])
    return np.abs(means[:, None] - np.asarray(COLOURS)[None]).sum(-1).argmin(1).tolist()


def scenes(lengths, rate=10):
    """Plain colours, so many seconds each."""
    frames, start = [], 0.0
    for number, length in enumerate(lengths):
        frames += [(start + index / rate, COLOURS[number % len(COLOURS)]) for index in range(round(length * rate))]
        start += length
    return frames


def level(seconds, longest):
    """Grey that gets lighter with time."""
    return (20 + 200 * seconds / longest,) * 3


def lightness(frames):
    return np.asarray([frame.mean() for frame in frames])


ascending = st.lists(st.floats(0, 1e4, allow_subnormal=False), min_size=1, max_size=60, unique=True).map(sorted)


@given(ascending, st.integers(1, 20))
def test_indices_chosen_by_time_differ_and_ascend(times, chosen):
    indices = sampling.evenly_in_time(times, chosen)
    assert len(indices) == min(len(times), chosen)
    assert indices == sorted(set(indices))
    assert set(indices) <= set(range(len(times)))
    if len(indices) > 1:
        assert (indices[0], indices[-1]) == (0, len(times) - 1)


@given(ascending, ascending, st.integers(0, 12))
def test_filling_adds_what_is_not_there(taken, times, wanted):
    added = sampling.fill(taken, times, wanted)
    assert len(added) == len(set(added)) <= max(0, wanted - len(taken))
    assert not {times[index] for index in added} & set(taken)


def test_filling_takes_the_middle_of_the_longest_gap():
    assert sampling.fill([0.0, 8.0, 10.0], [float(n) for n in range(11)], 4) == [4]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=400), st.integers(4, 20))
def test_a_timeline_is_bounded_and_covers_the_stream(steps, capacity):
    timeline = sampling.Timeline(capacity)
    times = np.cumsum(steps).tolist()
    for moment in times:
        timeline.offer(moment, lambda moment=moment: np.full((1, 1), moment))
        assert len(timeline.times) <= capacity
    assert timeline.times[0] == times[0]
    assert [float(picture[0, 0]) for picture in timeline.pictures] == timeline.times
    # no more is missing between two neighbours than the distance asked for and the stream's own longest pause
    allowed = 4 * (times[-1] - times[0]) / (capacity - 2) + max(steps)
    assert all(b - a <= allowed for a, b in pairwise([*timeline.times, times[-1]]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_time_and_not_the_number_of_frames_decides(tmp_path, name):
    # 100 frames in the first second, then one per second: at even numbers nearly all would be of the first second
    moments = [n / 100 for n in range(100)] + [float(n) for n in range(1, 13)]
    write(tmp_path / name, [(moment, level(moment, 12)) for moment in moments], rate=100)
    found = lightness(files.read(tmp_path / name, frames=5))
    np.testing.assert_allclose(found, [level(moment, 12)[0] for moment in (0, 3, 6, 9, 12)], atol=6)


def test_one_frame_of_each_scene_in_order(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, scenes([1, 4, 1.5, 9, 2]))
    assert colours(files.read(path, frames=8, scenes=True)) == [0, 1, 2, 3, 4]
    # two thirds of what even distances give are of the two long scenes
    assert colours(files.read(path, frames=5)) != [0, 1, 2, 3, 4]


def test_the_frame_of_a_scene_is_its_middle(tmp_path):
    # within a scene the blue goes up by little steps
    frames = [(n / 10, (200 if n < 40 else 30, 30, 100 + n % 40)) for n in range(80)]
    write(tmp_path / "a.mp4", frames)
    first, second = files.read(tmp_path / "a.mp4", scenes=True)
    assert abs(first[..., 2].mean() - 120) < 10
    assert abs(second[..., 2].mean() - 120) < 10


def test_of_many_scenes_even_ones_are_taken(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, scenes([1] * 7))
    assert colours(files.read(path, frames=3, scenes=True)) == [0, 3, 6]


def test_few_scenes_are_filled_up_between(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, scenes([2, 6]))
    options = {"frames": "scenes", "min_frames": 4, "max_frames": 6}
    found = colours(video.mio_datamodule("video", options).read(path))
    assert len(found) == 4
    assert found == sorted(found)
    assert found.count(1) >= 2
    write(path, scenes([2]))
    assert len(video.mio_datamodule("video", options).read(path)) == 4


def one_pixel(number, made):
    made.append(number)
    return np.full((1, 1), number)


def test_scenes_are_kept_in_bounded_memory():
    found = Scenes(4)
    made = []
    for number in range(40):
        colour = np.full((4, 4, 3), COLOURS[number % 7], np.uint8)
        picture = partial(one_pixel, number, made)
        for part in range(10):
            found.offer(number + part / 10, colour, picture)
    found.close()
    assert [int(picture[0, 0]) for picture in found.pictures] == [0, 16, 32]
    assert len(set(made)) < 20


def test_an_hour_takes_seconds_and_little_memory(tmp_path):
    path = tmp_path / "hour.mp4"
    write(path, ((float(n), COLOURS[n // 600]) for n in range(3600)), rate=1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert colours(files.read(path, frames=6)) == [0, 1, 2, 3, 4, 5]
    assert colours(files.read(path, frames=8, scenes=True)) == [0, 1, 2, 3, 4, 5]
    assert time.process_time() - start < 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit < 200


@pytest.mark.parametrize("scene", [False, True])
def test_past_the_budget_key_frames_alone_are_decoded(tmp_path, monkeypatch, scene):
    path = tmp_path / "a.mp4"
    write(path, [(moment, level(moment, 60)) for moment in (n / 10 for n in range(600))])
    monkeypatch.setattr(decoding, "DENSE_PIXELS", 100 * decoding._FRAME_PIXELS)
    whole = decoding.Decoding(path)
    moments = [moment for moment, _ in whole]
    # 100 frames, then every 12th, which is every 1.2 s, if it is at least a second after the one before
    assert whole.skipped
    assert 100 <= len(moments) <= 100 + 500 / 12 + 3
    assert max(b - a for a, b in pairwise(moments)) < 1 + 1.2 + 0.01
    assert whole.end == pytest.approx(59.9, abs=0.01)
    found = lightness(files.read(path, frames=4, fewest=4, scenes=scene))
    assert len(found) == 4
    if not scene:
        np.testing.assert_allclose(found, [level(moment, 60)[0] for moment in (0, 20, 40, 60)], atol=8)


def test_key_frames_too_far_apart_are_not_enough(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write(path, [(moment, level(moment, 60)) for moment in (n / 10 for n in range(600))], gop=10_000)
    monkeypatch.setattr(decoding, "DENSE_PIXELS", 100 * decoding._FRAME_PIXELS)
    found = lightness(files.read(path, frames=4))
    np.testing.assert_allclose(found, [level(moment, 60)[0] for moment in (0, 20, 40, 60)], atol=8)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 300 * decoding._FRAME_PIXELS)
    with pytest.raises(DataError, match="too long to decode"):
        files.read(path, frames=4)


def write_sound(path, cover=False):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        picture = container.add_stream("mjpeg") if cover else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if picture:
            still = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(still.reformat(format="yuvj420p")))
            container.mux(picture.encode())


@pytest.mark.parametrize("scene", [False, True])
def test_files_without_moving_pictures_are_refused(tmp_path, scene):
    write_sound(tmp_path / "sound.mp4")
    with pytest.raises(DataError, match="no video stream"):
        files.read(tmp_path / "sound.mp4", scenes=scene)
    for name in ("none.avi", "none.mkv", "none.mp4"):
        write(tmp_path / name, [])
        with pytest.raises(DataError, match=r"no frame that can be decoded|damaged|no video stream"):
            files.read(tmp_path / name, scenes=scene)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
def test_truncated_files_are_refused_or_read_as_far_as_they_go(tmp_path, name):
    path = tmp_path / name
    write(path, [(n / 10, level(n / 10, 10)) for n in range(100)])
    whole = path.read_bytes()
    refused = []
    for part in (0.02, 0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        try:
            found = lightness(files.read(path, frames=4))
        except DataError as error:
            refused.append(str(error))
        else:
            assert 1 <= len(found) <= 4
            assert (np.diff(found) > 0).all()
    assert refused
    assert all(str(path) in message for message in refused)


def test_without_pyscenedetect_it_is_one_line(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", scenes([1]))
    monkeypatch.setitem(sys.modules, "scenedetect.detector", None)
    assert len(files.read(tmp_path / "a.mp4")) == 8
    with pytest.raises(UserError, match=r"pip install 'mio\[video\]'"):
        files.read(tmp_path / "a.mp4", scenes=True)


def test_the_option_is_checked():
    with pytest.raises(UserError, match="`uniform`, `scenes`"):
        video.mio_modalities({"frames": "keys"})


@pytest.mark.parametrize("seconds", [0.5, 2, 3.9, 4, 4.1, 9.96, 16, 17.5, 60])
def test_frames_of_a_rate_are_those_of_vita(seconds):
    """VITA's `all_pos` of a clip at 25 frames a second, where it neither repeats frames nor leaves any out."""
    frames = round(seconds * 25)
    times = [index / 25 for index in range(frames)]
    every = list(range(0, frames, 25))
    chosen = sampling.by_rate(times, 1.0, 4, 16)
    assert chosen == every if 4 <= len(every) <= 16 else len(chosen) == min(max(len(every), 4), 16)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=40, unique=True).map(sorted),
    st.floats(0.01, 50),
    st.integers(1, 6),
    st.integers(0, 12),
)
def test_frames_of_a_rate_differ_ascend_and_keep_to_their_bounds(times, rate, fewest, more):
    chosen = sampling.by_rate(times, rate, fewest, fewest + more)
    assert chosen == sorted(set(chosen))
    assert min(fewest, len(times)) <= len(chosen) <= min(fewest + more, len(times))


def test_a_file_is_read_by_rate_and_frames_are_squares(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, [(index / 10, COLOURS[index // 10 % 7]) for index in range(65)])
    options = {"min_frames": 4, "max_frames": 16, "frames": "rate", "square": 28}
    read = video.mio_datamodule("video", options).read(path)
    assert colours(read) == [0, 1, 2, 3, 4, 5, 6]
    splitter = video.mio_tokenizer("video", options)
    parts = splitter.split(mio.Media("video", read, "v"))
    assert {part.data.shape for part in parts} == {(28, 28, 3)}
    assert splitter.fingerprint == "frames-3-4-16-rate-512-1-square-28"
    assert video.mio_tokenizer("video", {}).fingerprint == "frames-3-1-8-uniform-512"


def test_a_square_is_what_the_published_processor_cuts():
    """`CLIPImageProcessor` with a shortest edge and a crop of 448, as VITA's tower has it."""
    from PIL import Image
    from torchvision.transforms import functional

    y, x = np.mgrid[:60, :96]
    frame = np.uint8(np.stack([x * 2, y * 4, 127 + 120 * np.sin(x / 9) * np.cos(y / 7)], axis=-1))
    (part,) = video.mio_tokenizer("video", {"square": 28}).split(mio.Media("video", [frame], "v"))
    resized = functional.resize(Image.fromarray(frame), 28, functional.InterpolationMode.BICUBIC)
    published = np.asarray(functional.center_crop(resized, 28))
    # there the longer side is a whole number of pixels before it is cut
    assert np.abs(part.data.astype(int) - published).max() < 6
