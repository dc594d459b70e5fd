"""Images that are read by an encoder and written by codes, as Janus has them: by recipe, with the built-in plugins."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import once
from PIL import Image
from safetensors.torch import load_file

from mio import Media
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.runs.run import Run
from mio.core.tokens.templates import CompiledTemplate, to_document

TOWER = {"tower": "siglip", "image_size": 8, "patch": 4, "channels": 1, "width": 16, "layers": 1, "heads": 2,
         "ffn_width": 24}  # fmt: skip
RECIPE = {
    "name": "both",
    "plugins": {
        "text": {"tokenizer": "bytes"},
        "image": {"tokenizer": "patch_vq", "size": 8, "patch": 2, "codebook_size": 16, "tokens": "janus"},
        "vision_tower": TOWER,
    },
    "model": {"width": 32, "layers": 1, "heads": 2, "tied_embeddings": False},
    "data": {
        "packing": {"context": 128},
        "groups": {
            "pictures": {
                "sources": {
                    "pairs": {
                        "dataset": "jsonl",
                        "options": {"path": "pairs.jsonl"},
                        "templates": "both",
                        "directions": {"caption": 1, "draw": 1, "nothing": 1, "redraw": 1},
                    }
                }
            }
        },
        "templates": {
            "both": [
                {"direction": "caption", "prompt": "{image}", "response": "{caption}"},
                {"direction": "draw", "prompt": "{caption}", "response": "{image}"},
                {"direction": "nothing", "response": "{image}"},
                {"direction": "redraw", "prompt": "Again: {image}", "response": "{image}"},
            ]
        },
    },
    "mixture": {"ratios": {"pictures": 1}},
    "train": {
        "steps": 6,
        "rows": 2,
        "precision": "fp32",
        "optimizer": {
            "kind": "adamw",
            "lr": 1e-2,
            "rules": {
                "tower": {"pattern": "encoders.image.tower.*", "trainable": False},
                "head": {"pattern": "head.weight", "rows": ["image/*"]},
            },
        },
    },
    "runtime": {"workers": 0, "loggers": []},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    def make(folder):
        random = np.random.default_rng(0)
        lines = []
        for number in range(8):
            Image.fromarray(random.integers(0, 256, (8, 10), np.uint8)).save(folder / f"{number}.png")
            lines.append(json.dumps({"image": f"{number}.png", "caption": f"picture {number}"}))
        (folder / "pairs.jsonl").write_text("\n".join(lines))
        (folder / "both.yaml").write_text(yaml.safe_dump(RECIPE))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert app.run(["fit", "both.yaml"]) == 0

    return once(tmp_path_factory, "both", make)


@pytest.fixture
def work(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_what_is_read_is_positions_and_what_is_written_codes(work):
    run = Run.open(work / "runs/both", PluginManager.discover())
    template = next(one for one in run.recipe.data.templates["both"] if one.direction == "redraw")
    image = run.plugins.datamodule("image").read(work / "0.png")
    rendered = run.renderer.render(to_document({"image": Media("image", image, "0")}, CompiledTemplate(template)))
    tokens = rendered.tokens.tolist()
    assert [(item.modality, item.positions) for item in rendered.items] == [("image", 4)]
    assert sum(index in run.vocabulary.code_ids("image", 0) for index in tokens) == 16
    assert [tokens.count(run.vocabulary.begin("image")), tokens.count(run.vocabulary.end("image"))] == [2, 2]


def test_parts_learn_by_name(work):
    """Beside a training whose steps are of no length."""
    assert app.run(["fit", "both.yaml", "runtime.runs=still", "train.optimizer.lr=0"]) == 0
    first, last = (load_file(work / runs / "both/model.safetensors") for runs in ("still", "runs"))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    encoder = {name for name in changed if name.startswith("encoders.")}
    assert encoder == {f"encoders.image.projector.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert {"embedding.weight", "head.weight", "layers.0.ffn.up.weight"} <= changed
    rows = (first["head.weight"] != last["head.weight"]).any(1).nonzero()[:, 0].tolist()
    codes = Run.open(work / "runs/both", PluginManager.discover()).vocabulary.code_ids("image", 0)
    assert rows
    assert set(rows) <= set(codes)


@pytest.mark.usefixtures("work")
def test_guidance_changes_what_is_drawn(capsys):
    def generated(*options):
        capsys.readouterr()
        assert app.run(["generate", "runs/both", "{image:0.png} picture 3", *options, "--json", "--out", "out"]) == 0
        return [part.get("text", part.get("path")) for part in json.loads(capsys.readouterr().out)["parts"]]

    drawn = ("--output", "image", "--max-tokens", "40", "--guidance")
    off, one, guided = (generated(*drawn, value) for value in ("0", "1", "30"))
    assert off == one  # the same pixels are the same file
    assert off != guided
