"""Sound files: what is decoded counts. Truths are the samples written, soundfile on whole copies, and PyAV."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from mio import DataError, Media, MemoryFile, UserError, media
from mio.media import mpeg

RULES = media.SoundRules(name="hum", frame_rate=50, max_seconds=20.0, truncate=False, filter_name="hum_max_seconds")


def notes(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    moments = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 * moments + 40 * moments**2))
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1)


def written(samples: np.ndarray, form: str, subtype: str, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def encoded(samples: np.ndarray, form: str, codec: str, rate: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        given = np.ascontiguousarray(samples.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(given, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    """Content of a file -> samples `[T, C]` and rate. The ending is always a wrong one."""

    def of(content: bytes, ending: str = ".xyz"):
        path = tmp_path / f"sound{ending}"
        path.write_bytes(content)
        samples, rate = RULES.read(path)
        for file in (path, MemoryFile(content)):
            length, (again, _) = media.sound_length(file, RULES.max_seconds), RULES.read(file)
            assert (length.samples, length.rate, length.more) == (len(samples), rate, False)
            assert np.array_equal(again, samples)
            probed, hertz = RULES.probe(file)
            assert (probed.shape, hertz) == ((len(samples),), rate)
        return (samples[:, None] if samples.ndim == 1 else samples), rate

    return of


@pytest.mark.parametrize("said", [0, 2**36 - 1, 100, 40_000])
def test_flac_may_say_anything_of_its_length(read, said):
    samples = notes(3)
    content = bytearray(written(samples, "FLAC", "PCM_16"))
    place = content.index(b"fLaC") + 21
    kept = int.from_bytes(content[place : place + 5], "big") & ~(2**36 - 1)
    content[place : place + 5] = (kept | said).to_bytes(5, "big")
    found, rate = read(bytes(content))
    assert (found.shape, rate) == ((48_000, 1), 16_000)
    assert np.abs(found - samples).max() < 1e-4


def test_flac_that_has_less_than_it_says_is_damaged(read):
    content = bytearray(written(notes(3), "FLAC", "PCM_16"))
    place = content.index(b"fLaC") + 21
    content[place + 1 : place + 5] = (60_000).to_bytes(4, "big")
    with pytest.raises(DataError, match="48000 of 60000 samples"):
        read(bytes(content))


@pytest.mark.parametrize("form", ["WAV", "RF64"])
@pytest.mark.parametrize(("said", "riff"), [(0, 0), (2**32 - 1, 2**32 - 1), (0x7FFFFFFF, 99), (0x80000000, 0), (0, 36)])
def test_a_wav_of_a_recorder_that_did_not_know_is_read_to_its_end(read, form, said, riff):
    samples = notes(1.5, channels=2)
    content = bytearray(written(samples, form, "PCM_16"))
    begin = content.index(b"data") + 8
    if form == "WAV":
        content[4:8], content[begin - 4 : begin] = riff.to_bytes(4, "little"), said.to_bytes(4, "little")
    else:
        place = content.index(b"ds64") + 16
        content[place : place + 8] = (0 if said < 99 else 2**64 - 1).to_bytes(8, "little")
    found, _ = read(bytes(content))
    assert found.shape == samples.shape
    assert np.abs(found - samples).max() < 1e-4


@pytest.mark.parametrize(("seconds", "rate"), [(6.2, 44_100), (2.6, 16_000), (1.0, 8000)])
def test_mp3_is_counted_frame_by_frame(read, seconds, rate):
    samples = notes(seconds, rate, channels=2)
    content = written(samples, "MP3", "MPEG_LAYER_III", rate)
    found, _ = read(content)
    assert found.shape == samples.shape
    first = mpeg.header(content, 0)
    bare = content[first.size :]
    found, found_rate = read(bare)
    with av.open(io.BytesIO(bare)) as container:
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    # without a header nobody knows what the encoder added: two frames or three
    assert (len(found), found_rate) == (decoded, rate)
    assert 0 <= len(found) - len(samples) <= 3 * 1152
    tagged = b"ID3\x04\x00\x00\x00\x00\x08\x00" + bytes(1024) + bytes(333) + content + b"TAG" + bytes(125)
    assert len(read(tagged)[0]) == len(samples)
    with pytest.raises(DataError, match=r"cut off: it ends within a frame|cut off: \d+ of \d+ frames"):
        read(content[: len(content) // 2])
    begins, place = [], 0
    while found_header := mpeg.header(content, place):
        begins.append(place)
        place += found_header.size
    # at a border of frames, where the header alone knows that some are missing
    with pytest.raises(DataError, match=r"cut off: \d+ of \d+ frames"):
        read(content[: begins[-3]])


def test_chained_ogg_is_read_to_its_end_or_refused(read):
    one, two = (written(notes(seconds), "OGG", "VORBIS") for seconds in (1.0, 2.0))
    found, _ = read(one + two + one)
    assert len(found) == 64_000
    parts = [soundfile.read(io.BytesIO(part), dtype="float32")[0] for part in (one, two, one)]
    assert np.abs(found[:, 0] - np.concatenate(parts)).max() < 1e-6
    for other in (written(notes(1, channels=2), "OGG", "VORBIS"), written(notes(1, 8000), "OGG", "VORBIS", 8000)):
        with pytest.raises(DataError, match=r"several recordings .* differ"):
            read(one + other)
    with pytest.raises(DataError, match="cut off"):
        read(one + two[: len(two) // 2])


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *(("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
        *(("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("NIST", "PCM_16"), ("FLAC", "PCM_16")),
        *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_formats_are_told_by_content_and_halves_refused(read, form, subtype):
    content = written(notes(1.3, 48_000, channels=2), form, subtype, 48_000)
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        due = file.read(file.frames, dtype="float32", always_2d=True)
    for ending in (".mp3", ".wav"):
        found, rate = read(content + bytes(300), ending)
        assert (found.shape, rate) == ((62_400, 2), 48_000)
        assert np.abs(found - due).max() < 1e-5
    for part in (0.3, 0.5, 0.97):
        with pytest.raises(DataError, match=r"damaged|no known format"):
            read(content[: int(len(content) * part)])


@pytest.mark.parametrize(
    ("form", "codec", "rate"),
    [
        *(("ipod", "aac", 44_100), ("webm", "libopus", 48_000), ("matroska", "flac", 16_000), ("adts", "aac", 16_000)),
        *(("amr", "libopencore_amrnb", 8000), ("wav", "libmp3lame", 16_000), ("mov", "alac", 16_000)),
    ],
)
def test_what_soundfile_does_not_know_is_read_by_ffmpeg(read, form, codec, rate):
    try:
        content = encoded(notes(2, rate), form, codec, rate)
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this FFmpeg does not write {codec}")
    found, found_rate = read(content)
    with av.open(io.BytesIO(content)) as container:
        decoded = [frame.to_ndarray() for frame in container.decode(audio=0)]
    assert (len(found), found_rate) == (sum(part.shape[1] for part in decoded), rate)
    assert 0 <= len(found) / rate - 2 < 0.15
    with pytest.raises(DataError):
        read(content[: len(content) // 2])


def test_a_damaged_middle_is_told(read):
    for form, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        content = bytearray(written(notes(3), form, subtype))
        content[len(content) // 2] ^= 0xFF
        with pytest.raises(DataError, match="damaged sound file"):
            read(bytes(content))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 32_768.0])
def test_samples_that_are_none_are_refused(read, value):
    samples = notes(0.5)
    samples[99] = value
    with pytest.raises(DataError, match=r"not numbers|not of the range"):
        read(written(samples, "WAV", "FLOAT"))
    with pytest.raises(DataError, match=r"not finite|not of the range"):
        RULES.mono((samples, 16_000), 8000)


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").touch()
    for name, message in (
        ("pipe", "a pipe or device"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("none", "no such"),
    ):
        path = tmp_path / f"{name}.wav"
        for call in (RULES.read, lambda path: RULES.filter({"hum": Media("hum", path, "key")}, {})):
            with pytest.raises(DataError, match=message) as caught:
                call(path)
            assert str(caught.value).startswith(str(path))


def test_the_filter_counts_what_is_decoded(tmp_path):
    path = tmp_path / "a.mp3"
    content = written(notes(6.2, 44_100), "MP3", "MPEG_LAYER_III", 44_100)
    path.write_bytes(content[mpeg.header(content, 0).size :])
    record = {"hum": Media("hum", path, "key")}
    assert RULES.filter(record, {"seconds": 6}) == "hum longer than 6 s"
    assert RULES.filter(record, {"seconds": 6.4}) == ""
    # another file of the same name
    path.write_bytes(written(notes(1), "WAV", "PCM_16"))
    assert RULES.filter(record, {"seconds": 6}) == ""
    assert RULES.filter(record, {"seconds": 0.9}) == "hum longer than 0.9 s"
    for wrong in (float("nan"), 0, "six", True):
        with pytest.raises(UserError, match=r"filter `hum_max_seconds`: `seconds` (is|must be)"):
            RULES.filter(record, {"seconds": wrong})


def test_longer_files_are_refused_or_cut(tmp_path):
    path = tmp_path / "long"
    short = media.SoundRules(name="hum", frame_rate=50, max_seconds=1.0, truncate=False, filter_name="short")
    cut = media.SoundRules(name="hum", frame_rate=50, max_seconds=1.0, truncate=True, filter_name="short")
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        path.write_bytes(written(notes(4), form, subtype))
        with pytest.raises(DataError, match=r"lasts (4.00 s, )?longer than 1 s; .*`too_long: truncate`"):
            short.read(path)
        assert len(cut.read(path)[0]) == 16_000


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_moves_nothing_in_time(rate):
    samples = np.zeros(rate, np.float32)
    samples[rate // 4] = 1
    found = RULES.mono((np.stack([samples, samples], axis=1), rate), 16_000)
    assert len(found) == 16_000
    assert abs(int(np.abs(found).argmax()) - 4000) <= 1


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_24"), ("AU", "PCM_16"), ("W64", "PCM_32"),
     ("CAF", "PCM_16"), ("RF64", "DOUBLE"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
)  # fmt: skip
@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0])
def test_the_length_of_uncompressed_sound_and_flac_is_known_without_decoding(monkeypatch, form, subtype, seconds):
    content = written(notes(2.0, 11_025, channels=2), form, subtype, 11_025)
    sound = media.read_sound(MemoryFile(content), seconds)
    monkeypatch.setattr("soundfile.SoundFile.read", None)
    monkeypatch.setattr("mio.media.sound_streams._by_pyav", None)
    length = media.sound_length(MemoryFile(content), seconds)
    assert (length.samples, length.rate) == (len(sound.samples), sound.rate)
    assert (length.more, length.seconds) == (sound.more, 2.0)
    assert length.samples == min(22_050, round(seconds * 11_025) + (seconds == 0.5))


def test_probed_sound_is_as_long_as_read_sound_and_refused_alike(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(written(notes(21.0), "WAV", "PCM_16"))
    with pytest.raises(DataError) as read_error:
        RULES.read(path)
    with pytest.raises(DataError) as probe_error:
        RULES.probe(path)
    assert str(probe_error.value) == str(read_error.value)
    cut = media.SoundRules(name="hum", frame_rate=50, max_seconds=20.0, truncate=True, filter_name="x")
    assert cut.frames(cut.probe(path), 16_000) == cut.frames(cut.read(path), 16_000) == 1000


def test_flac_whose_end_and_header_do_not_agree_is_not_believed():
    from mio.media.flac import flac_length

    content = written(notes(3.0), "FLAC", "PCM_16")
    assert flac_length(io.BytesIO(content), len(content)) == (48_000, 16_000, 1)
    variants = [content[:-1], content + b"TAG", content[:-5000], content[:30], b"", b"RIFF" + content]
    wrong = bytearray(content)
    wrong[content.index(b"fLaC") + 25] ^= 1  # of the number of samples
    variants.append(bytes(wrong))
    damaged = bytearray(content)
    damaged[-20] ^= 1
    variants.append(bytes(damaged))
    assert {flac_length(io.BytesIO(one), len(one)) for one in variants} == {None}


@pytest.mark.parametrize(("rate", "codec_channels"), [(16_000, 1), (44_100, 2), (11_025, 1)])
def test_flac_of_ffmpeg_is_measured_as_it_is_decoded(rate, codec_channels):
    from mio.media.flac import flac_length

    samples = notes(1.3, rate, codec_channels)
    content = encoded(samples, "flac", "flac", rate)
    found = flac_length(io.BytesIO(content), len(content))
    assert found is None or found == (len(samples), rate, codec_channels)
    assert media.sound_length(MemoryFile(content), 9.0).samples == len(samples)
