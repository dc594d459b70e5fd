"""Networks of plugins beside an exported language model: other programs have no place for them, so they have a file of
their own.

Every program that opens an export takes what lies in the folder itself for the language model; the file is in the
folder that only mio reads. Tensors keep their names in the run and their types.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mio.core.contract.networks import Networks
from mio.core.errors import UserError
from mio.core.exchange.model_files import AGAIN
from mio.core.recipe.model import network_of
from mio.core.runs.adapters import FoldedWeights
from mio.core.runs.tensor_files import Planned, in_file_order, write_file
from mio.core.runs.weights import CheckpointWeights, SavedWeights

FILE = "networks.safetensors"


@dataclass(frozen=True)
class ExportedNetworks:
    """The networks of plugins in an export."""

    path: Path
    names: tuple[str, ...]
    """As `mio.core.recipe.model.network_of` has them."""
    parameters: int
    """With buffers."""
    bytes: int


def write_networks(own: Path, saved: SavedWeights | CheckpointWeights | FoldedWeights) -> ExportedNetworks | None:
    """Writes the networks of plugins of a run into the folder that is mio's own; None if it has none."""
    infos = {name: info for name, info in saved.infos().items() if network_of(name)}
    if not infos:
        return None
    planned = in_file_order(Planned(name, info.dtype, info.shape) for name, info in infos.items())

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, _, _ in planned:
            yield name, saved.read(name)

    write_file(own / FILE, planned, tensors())
    names = tuple(dict.fromkeys(network_of(name) for name in infos))
    count = sum(math.prod(tensor.shape) for tensor in planned)
    return ExportedNetworks(own / FILE, names, count, sum(tensor.bytes for tensor in planned))


def exported_networks(own: Path, networks: Networks) -> dict[str, Tensor]:
    """The networks of an export, by name in the run. Raises `UserError` if the file is damaged, or is missing where
    plugins supply networks."""
    path = own / FILE
    if not path.is_file():
        if networks:
            raise UserError(f"{path}: is missing, and plugins of the run have networks in the model; {AGAIN}")
        return {}
    return SavedWeights(path).whole()
