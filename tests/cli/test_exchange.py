"""`mio export` and `mio import`: what they print, and mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from mio.cli import app
from mio.core.contract.backbone import TransformerConfig
from mio.core.exchange.huggingface import huggingface_name
from mio.core.exchange.huggingface_config import config_to_huggingface
from mio.core.model.transformer import Transformer
from mio.plugins.text.byte_tokenizer import ByteTokenizer

ROOT = Path(__file__).parents[2]
SIZE = 261


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A text model of a byte tokenizer, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Tiny Llama"
    folder.mkdir()
    config = TransformerConfig(width=16, layers=1, heads=2, ffn_width=32)
    torch.manual_seed(0)
    state = {huggingface_name(name): value for name, value in Transformer(config, SIZE + 3).state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_to_huggingface(config, SIZE + 3, 512)))
    (folder / "tokenizer.json").write_text(json.dumps(ByteTokenizer().definition()))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


def called(capsys, *arguments):
    assert app.run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()


def failing(capsys, *arguments):
    assert app.run([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_in_and_out_and_in_again(model, capsys):
    assert called(capsys, "import", model) == [
        "runs/Tiny-Llama: 14,896 parameters, 261 ids, 261 of text",
        "left out, without a token: 3 rows",
        "to start from it: `start_from: runs/Tiny-Llama` in a recipe, or start_from=runs/Tiny-Llama; the model and the "
        "text tokenizer are then those of the run, where the recipe says nothing else",
    ]
    recipe = yaml.safe_load((model.parent / "runs/Tiny-Llama/recipe.yaml").read_text())
    assert recipe["data"]["packing"]["context"] == 512
    answers = [called(capsys, "generate", "runs/Tiny-Llama", "hello", "--max-tokens", "8")]
    assert called(capsys, "export", "runs/Tiny-Llama", "out", "--shard-size", "20KB") == [
        "out: llama, 10,960 parameters, 261 ids, 0.0 MB in 3 files"
    ]
    assert called(capsys, "import", "out", "--name", "again")[0].endswith("261 of text (restored)")
    answers.append(called(capsys, "generate", "runs/again", "hello", "--max-tokens", "8"))
    assert answers[0] == answers[1] != []


def test_a_recipe_gives_what_a_model_has_not(model, capsys):
    (model.parent / "chat.yaml").write_text("plugins: {text: {}}\ndata: {form: chat}\nmodel: {width: 32}")
    lines = called(capsys, "import", model, "chat.yaml", "seed=3", "--name", "chat", "--dtype", "bf16")
    assert lines[2].startswith("taken from config.json, not from the recipe: model.width, model.layers")
    recipe = yaml.safe_load((model.parent / "runs/chat/recipe.yaml").read_text())
    assert (recipe["seed"], recipe["data"]["form"], recipe["model"]["width"]) == (3, "chat", 16)
    called(capsys, "export", "runs/chat", "out")
    assert json.loads((model.parent / "out/config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((model.parent / "out/generation_config.json").read_text())["eos_token_id"] == [260, 258]


def test_a_stage_starts_from_an_import(model, tunes, capsys):
    """Trained, exported, imported again: the vocabulary has grown by the blocks of a modality, and stays."""
    called(capsys, "import", model, "--name", "backbone")
    parent = yaml.safe_load((tunes / "runs/backbone/recipe.yaml").read_text())
    own = ["start_from=runs/backbone", "plugins.text={_replace_: true}", "model={_replace_: true}", "train.steps=2"]
    called(capsys, "fit", "tunes.yaml", *own, f"runtime.runs={tunes / 'elsewhere'}")
    child = yaml.safe_load((tunes / "elsewhere/tunes/recipe.yaml").read_text())
    assert (child["model"], child["plugins"]["text"]) == (parent["model"], parent["plugins"]["text"])
    summary = json.loads((tunes / "elsewhere/tunes/summary.json").read_text())
    assert summary["vocabulary"]["rows"] == {"kept": SIZE, "new": 10, "absent": 0}  # begin, end and eight notes
    prompt = ["Please play do re mi:", "--output", "melody", "--json"]
    called(capsys, "export", "elsewhere/tunes", "out")
    first = called(capsys, "generate", "elsewhere/tunes", *prompt)
    called(capsys, "import", "out")  # here, wherever it was trained
    assert called(capsys, "generate", "runs/tunes", *prompt) == first
    kept = [json.loads((tunes / place / "tunes/summary.json").read_text()) for place in ("runs", "elsewhere")]
    assert kept[0] == kept[1] == summary


def test_the_documented_start_from_pictures_of_ones_own(model, capsys):
    """The example of docs/exchange.md, but smaller: imported, checked, trained, asked, planned."""
    [body] = re.findall(r"```yaml\n(name: mine\n.*?)```", (ROOT / "docs/exchange.md").read_text(), re.DOTALL)
    (model.parent / "mine.yaml").write_text(body)
    folder = model.parent / "data"
    folder.mkdir()
    records = []
    for number in range(12):
        picture = np.full((20, 20, 3), (20 * number, 255 - 20 * number, 128), np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
        records.append(json.dumps({"image": f"{number}.png", "caption": f"colour {number}"}))
    (folder / "captions.jsonl").write_text("\n".join(records))
    small = ["plugins.image.codebook_size=8", "train.steps=2", "train.rows=2", "runtime.threads=1"]
    called(capsys, "import", model, "--name", "base")
    assert called(capsys, "recipe", "check", "mine.yaml", *small) == [
        "mine: ok, 2 steps of 2 x 256 positions, image_text 1 by tokens",
        "  10 new ids of `image`, after the 261 of runs/base",
    ]
    assert called(capsys, "recipe", "show", "mine.yaml")[1] == "# from runs/base: model, plugins.text"
    called(capsys, "fit", "mine.yaml", *small)
    base, mine = (yaml.safe_load((model.parent / f"runs/{name}/recipe.yaml").read_text()) for name in ("base", "mine"))
    assert mine["model"] == base["model"]
    assert mine["plugins"]["text"] == {"tokenizer": "imported"}
    answer = called(capsys, "generate", "runs/mine", "Please generate an image:", "--output", "image", "--json")
    assert [part["type"] for part in json.loads("\n".join(answer))["parts"]] != []
    planned = json.loads("\n".join(called(capsys, "plan", "mine.yaml", *small, "world=1", "--json")))
    summary = json.loads((model.parent / "runs/mine/summary.json").read_text())
    assert planned["parameters"] == summary["parameters"]
    # a further stage: pictures' options and trained codes are the run's, other ones are refused by the check
    (model.parent / "next.yaml").write_text(body.replace("mine", "next").replace("runs/base", "runs/mine"))
    line = failing(capsys, "recipe", "check", "next.yaml")
    assert "block `image/codebook0` has 8 ids of kind codes" in line
    line = failing(capsys, "recipe", "check", "next.yaml", "plugins.image.codebook_size=8", "plugins.image.patch=8")
    assert "`plugins.image.patch=8`: runs/mine/tokenizers/image: the image codebook was made with" in line
    assert called(capsys, "recipe", "check", "next.yaml", "plugins.image={_replace_: true}")[1:] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["import", "nowhere"], "nowhere: no such folder"),
        (["import", "."], "holds no config.json"),
        (["import", "MODEL", "seed=1"], "give at least one recipe before key=value"),
        (["import", "MODEL", "nothing.yaml"], "no recipe nothing.yaml"),
        (["import", "MODEL", "--name", "a/b"], "--name 'a/b' names a folder"),
        (["import", "MODEL", "--dtype", "int8"], "--dtype 'int8' is none of keep, bf16, fp16, fp32"),
        (["import", "MODEL", "--token", "<x>=<y>"], "`<x>` is not a token of the recipe's plugins"),
        (["import", "MODEL", "--token", "<|im_end|>=<y>"], "the text itself has that token already"),
        (["import", "MODEL", "--text-size", "999"], "--text-size 999, but its tokenizer has 261 ids"),
        (["import", "MODEL", "--text-size", "99"], "--text-size 99 cuts into the 256 ids of its text tokenizer"),
        (["export", "nowhere", "out"], "nowhere: no such run folder"),
        (["export", "runs/done", "out", "--shard-size", "big"], "--shard-size 'big' is not a size"),
        (["export", "runs/done", "MODEL"], "exists and is not empty"),
        (["export", "runs/done"], "Missing argument"),
        (["import", "MODEL", "--name", "done"], "runs/done exists already"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(model, capsys, arguments, told):
    called(capsys, "import", model, "--name", "done")
    assert told in failing(capsys, *(str(model) if a == "MODEL" else a for a in arguments))


def test_damaged_repositories(model, capsys):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert "config.json: `model_type` 'gpt2' is not supported" in failing(capsys, "import", model)
    (model / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    assert "the tensor `model.embed_tokens.weight` is [264, 16], by config.json it is [264, 32]" in failing(
        capsys, "import", model
    )
    (model / "config.json").write_text("{")
    assert "config.json: is damaged" in failing(capsys, "import", model)
    (model / "config.json").unlink()
    assert "holds no config.json" in failing(capsys, "import", model)


def test_a_run_that_is_not_whole(model, capsys):
    called(capsys, "import", model, "--name", "done")
    weights = model.parent / "runs/done/model.safetensors"
    save_file({"embedding.weight": torch.zeros(2, 2)}, weights)
    assert "model.safetensors: is not what the run wrote" in failing(capsys, "export", "runs/done", "out")
    called(capsys, "recipe", "lock", "runs/done", "--accept")
    assert "the tensor `embedding.weight` is [2, 2], by recipe.yaml and vocabulary.json it is" in failing(
        capsys, "export", "runs/done", "out"
    )
    assert not (model.parent / "out").exists()
    weights.unlink()
    assert "holds no finished run" in failing(capsys, "export", "runs/done", "out")


@pytest.mark.parametrize("part", ["recipe.lock", "vocabulary.json", "summary.json", "tokenizers"])
def test_a_run_without_one_of_its_parts_is_not_exported(model, capsys, part):
    called(capsys, "import", model, "--name", "done")
    lost = model.parent / "runs/done" / part
    lost.rename(model.parent / "elsewhere")
    assert part in failing(capsys, "export", "runs/done", "out")
    assert not (model.parent / "out").exists()


def test_damaged_numbers_are_refused_both_ways(model, capsys):
    called(capsys, "import", model, "--name", "done")
    weights = model.parent / "runs/done/model.safetensors"
    for folder, name, command in (
        (weights, "layers.0.ffn.up.weight", ("export", "runs/done", "out")),
        (model / "model.safetensors", "model.layers.0.mlp.up_proj.weight", ("import", model, "--name", "other")),
    ):
        tensors = load_file(folder)
        tensors[name][0, 1] = torch.nan
        save_file(tensors, folder)
        called(capsys, "recipe", "lock", "runs/done", "--accept")
        assert f"the tensor `{name}` holds a NaN or an infinity" in failing(capsys, *command)
        tensors[name][0, 1] = 1e6
        save_file(tensors, folder)
        called(capsys, "recipe", "lock", "runs/done", "--accept")
        assert f"the tensor `{name}` holds 1e+06, too large for float16" in failing(capsys, *command, "--dtype", "fp16")
    assert sorted(path.name for path in (model.parent / "runs").iterdir()) == ["done"]
