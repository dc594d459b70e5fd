"""Requests that are wrong, by kind: types, sizes, bombs, unknown fields, broken HTTP, clients that leave or stall.

Each is a function of a random generator that gives what is sent over a connection, and how the client then behaves.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from serving.client import request_bytes

Random = np.random.Generator

LEAVES, STALLS, WAITS = "leaves", "stalls", "waits"


@dataclass
class Malformed:
    """What a client sends, piece by piece, and whether it then waits for the answer, leaves, or stays silent."""

    kind: str
    pieces: list[bytes]
    then: str = WAITS


CHAT = {
    "model": "random", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["x"], "stream": False,
}  # fmt: skip
COMPLETION = {"model": "random", "prompt": [1, 2, 3], "max_tokens": 4, "seed": 1}
SPEECH = {"model": "random", "input": "hello", "voice": "alloy", "response_format": "wav"}
IMAGES = {"model": "random", "prompt": "a cat", "n": 1}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/audio/speech": SPEECH,
    "/v1/images/generations": IMAGES,
}
_WRONG: list[Any] = [
    None, True, -1, 1 << 70, 1e308, "5", "", "x" * 5000, [], [[]], {}, {"a": {"b": [1]}}, [None], ["a", 1],
    "\0", "\ufffe", -0.0, {"type": "text"}, [{"type": "image_url"}],
]  # fmt: skip


def _fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places inside a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in _fields(one, (*path, key))]


def _changed(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return body


def wrong_type(random: Random) -> Malformed:
    path = list(BODIES)[random.integers(len(BODIES))]
    body = BODIES[path]
    places = [place for place in _fields(body) if place[0] not in ("voice", "user")]
    place = places[random.integers(len(places))]
    found = body
    for key in place:
        found = found[key]  # type: ignore[index]
    others = [one for one in _WRONG if one is not None and type(one) is not type(found)]
    if isinstance(found, float):
        others = [one for one in others if not isinstance(one, int)]
    if place[-1] == "content":  # which may be a text
        others = [one for one in others if not isinstance(one, str)]
    if place[0] in ("stop", "prompt"):
        others = [True, -1.5, {}, [None], [[None]]]
    return _post("wrong_type", path, _changed(body, place, others[random.integers(len(others))]))


def unknown_field(random: Random) -> Malformed:
    path = list(BODIES)[random.integers(len(BODIES))]
    name = ["temprature", "guided_json", "__class__", "x" * 3000, "", "tool", "\u202e"][random.integers(7)]
    return _post("unknown_field", path, {**BODIES[path], name: 1})


def unsupported(random: Random) -> Malformed:
    given = [("logprobs", True), ("tools", [{"type": "function"}]), ("n", 10**6), ("max_tokens", 10**9),
             ("temperature", -1), ("modalities", ["smell"]), ("frequency_penalty", 1.5), ("model", "gpt-9"),
             ("response_format", {"type": "json_object"}), ("top_k", 1 << 40), ("seed", 1 << 64)]  # fmt: skip
    name, value = given[random.integers(len(given))]
    return _post("unsupported", "/v1/chat/completions", {**CHAT, name: value})


@cache
def _broken() -> list[bytes]:
    whole = json.dumps(CHAT).encode()
    return [
        *(whole[:size] for size in (1, 20, 90, len(whole) - 1)), b"[" * 100_000, b'{"a":' * 50_000,
        b"\xff\xfe" + whole, b"",
        b"null", b"NaN", whole.replace(b"0.5", b"Infinity"), whole.replace(b"hello", b"\\ud800"), whole + whole,
        b"\0" * 1000, b'{"messages": [' + b"1," * 200_000 + b"1]}", whole.replace(b"0.5", b"1e99999"),
        b"{" + b",".join(b'"%d": 1' % number for number in range(50_000)) + b"}",
    ]  # fmt: skip


def broken_json(random: Random) -> Malformed:
    broken = _broken()
    return Malformed("broken_json", [request_bytes("/v1/chat/completions", broken[random.integers(len(broken))])])


def too_large(random: Random) -> Malformed:
    user = {"role": "user", "content": "a"}
    bodies: list[Any] = [
        {**CHAT, "messages": [user] * 300}, {**CHAT, "messages": [{"role": "user", "content": "word " * 100_000}]},
        {**CHAT, "messages": [{"role": "user", "content": [_image(_png(2, 2))] * 40}]},
        {**CHAT, "messages": [{"role": "user", "content": "long " * 60}]},
        {**CHAT, "stop": ["a"] * 100}, {**COMPLETION, "prompt": [1] * 5000}, {**COMPLETION, "prompt": [10**9]},
        {**COMPLETION, "prompt": [[1]] * 100},
    ]  # fmt: skip
    number = int(random.integers(len(bodies) + 3))
    if number < len(bodies):
        body = bodies[number]
        return _post("too_large", "/v1/completions" if "prompt" in body else "/v1/chat/completions", body)
    if number == len(bodies):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return Malformed("too_large", [head + b"Content-Length: 99999999999\r\n\r\n{"])
    if number == len(bodies) + 1:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        return Malformed("too_large", [head + b"Transfer-Encoding: chunked\r\n\r\n", *([chunk] * 40)])
    return Malformed("too_large", [b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n"])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, content: bytes | None = None, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\0" * width) * height) if content is None else content
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _wav(seconds: int, rate: int = 8000, channels: int = 1) -> bytes:
    size = seconds * rate * 2 * channels
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels, rate,
                       rate * 2 * channels, 2 * channels, 16, b"data", size)  # fmt: skip
    return head + bytes(size)


def _image(content: bytes | str, kind: str = "image_url") -> dict[str, Any]:
    url = content if isinstance(content, str) else f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"type": kind, kind: {"url": url}}


def _gif(frames: int, side: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    images = [Image.new("L", (side, side), number % 256) for number in range(frames)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=1000)
    return file.getvalue()


_GIF = _gif(300, 4)
_ZEROS = zlib.compress(bytes(30_000_000))


@cache
def _bombs() -> list[dict[str, Any]]:
    return [
        _image(_png(60_000, 60_000, b"")), _image(_png(2**31 - 1, 2**31 - 1, b"")), _image(_png(0, 0, b"")),
        _image(_png(4000, 5000, _ZEROS)), _image(_png(4000, 4000, zlib.compress(b"\0"))),
        _image(_png(8, 8, b"", _chunk(b"zTXt", b"a\0\0" + _ZEROS))),
        _image(_png(8, 8, b"", _chunk(b"iCCP", b"a\0\0" + _ZEROS))),
        _image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), _image(b"\x89PNG"), _image(b""),
        _image(_GIF, "video_url"), _image(_wav(130), "audio_url"), _image(_wav(1), "video_url"),
        _image(_png(8, 8), "audio_url"), _image(b"fLaC" + bytes(100), "audio_url"), _image(b"OggS", "audio_url"),
        _image(b"%PDF-1.4"), _image(b"#EXTM3U\nfile:///etc/passwd\n", "video_url"),
        {"type": "input_audio", "input_audio": {"data": "!!!!", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        _image("http://127.0.0.1:1/a.png"), _image("file:///etc/passwd"), _image("data:image/png,%%%"),
        _image("data:;base64"), _image("ftp://a"), _image("\\\\host\\share"), _image("data:" + "a" * 100_000),
    ]  # fmt: skip


def bomb(random: Random) -> Malformed:
    bombs = _bombs()
    part = bombs[random.integers(len(bombs))]
    return _post("bomb", "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [part]}]})


@cache
def _forms() -> list[bytes]:
    field = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%s\r\n'
    end = b"--b--\r\n"
    return [
        b"", b"--b", b"--c\r\n", file, field % (b"model", b"random") + end, field % (b"file", b"text") + end,
        file % b"not sound" + end, file % _wav(130) + end, file % _wav(1) + field % (b"temperature", b"hot") + end,
        file % b"" + end, (field % (b"a", b"1")) * 200 + end, field % (b"prompt", b"x" * 200_000) + end,
        file % _wav(1) + file % _wav(1) + end, file % _wav(1) + field % (b"response_format", b"srt") + end,
        file % _wav(1)[:40] + end, b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ]  # fmt: skip


def bad_form(random: Random) -> Malformed:
    bodies = _forms()
    kind = "multipart/form-data; boundary=b" if random.random() < 0.9 else "multipart/form-data"
    return Malformed(
        "bad_form", [request_bytes("/v1/audio/transcriptions", bodies[random.integers(len(bodies))], kind)]
    )


@cache
def _sent() -> list[bytes]:
    body = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    json_head = head + b"Content-Type: application/json\r\n"
    return [
        b"\0\0\0\0\r\n\r\n", b"hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
        head + b"Content-Length: x\r\n\r\n", head + b"Content-Length: -5\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", head + b"Bad Header\r\n\r\n",
        json_head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", head + b"Content-Length: 2\r\n\r\n{}",
        json_head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"DELETE /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/models/..%2f..%2fetc HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        request_bytes("/v1/chat/completions", body, "text/plain"), request_bytes("/v1/chat/completions", body, ""),
        request_bytes("/v1/chat/completions", _ZEROS),
        json_head.replace(b"Host:", b"Origin: https://evil.example\r\nHost:") + b"Connection: close\r\n\r\n",
        b"GET /" + b" HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
        head + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n",
    ]  # fmt: skip


def bad_http(random: Random) -> Malformed:
    sent = _sent()
    return Malformed("bad_http", [sent[random.integers(len(sent))]])


def leaves(random: Random) -> Malformed:
    """Clients that are gone before they have an answer; what they asked is valid."""
    body = {**CHAT, "max_tokens": 200, "stop": None, "stream": bool(random.integers(2))}
    whole = request_bytes("/v1/chat/completions", json.dumps(body).encode())
    sent = whole[: random.integers(len(whole) + 1)] if random.random() < 0.5 else whole
    return Malformed("leaves", [sent], LEAVES)


def stalls(random: Random) -> Malformed:
    """Clients that stay and send no more."""
    whole = request_bytes("/v1/chat/completions", json.dumps(CHAT).encode())
    return Malformed("stalls", [whole[: random.integers(len(whole) - 1)]], STALLS)


def _post(kind: str, path: str, body: Any) -> Malformed:
    return Malformed(kind, [request_bytes(path, json.dumps(body).encode())])


KINDS: list[tuple[Callable[[Random], Malformed], float]] = [
    (wrong_type, 4), (unknown_field, 2), (unsupported, 2), (broken_json, 2), (too_large, 1), (bomb, 4), (bad_form, 2),
    (bad_http, 3), (leaves, 3), (stalls, 2),
]  # fmt: skip


def malformed(number: int, seed: int = 0) -> Malformed:
    """The request of a number."""
    random = np.random.default_rng([seed, number])
    weights = np.array([weight for _, weight in KINDS])
    return KINDS[random.choice(len(KINDS), p=weights / weights.sum())][0](random)
