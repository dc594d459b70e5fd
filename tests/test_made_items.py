"""Runs with adapters and a head that are killed and go on: the same batches, noise included, and the same weights."""

import io
import os
import signal
import time

import pytest
from conftest import start
from rich.console import Console

from mio.core.contract.plugins import PluginManager
from mio.core.runs.checkpoints.format import latest
from mio.core.stages.fit import fit_chain
from mio.core.stages.verify import verify

LONG = ("train.steps=40", "runtime.checkpoint_every=3", "plugins.tiles={own: true, together: true}")


def fit(runs, *overrides):
    printed = io.StringIO()
    arguments = [f"runtime.runs={runs}", *LONG, *overrides]
    fit_chain(["tiles.yaml"], arguments, PluginManager.discover(), Console(file=printed, width=200))
    return printed.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment_the_weights_are_those_of_an_undisturbed_run(tiles_world, workers):
    undisturbed, killed = tiles_world / "undisturbed", tiles_world / "killed"
    fit(undisturbed)
    named = f"runtime.workers={workers}"
    process = start("fit", "tiles.yaml", f"runtime.runs={killed}", *LONG, named, start_new_session=True)
    deadline = time.monotonic() + 120
    while latest(killed / "tiles/checkpoints") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (killed / "tiles/summary.json").exists(), "the run was over before it was killed"
    assert "going on from" in fit(killed, f"runtime.workers={2 - workers}")
    for name in ("model.safetensors", "journal.csv"):
        assert (killed / "tiles" / name).read_bytes() == (undisturbed / "tiles" / name).read_bytes()
    assert verify(killed / "tiles", PluginManager.discover()).exact
