"""What Python programs use a trained model by: typed parts in, answers out that show themselves. Knows modalities by
their names and media types alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mio.api.loaded import Loaded


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
