"""Weights of a transformer, in and out of run folders, whole or split over devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mio.core.distributed.regions import gathered, local, local_region
from mio.core.errors import UserError
from mio.core.model.networks import buffers, initialise_networks
from mio.core.model.transformer import Transformer
from mio.core.model.vocabulary_rows import migrate_rows
from mio.core.recipe.model import ROW_PARAMETERS, network_of
from mio.core.recipe.places import WEIGHTS
from mio.core.runs.checkpoints.format import sync
from mio.core.runs.checkpoints.reading import Checkpoint, TensorInfo
from mio.core.runs.tensor_files import DTYPES, OF_BUFFERS, Planned, in_file_order, write_file
from mio.core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mio.core.runs.run import Run


class SavedWeights:
    """A file of weights, read part by part or whole. Raises `UserError` if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: Any = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: is damaged ({error}); restore it from a copy") from error
        self._names = set(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...] | None:
        """None if there is no such parameter."""
        return tuple(self._file.get_slice(name).get_shape()) if name in self._names else None

    @property
    def notes(self) -> dict[str, str]:
        """Of its metadata."""
        return dict(self._file.metadata() or {})

    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of each parameter."""
        infos = {}
        for name in sorted(self._names):
            stored = self._file.get_slice(name)
            known = DTYPES | OF_BUFFERS if network_of(name) else DTYPES
            if stored.get_dtype() not in known:
                raise UserError(f"{self.path}: `{name}` is {stored.get_dtype()}, which no weights are")
            infos[name] = TensorInfo(tuple(stored.get_shape()), known[stored.get_dtype()])
        return infos

    def read(self, name: str) -> Tensor:
        """A whole parameter; its memory is the file's until it is written to."""
        # opened for each: the one mapping would keep all that was read of it in memory
        with safe_open(self.path, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor

    def part(self, name: str, shape: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
        """The box of a parameter of this shape and place."""
        box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
        return self._file.get_slice(name)[box]

    def whole(self) -> dict[str, Tensor]:
        """All of them; their memory is the file's until it is written to."""
        return load_file(self.path)


class CheckpointWeights:
    """The weights in a checkpoint, or with `average` their average, read part by part. Raises `UserError` if it is
    damaged, or has no average."""

    _PREFIX = "model."

    def __init__(self, path: Path, average: bool = False) -> None:
        self.path = path
        self._checkpoint = Checkpoint(path)
        self._average = average
        if average and not self._checkpoint.state.get("averaged"):
            raise UserError(f"{path}: holds no average of the weights; leave out --average, or name a later checkpoint")

    def shape(self, name: str) -> tuple[int, ...] | None:
        """None if there is no such parameter."""
        info = self._checkpoint.names.get(self._key(name))
        return info.shape if info is not None else None

    def part(self, name: str, shape: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
        """The box of a parameter of this shape and place."""
        return self._checkpoint.part(self._key(name), shape, offset)

    def whole(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: self.read(name) for name in self.infos()}

    def infos(self) -> dict[str, TensorInfo]:
        """Shape and type of each parameter."""
        start = len(self._PREFIX)
        return {name[start:]: info for name, info in self._checkpoint.names.items() if name.startswith(self._PREFIX)}

    def read(self, name: str) -> Tensor:
        """A whole parameter."""
        return self._checkpoint.read(self._key(name))

    def _key(self, name: str) -> str:
        """Of a tensor in the checkpoint. Frozen parameters have no average but themselves."""
        own = f"average.{name}"
        return own if self._average and own in self._checkpoint.names else self._PREFIX + name


@torch.no_grad()
def start_weights(transformer: Transformer, vocabulary: Vocabulary, parent: Run, seed: int) -> dict[str, Any]:
    """Loads the parent's weights, embedding and head rows by name; of a split parameter, this device's part. Networks
    of plugins that the parent has not get initial values of their own.

    Returns how many rows were kept, new and absent. Raises `UserError` if the parent's model has another shape
    or holds NaN or infinities.
    """
    saved = parent.saved
    tensors = stored_tensors(transformer)
    new = check_shapes(parent, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    initialise_networks(transformer, seed, new)
    report: dict[str, Any] = {}
    for name, parameter in tensors.items():
        if network_of(name) in new:
            continue
        shape, offset = local_region(parameter)
        if name in ROW_PARAMETERS:
            whole = saved.shape(name)
            assert whole is not None
            rows, counts = migrate_rows(
                saved.part(name, whole, (0,) * len(whole)), parent.stored_vocabulary, vocabulary, seed
            )
            report = {"kept": counts.kept, "new": counts.new, "absent": counts.absent}
            box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
            part = rows[box]
        elif 0 in shape:
            continue
        else:
            part = saved.part(name, shape, offset)
        if isinstance(parameter, nn.Parameter):  # a buffer may be a mask
            check_numbers(parent, name, part)
        local(parameter).copy_(part)
    return report


def stored_tensors(transformer: Transformer) -> dict[str, Tensor]:
    """What a run stores of a transformer, by name: its parameters, and the buffers of plugins' networks."""
    return dict(transformer.named_parameters()) | buffers(transformer)


def added_networks(parent: Run, names: Iterable[str]) -> frozenset[str]:
    """The networks of plugins (see `network_of`) among parameters of these names of which the parent has nothing."""
    had = {network_of(name) for name in parent.saved.infos()}
    return frozenset(network_of(name) for name in names) - had


def check_shapes(parent: Run, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """The networks of plugins that are new (see `network_of`): the parent has nothing of them.

    Raises `UserError` if what it has has other shapes; the number of vocabulary rows may differ.
    """
    saved, wrong = parent.saved, []
    there = {name: info.shape for name, info in saved.infos().items()}
    new = added_networks(parent, shapes)
    for name, shape in shapes.items():
        first = 1 if name in ROW_PARAMETERS else 0
        if network_of(name) not in new and (name not in there or there[name][first:] != shape[first:]):
            wrong.append(name)
    ours = {network_of(name) for name in shapes} - {""}
    wrong += [name for name in there if network_of(name) in ours and name not in shapes]
    if wrong and (network := network_of(wrong[0])):
        here, old = shapes.get(wrong[0]), there.get(wrong[0])
        raise UserError(
            f"{parent.folder}: its `{network}` is another network than the recipe's: `{wrong[0]}` is "
            f"{'not there' if old is None else list(old)} instead of {'nothing' if here is None else list(here)}; give "
            "the plugin that brings it the options and the version that it was trained with"
        )
    if wrong:
        raise UserError(
            f"{parent.folder}: its model has another shape than the recipe's: {', '.join(wrong[:3])}; "
            "give `model:` the values of the run that this stage starts from"
        )
    return new


def check_numbers(parent: Run, name: str, part: Tensor) -> None:
    """Raises `UserError` if a part of a parameter of the parent's holds NaN or infinities."""
    if not bool(part.isfinite().all()):
        raise UserError(
            f"{parent.folder}: its weights hold NaN or infinities (in `{name}`); start from an earlier checkpoint"
        )


def save_weights(transformer: Transformer, folder: Path, write: bool = True, name: str = WEIGHTS) -> None:
    """Writes the weights as safetensors, whole or not at all, gathering one parameter at a time.

    A collective call where they are split; `write` says whether this rank writes the file `name`. What adapters keep as
    it is lies in a file of its own (`mio.core.runs.adapters`).
    """
    parameters = {one: p for one, p in stored_tensors(transformer).items() if one not in transformer.frozen}
    planned = in_file_order(Planned(name, p.dtype, tuple(p.shape)) for name, p in parameters.items())

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for tensor in planned:
            value = parameters[tensor.name].detach()
            yield tensor.name, gathered(value).cpu()

    if not write:
        for _ in tensors():
            pass
        return
    partial = folder / f"{name}.partial"
    write_file(partial, planned, tensors())
    sync(partial)
    partial.replace(folder / name)
