"""Whether files are all there: whole ones of every container are, and no beginning of one is."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mio.media.structure import missing, pages


def video(form: str, codec: str, options: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form, options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(6):
            picture = np.full((32, 48, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def sound(form: str, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(9000) / 9), 8000, format=form, subtype=subtype)
    return file.getvalue()


def moving(form: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), (50 * number, 9, 9)) for number in range(4)]
    frames[0].save(file, form, save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


FILES = {
    "mp4": lambda: video("mp4", "mpeg4"),
    "mov": lambda: video("mov", "mpeg4"),
    "fragments": lambda: video("mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
    "matroska": lambda: video("matroska", "mpeg4"),
    "webm": lambda: video("webm", "libvpx"),
    "avi": lambda: video("avi", "mpeg4"),
    "asf": lambda: video("asf", "wmv2"),
    "flv": lambda: video("flv", "flv"),
    "wav": lambda: sound("WAV"),
    "aiff": lambda: sound("AIFF"),
    "au": lambda: sound("AU"),
    "w64": lambda: sound("W64"),
    "caf": lambda: sound("CAF"),
    "nist": lambda: sound("NIST"),
    "ogg": lambda: sound("OGG", "VORBIS"),
    "gif": lambda: moving("GIF"),
    "apng": lambda: moving("PNG"),
}
BORDERS = {"fragments", "flv"}
"""Of these, what ends between two parts cannot be told from a shorter file."""


def told(content: bytes) -> str:
    return missing(io.BytesIO(content), len(content))


@pytest.mark.parametrize("name", FILES)
def test_beginnings_of_files_are_told_from_whole_ones(name):
    content = FILES[name]()
    assert told(content) == ""
    cuts = np.linspace(200 if len(content) > 400 else 60, len(content) - 12, 60).astype(int)
    # an index at the end may be lost without a byte of the content
    passed = [int(cut) for cut in cuts if not told(content[:cut])]
    allowed = 12 if name in BORDERS else 6
    assert len(passed) <= allowed, passed
    assert "cut off" in told(content[: len(content) // 2]) or name in BORDERS or name == "ogg"


@pytest.mark.parametrize("name", FILES)
def test_what_follows_a_file_is_nothing(name):
    content = FILES[name]()
    assert told(content + bytes(100)) == ""
    assert told(content + b"and so on, and so on") == ""


def test_streams_of_unknown_length_are_whole():
    assert told(video("webm", "libvpx", {"live": "1"})) == ""
    avi = bytearray(video("avi", "mpeg4"))
    for size in (0, 2**32 - 1):
        avi[4:8] = size.to_bytes(4, "little")
        assert told(bytes(avi)) == ""


def test_pages_are_those_of_libogg():
    content = sound("OGG", "VORBIS")
    found = list(pages(io.BytesIO(content), len(content)))
    assert [(page.first, page.last) for page in (found[0], found[-1])] == [(True, False), (False, True)]
    assert found[-1].end == len(content)
    for place in (30, len(content) // 2, len(content) - 1):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            list(pages(io.BytesIO(bytes(spoilt)), len(spoilt)))
    with pytest.raises(ValueError, match="missing before"):
        list(pages(io.BytesIO(content[: found[1].begin] + content[found[1].end :]), len(content)))
