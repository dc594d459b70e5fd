"""Tasks inside a stage's validation: what the model answers while it trains, on a few items, the same each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mio.core.contract.controls import CONTROL
from mio.core.contract.loggers import Sample
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.tasks import LOWER
from mio.core.contract.values import TEXT
from mio.core.evaluation.evaluation import Evaluation, owned_tasks
from mio.core.evaluation.samples import place
from mio.core.generation.model import Model
from mio.core.model.transformer import Transformer
from mio.core.training.module import MioModule
from mio.core.training.validation import Found

_STEP = "step-"
_KEPT = 5
"""Validations whose samples are kept in the run folder."""
_SAMPLES = 2
"""Answers of each task that are kept."""


def lower_is_better(plugins: EnabledPlugins, tasks: Sequence[str]) -> frozenset[str]:
    """Those figures of tasks of which lower is better, as `TaskLook` names them."""
    known = plugins.tasks() if tasks else {}
    return frozenset(f"tasks/{name}" for name in tasks if known[name][1].measure.better == LOWER)


@dataclass(frozen=True)
class TaskLook:
    """What a validation looks at beside losses (see `Look`): figures by task, and the first answers.

    The weights are copied as for the evaluation at the end of a stage, and the copy is given up after it, with its
    keys and values. Nothing of the training is touched.
    """

    model: Callable[[Transformer], Model]
    """What is trained, as a model that can be asked."""
    tasks: Sequence[str]
    items: int
    """Of each task."""
    folder: Path
    """Of the samples of a run; each validation has a folder of its own there."""

    def __call__(self, module: MioModule, step: int, heartbeat: Callable[[str], None]) -> Found:
        model = self.model(module.transformer)
        owned = owned_tasks(model, self.tasks)
        folder = self.folder / f"{_STEP}{step:08d}"
        evaluation = Evaluation(
            model,
            self.items,
            _SAMPLES,
            folder,
            beat=lambda task: heartbeat(f"validation, task {task}"),
        )
        with torch.enable_grad():  # judges may train something
            report = evaluation.report(owned)
        if not report:
            return Found({}, ())
        self._forget()
        samples = [
            _sample(f"tasks/{task.task.name}", sample, place(folder, task)[0])
            for task in owned
            for sample in evaluation.kept[task.task.name]
        ]
        figures = {
            f"tasks/{task.task.name}": report[task.task.name][measure]
            for task in owned
            if (measure := task.task.measure.name) in report[task.task.name]
        }
        return Found(figures, samples)

    def _forget(self) -> None:
        """Deletes the samples of all validations but the newest."""
        for path in sorted(self.folder.glob(f"{_STEP}*"))[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def _sample(name: str, kept: Mapping[str, Any], folder: Path) -> Sample:
    """What loggers are given of an answer whose media are in `folder`."""
    parts = kept["answer"]
    shown = {TEXT: lambda part: part["text"], CONTROL: lambda part: f"[{part['name']}]"}
    text = "".join(shown[part["type"]](part) for part in parts if part["type"] in shown)
    files = tuple(folder / part["path"] for part in parts if "path" in part)  # some could not be written
    return Sample(name=name, prompt=kept["prompt"], answer=text, files=files)
