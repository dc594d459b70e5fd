"""The front end of `examples/vllm`, and transformers under the same grammar, beside the answers of mio.

The server answers as vLLM does, by transformers on the exported folder: neither mio's transformer nor its grammar takes
part.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import MELODY

from mio import Decoding, UserError
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.exchange.writing import export_run
from mio.core.generation.engine import answer_all
from mio.core.generation.model import Model
from mio.core.generation.requests import Request
from mio.core.runs.run import Run
from mio.core.tokens.rendered import Prompt

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "examples/vllm"), str(Path(__file__).parent)]

from fake_vllm import params  # noqa: E402
from mio_vllm import front  # noqa: E402
from mio_vllm.grammar import Grammar  # noqa: E402
from mio_vllm.masks import Masks  # noqa: E402
from mio_vllm.requests import Following  # noqa: E402
from mio_vllm.rows import restrict  # noqa: E402


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """An export of a small run with codes, and its run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIO_PLUGINS", f"melody={MELODY / 'mio_melody.py'}")
        run = Run(finished, PluginManager.discover())
        folder = tmp_path_factory.mktemp("front") / "exported"
        export_run(run, folder)
        yield folder, run


class Served:
    """The exported folder in transformers, greedy, with the grammar's rows as a logits processor."""

    def __init__(self, folder):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.grammar = Grammar.load(folder / "grammar.json")
        self.asked = []

    def complete(self, prompt, asked):
        """Token ids of the answer, with the one that ends it."""
        self.asked.append(asked)
        extra = asked.get("vllm_xargs") or {}
        wanted = params(max_tokens=asked["max_tokens"], temperature=asked["temperature"], **extra)
        following, masks = Following(wanted, self.grammar, 10_000), Masks(self.grammar.size)

        def process(ids, scores):
            for token in ids[0, len(prompt) + following.tokens :].tolist():
                following.take(token)
            restrict(scores, {0: (following, following.answer)}, masks)
            return scores

        made = self.model.generate(
            torch.tensor([prompt]), max_new_tokens=asked["max_tokens"], logits_processor=[process]
        )
        return made[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def server(exported):
    """A server of what vLLM's clients see of it; yields its address and what it was asked."""
    served = Served(exported[0])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self._tell(200, {"data": [{"id": "served", "max_model_len": 96}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if asked["max_tokens"] == 13:
                self._tell(400, {"error": {"message": "no such thing"}})
                return
            tokens = served.complete(asked["prompt"], asked)
            reason = "stop" if tokens[-1] in served.grammar.ends else "length"
            self._tell(200, {"choices": [{"token_ids": tokens, "finish_reason": reason}]})

        def _tell(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", served.asked
    listening.shutdown()
    listening.server_close()


@pytest.mark.parametrize(("output", "most"), [("", 0), ("melody", 0), ("melody", 2), ("text", 0)])
def test_transformers_under_the_grammar_of_the_file_answers_as_mio_does(exported, output, most):
    folder, run = exported
    model, served = Model.of(run, precision="fp32"), Served(folder)
    decoding = Decoding(temperature=0.0, media_temperature=0.0, max_tokens=24, most=most)
    need = model.need(output, only=True, decoding=decoding)
    extra = {key: value for key, value in {"mio_output": output, "mio_most": most}.items() if value}
    prompts = [[1, *run.codecs.text.encode(text)] for text in ("Please play do re:", "melody", "")]
    requests = [Request(Prompt(np.array(prompt, np.int32)), decoding, need, 0, 24) for prompt in prompts]
    for prompt, ours in zip(prompts, answer_all(model.engine(4), requests), strict=True):
        theirs = served.complete(prompt, {"max_tokens": 24, "temperature": 0.0, "vllm_xargs": extra})
        assert theirs[: len(ours.tokens)] == ours.tokens
        assert theirs[len(ours.tokens) :] in ([], [model.grammar.stop])


def test_prompts_and_answers_with_media_are_those_of_mio(exported, server, tmp_path, monkeypatch, capsys):
    folder, run = exported
    url, asked = server
    monkeypatch.chdir(tmp_path)
    greedy = ["--temperature=0", "--media-temperature=0", "--max-tokens=24"]
    command = [str(folder), "Please play do re:", f"--url={url}", "--output=melody", "--out=theirs", *greedy]
    assert front.main([*command, "--json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    same = ["Please play do re:", "--output", "melody", "--out", "ours", "--json", *greedy]
    assert app.run(["generate", str(run.folder), *same]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert [part["type"] for part in theirs["parts"]] == [part["type"] for part in ours["parts"]]
    written = [sorted(path.read_text() for path in (tmp_path / name).iterdir()) for name in ("theirs", "ours")]
    assert written[0] == written[1] != []
    assert asked[-1]["vllm_xargs"] == {"mio_output": "melody"}
    assert asked[-1]["temperature"] == 0.0
    assert front.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("melody-1.txt"), "the next free number"


def test_temperatures_of_text_and_media_stand_beside_the_request_s():
    decoding = Decoding(temperature=0.0, media_temperature=0.5, max_tokens=300, by={"image": {"temperature": 0.2}})
    content = front.request(decoding, "melody", "", 3, room=40)
    assert content["max_tokens"] == 40
    assert content["temperature"] == 1.0
    assert content["top_k"] == 0, "the export's own default is greedy"
    assert content["vllm_xargs"] == {"mio_output": "melody", "mio_temperature": 0.0, "mio_media_temperature": 0.5}
    film = front.request(decoding, "video", "image", 3, room=40)
    assert film["vllm_xargs"]["mio_media_temperature"] == 0.2
    assert front.request(replace(decoding, media_temperature=0.0, by={}), "melody", "", 3, 40)["temperature"] == 0.0


def test_what_vllm_does_not_know_of_the_recipe_is_told(exported, server, tmp_path, capsys):
    folder = tmp_path / "exported"
    shutil.copytree(exported[0], folder)
    recipe = folder / "mio/recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["generate"] = {"melody": {"guidance": 3.0, "media_temperature": 0.3, "by": {"melody": {"top_p": 0.4}}}}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [str(folder), "do", f"--url={server[0]}", "--output=melody", f"--out={tmp_path}", "--max-tokens=20"]
    assert front.main(command) == 0
    told = capsys.readouterr().err
    assert "`guidance` of the recipe is left out: only mio knows it" in told
    assert "temperatures alone" in told
    assert server[1][-1]["vllm_xargs"]["mio_media_temperature"] == 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=meldy"], "no modality `meldy` in this model; an answer can be of melody, text"),
        (["--max-tokens=13"], "400: no such thing"),
        (["--top-p=2"], "`top_p`"),
        (["--url=http://127.0.0.1:1"], "is `vllm serve` running there?"),
        (["--url=nowhere"], "cannot be asked"),
    ],
)
def test_mistakes_are_told_in_one_line(exported, server, capsys, arguments, message):
    assert front.main([str(exported[0]), "do", f"--url={server[0]}", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_media_that_an_encoder_reads_are_refused(exported, monkeypatch):
    export = front.Front(exported[0])
    read = Prompt(np.array([1], np.int32), (SimpleNamespace(modality="melody"),))
    monkeypatch.setitem(export.run.__dict__, "renderer", SimpleNamespace(prompt=lambda document: read))  # noqa: ARG005
    with pytest.raises(UserError, match="`melody` is read by an encoder of the model, which only mio has"):
        export.prompt("do")


def test_what_is_no_export_is_told(tmp_path, capsys, exported):
    assert front.main([str(tmp_path), "do"]) == 2
    assert "is no export of mio" in capsys.readouterr().err
    assert front.main([str(exported[0]), "{melody:none.txt}"]) == 2
    assert "none.txt" in capsys.readouterr().err
