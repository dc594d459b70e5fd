"""The worked example of a modality that a head makes, added to a trained model by a package of its own."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from conftest import ROOT, once
from rich.console import Console

import mio.testing
from mio.cli.app import run
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.runs.lock import Lock
from mio.core.runs.run import Run
from mio.core.stages.fit import fit_chain

PACKAGE = ROOT / "tests" / "packages" / "mio-swatch" / "mio_swatch.py"
PLUGIN = f"swatch={PACKAGE}"
FEWER = ["train.steps=250", "validate.every=250", "runtime.loggers=[]", "runtime.threads=1", "runtime.log_every=5"]


def manager():
    return PluginManager([*discover(), local(PLUGIN)])


def fit(recipe, *overrides):
    printed = io.StringIO()
    fit_chain([recipe], list(overrides), manager(), Console(file=printed, width=200))
    return printed.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder in which the recipes of the documentation were trained, in fewer steps, and once without adapters."""

    def make(folder):
        text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
        recipes = {
            name: body
            for body in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
            if (name := body.partition("\n")[0].removeprefix("name: ")) in ("words", "swatch")
        }
        for name, body in recipes.items():
            (folder / f"{name}.yaml").write_text(body)
        (folder / "notes.jsonl").write_text("\n".join(f'{{"note": "swatch {n} is turned"}}' for n in range(8)))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            fit("words.yaml", "runtime.loggers=[]", "runtime.threads=1")
            (folder / "told.txt").write_text(fit("swatch.yaml", *FEWER))
            fit("swatch.yaml", "name=blind", "plugins.swatch.look=false", *FEWER)

    return once(tmp_path_factory, "swatch", make)


def summary(trained, name):
    return json.loads((trained / "runs" / name / "summary.json").read_text())


def test_a_trained_model_gets_an_encoder_an_adapter_and_a_head(trained):
    told = (trained / "told.txt").read_text()
    for words in (
        "`swatch` is read by an encoder, which runs/words has not: it begins as its plugin makes it",
        "the plugin `swatch` has adapters inside layers, which runs/words has not: it begins as its plugin makes it",
        "`swatch` is made by a head, which runs/words has not: it begins as its plugin makes it",
        "51 `swatch` for its head",
    ):
        assert words in told
    before, after = (Lock.read(trained / "runs" / name).networks for name in ("words", "swatch"))
    assert before == {"encoders": {}, "adapters": {}, "heads": {}}
    assert after == {
        "encoders": {"swatch": "swatch-reader-1"},
        "adapters": {"swatch": "swatch-look-1"},
        "heads": {"swatch": "swatch-painter-1"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        opened = Run.open("runs/swatch", manager())
        assert {name.split(".")[1] for name in opened.weights() if ".adapters." in name} == {"1"}


def test_the_loss_of_its_items_falls_and_shades_come_through_the_adapters_alone(trained):
    figure = {name: summary(trained, name)["validation"]["figures"]["heads/swatch"]["last"] for name in
              ("swatch", "blind")}  # fmt: skip
    # in 300 steps 0.34 and 0.93; without knowing the shades, of variance 1/3, their noise cannot be told from them
    assert figure["swatch"] < 0.75 < figure["blind"]
    rows = list(csv.DictReader((trained / "runs/swatch/metrics.csv").open()))
    logged = [float(row["heads/swatch"]) for row in rows if row["heads/swatch"]]
    assert logged[-1] < 0.6 * logged[0]
    learnt = sum(float(row["heads/swatch/items"]) for row in rows if row["heads/swatch/items"])
    assert summary(trained, "swatch")["heads"] == {"swatch": {"items": learnt}}


@pytest.mark.parametrize("how", ["same", "turned"])
def test_an_answer_holds_the_swatch_that_was_asked_for(trained, how, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    shown = np.repeat([0.8, 0.1, -0.8], 3)
    np.savetxt("mine.swatch", shown)
    asked = ["generate", "runs/swatch", f"{{swatch:mine.swatch}} {how}:", "--output", "swatch", "--json"]
    assert run([*asked, "--plugin", PLUGIN]) == 0
    [part] = json.loads(capsys.readouterr().out)["parts"]
    made = np.loadtxt(part["path"])
    assert made.shape == (9,)
    due, other = (shown, shown[::-1]) if how == "same" else (shown[::-1], shown)
    right, wrong = (np.corrcoef(made, one)[0, 1] for one in (due, other))
    assert right > max(0.5, wrong)


def test_the_package_conforms_and_is_small():
    results = mio.testing.check_plugin("swatch", beside={"text": {"tokenizer": "bytes"}}, manager=manager())
    assert {result.check for result in results if result.outcome == "skipped"} == {
        "tasks' prompts can be filled",
        "the policy of conversations is valid",
    }
    assert len(PACKAGE.read_text(encoding="utf-8").splitlines()) < 150


def test_the_core_does_not_know_it():
    for path in (ROOT / "mio").rglob("*.py"):
        assert "swatch" not in path.read_text(encoding="utf-8").lower(), path
