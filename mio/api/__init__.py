"""What Python programs use a trained model by: typed parts in, answers out that show themselves. Knows modalities by
their names and media types alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mio.api.answers import Reply
    from mio.api.loaded import Loaded
    from mio.api.scores import PartScore, Score
    from mio.core.generation.streaming import (
        AnswerEvent,
        MediaChunk,
        MediaComponent,
        Over,
        SaidControl,
        TextPiece,
        WholeMedia,
    )

__all__ = [
    "AnswerEvent",
    "Loaded",
    "MediaChunk",
    "MediaComponent",
    "Over",
    "PartScore",
    "Reply",
    "SaidControl",
    "Score",
    "TextPiece",
    "WholeMedia",
    "load",
]

_PLACES = {
    "Loaded": "mio.api.loaded",
    "PartScore": "mio.api.scores",
    "Reply": "mio.api.answers",
    "Score": "mio.api.scores",
}
"""Modules of what needs torch; events are elsewhere."""


def load(
    folder: str | Path,
    device: str = "auto",
    precision: str = "",
    *,
    average: bool = False,
    plugins: Sequence[str] = (),
    rows: int = 8,
) -> Loaded:
    """Opens a run to use its model.

        run = mio.load("runs/stage4")

    Args:
        folder: of a finished run, or of one of its checkpoints.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `mps`.
        precision: dtype of weights, keys and values, `bf16` or `fp32`; by default as it was trained.
        average: whether to take the average of the weights that the run kept.
        plugins: plugins that are not installed, `NAME=FILE_OR_MODULE`, as the option `--plugin` of commands.
        rows: answers that are made together, at most.

    Raises:
        UserError: there is no run, it is damaged or made by other plugins, or the device is not here.
    """
    from mio.api.loaded import Loaded

    return Loaded.open(folder, device, precision, average=average, plugins=plugins, rows=rows)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "mio.core.generation.streaming")), name)
