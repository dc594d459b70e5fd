"""What validations found, over a run."""

from __future__ import annotations

import json
import math

from mio.core import terminal
from mio.core.training.validation_report import Report, table


def test_best_is_low_for_losses_and_high_for_tasks():
    report = Report()
    assert report.add({"loss": 2.0, "modality/text": math.nan, "tasks/draw": 0.1}, 5, 1.0) == {}
    assert report.add({"loss": 1.5, "modality/text": 3.0, "tasks/draw": 0.4}, 10, 1.0)["loss"] == -0.5
    report.add({"loss": 1.75, "modality/text": math.nan, "tasks/draw": 0.3}, 15, 0.5)
    assert report.summary() == {
        "step": 15,
        "seconds": 2.5,
        "figures": {
            "loss": {"last": 1.75, "best": 1.5, "best_step": 10},
            "modality/text": {"last": None, "best": 3.0, "best_step": 10},
            "tasks/draw": {"last": 0.3, "best": 0.4, "best_step": 10},
        },
    }
    again = Report()
    again.load_state_dict(json.loads(json.dumps(report.state_dict())))
    assert again.summary() == report.summary()


def test_the_table_fits_a_terminal(capsys):
    def shown(*added):
        report, changes = Report(), {}
        for step, figures in enumerate(added, 1):
            changes = report.add(figures, 1000 * step, 1.0)
        terminal.console(width=80).print(table(report, changes, 1.0))
        return capsys.readouterr().out.rstrip("\n").split("\n")

    first = {"loss": 2.0, "loss/pairs": 2.5, "loss/pairs/a": 2.5, "loss/text": 1.0, "modality/image": 9.0}
    lines = shown(first, {**first, "loss": 1.75, "tasks/draw": 0.5})
    assert [line.split() for line in lines] == [
        ["validation,", "step", "2,000", "1.0", "s", "change", "best", "at", "step"],
        ["loss", "1.7500", "-0.2500", "1.7500", "2,000"],
        ["loss/pairs", "2.5000", "+0.0000", "2.5000", "1,000"],
        ["loss/text", "1.0000", "+0.0000", "1.0000", "1,000"],
        ["tasks/draw", "0.5000", "0.5000", "2,000"],
    ]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in shown({"loss": 2.0, "loss/all": 2.0, "loss/all/a": 3.0})[1:]] == [
        "loss",
        "loss/all/a",
    ]
