"""MLflow: a tracking server, a database (`sqlite:///mlflow.db`) or a folder (`file:mlruns`).

A training is one MLflow run, found by a tag with the training's name in `recipe.lock`. A run that goes on asks the
store which steps it has of each metric, and adds those that it lacks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import mio
from mio.plugins.loggers.media import files

_BATCH = 1000
"""Metrics that one request may have."""
_PARAMS = 100
_LONGEST = 5000
"""Characters of a parameter or tag."""


@dataclass
class Options:
    """What is empty here is taken from MLflow's own environment variables."""

    uri: str = ""
    """Of the store: MLFLOW_TRACKING_URI, else MLflow's own default."""
    experiment: str = ""
    """MLFLOW_EXPERIMENT_NAME, else `mio`."""
    tags: Mapping[str, str] = field(default_factory=dict)


class MLflow:
    """Metrics by step, samples as artifacts, the recipe as parameters (`runtime`, which may change, as tags)."""

    remote = True

    def __init__(self, options: Options) -> None:
        parts = urlsplit(options.uri)
        if parts.password or parts.username:
            raise mio.UserError(
                "`uri` holds a name or password, which a run folder must not; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        self._options = options
        self._client: Any = None
        self._id = ""
        self._dots = False

    def check(self) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise mio.UserError('mlflow is not installed; `pip install "mio[mlflow]"`')
        self._connect()

    def begin(self, run: mio.LoggedRun, earlier: Sequence[mio.LoggedStep]) -> str:
        self._connect()
        client, options = self._client, self._options
        name = options.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "mio"
        experiment = client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else client.create_experiment(name)
        found = client.search_runs([place], filter_string=f"tags.`mio.run` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
        else:
            tags = {"mio.run": run.id, "mio.group": run.group}
            self._id = client.create_run(place, run_name=run.name, tags=tags).info.run_id
        self._describe(run, found[0].data.params if found else {})
        self._catch_up(earlier, bool(found))
        return f"run {self._id} of experiment `{name}`"

    def log(self, step: mio.LoggedStep) -> None:
        self._add_samples(step)
        self._add_metrics(self._metrics(step))

    def end(self, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self._client.log_dict(self._id, json.loads(json.dumps(summary, default=str)), "summary.json")
            now = int(time.time() * 1000)
            figures = [(self._name(f"summary/{key.replace('.', '/')}"), value) for key, value in _flat(summary)]
            self._add_metrics(
                [self._metric(name, float(value), now, 0) for name, value in figures if isinstance(value, int | float)]
            )
        self._client.set_terminated(self._id, "FINISHED" if summary is not None else "KILLED")

    def _connect(self) -> None:
        from mlflow import MlflowClient, get_tracking_uri
        from mlflow.exceptions import MlflowException

        uri = self._options.uri or get_tracking_uri()
        self._dots = urlsplit(uri).scheme in ("", "file") and uri != "databricks"
        if self._dots:  # a folder is asked for by name: MLflow wants to hear it twice
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            self._client = MlflowClient(uri)
        except (MlflowException, ImportError) as error:
            raise mio.UserError(" ".join(str(error).split())[:300]) from error

    def _describe(self, run: mio.LoggedRun, known: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        values = {key: str(value)[:_LONGEST] for key, value in _flat(run.recipe)}
        params = [Param(_allowed(key), value) for key, value in values.items() if not key.startswith("runtime.")]
        params = [param for param in params if param.key not in known]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self._id, params=params[first : first + _PARAMS])
        tags = {key: value for key, value in values.items() if key.startswith("runtime.")}
        tags |= {f"version.{name}": text for name, text in run.tags.items()}
        tags |= {key: str(value)[:_LONGEST] for key, value in self._options.tags.items()}
        named = [RunTag(_allowed(key), value) for key, value in tags.items()]
        for first in range(0, len(named), _PARAMS):
            self._client.log_batch(self._id, tags=named[first : first + _PARAMS])

    def _catch_up(self, earlier: Sequence[mio.LoggedStep], ask: bool) -> None:
        """Adds what the store lacks of the steps."""
        names = {self._name(name) for step in earlier for name in step.metrics} if ask else set()
        has = {name: {m.step for m in self._client.get_metric_history(self._id, name)} for name in names}
        missing = []
        for step in earlier:
            metrics = [metric for metric in self._metrics(step) if step.step not in has.get(metric.key, ())]
            if metrics or not step.metrics:
                self._add_samples(step)
            missing += metrics
        self._add_metrics(missing)

    def _add_metrics(self, metrics: Sequence[Any]) -> None:
        for first in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._id, metrics=metrics[first : first + _BATCH])

    def _add_samples(self, step: mio.LoggedStep) -> None:
        """As artifacts, before the metrics: a step whose metrics are there has them."""
        texts: dict[str, list[dict[str, Any]]] = {}
        for sample in step.samples:
            folder = f"samples/step-{step.step:08}/{sample.name}"
            names = []
            for _, path in files(sample):
                self._client.log_artifact(self._id, str(path), folder)
                names.append(path.name)
            texts.setdefault(folder, []).append({"prompt": sample.prompt, "answer": sample.answer, "files": names})
        for folder, rows in texts.items():
            self._client.log_text(self._id, json.dumps(rows, ensure_ascii=False, indent=1), f"{folder}/samples.json")

    def _metrics(self, step: mio.LoggedStep) -> list[Any]:
        now = int(time.time() * 1000)
        return [self._metric(self._name(name), float(value), now, step.step) for name, value in step.metrics.items()]

    def _metric(self, name: str, value: float, now: int, step: int) -> Any:
        from mlflow.entities import Metric

        return Metric(name, value, now, step)

    def _name(self, name: str) -> str:
        """In a folder a metric is a file: `loss` cannot be one beside `loss/text`, so a slash becomes a dot there."""
        return _allowed(name.replace("/", ".") if self._dots else name)


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what a nested mapping holds."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, value
