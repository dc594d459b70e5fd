"""Runs with adapters: the frozen weights in `base.safetensors`, and what was trained beside them in the run's weights
and checkpoints.

The base is written once, when the run begins: the parent's weights with the parent's own adapters folded in and the
rows of new vocabulary blocks drawn. Checkpoints are as small as what is trained, and the folder needs no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.distributed.regions import local, local_region
from mio.core.errors import UserError
from mio.core.model.initial import draw_uniform
from mio.core.model.lora import LORA_A, LORA_B, MAGNITUDE, ROWS, folded, kaiming_bound, row_pieces
from mio.core.model.networks import initial_states
from mio.core.model.transformer import Transformer
from mio.core.model.vocabulary_rows import Ranges, migrate_rows
from mio.core.recipe.adapters import Adapter
from mio.core.recipe.model import ROW_PARAMETERS
from mio.core.recipe.places import BASE
from mio.core.runs.checkpoints.format import sync
from mio.core.runs.checkpoints.reading import TensorInfo
from mio.core.runs.tensor_files import Planned, in_file_order, write_file
from mio.core.runs.weights import CheckpointWeights, SavedWeights, check_numbers, check_shapes, stored_tensors
from mio.core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mio.core.runs.run import Run

_KNOWN = "known_ids"
"""In the metadata of a file: ids that the stage started with; later ones are its new rows."""


def write_base(
    folder: Path,
    config: TransformerConfig,
    vocabulary: Vocabulary,
    parent: Run,
    seed: int,
    networks: Networks = Networks(),  # noqa: B008 - frozen
) -> None:
    """Writes the weights that a stage's adapters belong to, one by one, each in the type that the parent has it in.
    Networks of plugins that it has not get their initial values.

    Raises `UserError` if the parent's model has another shape or holds NaN or infinities.
    """
    with torch.device("meta"):
        whole = stored_tensors(Transformer(config, vocabulary.rows, networks))
    new = check_shapes(parent, {name: tuple(one.shape) for name, one in whole.items()})
    drawn = dict(initial_states(networks, config.width, config.layers, seed, new))
    saved = parent.saved
    infos = saved.infos() | {name: TensorInfo(tuple(one.shape), one.dtype) for name, one in drawn.items()}
    planned = in_file_order(Planned(name, infos[name].dtype, tuple(one.shape)) for name, one in whole.items())

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, _, _ in planned:
            tensor = drawn[name] if name in drawn else saved.read(name)
            if isinstance(whole[name], nn.Parameter):  # a buffer may be a mask
                check_numbers(parent, name, tensor)
            if name in ROW_PARAMETERS:
                tensor, _ = migrate_rows(tensor, parent.stored_vocabulary, vocabulary, seed)
            yield name, tensor

    partial = folder / f"{BASE}.partial"
    write_file(partial, planned, tensors(), known_note(parent.stored_vocabulary.size))
    sync(partial)
    partial.replace(folder / BASE)


def known_note(known: int) -> dict[str, str]:
    """What a file of a run with adapters notes, whose stage started with `known` ids."""
    return {_KNOWN: str(known)}


def known_ids(file: SavedWeights) -> int:
    """Ids that the stage of a run with adapters started with, as its base or exported adapters note. Raises
    `UserError` if the file does not say."""
    note = file.notes.get(_KNOWN, "")
    if not note.isdecimal():
        raise UserError(f"{file.path}: does not say with how many ids its run began; restore it from a copy")
    return int(note)


@torch.no_grad()
def start_adapters(transformer: Transformer, folder: Path, vocabulary: Vocabulary, seed: int) -> dict[str, Any]:
    """Loads a run's base and gives adapters and rows their initial values; of a split parameter, this device's part.

    The first output of an adapter is 0, and of DoRA what the base gives. Returns how many vocabulary rows were kept,
    new and absent.
    """
    base = SavedWeights(folder / BASE)
    known = known_ids(base)
    ranges = transformer.rows.ranges if transformer.rows is not None else ()
    for name, parameter in stored_tensors(transformer).items():
        shape, offset = local_region(parameter)
        layer, _, kind = name.rpartition(".")
        if kind == LORA_A:
            draw_uniform(parameter, name, kaiming_bound(parameter.shape[1]), seed)
        elif kind == LORA_B:
            local(parameter).zero_()
        elif 0 in shape:
            continue
        elif kind == MAGNITUDE:
            inputs = transformer.get_submodule(layer).in_features
            assert isinstance(inputs, int)
            rows = base.part(f"{layer}.weight", (shape[0], inputs), (offset[0], 0))
            local(parameter).copy_(torch.linalg.vector_norm(rows.float(), dim=1))
        elif name in ROWS:
            pieces = row_pieces(ranges, offset[0], offset[0] + shape[0])
            parts = [base.part(ROWS[name], (end - first, shape[1]), (first, 0)) for first, end in pieces]
            local(parameter).copy_(torch.cat(parts))
        else:
            local(parameter).copy_(base.part(name, shape, offset))
    absent = sum(block.size for block in vocabulary.blocks if block.absent and block.start < known)
    return {"kept": known, "new": vocabulary.size - known, "absent": absent}


class FoldedWeights:
    """The weights of a run with adapters as those of a plain model, each adapter folded into its matrix when that is
    read. Raises `UserError` if a file is damaged, or the two do not belong together."""

    def __init__(
        self,
        base: SavedWeights,
        trained: SavedWeights | CheckpointWeights,
        adapters: Mapping[str, Adapter],
        ranges: Ranges,
    ) -> None:
        self.base = base
        self.trained = trained
        self.adapters = adapters
        self.path = trained.path
        self.ranges = ranges
        """Ids of the trained rows."""
        self.known = known_ids(base)
        """Ids that the stage started with."""
        self._trained = trained.infos()
        self._infos = base.infos()
        self._rows = {whole: rows for rows, whole in ROWS.items() if rows in self._trained}
        self._check()

    def _check(self) -> None:
        count = sum(end - first for first, end in self.ranges)
        expected: dict[str, tuple[int, ...]] = {}
        for layer, adapter in self.adapters.items():
            outputs, inputs = self._infos[f"{layer}.weight"].shape
            expected |= {f"{layer}.{LORA_A}": (adapter.rank, inputs), f"{layer}.{LORA_B}": (outputs, adapter.rank)}
            if adapter.dora:
                expected[f"{layer}.{MAGNITUDE}"] = (outputs,)
        expected |= {rows: (count, self._infos[whole].shape[1]) for whole, rows in self._rows.items()}
        expected |= {name: self._infos[name].shape for name in self._trained if name in self._infos}
        actual = {name: info.shape for name, info in self._trained.items()}
        wrong = sorted(name for name in expected | actual if expected.get(name) != actual.get(name))
        if wrong:
            there, right = actual.get(wrong[0]), expected.get(wrong[0])
            raise UserError(
                f"{self.trained.path}: does not fit {BASE} and the recipe's `train.lora`: `{wrong[0]}` is "
                f"{'missing' if there is None else list(there)}"
                + (f" instead of {list(right)}" if right else ", which has no place there")
            )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """None if there is no such parameter."""
        return self.base.shape(name)

    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of each parameter; what is folded keeps the type of the base."""
        return self._infos | {name: info for name, info in self._trained.items() if name in self._infos}

    def part(self, name: str, shape: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
        """The box of a parameter of this shape and place."""
        if name in self._trained:
            return self.trained.part(name, shape, offset)
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and layer in self.adapters:
            rows = self._folded(layer, offset[0], shape[0])
            return rows[:, offset[1] : offset[1] + shape[1]]
        part = self.base.part(name, shape, offset)
        if name in self._rows and 0 not in shape:
            part = part.clone()
            at = 0
            for first, end in self.ranges:
                low, high = max(first, offset[0]), min(end, offset[0] + shape[0])
                if low < high:
                    box = (high - low, shape[1]), (at + low - first, offset[1])
                    part[low - offset[0] : high - offset[0]] = self.trained.part(self._rows[name], *box).to(part.dtype)
                at += end - first
        return part

    def _folded(self, layer: str, first: int, count: int) -> Tensor:
        adapter, weight = self.adapters[layer], f"{layer}.weight"
        inputs = self._infos[weight].shape[1]
        rows = self.base.part(weight, (count, inputs), (first, 0))
        a = self.trained.part(f"{layer}.{LORA_A}", (adapter.rank, inputs), (0, 0))
        b = self.trained.part(f"{layer}.{LORA_B}", (count, adapter.rank), (first, 0))
        magnitude = self.trained.part(f"{layer}.{MAGNITUDE}", (count,), (first,)) if adapter.dora else None
        return folded(rows, a, b, adapter.scale, magnitude).to(rows.dtype)

    def read(self, name: str) -> Tensor:
        """A whole parameter."""
        shape = self._infos[name].shape
        return self.part(name, shape, (0,) * len(shape))

    def whole(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: self.read(name) for name in self._infos}
