"""Live talk: what a browser sends over its WebSocket, and what it is told."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from hosted import SEVEN, ask
from hum import hum
from served import png
from talking import SPOKEN, WRITTEN, humming
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mio.api.loaded import Loaded
from mio.chat.conversation import Conversation
from mio.chat.host import Host
from mio.chat.live import PATH, Lives, Talk, live_policy
from mio.core.errors import UserError

RATE = 24000


def open_host(folder, script=None, policy=True, **session):
    answers = {
        "(3)": f"{SPOKEN}three",
        "(5)": f"{SPOKEN}five of them are here, and it takes long to say so",
        "(7)": "<2>nobody",
        "hello": f"{WRITTEN}hi there",
        "hum": [WRITTEN, "so: ", ("hum", [1, 2, 3, 4])],
        f"{list(SEVEN)}look": f"{WRITTEN}seven",
        **(script or {}),
    }
    return Host(Loaded(humming(answers, policy=policy, **session), 4), folder / "media", "made", seed=0)


class Browser:
    """What a browser does."""

    def __init__(self, socket, rate=RATE, output=""):
        self.socket = socket
        self.send(start={"rate": rate, "output": output})

    def send(self, **frame):
        self.socket.send(json.dumps(frame))

    def hear(self, *levels):
        """Sound of 200 ms each, in the chunks in which it comes."""
        sound = hum(levels, RATE, 0.2)
        for start in range(0, len(sound), 2048):
            self.socket.send(sound[start : start + 2048].tobytes())

    def until(self, kind, count=1):
        """Events up to the next one of a kind."""
        found = []
        while sum(one["event"] == kind for one in found) < count:
            found.append(json.loads(self.socket.recv(timeout=10)))
        return found


@contextlib.contextmanager
def serving(host, **options):
    """The WebSocket of a host: its address."""
    app = FastAPI()
    app.include_router(Lives(host, live_policy(host, **options)).router())
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
        thread = threading.Thread(target=lambda: server.run(sockets=[sock]))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{sock.getsockname()[1]}{PATH}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def browsing(host, **options):
    with serving(host, **options) as address, connect(address) as opened:
        yield Browser(opened)


def said(found):
    return "".join(one["text"] for one in found if one["event"] == "text")


def test_what_is_heard_is_answered_as_it_comes(tmp_path):
    with browsing(open_host(tmp_path)) as browser:
        assert browser.until("ready")[-1] == {"event": "ready"}
        browser.hear(0, 3, 3, 0, 0)
        found = browser.until("done")
        assert [one["event"] for one in found if one["event"] != "text"] == ["heard", "control", "done"]
        assert found[0]["end"] - found[0]["start"] == pytest.approx(0.4, abs=0.11)
        assert said(found) == "three"
        browser.hear(0, 7, 7, 0, 0)
        assert said(browser.until("silence")) == ""


def test_a_question_stops_the_answer_before_it(tmp_path):
    host = open_host(tmp_path)
    host.run.model.transformer.delay = 0.01
    with browsing(host) as browser:
        browser.hear(0, 5, 5, 0, 0)
        found = browser.until("text", 3)
        browser.send(say="hello")
        found += browser.until("done")
        assert len(said([one for one in found if one.get("query") == 0])) < 40
        [stopped] = [one for one in found if one["event"] == "interrupted"]
        assert (stopped["query"], stopped["by"]) == (0, 1)
        assert said([one for one in found if one.get("query") == 1]) == "hi there"


def test_sound_of_an_answer_comes_in_pieces_to_be_played_and_as_a_whole_to_be_kept(tmp_path):
    with browsing(open_host(tmp_path)) as browser:
        browser.send(say="hum")
        found = browser.until("done")
    pieces = [one for one in found if one["event"] == "chunk"]
    pcm = np.concatenate([np.frombuffer(base64.b64decode(one["pcm"]), "<i2") for one in pieces])
    assert {one["rate"] for one in pieces} == {8000}
    assert np.array_equal(pcm, np.rint(hum([1, 2, 3, 4], 8000) * 32768).astype("<i2"))
    [whole] = [one for one in found if one["event"] == "media"]
    assert "<audio" in whole["html"]
    assert "pcm" not in whole


def test_what_is_shown_is_part_of_what_is_asked(tmp_path):
    with browsing(open_host(tmp_path)) as browser:
        browser.send(show="seven.png", data=base64.b64encode(png(*SEVEN)).decode())
        assert "<img" in browser.until("shown")[-1]["html"]
        browser.send(say="look")
        assert said(browser.until("done")) == "seven"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"show": "a.xyz", "data": ""}, "this run reads no such files"),
        ({"show": "a.png", "data": "?"}, "its content is no base64"),
        ({"show": "a.png", "data": base64.b64encode(b"x").decode()}, "cannot be read as picture"),
        ({"start": {"rate": RATE}}, "the conversation has begun already"),
        ({"dance": 1}, "a frame must be sound, or an object"),
        ([1], "a frame must be sound, or an object"),
        ({"say": ""}, "a query is empty"),
    ],
)
def test_what_makes_no_sense_is_told_and_ends_nothing(tmp_path, frame, message):
    with browsing(open_host(tmp_path)) as browser:
        browser.until("ready")
        browser.socket.send(json.dumps(frame))
        told = browser.until("problem")[-1]["reason"]
        assert message in told
        assert str(tmp_path) not in told
        browser.send(say="hello")
        assert said(browser.until("done")) == "hi there"


def test_sound_that_is_none_is_told(tmp_path):
    with browsing(open_host(tmp_path)) as browser:
        browser.until("ready")
        browser.socket.send(b"abc")
        assert "samples of 32 bits" in browser.until("problem")[-1]["reason"]
        browser.socket.send(np.full(256, np.nan, np.float32).tobytes())
        browser.send(say="hello")
        assert said(browser.until("done")) == "hi there"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"start": {"rate": 1}}, "`rate` must be"),
        ({"start": {"rate": RATE, "output": "dance"}}, "no `dance`"),
        ({"start": 3}, "`rate` must be"),
        ({"say": "a"}, "the first frame must be `start`"),
    ],
)
def test_a_conversation_has_a_beginning(tmp_path, frame, message):
    talk = Talk(open_host(tmp_path), None, lambda told: None)  # noqa: ARG005
    with pytest.raises(UserError, match=message):
        talk.take(None, json.dumps(frame))
    talk.close()


def test_other_pages_and_too_many_people_are_refused(tmp_path, monkeypatch):
    host = open_host(tmp_path)
    with serving(host) as address:
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, origin="http://elsewhere.example")
        with connect(address, origin=address.replace("ws:", "http:").removesuffix(PATH)) as first:
            browser = Browser(first)
            browser.until("ready")
            monkeypatch.setattr("mio.chat.live.TALKS", 1)
            with connect(address) as second:
                assert "1 people talk already" in json.loads(second.recv(timeout=10))["reason"]
            browser.send(say="hello")
            assert said(browser.until("done")) == "hi there"


def test_live_and_written_conversations_share_an_engine(tmp_path):
    host = open_host(tmp_path)
    one = Conversation(host)
    with browsing(host) as browser:
        browser.hear(0, 5, 5, 0, 0)
        browser.until("heard")
        ask(one, "hello")
        assert one.last.reply.text == "hi there"
        assert "takes long" in said(browser.until("done"))
    engine = host.run.running._engine
    assert engine is not None
    folders = [path for path in host.folder.iterdir() if path != one.folder]
    until = time.monotonic() + 5
    while any(path.exists() for path in folders):  # what was said goes with who said it
        assert time.monotonic() < until
        time.sleep(0.01)


def test_who_talks_is_told_when_the_engine_fails(tmp_path):
    host = open_host(tmp_path)
    with browsing(host) as browser:
        browser.until("ready")
        host.run.model.transformer.fails = True
        browser.send(say="hello")
        assert "over" in [one["event"] for one in browser.until("over")]
    host.run.model.transformer.fails = False
    with browsing(host) as browser:
        browser.send(say="hello")
        assert said(browser.until("done")) == "hi there"


def test_which_runs_have_live_talk(tmp_path):
    host = open_host(tmp_path, policy=False)
    assert live_policy(host) is None
    with pytest.raises(UserError, match="no plugin"):
        live_policy(host, "nothing")
    with pytest.raises(UserError):
        live_policy(open_host(tmp_path), options={"hisstory": 1})
    assert live_policy(open_host(tmp_path), options={"history": 3}).history == 3
