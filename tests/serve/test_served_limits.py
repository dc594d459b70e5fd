"""Who may ask, how much, how fast; what is told of a mistake; how the server ends."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest
from served import encoded, eventually, png, scripted, serving, tone, url

from mio.serve.guards import ABORT, Guard

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from serving.clients import outcomes, wrong
from serving.malformed import malformed

LONG = "word " * 60
ANSWERS = {"hello": "hi", "long": LONG, "[0, 1, 2, 3]": "seen"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def running():
    with serving(scripted(ANSWERS)) as server:
        yield server


def body(content="hello", **more):
    return {"messages": [{"role": "user", "content": content}], **more}


def part(kind, **content):
    return [{"type": kind, kind: content}]


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def refused(running, content, path=CHAT, **options):
    answer = httpx.post(running.url + path, json=content, **options)
    assert 400 <= answer.status_code < 500
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error


def test_an_answer_is_as_long_as_the_request_or_else_the_recipe_says():
    model = scripted({"long": LONG})
    model.recipe.generate = {"default": {"max_tokens": 7}, "text": {"max_tokens": 5}}
    with serving(model, limits={"max_tokens": 6}) as running:

        def tokens(**more):
            answer = httpx.post(running.url + CHAT, json=body("long", **more)).json()
            assert answer["choices"][0]["finish_reason"] == "length"
            return answer["usage"]["completion_tokens"]

        assert tokens(modalities=["text"]) == 5
        assert tokens(modalities=["text"], max_tokens=3) == 3
        assert tokens() == 6  # the recipe's seven are more than the server gives
    with serving(scripted({"long": LONG}), limits={"max_tokens": 6}) as running:
        assert tokens(modalities=["text"]) == 6


@pytest.mark.parametrize(
    ("content", "status", "param", "message"),
    [
        (body(temprature=1), 400, "temprature",
         "unrecognized request argument supplied: `temprature`; did you mean `temperature`?"),
        (body(temperature="1"), 400, "temperature", "should be a valid number"),
        (body(temperature=-1), 400, "temperature", "greater than or equal to 0"),
        (body(top_p=1.5), 400, "top_p", "less than or equal to 1"),
        (body(n=0), 400, "n", "greater than or equal to 1"),
        (body(seed=1.5), 400, "seed", "integer"),
        (body(model="gpt"), 404, "model", "no model `gpt` here"),
        (body(tools=[{"type": "function"}]), 400, "tools", "tools are not supported; leave it out, or give []"),
        (body(logprobs=True), 400, "logprobs", "not given"),
        (body(response_format={"type": "json_object"}), 400, "response_format.type", "should be 'text'"),
        (body(max_tokens=10**6), 400, "max_tokens", "at most 4096"),
        ({}, 400, "messages", "missing required parameter"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", "should be 'system'"),
        (body(None), 400, "messages[0].content", "give a text, or a list of parts"),
        (body([{"type": "text"}]), 400, "messages[0].content[0]", "needs the field `text`"),
        (body(part("image_url", url="https://a.example/a.png")), 400, "messages[0].content[0].image_url.url",
         "URLs are not opened"),
        (body(part("image_url", url="file:///etc/passwd")), 400, "messages[0].content[0].image_url.url",
         "opens no files"),
        (body(part("image_url", url="data:image/png;base64,***")), 400, "messages[0].content[0].image_url.url",
         "not valid base64"),
        (body(part("image_url", url=url(b"hello"))), 400, "messages[0].content[0].image_url.url", "no picture"),
        (body(part("image_url", url=url(png(0, 1, 2, 3)[:44]))), 400, "messages[0].content[0].image_url.url",
         "cannot be read as picture"),
        (body(part("input_audio", data=encoded(tone(*[0] * 12_100)), format="wav")), 400,
         "messages[0].content[0].input_audio.data", "lasts longer than 120 s"),
        (body(part("file", file_data="", filename="a.exe")), 400, "messages[0].content[0].file.filename",
         "reads no files of this ending"),
        (body("x" * 20_000), 400, "messages", "cannot fit the context"),
        (body("x" * 390), 400, None, "do not fit the 400 positions"),
        (body([{"type": "text", "text": "a"}, *part("image_url", url=url(png(0, 0, 0, 0)))] * 33), 400, "messages",
         "at most 32 media"),
        ({"messages": [{"role": "user", "content": "a"}] * 300}, 400, "messages", "at most 256"),
        ({"messages": [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}]}, 400,
         "messages[0].audio.id", "no sound of this name"),
        (body(stop=["a"] * 17), 400, "stop", "at most 16"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_field(running, content, status, param, message):
    found, error = refused(running, content)
    assert message in error["message"]
    assert (found, error["param"], error["type"]) == (status, param, "invalid_request_error")


def test_what_is_no_json_or_no_route(running):
    def status(method="POST", path=CHAT, **options):
        answer = httpx.request(method, running.url + path, **options)
        assert answer.json()["error"]["message"]
        return answer.status_code

    as_json = {"headers": {"content-type": "application/json"}}
    assert status(content=b'{"a": ', **as_json) == 400
    assert status(content=b"[" * 10**4, **as_json) == 400
    assert status(content=b"\xff", **as_json) == 400
    assert status(content=json.dumps(body()), headers={"content-type": "text/plain"}) == 415
    many = b'{"messages": [' + b'{"role": "user", "content": [{"type": "text", "text": ""}]},' * 20_000 + b"1]}"
    assert status(content=many, **as_json) == 413
    assert status(path="/v1/nothing", json={}) == 404
    assert status(method="GET") == 405
    assert status(method="GET", path="/v1/models/other") == 404


def test_models_health_and_figures(running):
    client = running.client()
    [model] = client.models.list().data
    assert model.to_dict()["input_modalities"] == ["text", "picture", "tone", "clip", "melody"]
    assert client.models.retrieve("made").id == "made"
    assert [httpx.get(running.url + path).status_code for path in ("/health", "/ready")] == [200, 200]
    client.chat.completions.create(model="made", **body())
    figures = httpx.get(running.url + "/metrics").text
    assert re.search(r'^mio_http_responses_total\{route="/v1/chat/completions",status="200"\} [1-9]', figures, re.M)
    assert re.search(r"^mio_answer_tokens_total [1-9]", figures, re.MULTILINE)
    assert "mio_answers_running 0.0" in figures


def test_malformed_requests_are_refused_and_leave_nothing():
    """Kinds and judgement are those of `benchmarks/serve_malformed.py`, which sends more of them."""
    with serving(scripted(ANSWERS), limits={"header_timeout": 0.2, "body_timeout": 0.2}) as server:
        before = open_files()
        found = asyncio.run(outcomes(server.port, [malformed(number) for number in range(120)], 16))
        assert not wrong(found)
        assert len({kind for kind, _ in found}) == 10
        eventually(lambda: server.service.idle and open_files() <= before)
        assert server.client().chat.completions.create(model="made", **body()).choices[0].message.content == "hi"


# --- who may ask


def test_a_key():
    with serving(scripted(ANSWERS), key="secret") as server:
        for key in ("none", "secre", "secret2", "sécret"):
            answer = httpx.post(f"{server.url}{CHAT}", json=body(), headers={"authorization": f"Bearer {key}".encode()})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.client("secret").chat.completions.create(model="made", **body()).choices


def test_pages_and_names_of_others():
    with serving(scripted(ANSWERS), hosts=("127.0.0.1",), origins=("https://mine.example",)) as server:

        def status(**headers):
            return httpx.post(f"{server.url}{CHAT}", json=body(), headers=headers).status_code

        assert status() == 200
        assert status(host="evil.example") == 403  # a name that was made to lead here
        assert status(origin="https://evil.example") == 403
        assert status(origin="https://mine.example") == 200
        assert status(origin=server.url) == 200
        asks = {"origin": "https://mine.example", "access-control-request-method": "POST"}
        told = httpx.options(f"{server.url}{CHAT}", headers=asks)
        assert told.headers["access-control-allow-origin"] == "https://mine.example"
        other = httpx.options(f"{server.url}{CHAT}", headers={**asks, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_files_of_an_allowed_folder(tmp_path):
    folder = tmp_path / "media"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.png").write_bytes(png(0, 1, 2, 3))
    (tmp_path / "secret.png").write_bytes(png(0, 1, 2, 3))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with serving(scripted(ANSWERS), folder=folder) as server:
        client = server.client()

        def seen(place):
            content = part("image_url", url=place)
            return client.chat.completions.create(model="made", **body(content)).choices[0].message.content

        assert seen((folder / "in" / "a.png").as_uri()) == "seen"
        for place in (f"file://{folder}/../secret.png", f"file://{folder}/link.png", f"file://{tmp_path}/secret.png",
                      f"file://{folder}/none.png", f"file://{folder}/in", f"file://elsewhere{folder}/in/a.png",
                      f"file://{folder}/in/a.png%00"):  # fmt: skip
            with pytest.raises(openai.BadRequestError, match=r"no such file|a file of this machine"):
                seen(place)


# --- several at a time, and too many


@pytest.fixture
def slow():
    model = scripted(ANSWERS)
    model.transformer.delay = 0.01
    with serving(model, rows=2, limits={"waiting": 2, "grace": 5.0, "body": 4096, "write_timeout": 0.5}) as server:
        yield server


def begun(server, content="long", **more):
    """A streamed answer, of which the head has come."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    content = json.dumps(body(content, stream=True, **more)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    connection.sendall(f"{head}\r\n\r\n".encode() + content)
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_too_many_are_told_when_to_come_back(slow):
    connections = [begun(slow) for _ in range(4)]
    eventually(lambda: len(slow.service.engine.engine.running) == 2)
    with pytest.raises(openai.RateLimitError, match="2 requests wait") as error:
        slow.client().chat.completions.create(model="made", **body())
    assert int(error.value.response.headers["retry-after"]) >= 1
    for connection in connections:
        connection.close()
    eventually(lambda: slow.service.idle)
    assert slow.client().chat.completions.create(model="made", **body()).choices[0].message.content == "hi"


def test_answers_of_clients_that_leave_are_called_off(slow):
    running = slow.service.engine.engine
    begun(slow).close()
    eventually(lambda: slow.service.idle and not running.running)
    with pytest.raises(openai.APITimeoutError):
        slow.client(timeout=0.3).chat.completions.create(model="made", **body("long"))
    eventually(lambda: slow.service.idle and not running.running)
    assert max(map(len, (ticket.answer.tokens for ticket in running.running)), default=0) == 0


def test_a_body_that_is_too_large(slow):
    assert refused(slow, body("x" * 5000))[0] == 413
    chunks = (b" " * 1000 for _ in range(10))
    answer = httpx.post(f"{slow.url}{CHAT}", content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_client_that_does_not_read_is_cut_off(slow):
    """The socket of one never takes what is sent: `send` waits, until the guard closes the connection."""
    closed, ended = asyncio.Event(), []

    async def app(scope, _, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        ended.append(scope["path"])

    async def send(message):
        if message["type"] == "http.response.body":
            await closed.wait()  # as one to a connection that is closed, it returns

    extensions = {ABORT: {"close": closed.set}}
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [], "extensions": extensions}
    asyncio.run(asyncio.wait_for(Guard(app, slow.service)(scope, None, send), 5))
    assert ended == ["/health"]


def test_the_server_ends_when_answers_are_over():
    model = scripted(ANSWERS)
    model.transformer.delay = 0.002
    with serving(model, limits={"grace": 10.0}) as server:
        stream = server.client().chat.completions.create(model="made", stream=True, **body("long"))
        text = next(iter(stream)).choices[0].delta.content
        server.server.stop()
        with pytest.raises(openai.InternalServerError, match="being stopped") as error:
            server.client().chat.completions.create(model="made", **body())
        assert (error.value.status_code, error.value.code) == (503, "server_stopping")
        assert httpx.get(f"{server.url}/ready").status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 200
        text += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == LONG
        server.thread.join(10)
        assert server.code == 0


def test_answers_that_do_not_end_in_time_are_given_up():
    model = scripted(ANSWERS)
    model.transformer.delay = 0.05
    with serving(model, limits={"grace": 0.2}) as server:
        stream = iter(server.client().chat.completions.create(model="made", stream=True, **body("long")))
        next(stream)
        start = time.monotonic()
        server.server.stop(2)
        with pytest.raises(openai.APIError):
            list(stream)
        server.thread.join(10)
        assert time.monotonic() - start < 5
        assert server.code == 130


def test_an_answer_that_takes_too_long():
    model = scripted(ANSWERS)
    model.transformer.delay = 0.02
    with serving(model, limits={"answer_timeout": 0.3}) as server:
        with pytest.raises(openai.InternalServerError, match="took longer than") as error:
            server.client().chat.completions.create(model="made", **body("long"))
        assert error.value.status_code == 504
        eventually(lambda: not server.service.engine.engine.running)


def test_a_failing_engine_is_told_and_goes_on(running):
    running.model.transformer.fails = True
    try:
        with pytest.raises(openai.InternalServerError, match="the engine failed"):
            running.client().chat.completions.create(model="made", **body())
    finally:
        running.model.transformer.fails = False
    assert running.client().chat.completions.create(model="made", **body()).choices[0].message.content == "hi"


def test_users_at_once_get_their_own_answers():
    words = {f"number {number}": f"answer {number} " * (number % 5 + 1) for number in range(24)}
    with serving(scripted(words), rows=5) as server:
        found, client = {}, server.client()

        def ask(question):
            found[question] = client.chat.completions.create(model="made", **body(question)).choices[0].message.content

        threads = [threading.Thread(target=ask, args=(question,)) for question in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == words
