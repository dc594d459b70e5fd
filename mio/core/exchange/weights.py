"""The tensors of a transformer between its own names and rows and those of a folder in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mio.core.errors import UserError
from mio.core.exchange.checkpoint import Checkpoint
from mio.core.exchange.stream import Planned, in_file_order, write_file
from mio.core.optimizer import ROW_PARAMETERS
from mio.core.transformer.config import TransformerConfig
from mio.core.transformer.huggingface import from_huggingface, to_huggingface
from mio.core.transformer.model import Transformer

KEEP = "keep"
KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Types that tensors may be converted to."""

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


def check_shapes(checkpoint: Checkpoint, config: TransformerConfig, folder: Path) -> int:
    """Compares names and shapes with the configuration. Returns the rows of the embedding.

    Raises `UserError` that names tensors which are missing, have another shape, or have no place in the model.
    """
    stored = checkpoint.tensors
    names = theirs_of(config, 1)
    known = set(names.values())
    nowhere = [(name, torch.empty(0)) for name in stored if name not in known]
    extra = [name for name, _ in from_huggingface(nowhere, config)]
    if extra:
        raise UserError(f"{folder}: its tensor `{extra[0]}` has no place in the model that config.json describes")
    missing = [theirs for theirs in names.values() if theirs not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"{folder}: its weights lack the tensor `{missing[0]}`{more}, which config.json asks for")
    rows = stored[names["embedding.weight"]].shape[0]
    for ours, expected in skeleton(config, rows).items():
        shape = stored[names[ours]].shape
        if shape != tuple(expected.shape):
            raise UserError(
                f"{folder}: the tensor `{names[ours]}` is {list(shape)}, by config.json it is {list(expected.shape)}"
            )
    return rows


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
            if name in ROW_PARAMETERS:
                tensor = move(tensor)
            yield name, tensor.to(wanted)

    write_file(path, planned, tensors())
    return {name: tensor.to(dtype or checkpoint.tensors[names[name]].dtype) for name, tensor in ours.items()}


def export_plan(stored: Sequence[Planned], size: int, kind: str) -> list[Planned]:
    """The tensors of a run as they are exported: `size` rows of embedding and head, without padding."""
    dtype = chosen_dtype(kind)
    return in_file_order(
        Planned(name, dtype or own, (size, *shape[1:]) if name in ROW_PARAMETERS else shape)
        for name, own, shape in stored
    )
