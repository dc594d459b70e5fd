"""`/v1/audio/speech`, `/v1/audio/transcriptions` and `/v1/images/generations`."""

from __future__ import annotations

import base64
import io
import json
import time

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from served import scripted, serving, tone

from mio import MemoryFile
from mio.media import read_sound

ANSWERS = {
    "Say two": [("tone", (2, 2, 4))],
    "Say much": [("tone", (1, 2, 3, 4) * 4)],
    "Draw two": [("picture", (0, 1, 2, 3))],
    "[1, 2]Write": " one two",
    "Sing two": [("tone", (7,))],
    "[3]Write": ["<2>"],
}


@pytest.fixture(scope="module")
def running():
    with serving(scripted(ANSWERS)) as server:
        yield server


@pytest.fixture(scope="module")
def client(running):
    return running.client()


def levels(content):
    sound = read_sound(MemoryFile(content), 10)
    return sound.rate, (sound.samples[::80] * 8).round(2).tolist()


# --- speech


def test_speech(client):
    spoken = client.audio.speech.create(model="made", voice="alloy", input="two", response_format="wav")
    assert levels(spoken.content) == (8000, [2, 2, 4])
    assert spoken.response.headers["content-type"] == "audio/wav"
    size = int.from_bytes(spoken.content[40:44], "little")
    assert size == len(spoken.content) - 44


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac"])
def test_formats_of_speech(client, kind):
    content = client.audio.speech.create(model="made", voice="nova", input="much", response_format=kind).content
    assert len(read_sound(MemoryFile(content), 10).samples) > 0


def test_speech_is_streamed(client):
    pcm = client.audio.speech.create(model="made", voice="x", input="two", response_format="pcm").content
    assert abs(len(pcm) // 2 - 720) < 24  # 24 kHz
    with client.audio.speech.with_streaming_response.create(
        model="made", voice="x", input="two", response_format="pcm", stream_format="audio"
    ) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert b"".join(response.iter_bytes()) == pcm
    with client.audio.speech.with_streaming_response.create(
        model="made", voice="x", input="two", response_format="pcm", stream_format="sse"
    ) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line]
    assert b"".join(base64.b64decode(one["audio"]) for one in events[:-1]) == pcm
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] == 5


def test_the_first_bytes_of_speech_come_before_the_last_is_made(running, client):
    running.model.transformer.delay = 0.02
    try:
        with client.audio.speech.with_streaming_response.create(
            model="made", voice="x", input="much", response_format="pcm"
        ) as response:
            times = [time.monotonic() for _ in response.iter_bytes()]
    finally:
        running.model.transformer.delay = 0.0
    assert times[-1] - times[0] > 0.02 * 8


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"speed": 2.0}, "speed", "one voice"),
        ({"instructions": "cheerfully"}, "instructions", "one voice"),
        ({"response_format": "midi"}, "response_format", "should be 'mp3'"),
        ({"input": ""}, "input", "at least 1"),
        ({"extra_body": {"modality": "picture"}}, "modality", "makes no audio of the modality `picture`"),
    ],
)
def test_speech_that_cannot_be(client, options, param, message):
    with pytest.raises(openai.BadRequestError, match=message) as error:
        client.audio.speech.create(**{"model": "made", "voice": "a", "input": "two", **options})
    assert error.value.param == param


# --- transcriptions


def transcribed(client, content, **options):
    return client.audio.transcriptions.create(model="made", file=("a.wav", content), **options)


def test_transcription(client):
    found = transcribed(client, tone(1, 2))
    assert (found.text, found.usage.output_tokens) == ("one two", len(" one two"))
    assert transcribed(client, tone(1, 2, kind="flac"), temperature=0.0, language="en").text == "one two"
    assert transcribed(client, tone(1, 2), response_format="text") == "one two\n"
    verbose = transcribed(client, tone(1, 2), response_format="verbose_json", language="en")
    assert (verbose.text, verbose.duration, verbose.language) == ("one two", 0.02, "en")
    assert transcribed(client, tone(3)).text == ""  # the model says that nothing was meant for it


def test_a_transcription_is_streamed(client):
    events = list(transcribed(client, tone(1, 2), stream=True))
    assert "".join(one.delta for one in events[:-1]) == "one two"
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", "one two")


@pytest.mark.parametrize(
    ("form", "param", "message"),
    [
        ({"files": {"other": ("a.wav", tone(1))}}, "file", "missing required parameter: `file`"),
        ({"files": {"file": ("a.wav", b"hello")}}, "file", "no known format"),
        ({"files": {"file": ("a.wav", b"")}}, "file", "it is empty"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"temperature": "hot"}}, "temperature", "valid number"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"temperature": "[" * 20_000}}, "temperature", "valid number"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"response_format": "srt"}}, "response_format", "'json'"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"prompt": "Names:"}}, "prompt", "own prompt"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"colour": "red"}}, "colour", "unrecognized"),
        ({"files": {"file": ("a.wav", tone(1))}, "data": {"timestamp_granularities[]": "word"}},
         "timestamp_granularities", "no timestamps"),
        ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "file", "missing"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, None, "cannot be read"),
    ],
)  # fmt: skip
def test_recordings_that_cannot_be_transcribed(running, form, param, message):
    answer = httpx.post(f"{running.url}/v1/audio/transcriptions", **form)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param


# --- pictures


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_pictures(client, kind):
    answer = client.images.generate(model="made", prompt="two", n=2, output_format=kind)
    assert (len(answer.data), answer.output_format, answer.size) == (2, kind, "2x2")
    assert answer.usage.output_tokens == 12
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))) as image:
        assert image.format == kind.upper()
        pixels = np.asarray(image.convert("L")).ravel()
    assert np.abs(pixels.astype(int) - [0, 85, 170, 255]).max() <= (12 if kind == "jpeg" else 0)


def test_pictures_are_streamed_when_they_are_complete(client):
    events = list(client.images.generate(model="made", prompt="two", stream=True, partial_images=0))
    assert [one.type for one in events] == ["image_generation.completed"]
    assert events[0].b64_json == client.images.generate(model="made", prompt="two").data[0].b64_json


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"size": "1024x1024"}, "size", "its own size"),
        ({"partial_images": 2, "stream": True}, "partial_images", "when it is complete"),
        ({"response_format": "url"}, "response_format", "not kept under a URL"),
        ({"output_compression": 50}, None, "is for `output_format` jpeg and webp"),
        ({"n": 100}, "n", "at most 8"),
        ({"max_tokens": 3}, None, "too few for the answer"),
    ],
)
def test_pictures_that_cannot_be(client, options, param, message):
    extra = {"extra_body": {"max_tokens": options.pop("max_tokens")}} if "max_tokens" in options else {}
    with pytest.raises(openai.BadRequestError, match=message) as error:
        client.images.generate(model="made", prompt="two", **options, **extra)
    assert error.value.param == param


def test_how_things_are_asked_can_be_chosen():
    with serving(scripted(ANSWERS), templates={"speech": "Sing {words}"}) as server:
        content = server.client().audio.speech.create(model="made", voice="a", input="two", response_format="wav")
        assert levels(content.content) == (8000, [7])
