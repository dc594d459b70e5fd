"""Prompts as a person types them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mio_world import DECLARED

from mio import Media, UserError
from mio.core.generation.prompt import parse_prompt

MODALITIES = {modality.name: modality for _, modality in DECLARED}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "two words.wav", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_text_and_media_come_in_order(files):
    values = parse_prompt("Look: {image:a.png} and{speech: two words.wav }{video:c.mp4}!", MODALITIES)
    media = [value for value in values if isinstance(value, Media)]
    assert [value if isinstance(value, str) else value.modality for value in values] == [
        "Look: ", "image", " and", "speech", "video", "!",
    ]  # fmt: skip
    assert [item.data.name for item in media] == ["a.png", "two words.wav", "c.mp4"]
    assert [item.key.partition("#")[0] for item in media] == [str(item.data) for item in media]
    (files / "a.png").write_bytes(b"other")  # a file that is replaced is other media
    assert parse_prompt("{image:a.png}", MODALITIES)[0].key != media[0].key
    [below] = parse_prompt("{image:a.png}", MODALITIES, files)
    assert below.data == files / "a.png"


@given(st.text(min_size=1).filter(lambda text: ":" not in text))
def test_text_without_media_is_one_piece_whatever_braces_it_has(text):
    assert parse_prompt(text, MODALITIES) == [text]


def test_text_that_the_locale_could_not_decode_is_read_as_utf_8():
    typed = "gr\u00fc\u00dfe \u4f60".encode().decode("ascii", "surrogateescape")  # as Python does where LC_ALL is C
    assert parse_prompt(typed, MODALITIES) == ["gr\u00fc\u00dfe \u4f60"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{imag:a.png}", "no modality `imag` in this run; did you mean `image`"),
        ("{text:a.png}", "no modality `text` in this run"),
        ("{image:b.png}", "b.png: no such file"),
        ("{image:.}", "is a folder, not a file"),
        ("", "it is empty"),
        ("\ud800", "not valid UTF-8"),
        ("{image:a.png}\udcff", "not valid UTF-8"),
    ],
)
def test_mistakes(files, prompt, message):
    assert files.is_dir()
    with pytest.raises(UserError, match=message):
        parse_prompt(prompt, MODALITIES)
