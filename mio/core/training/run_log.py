"""What a training logs, collected step by step: into the run folder, and from there to the loggers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.core.contract.calling import naming_plugin
from mio.core.contract.loggers import LoggedRun, LoggedStep, Logger, Sample
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError, nearest
from mio.core.recipe.places import LOGGED_SAMPLES, METRICS, RECIPE, is_file, run_of_checkpoint
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe, RuntimeConfig
from mio.core.runs.lock import Lock
from mio.core.training.feed import Feed
from mio.core.training.metric_files import MetricsTable, SampleFile

CSV = "csv"
"""Names `metrics.csv` among the loggers, which is there without it."""


class RunLog:
    """The log of one training, on rank 0.

    What several parts of the program add of one step is one line, which is written when the step is over. A step that
    was logged before a run was killed is not logged again when it is trained again.

    Args:
        recipe: of the stage.
        folder: its run folder.
        loggers: by name.
        tell: called with a line for the user.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, loggers: Mapping[str, Logger], tell: Callable[[str], None]
    ) -> None:
        self.metrics = MetricsTable(folder / METRICS)
        self._recipe, self._folder = recipe, folder
        self._samples = SampleFile(folder / LOGGED_SAMPLES)
        self._feeds = [Feed(name, logger, tell) for name, logger in loggers.items()]
        self._begun = False
        self._last = 0  # the last step that was logged
        self._step = 0
        self._new: tuple[dict[str, float], list[Sample]] = ({}, [])

    def begin(self, lock: Lock, step: int) -> None:
        """Goes on after `step`, when everything is restored and checked: files may change from now on."""
        self._begun = True
        self._last = self.metrics.begin(step)
        self._samples.begin(max(step, self._last))
        if self._feeds:
            run = logged_run(self._recipe, self._folder, lock, step)
            for feed in self._feeds:
                feed.begin(run, self.history)

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds metrics of a step."""
        self._turn_to(step)
        self._new[0].update(metrics)

    def add_samples(self, samples: Sequence[Sample], step: int) -> None:
        """Adds answers of the model after a step. Their files stay where they are."""
        self._turn_to(step)
        self._new[1].extend(samples)

    def flush(self, step: int) -> None:
        """Writes what was added of `step` and before, which are over, and sends it on."""
        (metrics, samples), logged = self._new, self._step
        self._new = ({}, [])
        if logged > self._last and (metrics or samples):
            if samples:
                self._samples.add(samples, logged)
            if metrics:
                self.metrics.add(metrics, logged)
            self._last = logged
            for feed in self._feeds:
                feed.log(LoggedStep(step=logged, metrics=metrics, samples=tuple(samples)))
        self.metrics.reach(step)

    def history(self) -> list[LoggedStep]:
        """Every step that is in the run folder."""
        metrics, samples = self.metrics.read(), self._samples.read()
        return [
            LoggedStep(step=step, metrics=metrics.get(step, {}), samples=samples.get(step, ()))
            for step in sorted({*metrics, *samples})
        ]

    def failures(self) -> dict[str, int]:
        """How many calls of each logger failed, of those that did."""
        return {feed.name: feed.failures for feed in self._feeds if feed.failures}

    def finish(self, lock: Lock, summary: Mapping[str, Any]) -> None:
        """Ends the log of a run that has finished."""
        if not self._begun:  # no step was left to train
            self.begin(lock, self._recipe.train.steps)
        self._end(summary)

    def close(self) -> None:
        """Ends the log if it has not ended: the training was interrupted."""
        self._end(None)

    def _turn_to(self, step: int) -> None:
        if step != self._step:
            self.flush(self._step)
            self._step = step

    def _end(self, summary: Mapping[str, Any] | None) -> None:
        self.flush(self._step)
        self.metrics.close()
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.end(summary)


def make_loggers(runtime: RuntimeConfig, manager: PluginManager) -> dict[str, Logger]:
    """The loggers of a recipe, by name; those that every recipe has are left out where their plugin was deleted.

    Raises `UserError` with all that is wrong with names and options.
    """
    factories = manager.loggers()
    passed_over = set(RuntimeConfig().loggers) - factories.keys()
    problems = [
        f"`runtime.{key}` names an unknown logger `{name}`{nearest(name, known)} (known: {', '.join(sorted(known))})"
        for key, names, known in (
            ("loggers", runtime.loggers, (CSV, *factories, *passed_over)),
            ("logger_options", runtime.logger_options, tuple(factories)),
        )
        for name in names
        if name not in known
    ]
    loggers = {}
    for name in dict.fromkeys([*runtime.loggers, *runtime.logger_options]):
        if name in factories:
            owner, factory = factories[name]
            try:
                with naming_plugin(f"plugin `{owner}`"):
                    loggers[name] = factory(runtime.logger_options.get(name) or {})
            except UserError as error:
                problems.append(f"`runtime.logger_options.{name}`: {error.__cause__ or error}")
    if problems:
        raise UserError("; ".join(problems))
    return {name: loggers[name] for name in runtime.loggers if name in loggers}


def check_loggers(runtime: RuntimeConfig, manager: PluginManager) -> None:
    """Raises `UserError` where a logger of a recipe cannot be used here."""
    problems = []
    for name, logger in make_loggers(runtime, manager).items():
        try:
            logger.check()
        except UserError as error:
            problems.append(f"`runtime.loggers`: {name}: {error}")
    if problems:
        raise UserError("; ".join(problems))


def logged_run(recipe: Recipe, folder: Path, lock: Lock, step: int) -> LoggedRun:
    """What loggers are told of a training."""
    tags = {name: str(lock.versions[name]) for name in ("mio", "python")}
    tags |= {name: str(version) for name, version in lock.versions["packages"].items()}
    tags |= {f"plugin {name}": str(version) for name, version in lock.versions["plugins"].items()}
    tags |= {"recipe": lock.recipe, "vocabulary": lock.vocabulary or ""}
    return LoggedRun(
        name=recipe.name,
        id=lock.run,
        group=_first(recipe, folder),
        folder=folder,
        step=step,
        recipe=asdict(recipe),
        tags=tags,
    )


def _first(recipe: Recipe, folder: Path) -> str:
    """Name of the first stage of a recipe's chain, as far as its run folders are there."""
    seen = {folder}
    while recipe.start_from:
        folder = Path(os.path.normpath(folder / recipe.start_from))
        folder = run_of_checkpoint(folder) or folder
        if folder in seen or not is_file(folder / RECIPE):
            break
        seen.add(folder)
        recipe = load_resolved(folder / RECIPE)
    return recipe.name
