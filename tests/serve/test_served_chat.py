"""`/v1/chat/completions` with OpenAI's own client: what the model is shown, and what comes of its answers."""

from __future__ import annotations

import base64
import io
import time

import av
import numpy as np
import openai
import pytest
from PIL import Image
from served import encoded, gif, opened, png, scripted, serving, tone, url

from mio import MemoryFile
from mio.media import read_sound

PICTURE, TONE = ("picture", (0, 1, 2, 3)), ("tone", (1, 2, 3))
SUNG = (1, 2, 3, 4, 5, 6, 7, 0, 1, 2)
LONG = "a long answer that goes on for a while"
ANSWERS = {
    "hello": "hi you",
    "long": LONG,
    "draw": ["here: ", PICTURE, " and ", ("picture", (3, 3, 0, 0))],
    "say": ["three ", TONE],
    "sing": [("tone", SUNG)],
    "again": "as you like",
    "film": [("picture", (0, 0, 0, 0)), ("picture", (3, 3, 3, 3))],
    "play": ["so ", ("melody", (0, 2, 4))],
    "what? [0, 1, 2, 3]": "a picture",
    "what? [1, 2, 3]": "a tone",
    "what? [0, 0, 0, 0][3, 3, 3, 3]": "a clip",
    "what? [0, 2]": "a tune",
    "noise": ["<2>"],
    "own": ["<3>well", ("control", "own")],
}


@pytest.fixture(scope="module")
def running():
    with serving(scripted(ANSWERS)) as server:
        yield server


@pytest.fixture(scope="module")
def client(running):
    return running.client()


def user(*parts):
    return [{"role": "user", "content": list(parts) if len(parts) > 1 else parts[0]}]


def asked(client, messages, **options):
    messages = user(messages) if isinstance(messages, str) else messages
    return client.chat.completions.create(model="made", messages=messages, **options)


def said(client, messages, **options):
    return asked(client, messages, **options).choices[0].message


WHAT = {"type": "text", "text": "what? "}


def test_text(client):
    answer = asked(client, "hello")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hi you", "stop")
    assert answer.model == "made"
    assert answer.usage.completion_tokens == len("hi you")  # of bytes
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert set(choice.message.to_dict()) == {"role", "content", "refusal"}


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        ({"type": "image_url", "image_url": {"url": url(png(0, 1, 2, 3)), "detail": "low"}}, "a picture"),
        ({"type": "image_url", "image_url": {"url": url(png(0, 1, 2, 3, kind="BMP"))}}, "a picture"),
        ({"type": "input_audio", "input_audio": {"data": encoded(tone(1, 2, 3)), "format": "wav"}}, "a tone"),
        ({"type": "audio_url", "audio_url": {"url": url(tone(1, 2, 3, kind="flac"))}}, "a tone"),
        ({"type": "video_url", "video_url": {"url": url(gif((0, 0, 0, 0), (3, 3, 3, 3)))}}, "a clip"),
        ({"type": "file", "file": {"file_data": encoded(b"do mi"), "filename": "a.txt"}}, "a tune"),
    ],
)
def test_media_are_read(client, part, answer):
    assert said(client, user(WHAT, part)).content == answer


def test_pictures_and_words_come_in_their_order(client):
    message = said(client, "draw").to_dict()
    assert message["content"] == "here:  and "
    pictures = [np.asarray(Image.open(io.BytesIO(opened(one["image_url"]["url"])))) for one in message["images"]]
    assert [one.ravel().tolist() for one in pictures] == [[0, 85, 170, 255], [255, 255, 0, 0]]
    assert message["parts"] == [
        {"type": "text", "text": "here: "}, {"type": "image", "index": 0}, {"type": "text", "text": " and "},
        {"type": "image", "index": 1},
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "aac", "pcm16"])
def test_sound(client, kind):
    message = said(client, "say", modalities=["text", "audio"], audio={"voice": "alloy", "format": kind})
    data = base64.b64decode(message.audio.data)
    assert message.audio.transcript == message.content == "three "
    if kind == "pcm16":  # 24 kHz, whatever the run's own rate is
        samples = np.frombuffer(data, "<i2") / 32768
        assert abs(len(samples) - 720) < 24
        assert abs(samples[360] - 0.25) < 0.02
        return
    sound = read_sound(MemoryFile(data), 10)
    if kind in ("wav", "flac"):
        assert (sound.rate, sound.samples[::80].tolist()) == (8000, [0.125, 0.25, 0.375])
    else:
        assert len(sound.samples) >= 240 * sound.rate // 8000


def test_the_model_is_shown_its_own_answers_as_it_gave_them(running, client):
    drawn, spoken = said(client, "draw"), said(client, "say")
    named = {"role": "assistant", "content": spoken.content, "audio": {"id": spoken.audio.id}}
    turns = [*user("draw"), drawn.to_dict(), *user("say"), named, *user("again")]
    assert said(client, turns).content == "as you like"
    turns = running.prompts[-1].split("<im_start>")
    assert turns[2] == "assistant\nhere: [0, 1, 2, 3] and [3, 3, 0, 0]<im_end>\n"
    assert turns[4] == "assistant\nthree [1, 2, 3]<im_end>\n"


def test_pictures_of_another_server_are_read_anew(running, client):
    turn = {
        "role": "assistant",
        "content": "so",
        "images": [{"type": "image_url", "image_url": {"url": url(png(1, 1, 1, 1))}}],
    }
    assert said(client, [*user("draw"), turn, *user("again")]).content == "as you like"
    assert "assistant\nso[1, 1, 1, 1]<im_end>" in running.prompts[-1]


def test_a_video(client):
    message = said(client, "film", modalities=["video"]).to_dict()
    [video] = message["videos"]
    with av.open(io.BytesIO(opened(video["video_url"]["url"]))) as file:
        frames = [frame.to_ndarray(format="gray").mean() for frame in file.decode(video=0)]
    assert len(frames) == 2
    assert frames[0] < 40
    assert frames[1] > 200
    assert message["content"] is None
    assert said(client, "film").to_dict().keys() >= {"images"}  # without a wish for a video they are pictures


def test_media_that_programs_know_as_files_alone(client):
    message = said(client, "play").to_dict()
    [item] = message["files"]
    assert item["file"]["filename"] == "melody-0.txt"
    assert opened(item["file"]["file_data"]) == b"do mi sol\n"


def test_a_silent_answer(client):
    choice = asked(client, "noise").choices[0]
    assert (choice.message.content, choice.finish_reason) == (None, "stop")
    assert choice.message.to_dict()["silent"] is True
    assert choice.message.to_dict()["parts"] == [{"type": "control", "name": "state2"}]
    told = said(client, "own").to_dict()
    assert "silent" not in told
    assert told["parts"] == [
        {"type": "control", "name": "state3"}, {"type": "text", "text": "well"}, {"type": "control", "name": "own"},
    ]  # fmt: skip
    assert "silent" not in said(client, [*user("own"), told, *user("again")]).to_dict()


# --- streams


def streamed(client, messages, **options):
    return list(asked(client, messages, stream=True, **options))


def test_a_stream_is_the_answer_in_pieces(client):
    chunks = streamed(client, "long", stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    texts = [delta.content for delta in deltas if delta.content]
    assert "".join(texts) == LONG
    assert len(texts) == len(LONG)  # a token is a byte
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "stop"]
    assert chunks[-1].usage == asked(client, "long").usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in streamed(client, "hello"))


def test_streamed_sound_is_the_same_sound(client):
    wanted = {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "pcm16"}}
    deltas = [chunk.choices[0].delta for chunk in streamed(client, "say", **wanted)]
    audio = [delta.audio for delta in deltas if delta.audio]
    assert audio[0].id.startswith("audio_")
    data = b"".join(base64.b64decode(one.data) for one in audio if one.data)
    assert data == base64.b64decode(said(client, "say", **wanted).audio.data)
    assert "".join(one.transcript or "" for one in audio) == "three "
    assert audio[-1].to_dict().keys() == {"expires_at"}


def test_sound_comes_while_the_model_goes_on(running, client):
    """A piece of each code, long before the last; the same samples as whole."""
    running.model.transformer.delay = 0.02
    try:
        times, data = [], b""
        for chunk in asked(client, "sing", stream=True, audio={"voice": "a", "format": "wav"}):
            audio = chunk.choices[0].delta.audio
            if audio and audio.data:
                times.append(time.monotonic())
                data += base64.b64decode(audio.data)
    finally:
        running.model.transformer.delay = 0.0
    assert len(times) == len(SUNG)
    assert times[-1] - times[0] > 0.02 * len(SUNG) * 0.7
    sound = read_sound(MemoryFile(data), 10)
    assert (sound.samples[::80] * 8).tolist() == list(SUNG)
    whole = said(client, "sing")
    assert data[44:] == base64.b64decode(whole.audio.data)[44:]


def test_streamed_pictures(client):
    deltas = [chunk.choices[0].delta.to_dict() for chunk in streamed(client, "draw")]
    kinds = ["".join(delta.keys() & {"content", "images", "parts"}) for delta in deltas[1:]]
    assert [kind for at, kind in enumerate(kinds) if kinds[at - 1 : at] != [kind]] == [
        "content", "images", "content", "images", "parts",
    ]  # fmt: skip
    assert [one["index"] for delta in deltas for one in delta.get("images", ())] == [0, 1]


# --- options


def test_stop_strings(client):
    for stop in ("goes", ["nothing", "goes", "while"]):
        choice = asked(client, "long", stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("a long answer that ", "stop")
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed(client, "long", stop=["goes"])]
    assert "".join(pieces) == "a long answer that "
    assert said(client, "long", stop=["while!"]).content == LONG


def test_lengths_and_choices(client):
    answer = asked(client, "long", max_completion_tokens=5, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {(choice.message.content, choice.finish_reason) for choice in answer.choices} == {("a lon", "length")}
    assert answer.usage.completion_tokens == 15
    seen = {}
    for chunk in streamed(client, "long", n=2):
        choice = chunk.choices[0]
        seen[choice.index] = seen.get(choice.index, "") + (choice.delta.content or "")
    assert seen == {0: LONG, 1: LONG}


def test_modalities(client):
    assert said(client, "hello", modalities=["text"]).content == "hi you"
    with pytest.raises(openai.BadRequestError, match="unknown modality `smell`") as error:
        asked(client, "hello", modalities=["text", "smell"])
    assert error.value.param == "modalities[1]"
    with pytest.raises(openai.BadRequestError, match="one kind of media"):
        asked(client, "hello", modalities=["image", "audio"])


def test_a_system_message_and_roles(running, client):
    assert said(client, [{"role": "developer", "content": "be kind"}, *user("hello")]).content == "hi you"
    assert running.prompts[-1].startswith("<im_start>system\nbe kind<im_end>")


def test_plain_runs_take_one_message():
    with serving(scripted({"one=": "two"}, form="plain")) as server:
        client = server.client()
        assert said(client, "one=").content == "two"
        with pytest.raises(openai.BadRequestError, match="not trained on conversations"):
            asked(client, [*user("one="), {"role": "assistant", "content": "two"}, *user("one=")])
