"""`mio export`: a run folder becomes a folder in the Hugging Face layout, which transformers opens without mio.

The folder `mio/` inside it holds what transformers has no place for: recipe, vocabulary with owners, tokenizers of all
modalities. `mio import` restores the run from it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.core.errors import UserError
from mio.core.exchange.checkpoint import Checkpoint
from mio.core.exchange.json_files import write_json
from mio.core.exchange.stream import Planned, write_shards
from mio.core.exchange.text import text_tokenizer
from mio.core.exchange.tokenizer_files import write_tokenizer
from mio.core.exchange.weights import KEEP, export_plan, skeleton, theirs_of
from mio.core.recipe import transformer_config
from mio.core.run import LOCK, RECIPE, SUMMARY, TOKENIZERS, VOCABULARY, Run
from mio.core.schema import Recipe
from mio.core.templates import CHAT
from mio.core.transformer.huggingface_config import config_to_huggingface
from mio.core.vocabulary import Vocabulary

OWN = "mio"
"""Folder of an export that holds what a run has beyond a model."""

STAGE_FILES = (RECIPE, LOCK, VOCABULARY, SUMMARY)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B", re.IGNORECASE)


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    folder: Path
    family: str
    """`model_type` of config.json."""
    parameters: int
    bytes: int
    files: int
    """Of weights."""
    size: int
    """Ids."""


def export_run(run: Run, folder: Path, *, shard_size: str = "5GB", dtype: str = KEEP) -> Exported:
    """Writes a run in the Hugging Face layout.

    Args:
        run: a finished run.
        folder: to be made; may exist if it is empty.
        shard_size: most bytes of one file of weights, as in `5GB` or `500MB` (powers of ten).
        dtype: `keep`, `bf16`, `fp16` or `fp32`.

    Raises:
        UserError: the folder holds something, no family of transformers has the model's features, or the text tokenizer
            cannot be written down.
    """
    limit = parse_size(shard_size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; give another folder, or delete it")
    config = transformer_config(run.recipe, run.manager)
    text = text_tokenizer(run.plugins, run.folder)
    saved = Vocabulary.load(run.folder / VOCABULARY)
    vocabulary = Vocabulary.build(text, run.plugins.modalities(), base=saved)
    checkpoint = Checkpoint(run.folder)
    expected = skeleton(config, vocabulary.rows)
    for name, tensor in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is None or stored.shape != tuple(tensor.shape):
            raise UserError(f"{run.folder}: its weights do not fit its recipe and vocabulary, `{name}` is one")
    own = [Planned(name, checkpoint.tensors[name].dtype, tuple(tensor.shape)) for name, tensor in expected.items()]
    plan = export_plan(own, vocabulary.size, dtype)
    names = theirs_of(config, vocabulary.rows)
    types = {tensor.name: str(tensor.dtype).removeprefix("torch.") for tensor in plan}
    context = run.recipe.data.packing.context
    model = config_to_huggingface(config, vocabulary.size, context, types["embedding.weight"])

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, wanted, shape in plan:
            yield names[name], checkpoint.read(name)[: shape[0]].to(wanted)

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_json(partial / "config.json", model | _ids(vocabulary, run.recipe))
        write_json(partial / "generation_config.json", _generation(vocabulary, run.recipe))
        write_tokenizer(partial, text, vocabulary, run.recipe)
        _copy_own(run.folder, partial / OWN)
        renamed = [tensor._replace(name=names[tensor.name]) for tensor in plan]
        files = write_shards(partial, renamed, tensors(), limit)
        partial.chmod(0o755)  # made for the owner alone
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Exported(
        folder=folder,
        family=model["model_type"],
        parameters=sum(torch.Size(tensor.shape).numel() for tensor in plan),
        bytes=sum(tensor.bytes for tensor in plan),
        files=files,
        size=vocabulary.size,
    )


def parse_size(text: str) -> int:
    """Bytes of `5GB`, `500MB` and the like. Raises `UserError` for anything else."""
    found = _SIZE.fullmatch(text.strip()) if len(text) < 40 else None
    size = int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if not size:
        raise UserError(f"--shard-size {text!r} is no size; write it like `5GB` or `500MB`")
    return size


def _ids(vocabulary: Vocabulary, recipe: Recipe) -> dict[str, Any]:
    specials = vocabulary.specials
    # in chat form both end an answer: `<|im_end|>` closes the turn, eos a text that the model goes on with
    stops = [specials.im_end, specials.eos] if recipe.data.form == CHAT else specials.eos
    return {"bos_token_id": specials.bos, "eos_token_id": stops, "pad_token_id": specials.pad}


def _generation(vocabulary: Vocabulary, recipe: Recipe) -> dict[str, Any]:
    absent = [index for block in vocabulary.blocks if block.absent for index in block.ids]
    return {
        **_ids(vocabulary, recipe),
        "do_sample": False,
        **({"suppress_tokens": absent} if absent else {}),
    }


def _copy_own(run: Path, own: Path) -> None:
    own.mkdir()
    for file in STAGE_FILES:
        if (run / file).is_file():
            shutil.copyfile(run / file, own / file)
    if (run / TOKENIZERS).is_dir():
        shutil.copytree(run / TOKENIZERS, own / TOKENIZERS)
