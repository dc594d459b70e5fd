"""Answers in notebooks: nothing of an answer is markup, and media are what they are."""

from __future__ import annotations

import base64
import html
import io
import wave
from html.parser import HTMLParser

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mio.api import display

TYPES = {"image": "image", "speech": "audio", "video": "video", "tile": ""}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
SOUND = np.sin(np.arange(800) / 5).astype(np.float32), 8000


class Read(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def content_of(attributes):
    kind, _, encoded = attributes["src"].removeprefix("data:").partition(";base64,")
    return kind, io.BytesIO(base64.b64decode(encoded, validate=True))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"])), st.text(alphabet="<>&\"'/script"))
def test_text_is_escaped_whatever_it_is(text, name):
    read = Read(display.html([("text", text), ("control", name)], {}))
    assert [tag for tag, _ in read.tags] == ["div", "span", "code"]
    assert read.text.startswith(text)
    assert html.escape(name) in display.html([("control", name)], {})


def test_pictures_are_the_same_pixels():
    read = Read(display.html([("image", PIXELS), ("image", PIXELS[..., 0])], TYPES))
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    for attributes, expected in zip(images, (PIXELS, PIXELS[..., 0]), strict=True):
        kind, file = content_of(attributes)
        assert kind == "image/png"
        assert np.array_equal(np.asarray(Image.open(file)), expected)
        assert (attributes["width"], attributes["height"]) == ("130", "156")  # 26 times, so that it can be seen
    assert images[0]["title"] == "image: 5x6"


def test_sound_has_a_player():
    read = Read(display.html([("speech", SOUND)], TYPES))
    [(_, attributes)] = [one for one in read.tags if one[0] == "audio"]
    assert "controls" in attributes
    kind, file = content_of(attributes)
    assert kind == "audio/wav"
    with wave.open(file) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 800)


def test_a_video_moves():
    read = Read(display.html([("video", [PIXELS, 255 - PIXELS])], TYPES))
    [(_, attributes)] = [one for one in read.tags if one[0] == "img"]
    image = Image.open(content_of(attributes)[1])
    assert image.n_frames == 2
    assert image.is_animated


def test_other_media_are_named():
    read = Read(display.html([("tile", np.zeros(4))], TYPES))
    assert read.text == "tile: ndarray [4]"


def test_a_summary_is_a_line():
    parts = [("text", "a\n\x1b[31m" + "b" * 100), ("image", PIXELS), ("speech", SOUND), ("control", "own")]
    told = display.summary(parts, TYPES)
    assert "\n" not in told
    assert "\x1b" not in told
    assert told.endswith("..., image 5x6, speech 0.10 s, [own]")
