"""The tensors of a folder in the Hugging Face layout, read one by one: safetensors or `.bin`, whole or in shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mio.core.errors import DataError, UserError
from mio.core.files import read_json
from mio.core.runs.tensor_files import DTYPES, SAFETENSORS

AGAIN = "copy it again"
"""Advice for a damaged file of a model's folder."""

BIN = "pytorch_model.bin"

_OTHER_FORMATS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack")


class Stored(NamedTuple):
    """Where a tensor lies and what it is."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    """Of a type that weights do not have: int64."""


class ModelFiles:
    """Tensors of a folder by name. `tensors` comes from the files' headers alone; `apart` are those set apart.

    As in transformers, a whole file wins over shards, and safetensors over `.bin`; `ignored` names the indexes that are
    not read for that reason.

    Raises `UserError` when the folder holds no weights, or a shard is missing, damaged, or holds more than tensors.
    """

    def __init__(self, folder: Path) -> None:
        self._shard: tuple[Path, Mapping[str, Tensor]] | None = None
        self.tensors: dict[str, Stored] = {}
        self.apart: dict[str, Stored] = {}
        self._made: dict[str, Tensor] = {}
        self._others: dict[str, str] = {}
        """Types that weights do not have, by name in the file."""
        self._file_names: dict[str, str] = {}
        shards, self.ignored = _shards(folder)
        for file, promised in shards.items():
            stored = self._headers(file)
            missing = sorted(promised - stored.keys())
            if missing:
                raise DataError(f"{file}: the index promises `{missing[0]}` in it, which is not there; {AGAIN}")
            for name in stored:
                if name in self.tensors:
                    raise DataError(
                        f"{file}: `{name}` is also in {self.tensors[name].file.name}; only one file may hold it"
                    )
            self.tensors |= stored

    def check_types(self) -> None:
        """Raises `UserError` for a tensor of a quantised model, or of another type that weights do not have. Those set
        apart may be of any: numbers of positions in other networks are."""
        for name, stored in self.tensors.items():
            if (kind := self._others.get(self._file_names.get(name, name))) is not None and name not in self._made:
                raise _quantised(stored.file, name, kind)

    def rename(self, name: str, new: str) -> None:
        """Gives a tensor another name than it has in its file."""
        self.also(name, new)
        del self.tensors[name]

    def also(self, name: str, new: str) -> None:
        """Gives a tensor a second name."""
        self.tensors[new] = self.tensors[name]
        self._file_names[new] = self._file_names.get(name, name)

    def set_apart(self, name: str) -> None:
        """Takes a tensor out of `tensors`: it can still be read."""
        self.apart[name] = self.tensors.pop(name)

    def add(self, name: str, tensor: Tensor, of: Path) -> None:
        """A tensor that is in no file, but made of what a file of the folder `of` holds."""
        self._made[name] = tensor
        self.tensors[name] = Stored(of, tuple(tensor.shape), tensor.dtype)

    def read(self, name: str) -> Tensor:
        """One tensor, on CPU. Its memory is the file's until it is written to."""
        if name in self._made:
            return self._made[name]
        file = (self.tensors.get(name) or self.apart[name]).file
        name = self._file_names.get(name, name)
        if file.suffix != ".safetensors":
            return self._load(file)[name]
        # opened for each tensor: one mapping would keep its pages in memory until the last tensor of the file
        with safe_open(file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor

    def _headers(self, file: Path) -> dict[str, Stored]:
        if file.suffix != ".safetensors":
            return {name: Stored(file, tuple(value.shape), value.dtype) for name, value in self._load(file).items()}
        stored = {}
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - the handle is not a mapping
                    piece = opened.get_slice(name)
                    if piece.get_dtype() not in DTYPES:
                        self._others[name] = piece.get_dtype()
                    stored[name] = Stored(file, tuple(piece.get_shape()), DTYPES.get(piece.get_dtype(), torch.int64))
        except (SafetensorError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{file}: not a complete safetensors file ({reason:.200}); {AGAIN}") from error
        return stored

    def _load(self, file: Path) -> Mapping[str, Tensor]:
        """The tensors of a `.bin` file, mapped rather than read; the last file stays open."""
        if self._shard is not None and self._shard[0] == file:
            return self._shard[1]
        try:
            content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # for damage, an old format and code in the file alike
            raise DataError(
                f"{file}: cannot be read as tensors alone ({_first_line(error)}); convert it to safetensors "
                "with transformers, from_pretrained(...).save_pretrained(FOLDER), if you trust where it comes from"
            ) from error
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise DataError(f"{file}: holds more than tensors by name; is it the checkpoint of a trainer?")
        types = {name: str(value.dtype) for name, value in content.items() if value.dtype not in DTYPES.values()}
        self._others |= types
        self._shard = (file, content)
        return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _quantised(file: Path, name: str, dtype: str) -> DataError:
    known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES.values())
    return DataError(f"{file}: `{name}` is stored as {dtype}, not as one of {known}; take one that is not quantised")


def _shards(folder: Path) -> tuple[dict[Path, set[str]], tuple[str, ...]]:
    """Files that hold the weights, each with the tensors that the index promises in it; and the ignored indexes."""
    for whole in (SAFETENSORS, BIN):
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return {folder / whole: set()}, (index.name,) if index.is_file() else ()
        if index.is_file():
            names = read_json(index, AGAIN).get("weight_map")
            if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
                raise DataError(f"{index}: has no `weight_map` from tensors to files")
            files: dict[Path, set[str]] = {}
            for tensor, name in names.items():
                if Path(name).name != name:
                    raise DataError(f"{index}: the shard {name!r} lies outside the folder")
                files.setdefault(folder / name, set()).add(tensor)
            missing = sorted(file.name for file in files if not file.is_file())
            if missing:
                raise DataError(f"{folder}: {len(missing)} of {len(files)} shards are missing, {missing[0]} is one")
            return dict(sorted(files.items())), ()
    others = sorted(path.name for pattern in _OTHER_FORMATS for path in folder.glob(pattern))
    instead = f" (it has {', '.join(others[:3])}, which transformers does not read)" if others else ""
    raise UserError(f"{folder}: holds no {SAFETENSORS}, no {BIN} and no index of their shards{instead}")
