"""Runs whose media are read by encoders: killed and resumed, with data workers or none, from files or from shards."""

import io
import os
import signal
import time

from conftest import start
from rich.console import Console

from mio.core.contract.plugins import PluginManager
from mio.core.data.journal import read
from mio.core.runs.checkpoints.format import latest
from mio.core.stages.fit import fit_chain
from mio.core.stages.tokenize import tokenize
from mio.core.stages.verify import verify

LONG = ("train.steps=30", "validate={every: 15}", "data.held_out=0.2", "runtime.checkpoint_every=3")


def fit(runs, *overrides):
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    fit_chain(["beads.yaml"], [f"runtime.runs={runs}", *LONG, *overrides], PluginManager.discover(), console)
    return printed.getvalue()


def result(runs):
    folder = runs / "beads"
    return (folder / "model.safetensors").read_bytes(), (folder / "journal.csv").read_bytes()


def test_killed_at_any_moment_the_weights_are_those_of_an_undisturbed_run(beads_world):
    undisturbed, killed, shards = beads_world / "undisturbed", beads_world / "killed", beads_world / "shards"
    fit(undisturbed)
    process = start("fit", "beads.yaml", f"runtime.runs={killed}", *LONG, "runtime.workers=2", start_new_session=True)
    deadline = time.monotonic() + 120
    while latest(killed / "beads/checkpoints") is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (killed / "beads/summary.json").exists(), "the run was over before it was killed"
    assert "going on from" in fit(killed, "runtime.workers=2")
    assert result(killed) == result(undisturbed)
    manager = PluginManager.discover()
    comparison = verify(killed / "beads", manager)
    assert comparison.exact
    assert len(read(killed / "beads/journal.csv")) == 30
    tokenize(["beads.yaml"], list(LONG), manager, shard_records=10, console=Console(quiet=True))
    assert "read from tokens: beads/lines, strings/lines, melody/tunes" in fit(shards)
    assert (shards / "beads/model.safetensors").read_bytes() == (undisturbed / "beads/model.safetensors").read_bytes()
    metrics = [(runs / "beads/metrics.csv").read_text().splitlines() for runs in (undisturbed, shards)]
    losses = [[line.split(",")[:2] for line in lines] for lines in metrics]
    assert losses[0] == losses[1]
