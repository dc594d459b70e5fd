"""Reads checkpoints, whole or the part that a rank holds, whatever ranks wrote them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mio.core.checksums import read_summed
from mio.core.distributed.regions import local, local_region
from mio.core.errors import DataError, UserError
from mio.core.recipe.places import INDEX
from mio.core.runs.checkpoints.format import STATE, VERSION, checksum


class TensorInfo(NamedTuple):
    """A tensor of a checkpoint, as a whole."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Checkpoint:
    """One checkpoint, opened. Raises `UserError` if it is damaged or of another version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            index = read_summed(path / INDEX, _advice(path))
            if index["version"] != VERSION:
                raise UserError(
                    f"{path}: has layout {index['version']}, this version of mio reads {VERSION}; go on with the "
                    "version that wrote it"
                )
            self.step: int = index["step"]
            self.loss: float | None = index["loss"]
            self.figures: Mapping[str, float | None] = index.get("figures", {})
            """Of the validation of its step, the one that the best checkpoints are kept by."""
            self.run: str = index.get("run", "")
            """The run that it belongs to (see `mio.core.runs.lock.Lock`); empty in those of earlier versions of mio."""
            self._files: dict[str, dict[str, Any]] = index["files"]
            self._tensors: dict[str, dict[str, Any]] = index["tensors"]
            self._verified: set[str] = set()
            self._opened: dict[str, Any] = {}
            self.names: Mapping[str, TensorInfo] = {
                name: TensorInfo(tuple(tensor["shape"]), getattr(torch, tensor["dtype"]))
                for name, tensor in self._tensors.items()
            }
            if type(self.step) is not int or not isinstance(self._files, dict):
                raise TypeError
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path / INDEX, "it is no index") from error

    @cached_property
    def state(self) -> dict[str, Any]:
        """All that is no tensor."""
        self._verify(STATE)
        try:
            content: dict[str, Any] = json.loads((self.path / STATE).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(self.path / STATE, str(error)) from error
        return content

    def check_run(self, run: str) -> None:
        """Raises `DataError` if the checkpoint is another run's."""
        if self.run and run and self.run != run:
            raise DataError(
                f"{self.path}: is a checkpoint of another run than the folder's (recipe.lock names it); put the run's "
                "own one back, or move it away"
            )

    def read(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        info = self._info(name)
        return self.part(name, info.shape, (0,) * len(info.shape))

    def part(self, name: str, shape: Sequence[int], offset: Sequence[int]) -> Tensor:
        """The box of a tensor of this shape and place, on the CPU."""
        result = torch.empty(tuple(shape), dtype=self._info(name).dtype)
        covered = 0
        for chunk in self._tensors[name]["chunks"]:
            starts = [max(a, b) for a, b in zip(offset, chunk["offset"], strict=True)]
            stops = [
                min(a + n, b + m) for a, n, b, m in zip(offset, shape, chunk["offset"], chunk["shape"], strict=True)
            ]
            if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
                continue
            there = tuple(slice(a - at, b - at) for a, b, at in zip(starts, stops, chunk["offset"], strict=True))
            here = tuple(slice(a - at, b - at) for a, b, at in zip(starts, stops, offset, strict=True))
            source = self._open(chunk["file"])
            result[here] = source.get_slice(name)[there] if there else source.get_tensor(name)
            covered += math.prod(b - a for a, b in zip(starts, stops, strict=True))
        if covered != result.numel():
            raise _damaged(self.path / INDEX, f"`{name}` is not all there")
        return result

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Fills tensors in place; of a `DTensor`, the part that this rank holds.

        Raises:
            UserError: a tensor is missing or has another shape or dtype, or a file is damaged.
        """
        wrong = [
            f"`{name}` is {_form(self.names.get(name))}, not {_form(TensorInfo(tuple(tensor.shape), tensor.dtype))}"
            for name, tensor in tensors.items()
            if self.names.get(name) != TensorInfo(tuple(tensor.shape), tensor.dtype)
        ]
        if wrong:
            raise UserError(f"{self.path}: does not fit the model: {'; '.join(wrong[:3])}")
        for name, tensor in tensors.items():
            whole = tensor.detach()
            target = local(whole)
            if target.numel():
                target.copy_(self.part(name, *local_region(whole)))

    def _info(self, name: str) -> TensorInfo:
        if name not in self.names:
            raise UserError(f"{self.path}: holds no tensor `{name}`")
        return self.names[name]

    def _open(self, file: str) -> Any:
        self._verify(file)
        if file not in self._opened:
            try:
                self._opened[file] = safe_open(self.path / file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise _damaged(self.path / file, str(error)) from error
        return self._opened[file]

    def _verify(self, file: str) -> None:
        if file in self._verified:
            return
        if file not in self._files:
            raise _damaged(self.path / INDEX, f"it does not name {file}")
        path = self.path / file
        if not path.is_file():
            raise _damaged(path, "it is missing")
        if path.stat().st_size != self._files[file]["bytes"]:
            raise _damaged(path, f"it has {path.stat().st_size} bytes, not {self._files[file]['bytes']}")
        if checksum(path) != self._files[file]["checksum"]:
            raise _damaged(path, "its checksum is another")
        self._verified.add(file)


def _form(info: TensorInfo | None) -> str:
    return f"{str(info.dtype).removeprefix('torch.')} {list(info.shape)}" if info else "missing"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: is damaged ({why}); {_advice(path.parent)}")


def _advice(checkpoint: Path) -> str:
    return f"delete {checkpoint}, and the run goes on from the checkpoint before it"
