"""TensorBoard, Weights & Biases and MLflow. Each is imported when a recipe names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mio


@mio.hookimpl
def mio_loggers() -> dict[str, Callable[[Mapping[str, Any]], mio.Logger]]:
    return {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def _tensorboard(options: Mapping[str, Any]) -> mio.Logger:
    from mio.plugins.loggers.tensorboard import Options, TensorBoard

    mio.read_options(Options, options, "")
    return TensorBoard()


def _wandb(options: Mapping[str, Any]) -> mio.Logger:
    from mio.plugins.loggers.weights_and_biases import Options, WeightsAndBiases

    return WeightsAndBiases(mio.read_options(Options, options, ""))


def _mlflow(options: Mapping[str, Any]) -> mio.Logger:
    from mio.plugins.loggers.ml_flow import MLflow, Options

    return MLflow(mio.read_options(Options, options, ""))
