"""Pretrained networks inside tokenizers and encoders: what plugins share, a third party's as well.

    from mio import networks

    device = networks.device("cuda:1", "plugins.hum")
    with networks.exact(device):
        codes = network.encode(signal.to(device, networks.dtype("bf16")))

`networks.streams` runs convolutional decoders piece by piece, `networks.seanet` those of EnCodec's kind.
Imports torch when first used.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mio.core.errors import UserError

if TYPE_CHECKING:
    import torch

_MODULES = ("seanet", "streams")
_TOGETHER = 8
"""Pictures that an autoencoder takes at a time: it needs much memory for each."""
_NAMED = 5
"""Names that an error lists."""


def device(name: str, plugin: str) -> torch.device:
    """The device that an option names as torch does; `auto` is the GPU if there is one.

    Raises `UserError`, which begins with `plugin`, for a device that is unknown or missing.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{plugin}: `device` is {name!r}, which torch does not know") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{plugin}: `device` is {name}, but torch sees no GPU")
    return found


def check_worker(device: torch.device, plugin: str) -> None:
    """Raises `UserError` in a data worker for a device that only the main process can use.

    mio encodes in the main process where a tokenizer's attribute `device` says so; other code may not.
    """
    from torch.utils.data import get_worker_info

    if device.type != "cpu" and get_worker_info() is not None:
        raise UserError(
            f"{plugin}: `device: {device}` cannot be used by data workers; set `device: cpu`, or `runtime.workers` to 0"
        )


def dtype(name: str) -> torch.dtype:
    """`float32`, `bf16` or `fp16`."""
    import torch

    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """No gradients, and the same arithmetic at every call, whatever a surrounding training run has switched on."""
    import torch

    precision = torch.get_float32_matmul_precision()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined]  # fuses scripts after a few calls
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: training gives the same weights on any number of cores."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def autoencoder(plugin: str, channels: Sequence[int], groups: int, **sizes: Any) -> torch.nn.Module:
    """diffusers' `AutoencoderKL` of the Stable Diffusion family, with blocks of these widths and options of its own.
    It is not trained.

    Raises `UserError`, which begins with `plugin`, where diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        extra = plugin.rpartition(".")[2]
        raise UserError(f'{plugin}: its autoencoder needs diffusers; pip install "mio[{extra}]"') from error
    make: Any = diffusers.AutoencoderKL
    made: torch.nn.Module = make(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        norm_num_groups=groups,
        **sizes,
    )
    return made.requires_grad_(False)


def to_latents(autoencoder: Any, pixels: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """A sample `[N, c, G, G]` of the latents of pictures `[N, C, I, I]`, drawn by normal noise of its shape."""
    import torch

    parts = zip(torch.split(pixels, _TOGETHER), torch.split(draw, _TOGETHER), strict=True)
    with torch.no_grad():
        drawn = [(found := autoencoder.encode(one).latent_dist).mean + found.std * own for one, own in parts]
        return torch.cat(drawn)


def from_latents(autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
    """Pictures `[N, C, I, I]` of latents `[N, c, G, G]`."""
    import torch

    with torch.no_grad():
        return torch.cat([autoencoder.decode(one).sample for one in torch.split(latents, _TOGETHER)])


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of `torch.save`, mapped rather than read. Raises `UserError` for any other content."""
    import torch

    try:
        # files of the format before torch 1.6 cannot be mapped
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: not a checkpoint of tensors that can be read: {reason}") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UserError(f"{path}: holds more than tensors by name; save the model's state_dict alone")
    return dict(loaded)


WHOLE = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
"""Names of a folder's file of weights, in order of preference; each may be an index of shards instead."""


def tensor_places(path: Path) -> dict[str, Path]:
    """File of each tensor of a checkpoint by the tensor's name.

    `path` is one file, of safetensors or of `torch.save`, or a folder that has one of `WHOLE` or an index of its shards
    (`model.safetensors.index.json`). Names alone are read of safetensors.

    Raises `UserError` for a path that is neither, and for a file that cannot be read.
    """
    if path.is_file():
        return dict.fromkeys(_tensor_names(path), path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    for name in WHOLE:
        if (path / name).is_file():
            return tensor_places(path / name)
        index = path / f"{name}.index.json"
        if index.is_file():
            try:
                places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                # a shard lies beside its index, whatever path is written there
                return {tensor: path / Path(shard).name for tensor, shard in places.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{index}: not an index of shards: {one_line(error)}") from error
    raise UserError(f"{path}: holds none of {', '.join(WHOLE)}, nor an index of their shards")


def read_tensors(places: Mapping[str, Path], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The named tensors on the CPU, file by file. Raises `UserError` for a file that is missing or damaged."""
    from safetensors import safe_open

    wanted = list(names)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted({places[name] for name in wanted}):
        here = [name for name in wanted if places[name] == file]
        if not file.is_file():
            raise UserError(f"{file}: missing; the checkpoint is incomplete")
        if file.suffix != ".safetensors":
            stored = load_tensors(file)
            tensors |= {name: stored[name] for name in here}
            continue
        try:
            with safe_open(file, "pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in here}
        except Exception as error:  # safetensors has several errors of its own
            raise UserError(f"{file}: not a file of weights that can be read: {one_line(error)}") from error
    return tensors


def _tensor_names(file: Path) -> list[str]:
    if file.suffix != ".safetensors":
        return list(load_tensors(file))
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except Exception as error:  # safetensors has several errors of its own
        raise UserError(f"{file}: not a file of weights that can be read: {one_line(error)}") from error


def renamed(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """A tensor's name with all rules applied in their order: a regular expression, and what replaces it wherever it
    matches."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def misfits(needed: Mapping[str, torch.Size], tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Tensors that are `missing`, `of another shape` or `surplus`, compared with the `needed` names and shapes."""
    return {
        "missing": [name for name in needed if name not in tensors],
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
            for name, shape in needed.items()
            if name in tensors and tensors[name].shape != shape
        ],
        "surplus": [name for name in tensors if name not in needed],
    }


def described(problems: Mapping[str, Iterable[str]]) -> str:
    """Problems on one line, each with the first of its names; empty if there are none."""
    listed = {problem: list(names) for problem, names in problems.items()}
    return "; ".join(
        f"{problem}: {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if names[_NAMED:] else "")
        for problem, names in listed.items()
        if names
    )


def one_line(error: Exception) -> str:
    """The text of an error of transformers or safetensors, which often has several lines."""
    return " ".join(str(error).split()) or type(error).__name__


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
