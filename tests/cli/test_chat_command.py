"""`mio chat`: its mistakes, a missing extra, and that nothing leaves the machine while it starts."""

from __future__ import annotations

import importlib.abc
import os
import signal
import socket
import sys
import urllib.request

import pytest
from conftest import MELODY, start

from mio.cli import app

WORLD = ("--plugin", f"melody={MELODY / 'mio_melody.py'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such run folder"),
        (["RUN", "--rows", "0"], "--rows"),
        (["RUN", "--device", "gpu"], "is none of auto, cpu, cuda, mps"),
        (["RUN", "--set", "history"], "--set history: must be KEY=VALUE"),
        (["RUN", "--share"], "No such option: --share"),
        (["RUN", "--policy", "nobody"], "plugin `nobody`"),
    ],
)
def test_mistakes_are_one_line(finished, capsys, arguments, message):
    code = app.run(["chat", *(str(finished) if one == "RUN" else one for one in arguments), "--port", "0", *WORLD])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_an_address_that_is_taken(finished, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert app.run(["chat", str(finished), "--port", str(port), *WORLD]) == 2
    assert f"--port {port}: Address already in use" in capsys.readouterr().err


def test_a_missing_extra_is_named(finished, capsys, monkeypatch):
    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):  # noqa: ARG002
            if name == "gradio":
                raise ModuleNotFoundError("No module named 'gradio'", name="gradio")

    for name in [one for one in sys.modules if one.split(".")[0] == "gradio" or one.startswith("mio.chat")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    assert app.run(["chat", str(finished), *WORLD]) == 2
    assert capsys.readouterr().err == "error: `mio chat` needs the package gradio: `pip install 'mio[chat]'`\n"


ALONE = """
import socket, sys
connect, resolve = socket.socket.connect, socket.getaddrinfo

def allowed(host):
    return host in (None, "", "localhost", "127.0.0.1", "::1")

def checked(self, address):
    if isinstance(address, tuple) and not allowed(address[0]):
        print("LEAVES", address, file=sys.stderr, flush=True)
    return connect(self, address)

def resolved(host, *rest, **more):
    if not allowed(host):
        print("LEAVES", host, file=sys.stderr, flush=True)
    return resolve(host, *rest, **more)

socket.socket.connect, socket.getaddrinfo = checked, resolved
"""


def test_it_serves_a_page_until_a_signal_and_asks_nobody(finished, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ALONE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    process = start("chat", finished, "--port", "0", *WORLD, env=environment)
    line = process.stderr.readline()
    assert line.startswith("tunes: http://127.0.0.1:"), line
    url = line.split(": ", 1)[1].strip()
    with urllib.request.urlopen(url) as answer:
        assert "tunes" in answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="400"):  # called by the name of another page
        urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "elsewhere.example"}))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.communicate()[1] == ""
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mio-chat-")] == []
