"""The tensors of a transformer between its own names and rows and those of a folder in the Hugging Face layout."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import UserError
from mio.core.exchange.huggingface import from_huggingface, to_huggingface
from mio.core.exchange.model_files import Checkpoint, Stored
from mio.core.model.transformer import Transformer
from mio.core.model.vocabulary_rows import ROW_PARAMETERS
from mio.core.runs.tensor_files import Planned, in_file_order, write_file

KEEP = "keep"
KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Types that tensors may be converted to."""

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
_EXPERT = re.compile(r"model\.layers\.0\.block_sparse_moe\.experts\.(\d{1,9})\.")
_ROWS = 4096
"""Rows that are compared at once."""

RowMove = Callable[[Tensor], Tensor]
"""Rows of one vocabulary `[rows, D]` to those of another."""


def chosen_dtype(kind: str) -> torch.dtype | None:
    """The type named by `kind`, None for `keep`. Raises `UserError` for another name."""
    if kind != KEEP and kind not in KINDS:
        raise UserError(f"--dtype {kind!r} is none of {', '.join([KEEP, *KINDS])}")
    return KINDS.get(kind)


def skeleton(config: TransformerConfig, rows: int) -> dict[str, Tensor]:
    """The transformer's tensors by name, without memory."""
    with torch.device("meta"):
        return Transformer(config, rows).state_dict()


def theirs_of(config: TransformerConfig, rows: int) -> dict[str, str]:
    """Names of the Hugging Face layout by the transformer's own."""
    ours = skeleton(config, rows)
    return dict(zip(ours, (name for name, _ in to_huggingface(ours.items())), strict=True))


def as_stored(checkpoint: Checkpoint, config: TransformerConfig) -> TransformerConfig:
    """The configuration with `tied_embeddings` as the tensors have it, as transformers does it.

    Where config.json ties the head to the embedding, and both are there and differ, both are kept. A head that is there
    alone is the embedding too.
    """
    if not config.tied_embeddings or _HEAD not in checkpoint.tensors:
        return config
    if _EMBEDDING not in checkpoint.tensors:
        checkpoint.rename(_HEAD, _EMBEDDING)
    elif not _equal(checkpoint, _HEAD, _EMBEDDING):
        return replace(config, tied_embeddings=False)
    return config


def _equal(checkpoint: Checkpoint, a: str, b: str) -> bool:
    if checkpoint.tensors[a].shape != checkpoint.tensors[b].shape:
        return False
    pairs = zip(checkpoint.read(a).split(_ROWS), checkpoint.read(b).split(_ROWS), strict=True)
    return all(torch.equal(x.float(), y.float()) for x, y in pairs)


def check_shapes(checkpoint: Checkpoint, config: TransformerConfig, folder: Path, size: int | None = None) -> int:
    """Compares names and shapes with the configuration. Returns the rows of the embedding.

    Args:
        size: rows that config.json promises, None where it does not say.

    Raises `UserError` that names tensors which are missing, have another shape, or have no place in the model.
    """
    stored = checkpoint.tensors
    _check_counts(stored, config, folder)
    names = theirs_of(config, 1)
    known = set(names.values())
    for name in stored.keys() - known:
        if list(from_huggingface([(name, torch.empty(0))], config)):
            raise UserError(f"{folder}: its tensor `{name}` has no place in the model that config.json describes")
    missing = [theirs for theirs in names.values() if theirs not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"{folder}: its weights lack the tensor `{missing[0]}`{more}, which config.json asks for")
    shape = stored[_EMBEDDING].shape
    rows = shape[0] if len(shape) == 2 else 0
    if not rows:
        raise UserError(f"{folder}: the tensor `{_EMBEDDING}` is {list(shape)}, it must be [ids, {config.width}]")
    for ours, expected in skeleton(config, size or rows).items():
        shape = stored[names[ours]].shape
        if shape != tuple(expected.shape):
            raise UserError(
                f"{folder}: the tensor `{names[ours]}` is {list(shape)}, by config.json it is {list(expected.shape)}"
            )
    return rows


def _check_counts(stored: Mapping[str, Stored], config: TransformerConfig, folder: Path) -> None:
    """Layers and experts that config.json promises must be there before anything is made of their number."""
    for pattern, key, promised in (
        (_LAYER, "num_hidden_layers", config.layers),
        (_EXPERT, "num_local_experts", config.experts),
    ):
        numbers = {int(found[1]) for name in stored if (found := pattern.match(name))}
        there = next(number for number in range(len(numbers) + 1) if number not in numbers)
        if there < promised:
            raise UserError(f"{folder}: config.json says `{key}` {promised}, but its weights hold only {there} of them")


def store(
    checkpoint: Checkpoint, config: TransformerConfig, rows: int, path: Path, kind: str, move: RowMove
) -> dict[str, Tensor]:
    """Writes the tensors of a checkpoint as the weights of a run of `rows` embedding rows, one by one.

    `move` makes the rows of embedding and head. Returns the skeleton of what was written, in its types.
    """
    dtype = chosen_dtype(kind)
    ours, names = skeleton(config, rows), theirs_of(config, rows)
    planned = in_file_order(
        Planned(name, dtype or checkpoint.tensors[names[name]].dtype, tuple(tensor.shape))
        for name, tensor in ours.items()
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, wanted, _ in planned:
            tensor = checkpoint.read(names[name])
            check_finite(tensor, wanted, names[name], checkpoint.tensors[names[name]].file)
            if name in ROW_PARAMETERS:
                tensor = move(tensor)
            yield name, tensor.to(wanted)

    write_file(path, planned, tensors())
    return {name: tensor.to(dtype or checkpoint.tensors[names[name]].dtype) for name, tensor in ours.items()}


def check_finite(tensor: Tensor, wanted: torch.dtype, name: str, file: Path) -> None:
    """Raises `UserError` for a tensor that holds a NaN or an infinity, or whose numbers are too large for `wanted`."""
    if not tensor.numel():
        return
    low, high = (float(end) for end in torch.aminmax(tensor))  # either is NaN where anything is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{file}: the tensor `{name}` holds a NaN or an infinity: the model is damaged")
    if max(-low, high) > torch.finfo(wanted).max:
        raise UserError(
            f"{file}: the tensor `{name}` holds {max(-low, high):.4g}, too large for "
            f"{str(wanted).removeprefix('torch.')}; give another `--dtype`"
        )


def export_plan(stored: Sequence[Planned], size: int, kind: str) -> list[Planned]:
    """The tensors of a run as they are exported: `size` rows of embedding and head, without padding."""
    dtype = chosen_dtype(kind)
    return in_file_order(
        Planned(name, dtype or own, (size, *shape[1:]) if name in ROW_PARAMETERS else shape)
        for name, own, shape in stored
    )
