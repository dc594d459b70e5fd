"""The worked example of a modality that an encoder reads: it trains, is silent on scribbles, and conforms."""

from __future__ import annotations

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
from mio.core.stages.fit import fit_chain

PACKAGE = ROOT / "tests" / "packages" / "mio-gesture" / "mio_gesture.py"
PLUGIN = f"gesture={PACKAGE}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder in which the recipe of the documentation was trained, in fewer steps."""

    def make(folder):
        text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
        [recipe] = [body for body in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "name: gesture" in body]
        (folder / "gesture.yaml").write_text(recipe)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            overrides = ["train.steps=120", "evaluate.items=60", "runtime.loggers=[]"]
            manager = PluginManager([*discover(), local(PLUGIN)])
            fit_chain(["gesture.yaml"], overrides, manager, Console(file=io.StringIO()))

    return once(tmp_path_factory, "gesture", make)


def test_strokes_are_named_and_scribbles_met_with_silence(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)

    def asked(pen, *more):
        np.savetxt("pen.pen", pen)
        prompt = "{gesture:pen.pen} The strokes are:"
        assert run(["generate", "runs/gesture", prompt, *more, "--plugin", PLUGIN]) == 0
        return capsys.readouterr().out

    summary = json.loads((trained / "runs/gesture/summary.json").read_text())
    assert summary["tasks"]["strokes"]["accuracy"] >= 0.95  # 1.0 as last seen
    assert "modality/control/scribble" in (trained / "runs/gesture/metrics.csv").read_text().splitlines()[0]
    clear = np.repeat([(0, 1), (-1, 0)], 8, axis=0)
    assert json.loads(asked(clear, "--json")) == {"parts": [{"type": "text", "text": " up left"}]}
    scribble = np.random.default_rng(0).choice([(0, 1), (0, -1), (-1, 0), (1, 0)], 16)
    silence = {"parts": [{"type": "control", "name": "scribble"}], "silent": True}
    assert json.loads(asked(scribble, "--json")) == silence
    assert asked(scribble).strip() == "[scribble]"


def test_the_package_conforms():
    manager = PluginManager([*discover(), local(PLUGIN)])
    results = mio.testing.check_plugin("gesture", beside={"text": {"tokenizer": "bytes"}}, manager=manager)
    assert {result.check for result in results if result.outcome == "skipped"} == {
        "the policy of conversations is valid",
        "ceilings are within their bounds",
    }
