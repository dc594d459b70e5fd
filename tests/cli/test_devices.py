"""`--devices`: processes that hold one model together answer as one does."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import MELODY

import mio

PROMPT = "la la"


def test_devices_that_hold_a_model_together_answer_as_one_does(finished, tmp_path):
    plugin = f"melody={MELODY / 'mio_melody.py'}"
    command = [sys.executable, "-m", "mio", "generate", str(finished), PROMPT, "--output", "melody", "--json", "--out",
               str(tmp_path / "two"), "--precision", "fp32", "--device", "cpu", "--seed", "3", "--plugin", plugin,
               "--devices", "2"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    together = json.loads(found.stdout)
    run = mio.load(finished, "cpu", "fp32", plugins=[plugin])
    alone = run.generate(PROMPT, output="melody", seed=3).to_json(tmp_path / "alone")
    assert any(part["type"] == "melody" for part in alone["parts"])

    def read(parts):
        return [Path(part["path"]).read_bytes() if "path" in part else part for part in parts]

    assert read(together["parts"]) == read(alone["parts"])
