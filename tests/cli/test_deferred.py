"""`import torchmetrics` in the program `mio`: what Lightning needs is quick, and everything else is there when used."""

import subprocess
import sys

SCRIPT = """
import sys
from mio.cli.deferred import defer_metrics
if {deferred}:
    defer_metrics()
    defer_metrics()
import torchmetrics
from torchmetrics import Metric, MetricCollection
from lightning import LightningModule, Trainer
loaded = "torchmetrics.functional" in sys.modules
from torchmetrics import Accuracy, MeanMetric
from torchmetrics.text import Perplexity
mean = MeanMetric()
mean.update(3.0)
mean.update(5.0)
public = [name for name in vars(torchmetrics) if name[0] != "_"]
print(loaded, isinstance(mean, Metric), float(mean.compute()))
print(torchmetrics.__version__, len(public), len(torchmetrics.__all__))
"""


def run(deferred: bool) -> list[str]:
    script = SCRIPT.format(deferred=deferred)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_nothing_of_torchmetrics_is_missing_and_most_of_it_is_left_for_later() -> None:
    plain, deferred = run(False), run(True)
    assert deferred[0] == "False"
    assert plain[0] == "True"
    assert deferred[1:] == plain[1:]
    assert deferred[1:3] == ["True", "4.0"]
