"""`mio serve`: its options, its warnings, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request

import pytest
from conftest import MELODY, start

from mio.cli import app
from mio.cli.addresses import is_loopback

WORLD = ("--plugin", f"melody={MELODY / 'mio_melody.py'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such run folder"),
        (["RUN", "--template", "speech"], "write KIND=PROMPT"),
        (["RUN", "--media-folder", "nowhere"], "--media-folder nowhere: is no folder"),
        (["RUN", "--rows", "0"], "--rows"),
        (["RUN", "--device", "gpu"], "is none of auto, cpu, cuda, mps"),
        (["RUN", "--template", "song=a"], "--template song: is none of speech, transcription, image"),
    ],
)
def test_mistakes_are_one_line(finished, capsys, arguments, message):
    code = app.run(["serve", *(str(finished) if one == "RUN" else one for one in arguments), "--port", "0", *WORLD])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_an_address_that_is_taken(finished, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert app.run(["serve", str(finished), "--port", str(port), *WORLD]) == 2
    assert f"--port {port}: Address already in use" in capsys.readouterr().err


def test_addresses_of_this_machine():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.2.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org")))


def ask(url, seed=0):
    """Some tokens of a model that is served."""
    body = json.dumps({"prompt": "do", "max_tokens": 5, "temperature": 1, "seed": seed, "return_token_ids": True})
    headers = {"Content-Type": "application/json", "Authorization": "Bearer secret"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/completions", body.encode(), headers)) as answer:
        return json.load(answer)


def served(finished, *options):
    """A server, its address, and its process."""
    environment = {**os.environ, "MIO_API_KEY": "secret"}
    process = start("serve", finished, "--port", "0", "--name", "tunes", *options, *WORLD, env=environment)
    line = process.stderr.readline()
    assert line.startswith("tunes: http://127.0.0.1:"), line
    return line.split(": ", 1)[1].strip(), process


def test_it_serves_until_a_signal(finished):
    url, process = served(finished)
    assert ask(url)["model"] == "tunes"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.communicate()[1] == ""


def test_devices_that_hold_a_model_together_serve_as_one_does(finished):
    answers = []
    for options in ((), ("--devices", "2")):
        url, process = served(finished, "--device", "cpu", "--precision", "fp32", *options)
        answers.append([ask(url, seed)["choices"][0]["token_ids"] for seed in range(4)])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.communicate()
    assert answers[0] == answers[1]


def test_a_public_address_without_a_key_is_warned_of(finished, capsys, monkeypatch):
    monkeypatch.delenv("MIO_API_KEY", raising=False)
    monkeypatch.setattr("mio.serve.server.run", lambda *_: 130)  # of Ctrl-C
    assert app.run(["serve", str(finished), "--host", "0.0.0.0", "--port", "0", *WORLD]) == 130
    warning, interrupted = capsys.readouterr().err.splitlines()
    assert "anybody who reaches 0.0.0.0 can use the model; set MIO_API_KEY" in warning
    assert interrupted == "interrupted: the server has stopped"
