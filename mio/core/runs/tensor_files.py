"""Safetensors files written one tensor at a time.

The library wants every tensor of a file at once. The format does not: eight bytes with the header's length, the header
in JSON with each tensor's type, shape and place, then the tensors, without gaps.
(https://github.com/huggingface/safetensors, section "Format")
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mio.core.files import naming, write_json

SAFETENSORS = "model.safetensors"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What models are stored in, by the name in safetensors; anything else is quantised."""

OF_BUFFERS = {"I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}
"""What else buffers of encoders, and states of optimizers, are stored in."""

_TAGS = {dtype: tag for tag, dtype in (DTYPES | OF_BUFFERS).items()}


class Planned(NamedTuple):
    """A tensor that is going to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def in_file_order(planned: Iterable[Planned]) -> list[Planned]:
    """Wide types first, so that every tensor of a file with several types is aligned."""
    return sorted(planned, key=lambda tensor: -tensor.dtype.itemsize)


def write_file(
    path: Path, planned: Sequence[Planned], tensors: Iterable[tuple[str, Tensor]], notes: Mapping[str, str] = {}
) -> None:
    """Writes `tensors` (pairs of name and tensor, in the order of `planned`) as one safetensors file, with `notes` in
    its metadata."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **notes}}
    end = 0
    for entry in planned:
        header[entry.name] = {
            "dtype": _TAGS[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [end, end + entry.bytes],
        }
        end += entry.bytes
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with naming(path), path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        pairs = iter(tensors)
        for expected in planned:
            name, tensor = next(pairs)
            assert (name, tensor.dtype, tuple(tensor.shape)) == expected, f"{name} is not {expected}"
            _write(file, tensor)


def write_shards(folder: Path, planned: Sequence[Planned], tensors: Iterable[tuple[str, Tensor]], limit: int) -> int:
    """Writes `tensors` (in the order of `planned`) as files of at most `limit` bytes and an index; one file has none.

    A tensor larger than the limit has a file of its own. Returns the number of files.
    """
    shards: list[list[Planned]] = []
    room = 0
    for tensor in planned:
        if not shards or tensor.bytes > room:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        room -= tensor.bytes
    pairs = iter(tensors)
    if len(shards) == 1:
        write_file(folder / SAFETENSORS, shards[0], pairs)
        return 1
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        places |= {tensor.name: name for tensor in shard}
        write_file(folder / name, shard, pairs)
    total = sum(tensor.bytes for tensor in planned)
    write_json(
        folder / f"{SAFETENSORS}.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))},
    )
    return len(shards)


def _write(file: BinaryIO, tensor: Tensor) -> None:
    file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
