"""Realtime conversations over WebSocket with a model whose answers are written down."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from hum import hum
from openai import AsyncOpenAI
from served import png, serving, url
from talking import ANSWERS, SPOKEN, WRITTEN, client, humming, kinds, levels, pcm, talking
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from mio.serve.realtime import connection as realtime

ANSWERED = [
    "response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added",
    "response.output_audio_transcript.delta", "response.output_audio.done", "response.output_audio_transcript.done",
    "response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done",
]  # fmt: skip
HEARD = [
    "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
    "conversation.item.added", "conversation.item.done",
]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with serving(humming()) as running:
        yield running


@pytest.fixture
def one(server):
    server.model.transformer.delay = 0.0
    del server.prompts[:]
    with client(server) as talker:
        yield talker


def done(events):
    return [event["response"] for event in events if event["type"] == "response.done"]


def transcripts(events):
    return [part["transcript"] for one in done(events) for item in one["output"] for part in item["content"]]


def test_what_is_said_is_answered(one):
    one.hum(3)
    events = one.until("response.done")
    assert kinds(events) == [*HEARD, *ANSWERED]
    named = {event["type"]: event for event in events}
    assert (named[HEARD[0]]["audio_start_ms"], named[HEARD[1]]["audio_end_ms"]) == (0, 320)
    heard = named["input_audio_buffer.committed"]["item_id"]
    assert named[HEARD[0]]["item_id"] == named[HEARD[1]]["item_id"] == heard
    assert len({event["event_id"] for event in events}) == len(events)
    [response] = done(events)
    assert response["status"] == "completed"
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "three"}]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_audio_transcript.delta"]
    assert "".join(deltas) == "three"
    usage = response["usage"]
    assert usage["output_tokens"] == len(f"{SPOKEN}three")
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    # the sound: its two borders, and a code for each 20 ms; around it the words of the template
    assert usage["input_token_details"]["audio_tokens"] == 2 + 16
    assert usage["input_token_details"]["text_tokens"] == usage["input_tokens"] - 18
    one.send("conversation.item.retrieve", item_id=heard)
    [sound] = one.until("conversation.item.retrieved")[-1]["item"]["content"]
    samples = np.frombuffer(base64.b64decode(sound["audio"]), "<i2") / 32768
    assert len(samples) == pytest.approx(0.32 * 24000)
    assert np.allclose(samples[:7000], 3 / 8, atol=1e-4)


def test_a_new_question_stops_the_answer_and_noise_does_not(server, one):
    server.model.transformer.delay = 0.01
    one.hum(5)
    events = one.until("response.output_audio_transcript.delta")
    one.hum(7)
    one.hum(3)
    events += one.until("response.done", count=2)
    first, _ = done(events)
    assert first["status"] == "cancelled"
    assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert first["output"][0]["status"] == "incomplete"
    whole, (given, answer) = ANSWERS["(5)"].removeprefix(SPOKEN), transcripts(events)
    assert whole.startswith(given)
    assert 0 < len(given) < len(whole)
    assert answer == "three"
    assert len([event for event in events if event["type"] == "response.created"]) == 2, "noise is answered by none"
    before, _, known = server.prompts[-1].partition(SPOKEN)
    known, _, after = known.partition("<im_end>")
    assert before == "<im_start>user\n(5)<im_end>\n<im_start>assistant\n"
    assert given.startswith(known), "as far as it was given when the question came"
    assert after == "\n<im_start>user\n(3)<im_end>\n", "noise is no part of the conversation"


def test_without_voice_activity_the_client_commits_and_asks(server, one):
    told = one.update(audio={"input": {"turn_detection": None}})
    assert told["session"]["audio"]["input"]["turn_detection"] is None
    one.hum(3, silence=0)
    one.send("input_audio_buffer.commit")
    assert kinds(one.until("conversation.item.done")) == HEARD[2:]
    one.send("response.create")
    assert kinds(one.until("response.done")) == ANSWERED
    one.hum(5)
    one.send("input_audio_buffer.clear")
    assert one.next()["type"] == "input_audio_buffer.cleared"
    one.send("input_audio_buffer.commit", event_id="mine")
    error = one.next()["error"]
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "mine")
    one.hum(7, silence=0)
    one.send("input_audio_buffer.commit")
    one.until("conversation.item.done")
    one.send("response.create")
    [response] = done(one.until("response.done"))
    assert (response["status"], response["output"]) == ("completed", []), "the model thinks that it is not meant"
    assert server.prompts[-1].endswith("<im_start>user\n(7)<im_end>\n")


def test_text_pictures_and_sound_are_asked_about_together():
    answers = {"[0, 1, 2, 3]what(3)": f"{WRITTEN}a picture", "[0, 1, 2, 3]and": f"{WRITTEN}the same"}
    with talking(humming(answers)) as (server, one):
        one.update(output_modalities=["text"], instructions="Be brief.")
        parts = [
            {"type": "input_image", "image_url": url(png(0, 1, 2, 3))}, {"type": "input_text", "text": "what"},
            {"type": "input_audio", "audio": pcm(hum([3] * 10))},
        ]  # fmt: skip
        one.send("conversation.item.create", item={"type": "message", "role": "user", "id": "asked", "content": parts})
        item = one.until("conversation.item.done")[-1]["item"]
        assert [part["type"] for part in item["content"]] == ["input_image", "input_text", "input_audio"]
        assert item["id"] == "asked"
        one.send("response.create")
        events = one.until("response.done")
        assert [kind for kind in kinds(events) if "text" in kind] == [
            "response.output_text.delta", "response.output_text.done"
        ]  # fmt: skip
        assert done(events)[0]["output"][0]["content"] == [{"type": "output_text", "text": "a picture"}]
        one.say("and")
        one.until("conversation.item.done")
        one.send("response.create")
        one.until("response.done")
        assert server.prompts[-1] == (
            "<im_start>system\nBe brief.<im_end>\n<im_start>user\nwhat(3)<im_end>\n<im_start>assistant\n"
            f"{WRITTEN}a picture<im_end>\n<im_start>user\n[0, 1, 2, 3]and<im_end>\n"
        )


def test_answers_in_sound_come_as_pcm_of_24_kilohertz(one):
    one.say("hum")
    one.until("conversation.item.done")
    one.send("response.create")
    events = one.until("response.done")
    deltas = [event for event in events if event["type"] == "response.output_audio.delta"]
    assert len(deltas) >= 4, "frame by frame"
    assert levels(events) == [1, 2, 3, 4]
    sound = b"".join(base64.b64decode(event["delta"]) for event in deltas)
    assert len(sound) == 2 * round(4 * 0.02 * 24000)
    assert transcripts(events) == ["so: "]
    assert kinds(events).index("response.output_audio.done") < kinds(events).index("response.done")


def test_text_is_said_aloud_and_what_was_not_heard_is_forgotten():
    answers = {"hello": f"{WRITTEN}a bb, ccc dddd.", "and": f"{WRITTEN}e"}
    with talking(humming(answers, speaks="hum")) as (server, one):
        one.say("hello")
        one.until("conversation.item.done")
        one.send("response.create")
        events = one.until("response.done")
        assert levels(events)[2::5] == [1, 3, 3, 5]
        assert transcripts(events) == ["a bb, ccc dddd."]
        item = done(events)[0]["output"][0]["id"]
        for field, value in (("audio_end_ms", 500), ("content_index", 1)):
            fields = {"content_index": 0, "audio_end_ms": 0, "item_id": item} | {field: value}
            one.send("conversation.item.truncate", **fields)
            assert one.next()["error"]["param"] == field
        one.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=150)
        assert one.next() == {
            "type": "conversation.item.truncated", "item_id": item, "content_index": 0, "audio_end_ms": 150,
            "event_id": one.last["event_id"],
        }  # fmt: skip
        one.send("output_audio_buffer.clear")
        assert one.next()["type"] == "output_audio_buffer.cleared"
        one.say("and")
        one.until("conversation.item.done")
        one.send("response.create")
        one.until("response.done")
        assert server.prompts[-1].split("assistant\n")[-1].startswith(f"{WRITTEN}a bb,<im_end>")


def test_items_can_be_made_up_taken_back_and_put_anywhere(server, one):
    def message(role, text, **fields):
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], "id": text}
        one.send("conversation.item.create", item=item, **fields)
        return one.until("conversation.item.done", "error")[-1]

    assert message("user", "one")["previous_item_id"] is None
    assert message("assistant", "two")["previous_item_id"] == "one"
    assert message("user", "gone")["previous_item_id"] == "two"
    assert message("system", "rule", previous_item_id="root")["previous_item_id"] is None
    assert message("user", "hello", previous_item_id="two")["previous_item_id"] == "two"
    assert message("user", "two")["error"]["param"] == "item.id"
    assert message("user", "other", previous_item_id="nowhere")["error"]["param"] == "previous_item_id"
    one.send("conversation.item.delete", item_id="gone")
    assert one.next()["type"] == "conversation.item.deleted"
    one.send("conversation.item.delete", item_id="gone")
    assert one.next()["error"]["code"] == "item_not_found"
    one.send("response.create", response={"output_modalities": ["text"], "metadata": {"turn": "1"}})
    [response] = done(one.until("response.done"))
    assert (response["metadata"], response["output_modalities"]) == ({"turn": "1"}, ["text"])
    assert server.prompts[-1] == (
        "<im_start>system\nrule<im_end>\n<im_start>user\none<im_end>\n<im_start>assistant\ntwo<im_end>\n"
        "<im_start>user\nhello<im_end>\n"
    )


def test_a_response_can_be_cancelled_and_is_alone(server, one):
    server.model.transformer.delay = 0.02
    one.update(audio={"input": {"turn_detection": None}})
    one.send("response.create")
    assert one.next()["error"]["code"] == "conversation_empty"
    one.say("hello")
    one.until("conversation.item.done")
    one.send("response.cancel")
    assert one.next()["error"]["code"] == "response_cancel_not_active"
    one.send("response.create")
    created = one.until("response.created")[-1]["response"]["id"]
    one.send("response.create", event_id="again")
    events = one.until("error")
    assert events[-1]["error"]["code"] == "conversation_already_has_active_response"
    one.send("response.cancel", response_id="resp_other")
    events += one.until("error")
    one.send("response.cancel", response_id=created)
    events += one.until("response.done")
    assert done(events)[0]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    server.model.transformer.delay = 0.0
    one.send("response.create", response={"max_output_tokens": 5})
    [response] = done(one.until("response.done"))
    assert (response["status"], response["status_details"]["reason"]) == ("incomplete", "max_output_tokens")


def test_a_run_without_a_policy_answers_all_that_is_committed():
    answers = {"(3)": [("hum", [1] * 30)], "(5)": [("hum", [2])]}
    with talking(humming(answers, policy=False), delay=0.005) as (server, one):
        assert one.session["audio"]["input"]["turn_detection"] is None
        error = one.update(audio={"input": {"turn_detection": {"type": "server_vad"}}})["error"]
        assert error["param"] == "session.audio.input.turn_detection"
        assert "no voice activity; commit what was said; give null" in error["message"]
        for level, expected in ((3, [1] * 30), (5, [2])):
            one.hum(level, silence=0)
            one.send("input_audio_buffer.commit")
            one.until("conversation.item.done")
            one.send("response.create")
            events = one.until("response.done")
            assert levels(events) == expected
            assert done(events)[0]["output_modalities"] == ["audio"]
        assert server.prompts[-1].startswith("<im_start>user\n(3)<im_end>\n<im_start>assistant\n(1)<im_end>\n")


def test_where_all_is_answered_speech_interrupts_at_its_beginning():
    answers = {"(3)": "a long answer that goes on and on and on", "(5)": "short"}
    with talking(humming(answers, answers="all"), delay=0.01) as (server, one):
        one.hum(3)
        one.until("response.output_audio_transcript.delta")
        one.hum(5)
        events = one.until("response.done", count=2)
        order = kinds(events)
        assert order.index("input_audio_buffer.speech_started") < order.index("response.done")
        assert order.index("response.done") < order.index("input_audio_buffer.speech_stopped")
        assert [one["status"] for one in done(events)] == ["cancelled", "completed"]
        assert server.prompts[-1].count("assistant") == 1


def test_voice_activity_need_not_ask_nor_interrupt(server, one):
    server.model.transformer.delay = 0.01
    detection = {"type": "server_vad", "create_response": False}
    assert one.update(audio={"input": {"turn_detection": detection}})["session"]["audio"]["input"][
        "turn_detection"
    ] == {"type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 0, "silence_duration_ms": 200,
          "create_response": False, "interrupt_response": True, "idle_timeout_ms": None}  # fmt: skip
    one.hum(5)
    assert kinds(one.until("conversation.item.done")) == HEARD
    detection = {"type": "server_vad", "create_response": True, "interrupt_response": False}
    one.update(audio={"input": {"turn_detection": detection}})
    one.send("response.create")
    events = one.until("response.output_audio_transcript.delta")
    one.hum(3)
    events += one.until("response.done", count=2)
    assert [one["status"] for one in done(events)] == ["completed", "completed"]
    assert transcripts(events) == [ANSWERS["(5)"].removeprefix(SPOKEN), "three"]


def test_silence_for_long_has_the_model_go_on():
    answers = {"hello": f"{WRITTEN}hi", "(0)": f"{SPOKEN}still there?"}
    with talking(humming(answers)) as (_, one):
        one.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 100}}})
        one.send("input_audio_buffer.append", audio=pcm(np.zeros(4800, np.float32)))
        one.say("hello")
        one.until("conversation.item.done")
        one.send("response.create")
        one.until("response.done")
        events = one.until("response.done")
        assert kinds(events)[:2] == ["input_audio_buffer.timeout_triggered", "input_audio_buffer.committed"]
        assert (events[0]["audio_start_ms"], events[0]["audio_end_ms"]) == (0, 200)
        assert transcripts(events) == ["still there?"]


def test_conversations_do_not_disturb_each_other(server):
    server.model.transformer.delay = 0.005
    with client(server) as first, client(server) as second, client(server) as third:
        first.hum(5)
        second.hum(3)
        third.say("hello")
        third.until("conversation.item.done")
        third.send("response.create")
        assert server.client().models.list().data[0].id == "made"
        assert transcripts(first.until("response.done")) == [ANSWERS["(5)"].removeprefix(SPOKEN)]
        assert transcripts(second.until("response.done")) == ["three"]
        assert transcripts(third.until("response.done")) == ["hi there"]


def test_the_official_client_converses(server):
    server.model.transformer.delay = 0.01

    async def talk():
        seen, said = [], []
        api = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
        async with api.realtime.connect(model="made") as connection:
            await connection.session.update(
                session={"type": "realtime", "output_modalities": ["audio"], "audio": {
                    "input": {"format": {"type": "audio/pcm", "rate": 24000},
                              "turn_detection": {"type": "server_vad", "interrupt_response": True}},
                    "output": {"voice": "marin"}}}
            )  # fmt: skip
            sound = np.concatenate([hum([5], seconds=0.3), np.zeros(9600, np.float32)])
            await connection.input_audio_buffer.append(audio=pcm(sound))
            over = 0
            async for event in connection:
                seen.append(event.type)
                if event.type == "response.output_audio_transcript.delta":
                    said.append(event.delta)
                    if len(said) == 3:
                        sound = np.concatenate([hum([3], seconds=0.3), np.zeros(9600, np.float32)])
                        await connection.input_audio_buffer.append(audio=pcm(sound))
                if event.type == "response.done":
                    over += 1
                    if over == 1:
                        assert event.response.status_details.reason == "turn_detected"
                    else:
                        assert event.response.output[0].content[0].transcript == "three"
                        break
        return seen

    seen = asyncio.run(asyncio.wait_for(talk(), 30))
    assert seen[:2] == ["session.created", "session.updated"]
    assert "error" not in seen


# --- what cannot be


@pytest.mark.parametrize(
    ("event", "param", "message"),
    [
        ({"type": "session.updat"}, "type", "did you mean `session.update`"),
        ({"type": 5}, "type", "no event that clients send is 5"),
        ({"type": "session.update"}, "session", "missing"),
        ({"type": "session.update", "session": {"type": "transcription"}}, "session.type", "realtime"),
        ({"type": "session.update", "session": {"type": "realtime", "voice": "a"}}, "session.voice", "unrecognized"),
        ({"type": "session.update", "session": {"type": "realtime", "tools": [{}]}}, "tools", "tools are not"),
        ({"type": "session.update", "session": {"type": "realtime", "model": "other"}}, "session.model", "`made`"),
        (
            {"type": "session.update",
             "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
            "session.audio.input.format.type", "audio/pcm",
        ),
        (
            {"type": "session.update",
             "session": {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
            "session.audio.input.turn_detection.type", "server_vad",
        ),
        (
            {"type": "session.update", "session": {
                "type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}}},
            "session.audio.input.turn_detection.threshold", "less than or equal to 1",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "instructions": "x" * 100_000}},
            "session.instructions", "cannot fit",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "max_output_tokens": 10**9}},
            "session.max_output_tokens", "at most",
        ),
        ({"type": "input_audio_buffer.append", "audio": "no base64!"}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio", "two bytes"),
        ({"type": "response.create", "response": {"conversation": "none"}}, "conversation", "not supported"),
        ({"type": "conversation.item.retrieve", "item_id": "nobody"}, "item_id", "no item `nobody`"),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call", "role": "user", "content": []}},
            "item.type", "message",
        ),
        (
            {"type": "conversation.item.create", "item": {
                "type": "message", "role": "user", "content": [{"type": "input_text"}]}},
            "item.content[0].text", "missing",
        ),
        (
            {"type": "conversation.item.create", "item": {
                "type": "message", "role": "user", "content": [{"type": "output_text", "text": "a"}]}},
            "item.content[0].type", "`input_text`",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [
                {"type": "input_image", "image_url": "http://127.0.0.1/a.png"}]}},
            "item.content[0].image_url.url", "URLs are not opened",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "x" * 100_000}]}},
            "item.content", "cannot fit",
        ),
    ],
)  # fmt: skip
def test_a_wrong_event_is_told_by_its_field_and_the_connection_goes_on(one, event, param, message):
    one.socket.send(json.dumps({**event, "event_id": "mine"}))
    error = one.next()
    assert error["type"] == "error"
    assert (error["error"]["param"], error["error"]["event_id"]) == (param, "mine")
    assert message in error["error"]["message"]
    assert one.update()["type"] == "session.updated"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe", '{"type": "session.update", "session": ' * 3000])
def test_what_is_no_event_ends_nothing(one, text):
    one.socket.send(text)
    assert one.next()["error"]["code"] in ("invalid_json", "too_large")
    assert one.update()["type"] == "session.updated"


def test_what_cannot_be_answered_is_a_response_that_failed():
    with talking(humming({"x" * 300: "never"}, context=200)) as (_, one):
        one.say("x" * 300)
        one.until("conversation.item.done")
        one.send("response.create")
        [response] = done(one.until("response.done"))
        assert response["status"] == "failed"
        assert "do not fit the 200 positions" in response["status_details"]["error"]["message"]


def test_the_buffer_holds_no_more_than_its_limit():
    with talking(limits={"seconds": 0.5}) as (_, one):
        one.update(audio={"input": {"turn_detection": None}})
        one.send("input_audio_buffer.append", audio=pcm(hum([3] * 20)))
        one.send("input_audio_buffer.append", audio=pcm(hum([3] * 20)))
        assert one.next()["error"]["code"] == "buffer_full"
        one.send("input_audio_buffer.commit")
        assert one.until("conversation.item.done")


def test_media_of_the_oldest_items_are_forgotten_first():
    answers = {"(3)": f"{SPOKEN}three", "(5)": f"{SPOKEN}five"}
    most = 100_000
    assert 3 * 2 * len(hum([3] * 40)) < 2 * most < 2 * 3 * 2 * len(hum([3] * 40))
    with talking(humming(answers), limits={"body": most}) as (server, one):
        one.update(audio={"input": {"turn_detection": None}})
        items = []
        for level in (3, 5):
            one.send("input_audio_buffer.append", audio=pcm(hum([level] * 40)))
            one.send("input_audio_buffer.commit")
            items.append(one.until("input_audio_buffer.committed")[-1]["item_id"])
            one.send("response.create")
            one.until("response.done")
        assert server.prompts[-1] == "<im_start>user\n(5)<im_end>\n"
        for name, kept in zip(items, (False, True), strict=True):
            one.send("conversation.item.retrieve", item_id=name)
            [part] = one.until("conversation.item.retrieved")[-1]["item"]["content"]
            assert ("audio" in part) is kept


def test_events_with_anything_in_them_end_nothing(one):
    """Every field of valid events, with values of other kinds."""
    values = [None, True, -1, 0, 10**30, 1.5, "", "x" * 5000, "\ud800", [], [[]], {}, {"type": "message"}, ["text"]]
    events = [
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"], "instructions": "a",
         "max_output_tokens": 5, "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": {
             "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 1, "silence_duration_ms": 100,
             "create_response": False, "idle_timeout_ms": None}}, "output": {"voice": "a"}}}},
        {"type": "input_audio_buffer.append", "audio": "AAA="}, {"type": "input_audio_buffer.commit"},
        {"type": "conversation.item.create", "previous_item_id": None, "item": {
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}},
        {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 0},
        {"type": "response.create", "response": {"instructions": "a", "metadata": {"a": "b"}, "max_output_tokens": 3}},
        {"type": "response.cancel", "response_id": "a"},
    ]  # fmt: skip

    def changed(content, value):
        """The content with one field changed, in every way."""
        for key in content if isinstance(content, dict) else range(len(content)):
            inner = content[key]
            whole = dict(content) if isinstance(content, dict) else list(content)
            for new in [value, *(changed(inner, value) if isinstance(inner, dict | list) else ())]:
                whole[key] = new
                yield json.loads(json.dumps(whole))

    count = 0
    for event in events:
        for value in values:
            for one_changed in changed(event, value):
                one.socket.send(json.dumps(one_changed))
                count += 1
    one.send("session.update", session={"type": "realtime", "instructions": "the last"})
    told = []
    while not (told and told[-1]["type"] == "session.updated" and told[-1]["session"]["instructions"] == "the last"):
        told.append(one.next())
    codes = {event["error"]["code"] for event in told if event["type"] == "error"}
    assert count > 500
    assert "invalid_value" in codes
    assert "internal_error" not in codes


def test_who_may_not_converse_is_refused_at_the_door(monkeypatch):
    with serving(humming(), key="secret") as server:
        place = f"ws://127.0.0.1:{server.port}/v1/realtime"
        for address, headers, status in (
            (f"{place}?model=made", {}, 401), (f"{place}?model=mad", {"Authorization": "Bearer secret"}, 404),
        ):  # fmt: skip
            with pytest.raises(InvalidStatus) as refused, connect(address, additional_headers=headers):
                pass
            assert refused.value.response.status_code == status
            assert b"error" in refused.value.response.body
        with connect(place, subprotocols=["realtime", "openai-insecure-api-key.secret"]) as socket:
            assert socket.subprotocol == "realtime"
            assert json.loads(socket.recv(timeout=10))["type"] == "session.created"
            monkeypatch.setattr(realtime, "SESSIONS", 1)
            with (
                pytest.raises(InvalidStatus) as refused,
                connect(place, additional_headers={"Authorization": "Bearer secret"}),
            ):
                pass
            assert refused.value.response.status_code == 429


def test_a_conversation_in_which_nothing_comes_ends(monkeypatch):
    monkeypatch.setattr(realtime, "IDLE", 0.1)
    with talking() as (_, one):
        error = one.until("error")[-1]["error"]
        assert error["code"] == "session_idle"
        with pytest.raises(ConnectionClosed):
            one.next()


def test_stopping_the_server_lets_an_answer_end():
    with talking(delay=0.01) as (server, one):
        one.hum(5)
        one.until("response.output_audio_transcript.delta")
        server.server.stop()
        events = one.until("error")
        assert transcripts(events) == [ANSWERS["(5)"].removeprefix(SPOKEN)]
        assert events[-1]["error"]["code"] == "server_stopping"


def test_a_client_that_leaves_leaves_nothing_behind():
    with talking(delay=0.01) as (server, one):
        one.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1}}})
        one.hum(5)
        one.until("response.output_audio_transcript.delta")
        one.socket.close()
        engine = server.service.engine.engine
        for _ in range(200):
            if not engine.running and server.service.idle:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert not engine.running
        assert server.service.idle
        steps = engine.steps
        asyncio.run(asyncio.sleep(0.3))
        assert engine.steps <= steps + 1, "nobody is asked whether he is still there"
