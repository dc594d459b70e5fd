"""Sound files whose headers do not know, or do not say, how long they last; and every format that they come in.

Oracles: the samples that were written, and soundfile or PyAV on a copy that nothing was done to.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import soundfile
from replays import Variant

from mio import Media
from mio.plugins import music, speech

LIMIT = 30.0
"""Seconds that the plugins are allowed to read."""
Samples = Any


def voice(length: int, channels: int, rate: int, seed: int) -> Samples:
    """Notes that change all the time `[length, channels]`, so that a shift or a repeated part is seen."""
    random = np.random.default_rng(seed)
    moments = np.arange(length) / rate
    pitch = np.repeat(random.uniform(150, 900, 1 + length * 10 // rate), -(-rate // 10))[:length]
    wave = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * (0.6 + 0.3 * np.sin(2 * np.pi * 1.7 * moments))
    return np.stack([wave * (0.5 + 0.5 * (channel + 1) / channels) for channel in range(channels)], axis=1) * 0.7


def written(samples: Samples, rate: int, form: str, subtype: str, endian: str = "FILE") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype, endian=endian)
    return file.getvalue()


def encoded(samples: Samples, rate: int, form: str, codec: str, moving: bool = False) -> bytes:
    """By FFmpeg; with `moving`, beside a video."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        picture = container.add_stream("libvpx" if form == "webm" else "mpeg4", rate=10) if moving else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        given = np.ascontiguousarray(samples.T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(given, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=size)
        if picture:
            for _ in range(10 * len(samples) // rate):
                container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(picture.encode())
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()


def by_soundfile(content: bytes) -> tuple[Samples, int]:
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        return file.read(min(file.frames, 10**8), dtype="float32", always_2d=True), file.samplerate


def by_pyav(content: bytes) -> tuple[Samples, int]:
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        parts = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
        return np.concatenate(parts, axis=1).T, stream.rate


def same(due: Samples, rate: int, tolerance: float) -> Callable[[Any], str]:
    """Whether samples, rate and duration are those that are due."""

    def right(answer: Any) -> str:
        samples, found_rate, told = answer
        samples = samples[:, None] if samples.ndim == 1 else samples
        if (samples.shape, found_rate) != (due.shape, rate):
            return f"{samples.shape} at {found_rate} Hz instead of {due.shape} at {rate} Hz"
        if len(due) and (wrong := float(np.abs(samples - due).max())) > tolerance:
            return f"samples are up to {wrong:.4f} off"
        return "" if told == (True, False) else f"the filter of lengths says {told}"

    return right


def beginning(due: Samples, rate: int) -> Callable[[Any], str]:
    """Whether what was read of a damaged file is some part from its beginning, at its true length."""

    def right(answer: Any) -> str:
        samples, found_rate, _ = answer
        samples = samples[:, None] if samples.ndim == 1 else samples
        if found_rate != rate or samples.shape[1] != due.shape[1] or len(samples) > len(due):
            return f"{samples.shape} at {found_rate} Hz are no part of {due.shape} at {rate} Hz"
        return "" if np.abs(samples - due[: len(samples)]).max() < 0.02 else "other samples than the file's"

    return right


def read(path: Path, plugin: Any) -> Any:
    """Samples, rate, and whether the plugin's filter drops the file if a little less or more than it has is allowed."""
    name = plugin.__name__.rpartition(".")[2]
    options = {"max_seconds": LIMIT} | ({"tokenizer": "mel_rvq"} if plugin is speech else {})
    module = plugin.mio_datamodule(name, options)
    samples, rate = module.read(path)
    (drop,) = module.filters.values()
    record = {name: Media(name, path, key=str(path))}
    told = tuple(bool(drop(record, {"seconds": len(samples) / rate + by})) for by in (-1.5 / rate, 1.5 / rate))
    return samples, rate, told


def plain(random: Random) -> Iterator[tuple[str, str, bytes, Any, bool | None]]:
    """Every format as it should be. Yields name, ending, content, what is right, and whether it can be read."""
    forms = {
        "WAV": "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW IMA_ADPCM",
        **{"WAVEX": "PCM_16 PCM_24 FLOAT", "RF64": "PCM_16", "W64": "PCM_16", "AIFF": "PCM_16 PCM_24 FLOAT"},
        **{"AU": "PCM_16 ULAW", "CAF": "PCM_16 ALAC_16", "FLAC": "PCM_16 PCM_24 PCM_S8", "NIST": "PCM_16"},
        **{"OGG": "VORBIS OPUS", "MP3": "MPEG_LAYER_III"},
    }
    lossy = {"IMA_ADPCM", "VORBIS", "OPUS", "MPEG_LAYER_III"}
    every = [(form, subtype) for form, subtypes in forms.items() for subtype in subtypes.split()]
    for number, (form, subtype) in enumerate(every):
        rate, channels = random.choice([8000, 16_000, 24_000, 48_000]), 1 + number % 2
        samples = voice(int(rate * random.uniform(0.3, 2.5)), channels, rate, number)
        content = written(samples, rate, form, subtype)
        oracle, found_rate = by_soundfile(content)
        if subtype not in lossy:
            assert np.abs(oracle - samples).max() < 0.03, (form, subtype)
        # no matter what the file is called
        ending = random.choice([".wav", ".mp3", ".flac", ".ogg"])
        yield (
            f"{form} {subtype}, {channels} channels at {rate} Hz, {ending}",
            ending,
            content,
            (oracle, found_rate),
            True,
        )
    streams = (
        "mp4:aac ipod:aac mov:alac mov:pcm_s24be adts:aac webm:libopus matroska:wavpack mp2:mp2 flv:aac ac3:ac3 "
        "amr:libopencore_amrnb opus:libopus tta:tta wav:libmp3lame mp3:libmp3lame "
        "mp4:aac+video webm:libopus+video matroska:flac+video mpegts:mp2+video avi:libmp3lame+video"
    )
    for number, stream in enumerate(streams.split()):
        form, codec = stream.removesuffix("+video").split(":")
        moving = stream.endswith("+video")
        rate = {"libopencore_amrnb": 8000, "libopus": 48_000}.get(codec, 44_100)
        channels = 1 if "amr" in codec else 6 if codec == "ac3" else 1 + number % 2
        samples = voice(int(rate * random.uniform(0.5, 2.0)), channels, rate, number)
        content = encoded(samples, rate, form, codec, moving)
        oracle, found_rate = by_pyav(content)
        if form == "opus":
            oracle, found_rate = by_soundfile(content)
        name = f"{codec} in {form}{' with a video' if moving else ''}, {channels} channels at {rate} Hz"
        yield name, random.choice([".m4a", ".wav"]), content, (oracle, found_rate), True


def unsure(random: Random) -> Iterator[tuple[str, str, bytes, Any, bool | None]]:
    """Headers that do not know the length, or are wrong about it."""
    rate = 16_000
    samples = voice(random.randint(30_000, 90_000), 1, rate, 5)
    flac = written(samples, rate, "FLAC", "PCM_16")
    due = by_soundfile(flac)
    place = flac.index(b"fLaC") + 8 + 13
    for said in (0, 2**36 - 1, 1000, len(samples) - 1, len(samples) * 3):
        content = bytearray(flac)
        kept = int.from_bytes(content[place : place + 5], "big") & ~(2**36 - 1)
        content[place : place + 5] = (kept | said).to_bytes(5, "big")
        readable = None if said > len(samples) and said != 2**36 - 1 else True
        yield f"FLAC that says it has {said} samples", ".flac", bytes(content), due, readable
    for kind, size in (("PCM_16", 2), ("PCM_24", 3), ("FLOAT", 4)):
        wav = written(samples, rate, "WAV", kind)
        begin = wav.index(b"data") + 8
        due = by_soundfile(wav)
        for said, riff in ((0, 0), (2**32 - 1, 2**32 - 1), (0x7FFFFFFF, 0x7FFFFFFF), (0, begin - 8), (0x80000000, 0)):
            content = bytearray(wav[: begin + size * len(samples)])
            content[4:8], content[begin - 4 : begin] = riff.to_bytes(4, "little"), said.to_bytes(4, "little")
            yield f"WAV {kind} that says it has {said:#x} bytes", ".wav", bytes(content), due, True
    due = by_soundfile(written(samples, rate, "WAV", "PCM_16"))
    for said in (0, 2**64 - 1):
        content = bytearray(written(samples, rate, "RF64", "PCM_16"))
        place = content.index(b"ds64") + 16
        content[place : place + 8] = said.to_bytes(8, "little")
        yield f"RF64 that says it has {said:#x} bytes", ".wav", bytes(content), due, True
    au = bytearray(written(samples, rate, "AU", "PCM_16"))
    due = by_soundfile(bytes(au))
    au[8:12] = b"\xff" * 4
    yield "AU of unknown length", ".au", bytes(au), due, True
    for number, bits in enumerate((8000, 16_000, 44_100)):
        channels = 1 + number % 2
        samples = voice(int(bits * random.uniform(1, 6)), channels, bits, number)
        mp3 = written(samples, bits, "MP3", "MPEG_LAYER_III")
        place = max(mp3.find(b"Xing"), mp3.find(b"Info"))
        # the next frame begins where a decoder that is told so finds it
        second = next(at for at in range(place + 100, len(mp3)) if mp3[at] == 0xFF and mp3[at + 1] == mp3[1])
        bare = mp3[second:]
        yield f"MP3 at {bits} Hz without a header of its length", ".mp3", bare, by_pyav(bare), True
        yield f"MP3 at {bits} Hz with tags around", ".mp3", id3() + mp3 + b"TAG" + bytes(125), by_soundfile(mp3), True
        yield f"MP3 at {bits} Hz behind zeros", ".mp3", bytes(random.randint(1, 9000)) + mp3, by_soundfile(mp3), True
        # twice the frames, and a header that knows of half
        yield f"MP3 at {bits} Hz twice", ".mp3", bare + bare, by_pyav(bare + bare), True


def id3() -> bytes:
    return b"ID3\x04\x00\x00\x00\x00\x08\x00" + bytes(1024)


def chained(random: Random) -> Iterator[tuple[str, str, bytes, Any, bool | None]]:
    """Several Ogg recordings in one file."""
    for first, second in (
        *((("VORBIS", 16_000, 1), ("VORBIS", 16_000, 1)), (("OPUS", 48_000, 2), ("OPUS", 48_000, 2))),
        *((("VORBIS", 16_000, 1), ("VORBIS", 8000, 1)), (("VORBIS", 16_000, 1), ("VORBIS", 16_000, 2))),
        *((("VORBIS", 48_000, 1), ("OPUS", 48_000, 1)), (("OPUS", 16_000, 1), ("OPUS", 48_000, 1))),
    ):
        links = []
        for number, (codec, rate, channels) in enumerate((first, second)):
            samples = voice(int(rate * random.uniform(0.5, 2)), channels, rate, number)
            links.append(written(samples, rate, "OGG", codec))
        (one, rate), (other, other_rate) = (by_soundfile(link) for link in links)
        agree = rate == other_rate and one.shape[1] == other.shape[1]
        due = (np.concatenate([one, other]), rate) if agree else None
        yield f"Ogg of {first} and {second}", ".ogg", b"".join(links), due, agree
    three = [written(voice(9000 + 100 * n, 1, 16_000, n), 16_000, "OGG", "VORBIS") for n in range(3)]
    due = np.concatenate([by_soundfile(link)[0] for link in three])
    yield "Ogg of three recordings", ".ogg", b"".join(three), (due, 16_000), True
    yield "Ogg before something else", ".ogg", three[0] + bytes(500), by_soundfile(three[0]), True


def damaged(random: Random) -> Iterator[tuple[str, str, bytes, Any, bool | None]]:
    """Files that were cut off, and files that are none."""
    rate = 16_000
    samples = voice(48_000, 1, rate, 11)
    forms = "WAV:PCM_16 WAV:ULAW RF64:PCM_16 AIFF:PCM_16 AU:PCM_16 W64:PCM_16 FLAC:PCM_16 OGG:VORBIS OGG:OPUS"
    for one in f"{forms} MP3:MPEG_LAYER_III CAF:PCM_16 NIST:PCM_16".split():
        form, subtype = one.split(":")
        content = written(samples, rate, form, subtype)
        part = random.uniform(0.3, 0.95)
        yield f"{form} {subtype} cut at {part:.2f}", ".wav", content[: int(len(content) * part)], None, False
    for form, codec in (("mp4", "aac"), ("webm", "libopus"), ("matroska", "flac"), ("adts", "aac"), ("flv", "aac")):
        content = encoded(voice(48_000, 1, 48_000, 12), 48_000, form, codec)
        part = random.uniform(0.3, 0.95)
        yield f"{form} cut at {part:.2f}", ".m4a", content[: int(len(content) * part)], by_pyav(content), None
    for form, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        content = bytearray(written(samples, rate, form, subtype))
        place = len(content) // 2
        content[place : place + 40] = random.randbytes(40)
        yield f"{form} with 40 other bytes in its middle", ".flac", bytes(content), None, False
    for value in (np.nan, np.inf, 1e30, 40_000.0):
        spoilt = samples.copy()
        spoilt[1000] = value
        yield f"WAV with a sample of {value}", ".wav", written(spoilt, rate, "WAV", "FLOAT"), None, False
    silence = np.zeros((8000, 1))
    yield "WAV of silence", ".wav", written(silence, 8000, "WAV", "PCM_16"), (silence, 8000), True
    yield "WAV without samples", ".wav", written(silence[:0], 8000, "WAV", "PCM_16"), None, False
    yield "WAV with 9 channels", ".wav", written(np.zeros((80, 9)), 8000, "WAV", "PCM_16"), None, False
    followed = written(samples, rate, "WAV", "PCM_16") + b"and so on"
    yield "WAV before something else", ".wav", followed, (samples, rate), True
    long = written(np.zeros((int(LIMIT + 1) * 8000, 1)), 8000, "FLAC", "PCM_16")
    yield "FLAC longer than is allowed", ".flac", long, None, False
    for name, content in (("words", b"no sound " * 99), ("noise", random.randbytes(20_000)), ("nothing", b"")):
        yield f"a file of {name}", ".mp3", content, None, False


def variants(folder: Path, random: Random) -> Iterator[Variant]:
    made = [one for part in (plain, unsure, chained, damaged) for one in part(random)]
    random.shuffle(made)
    for number, (name, ending, content, due, readable) in enumerate(made):
        path = folder / f"{number}{ending}"
        path.write_bytes(content)
        plugin = (speech, music)[number % 2]
        right: Callable[[Any], str] = lambda answer: f"was read: {answer!r:.80}"  # noqa: E731
        if due is not None:
            right = same(*due, 2e-4) if readable else beginning(*due)
        yield Variant(name, lambda path=path, plugin=plugin: read(path, plugin), right, readable)
    pipe, inside = folder / "pipe.wav", folder / "folder.wav"
    os.mkfifo(pipe)
    inside.mkdir()
    for path in (pipe, inside):
        yield Variant(path.stem, lambda path=path: read(path, speech), lambda _: "was read", readable=False)
