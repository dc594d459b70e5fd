"""From `mio plugins new` to a trained modality with its figure in the digits world: the commands that a newcomer types.

The chain is that of the package's own README, with a smaller model in place of the demo's and fewer steps.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from pathlib import Path

from mio.cli import app

OPTIMIZER = "train.optimizer={_replace_: true, kind: muon, lr: 3e-3, muon_lr: 0.015}"
"""The model that it starts from has learnt nothing, and is trained as one that starts from nothing."""
SMALL = ["model={_replace_: true}", "train.steps=150", OPTIMIZER, "evaluate.items=50", "runtime.loggers=[]"]
"""It is not of the demo's scale either."""


def readme_commands(package):
    """Commands of a package's README, which has one a line."""
    lines = re.findall(r"^    (\S.*?)(?: +#.*)?$", (package / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_a_new_modality_is_learnt_beside_the_old_ones(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits / "runs", "runs")
    shutil.copy(digits / "tiny.yaml", "tiny.yaml")
    begin = time.monotonic()
    assert app.run(["plugins", "new", "sketch"]) == 0
    package = Path("mio-sketch")
    install, check, tests, alone, added, evaluate = readme_commands(package)
    assert install == ["pip", "install", "-e", "mio-sketch[dev]"]
    monkeypatch.setenv("MIO_PLUGINS", f"sketch={package / 'mio_sketch'}")  # in place of the installation
    assert check == ["mio", "plugins", "check", "sketch"]
    assert app.run(check[1:]) == 0
    assert tests == ["pytest", "mio-sketch"]  # in another test file
    assert alone == ["mio", "fit", "sketch"]
    assert app.run(["recipe", "check", *alone[2:]]) == 0
    assert added == ["mio", "fit", "sketch/added", "start_from=runs/stage4"]
    recipe = package / "mio_sketch" / "added.yaml"  # whose include is put in the place of the demo's
    recipe.write_text(recipe.read_text().replace("[stage4, ", f"[{tmp_path / 'tiny.yaml'}, "))
    assert app.run([*added[1:], *SMALL]) == 0
    assert "sketch_draw" in capsys.readouterr().out
    figures = json.loads(Path("runs/sketch-added/summary.json").read_text())["tasks"]
    assert time.monotonic() - begin < 600
    # of four shapes: 1.0 and 1.0 as last seen, 0.25 by chance
    assert figures["sketch_read"]["accuracy"] >= 0.9
    assert figures["sketch_draw"]["accuracy"] >= 0.9
    assert evaluate == ["mio", "evaluate", "runs/sketch-added", "sketch_read", "sketch_draw", "caption", "draw"]
    assert app.run([*evaluate[1:], "--items", "4"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{task} +\d\.\d+", printed, re.MULTILINE) for task in evaluate[3:])
    blocks = json.loads(Path("runs/sketch-added/vocabulary.json").read_text())["blocks"]
    assert [one["name"] for one in blocks][-3:] == ["<sketch>", "</sketch>", "sketch/codebook0"]
