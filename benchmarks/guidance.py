"""Accuracy of what a run draws, by guidance and temperature.

    python benchmarks/guidance.py runs/janus-digits-3 [draw count_on] [--items 200]

Each task is asked with its own decoding but for `guidance` and `media_temperature`. A line per case: task, temperature,
guidance, accuracy, and CPU seconds of decoding alone. The last line is one JSON object of all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.answering import answer_records
from mio.core.generation.model import Model
from mio.core.runs.run import Run

GUIDANCE = (0.0, 1.5, 3.0, 5.0)
TEMPERATURES = (0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("tasks", nargs="*", default=["draw"])
    parser.add_argument("--items", type=int, default=200)
    options = parser.parse_args()
    run = Run.open(options.run, PluginManager.discover())
    model = Model.of(run)
    cases = []
    for name in options.tasks:
        task = run.plugins.tasks()[name][1]
        records = task.records(options.items)
        answer_records(model, task, records[:1], {})  # what is made once is not a case's
        for temperature in TEMPERATURES:
            for guidance in GUIDANCE:
                decoding = replace(task.decoding, guidance=guidance, media_temperature=temperature)
                start = time.process_time()
                answers = answer_records(model, replace(task, decoding=decoding), records, {})
                seconds = time.process_time() - start
                accuracy = sum(task.judge(answers, records)) / len(records)
                cases.append({"task": name, "temperature": temperature, "guidance": guidance,
                              "accuracy": round(accuracy, 3), "seconds": round(seconds, 2)})  # fmt: skip
                print(
                    f"{name:12} temperature {temperature:g}, guidance {guidance:g}: {accuracy:.3f} in {seconds:.2f} s"
                )
    print(json.dumps({"cases": cases}))


if __name__ == "__main__":
    main()
