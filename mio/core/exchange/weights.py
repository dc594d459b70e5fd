"""Weights between the transformer's own names and vocabulary rows and those of the Hugging Face layout."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.layouts import CodeRows, ModelLayout
from mio.core.errors import UserError
from mio.core.exchange.huggingface import EMBEDDING, HEAD, HEAD_BIAS, huggingface_name, is_redundant
from mio.core.exchange.layouts import BoundLayout
from mio.core.exchange.model_files import ModelFiles, Stored
from mio.core.model.transformer import Transformer
from mio.core.recipe.model import ROW_PARAMETERS
from mio.core.runs.tensor_files import Planned, in_file_order, write_file

KEEP = "keep"
KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Types that tensors can be converted to."""

_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
_EXPERT = re.compile(r"model\.layers\.0\.(?:block_sparse_moe|mlp)\.experts\.(\d{1,9})\.")
_ROWS = 4096
"""Rows that are compared at once."""

RowMove = Callable[[str, Tensor], Tensor]
"""Rows of one vocabulary `[rows, D]`, of the parameter of a name, to those of another."""


def chosen_dtype(kind: str) -> torch.dtype | None:
    """The type named by `kind`, None for `keep`. Raises `UserError` for another name."""
    if kind != KEEP and kind not in KINDS:
        raise UserError(f"--dtype {kind!r} is none of {', '.join([KEEP, *KINDS])}")
    return KINDS.get(kind)


def skeleton(config: TransformerConfig, rows: int) -> dict[str, Tensor]:
    """The transformer's tensors by name, without memory."""
    with torch.device("meta"):
        return Transformer(config, rows).state_dict()


def huggingface_names(config: TransformerConfig) -> dict[str, str]:
    """Names in the Hugging Face layout by the transformer's own."""
    return {name: huggingface_name(name, config.qk_norm) for name in skeleton(config, 1)}


@dataclass(frozen=True)
class FolderModel:
    """The model in a folder of the Hugging Face layout, its tensors checked against config.json by name and shape."""

    folder: Path
    files: ModelFiles
    config: TransformerConfig
    """As config.json says, but `tied_embeddings` as the tensors have it."""
    rows: int
    """Of the embedding."""
    beside: Mapping[tuple[str, str], int]
    """Number of tensors of each network beside the transformer, by how their names begin and what becomes of them."""
    code_rows: Mapping[str, CodeRows]
    """Rows that the folder has for the codes of a modality beside those of its tokens, by modality, checked."""

    @classmethod
    def open(
        cls, folder: Path, config: TransformerConfig, size: int | None, layout: BoundLayout | None = None
    ) -> FolderModel:
        """Opens the files.

        Args:
            folder: holds the weights.
            config: what config.json says.
            size: rows of the embedding that config.json promises, None where it does not say.
            layout: of a folder that holds more than the transformer.

        Raises `UserError` that names tensors which are missing, have another shape, or have no place in the model.
        """
        files = ModelFiles(folder)
        beside = _set_apart(files, layout.layout) if layout is not None else {}
        files.check_types()
        if layout is not None:
            layout.make(files, folder)
            config = replace(config, head_bias=HEAD_BIAS in files.tensors)
        config = _tied_as_stored(files, config)
        rows = _check_shapes(files, config, folder, size)
        codes = layout.code_rows(files, folder, config.width) if layout is not None else {}
        if codes and config.tied_embeddings:  # the embedding of a code is not what its score is made with
            files.also(EMBEDDING, HEAD)
            config = replace(config, tied_embeddings=False)
        return cls(folder, files, config, rows, beside, codes)

    def store(
        self,
        rows: int,
        path: Path,
        kind: str,
        move: RowMove,
        notes: Mapping[str, str] = {},
        more: Mapping[str, Tensor] = {},
    ) -> int:
        """Writes the tensors one by one as the weights of a run of `rows` vocabulary rows, with `notes` in the file's
        metadata, and `more` tensors by the transformer's names.

        `move` makes the rows of embedding and head. Returns the number of parameters.
        """
        dtype = chosen_dtype(kind)
        stored, names = self.files.tensors, huggingface_names(self.config)
        own = skeleton(self.config, rows)
        planned = in_file_order(
            [Planned(name, dtype or stored[names[name]].dtype, tuple(tensor.shape)) for name, tensor in own.items()]
            + [Planned(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in more.items()]
        )

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for name, wanted, _ in planned:
                if name in more:
                    yield name, more[name].contiguous()
                    continue
                tensor = self.files.read(names[name])
                check_finite(tensor, wanted, names[name], stored[names[name]].file)
                if name in ROW_PARAMETERS:
                    tensor = move(name, tensor)
                yield name, tensor.to(wanted)

        write_file(path, planned, tensors(), notes)
        return sum(math.prod(tensor.shape) for tensor in planned)


def _set_apart(files: ModelFiles, layout: ModelLayout) -> dict[tuple[str, str], int]:
    """Gives the transformer's tensors the names of its family, and takes out those of other networks; returns how many
    each has."""
    beside: dict[tuple[str, str], int] = {}
    for name in list(files.tensors):
        fitting = [begin for begin in layout.names if name.startswith(begin)]
        fitting += [begin for begin in layout.beside if fnmatchcase(name, f"{begin}*")]
        begin = max(fitting, key=len, default=None)
        if begin is None:  # the check of names refuses it
            continue
        if begin in layout.names:
            if layout.names[begin] != begin:
                files.rename(name, layout.names[begin] + name.removeprefix(begin))
            continue
        files.set_apart(name)
        network = begin.rstrip(".") or ".".join(name.split(".")[:2])
        beside[network, layout.beside[begin]] = beside.get((network, layout.beside[begin]), 0) + 1
    return beside


def _tied_as_stored(files: ModelFiles, config: TransformerConfig) -> TransformerConfig:
    """The configuration with `tied_embeddings` as the tensors have it, as in transformers: a head that differs from the
    embedding is kept although config.json ties them, and a head without an embedding is the embedding too."""
    if not config.tied_embeddings or HEAD not in files.tensors:
        return config
    if EMBEDDING not in files.tensors:
        files.rename(HEAD, EMBEDDING)
    elif not _equal(files, HEAD, EMBEDDING):
        return replace(config, tied_embeddings=False)
    return config


def _equal(files: ModelFiles, a: str, b: str) -> bool:
    if files.tensors[a].shape != files.tensors[b].shape:
        return False
    pairs = zip(files.read(a).split(_ROWS), files.read(b).split(_ROWS), strict=True)
    return all(torch.equal(x.float(), y.float()) for x, y in pairs)


def _check_shapes(files: ModelFiles, config: TransformerConfig, folder: Path, size: int | None) -> int:
    """Compares names and shapes with the configuration. Returns the rows of the embedding."""
    stored = files.tensors
    _check_counts(stored, config, folder)
    names = huggingface_names(config)
    for name in stored.keys() - set(names.values()):
        if not is_redundant(name, config):
            raise UserError(f"{folder}: its tensor `{name}` has no place in the model that config.json describes")
    missing = [theirs for theirs in names.values() if theirs not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"{folder}: its weights lack the tensor `{missing[0]}`{more}, which config.json asks for")
    shape = stored[EMBEDDING].shape
    rows = shape[0] if len(shape) == 2 else 0
    if not rows:
        raise UserError(f"{folder}: the tensor `{EMBEDDING}` is {list(shape)}, it must be [ids, {config.width}]")
    for name, expected in skeleton(config, size or rows).items():
        shape = stored[names[name]].shape
        if shape != tuple(expected.shape):
            raise UserError(
                f"{folder}: the tensor `{names[name]}` is {list(shape)}, by config.json it is {list(expected.shape)}"
            )
    return rows


def _check_counts(stored: Mapping[str, Stored], config: TransformerConfig, folder: Path) -> None:
    """Compares the numbers of layers and experts with config.json, before a model of that size is built."""
    for pattern, key, promised in (
        (_LAYER, "num_hidden_layers", config.layers),
        (_EXPERT, "num_local_experts", config.experts),
    ):
        numbers = {int(match[1]) for name in stored if (match := pattern.match(name))}
        present = next(number for number in range(len(numbers) + 1) if number not in numbers)
        if present < promised:
            raise UserError(
                f"{folder}: config.json says `{key}` {promised}, but its weights hold only {present} of them"
            )


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
    """The tensors of a run as they are exported: `size` rows of embedding and head, without padding rows."""
    dtype = chosen_dtype(kind)
    return in_file_order(
        Planned(name, dtype or own, (size, *shape[1:]) if name in ROW_PARAMETERS else shape)
        for name, own, shape in stored
    )
