"""`mio export`: a run folder becomes a folder in the Hugging Face layout, which transformers opens without mio.

The folder `mio/` inside it holds what transformers has no place for: recipe, vocabulary with owners, tokenizers of all
modalities. `mio import` restores the run from it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.values import Trainable
from mio.core.errors import UserError
from mio.core.exchange.huggingface_config import config_to_huggingface
from mio.core.exchange.model_files import Checkpoint
from mio.core.exchange.text import text_tokenizer
from mio.core.exchange.tokenizer_files import write_tokenizer
from mio.core.exchange.weights import KEEP, check_finite, export_plan, skeleton, theirs_of
from mio.core.files import read_json, write_json
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import LOCK, RECIPE, SUMMARY, TOKENIZERS, VOCABULARY
from mio.core.recipe.schema import Recipe
from mio.core.runs.run import Run
from mio.core.runs.tensor_files import SAFETENSORS, Planned, write_shards
from mio.core.runs.weights import CheckpointWeights, SavedWeights
from mio.core.tokens.templates import CHAT
from mio.core.tokens.vocabulary import Vocabulary

OWN = "mio"
"""Folder of an export that holds what a run has beyond a model."""

STAGE_FILES = (RECIPE, LOCK, VOCABULARY, SUMMARY)

RESTORE = "restore it from a copy"
"""What to do about a part of a run that is lost."""

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
        run: a finished run, or a checkpoint of one that need not be finished.
        folder: to be made; may exist if it is empty.
        shard_size: most bytes of one file of weights, as in `5GB` or `500MB` (powers of ten).
        dtype: `keep`, `bf16`, `fp16` or `fp32`.

    Raises:
        UserError: the folder holds something, the run lacks a part or has parts of another, its weights are damaged, no
            family of transformers has the model's features, or the text tokenizer cannot be written down.
    """
    limit = parse_size(shard_size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; give another folder, or delete it")
    _check_parts(run)
    config = transformer_config(run.recipe, run.manager)
    text = text_tokenizer(run.plugins, run.folder)
    saved = Vocabulary.load(run.folder / VOCABULARY)
    vocabulary = Vocabulary.build(text, run.plugins.modalities(), base=saved)
    place, there, read = _weights(run)
    expected = skeleton(config, vocabulary.rows)
    own = [_stored(place, there, name, tuple(tensor.shape)) for name, tensor in expected.items()]
    if beyond := sorted(there.keys() - expected.keys()):
        raise UserError(f"{place}: the tensor `{beyond[0]}` has no place in the model that {RECIPE} describes")
    plan = export_plan(own, vocabulary.size, dtype)
    names = theirs_of(config, vocabulary.rows)
    types = {tensor.name: str(tensor.dtype).removeprefix("torch.") for tensor in plan}
    context = run.recipe.data.packing.context
    model = config_to_huggingface(config, vocabulary.size, context, types["embedding.weight"])

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, wanted, shape in plan:
            tensor = read(name)[: shape[0]]
            check_finite(tensor, wanted, name, place)
            yield names[name], tensor.to(wanted)

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_json(partial / "config.json", model | _ids(vocabulary, run.recipe))
        write_json(partial / "generation_config.json", _generation(vocabulary, run.recipe))
        write_tokenizer(partial, text, vocabulary, run.recipe, [declared for _, declared in run.plugins.modalities()])
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


def _check_parts(run: Run) -> None:
    """Raises `UserError` for a run folder without all its parts: what would be exported could not be restored."""
    folder, finished = run.folder, isinstance(run.saved, SavedWeights)
    for file in (RECIPE, LOCK, VOCABULARY, *((SUMMARY,) if finished else ())):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder}: {file} is missing: the run is not finished or a part of it is lost; {RESTORE}"
                + (", or name one of the run's checkpoints" if file == SUMMARY else "")
            )
    for modality in read_json(folder / LOCK, RESTORE).get("tokenizers") or {}:
        if not (folder / TOKENIZERS / modality).is_dir() and _is_trained(run, modality):
            raise UserError(f"{folder / TOKENIZERS / modality}: the tokenizer of `{modality}` is missing; {RESTORE}")


def _is_trained(run: Run, modality: str) -> bool:
    try:
        return isinstance(run.plugins.tokenizer(modality), Trainable)
    except UserError:  # its own files are not at hand, and not needed
        return False


def _weights(run: Run) -> tuple[Path, dict[str, Planned], Callable[[str], Tensor]]:
    """Where the weights are, what is there by the transformer's own names, and how it is read."""
    saved = run.saved
    if isinstance(saved, CheckpointWeights):
        infos = {name: Planned(name, info.dtype, info.shape) for name, info in saved.infos().items()}
        return saved.path, infos, saved.read
    checkpoint = Checkpoint(run.folder)
    there = {name: Planned(name, stored.dtype, stored.shape) for name, stored in checkpoint.tensors.items()}
    return run.folder / SAFETENSORS, there, checkpoint.read


def _stored(place: Path, there: Mapping[str, Planned], name: str, shape: tuple[int, ...]) -> Planned:
    stored = there.get(name)
    if stored is None:
        raise UserError(f"{place}: the tensor `{name}` is missing, by {RECIPE} and {VOCABULARY} it is {list(shape)}")
    if stored.shape != shape:
        raise UserError(
            f"{place}: the tensor `{name}` is {list(stored.shape)}, by {RECIPE} and {VOCABULARY} it is {list(shape)}"
        )
    return stored


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
