"""`mio export`: a run folder becomes a folder in the Hugging Face layout, which transformers opens without mio.

The folder `mio/` inside it holds what transformers has no place for: recipe, vocabulary with owners, tokenizers of all
modalities. `mio import` restores the run from it.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mio.core.contract.values import Trainable
from mio.core.errors import UserError
from mio.core.exchange.generation_defaults import FILE as DEFAULTS
from mio.core.exchange.generation_defaults import generation_defaults
from mio.core.exchange.grammar_file import FILE as GRAMMAR
from mio.core.exchange.grammar_file import grammar_content
from mio.core.exchange.huggingface_config import config_to_huggingface
from mio.core.exchange.model_card import ModelCard
from mio.core.exchange.networks import ExportedNetworks, write_networks
from mio.core.exchange.peft import ADAPTER, ExportedAdapter, check_exportable, write_adapter
from mio.core.exchange.text import text_tokenizer
from mio.core.exchange.tokenizer_files import write_tokenizer
from mio.core.exchange.weights import KEEP, check_finite, export_plan, huggingface_names, skeleton
from mio.core.files import new_folder, read_json, write_json
from mio.core.recipe.model import network_of, transformer_config
from mio.core.recipe.places import LOCK, RECIPE, SUMMARY, TOKENIZERS, VOCABULARY
from mio.core.recipe.schema import LICENSE, Recipe
from mio.core.runs.adapters import FoldedWeights
from mio.core.runs.run import Run
from mio.core.runs.tensor_files import Planned, write_shards
from mio.core.runs.weights import CheckpointWeights, SavedWeights
from mio.core.tokens.templates import CHAT
from mio.core.tokens.vocabulary import Vocabulary

OWN = "mio"
"""Folder of an export that holds what a run has beyond a model."""

STAGE_FILES = (RECIPE, LOCK, VOCABULARY, SUMMARY)

RESTORE = "restore it from a copy"
"""Advice for a part of a run that is lost."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B", re.IGNORECASE)


@dataclass(frozen=True)
class Exported:
    """The files of an export."""

    folder: Path
    family: str
    """`model_type` of config.json."""
    parameters: int
    bytes: int
    files: int
    """Of weights."""
    size: int
    """Ids."""
    adapter: ExportedAdapter | None = None
    """What lies beside the model, of a run with adapters."""
    networks: ExportedNetworks | None = None
    """The same, of a run whose media are read by encoders."""


def export_run(
    run: Run, folder: Path, *, shard_size: str = "5GB", dtype: str = KEEP, merge: bool = False, license: str = ""
) -> Exported:
    """Writes a run in the Hugging Face layout. Adapters go beside its frozen model, into a folder in PEFT's layout,
    encoders into a file of their own; the README says what other programs can do without them.

    Args:
        run: a finished run, or a checkpoint of one that need not be finished.
        folder: must be missing or empty.
        shard_size: most bytes of one file of weights, as in `5GB` or `500MB` (powers of ten).
        dtype: `keep`, `bf16`, `fp16` or `fp32`. Adapters keep theirs.
        merge: whether adapters are folded into the model instead.
        license: of the model, in place of what the recipe says (`license`).

    Raises:
        UserError: the licence is none, the folder is not empty, the run lacks a part or has parts of another run, its
            weights are damaged, no family of transformers has the model's features, PEFT has no place for an adapter,
            there is nothing to merge, or the text tokenizer cannot be exported.
    """
    limit = parse_size(shard_size)
    if problem := LICENSE.problem(license):
        raise UserError(f"--license {problem}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; give another folder, or delete it")
    _check_parts(run)
    config = transformer_config(run.recipe, run.manager)
    text = text_tokenizer(run.plugins, run.folder)
    modalities = run.plugins.modalities()
    base = Vocabulary.load(run.folder / VOCABULARY)
    vocabulary = Vocabulary.build(text, modalities, run.plugins.control_tokens(), base=base)
    saved = run.saved
    adapted = isinstance(saved, FoldedWeights) and not merge
    if isinstance(saved, FoldedWeights) and adapted:
        check_exportable(saved)
    elif merge and not isinstance(saved, FoldedWeights):
        raise UserError(f"{run.folder} has no adapters: there is nothing to merge; leave `--merge` out")
    weights = _RunWeights.of(saved.base if isinstance(saved, FoldedWeights) and adapted else saved)
    plan = export_plan(weights.fitting(skeleton(config, vocabulary.rows)), vocabulary.size, dtype)
    types = {tensor.name: str(tensor.dtype).removeprefix("torch.") for tensor in plan}
    model = config_to_huggingface(config, vocabulary.size, run.recipe.data.packing.context, types["embedding.weight"])
    names = huggingface_names(config)
    parameters = sum(math.prod(tensor.shape) for tensor in plan)
    made, read = (_by_networks(saved, kind) for kind in ("heads", "encoders"))
    stop = _stops(vocabulary, run.recipe)[0]
    grammar = grammar_content(vocabulary, stop, run.recipe.data.packing.context, made, read, run.codecs.undecodable)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, wanted, shape in plan:
            tensor = weights.read(name)[: shape[0]]
            check_finite(tensor, wanted, name, weights.place)
            yield names[name], tensor.to(wanted)

    with new_folder(folder) as partial:
        write_json(partial / "config.json", model | _ids(vocabulary, run.recipe))
        stops, undecodable = _stops(vocabulary, run.recipe), run.codecs.undecodable
        defaults = generation_defaults(vocabulary, run.recipe, stops, made, undecodable)
        write_json(partial / DEFAULTS, defaults)
        write_json(partial / GRAMMAR, grammar)
        write_tokenizer(partial, text, vocabulary, run.recipe, [declared for _, declared in modalities])
        _copy_own(run, partial / OWN)
        renamed = [tensor._replace(name=names[tensor.name]) for tensor in plan]
        files = write_shards(partial, renamed, tensors(), limit)
        adapter = None
        if isinstance(saved, FoldedWeights) and adapted:
            adapter = write_adapter(partial / ADAPTER, folder, saved, run.recipe.train.lora, config)
        networks = write_networks(partial / OWN, saved)
        card = ModelCard(
            name=folder.resolve().name,
            run=run.recipe.name,
            family=model["model_type"],
            parameters=parameters,
            license=license or run.recipe.license,
            chat=run.recipe.data.form == CHAT,
            grammar=grammar,
            grammar_file=GRAMMAR,
            own=OWN,
            tasks=run.summary.get("tasks") or {} if run.measured else {},
            defaults=defaults,
            networks=networks.names if networks else (),
            adapter=ADAPTER if adapter else "",
        )
        card.write(partial)
    return Exported(
        folder=folder,
        family=model["model_type"],
        parameters=parameters,
        bytes=sum(tensor.bytes for tensor in plan),
        files=files,
        size=vocabulary.size,
        adapter=adapter,
        networks=networks,
    )


def _check_parts(run: Run) -> None:
    """Raises `UserError` if the run folder lacks a part without which its export could not be restored."""
    folder, finished = run.folder, run.finished
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
    except UserError:  # files of its own are missing, and not needed here
        return False


class _RunWeights(NamedTuple):
    """The weights of a run, finished or at a checkpoint, without encoders."""

    place: Path
    tensors: Mapping[str, Planned]
    """By the transformer's own names."""
    read: Callable[[str], Tensor]

    @classmethod
    def of(cls, saved: SavedWeights | CheckpointWeights | FoldedWeights) -> _RunWeights:
        infos = {
            name: Planned(name, info.dtype, info.shape) for name, info in saved.infos().items() if not network_of(name)
        }
        return cls(saved.path, infos, saved.read)

    def fitting(self, expected: Mapping[str, Tensor]) -> list[Planned]:
        """The tensors, if names and shapes are those `expected`. Raises `UserError` otherwise."""
        for name, tensor in expected.items():
            stored, shape = self.tensors.get(name), tuple(tensor.shape)
            if stored is None or stored.shape != shape:
                there = "missing" if stored is None else f"{list(stored.shape)}"
                raise UserError(
                    f"{self.place}: the tensor `{name}` is {there}, by {RECIPE} and {VOCABULARY} it is {list(shape)}"
                )
        if beyond := sorted(self.tensors.keys() - expected.keys()):
            raise UserError(f"{self.place}: the tensor `{beyond[0]}` has no place in the model of {RECIPE}")
        return [self.tensors[name] for name in expected]


def parse_size(text: str) -> int:
    """Bytes of `5GB`, `500MB` and the like. Raises `UserError` for anything else."""
    match = _SIZE.fullmatch(text.strip()) if len(text) < 40 else None
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if not size:
        raise UserError(f"--shard-size {text!r} is not a size; write it like `5GB` or `500MB`")
    return size


def _by_networks(saved: SavedWeights | CheckpointWeights | FoldedWeights, kind: str) -> set[str]:
    """Modalities that `encoders` read or `heads` make, by the names of their tensors: plugins that make networks may
    want files that are not here."""
    names = (network_of(name).partition(".") for name in saved.infos())
    return {modality for of_kind, _, modality in names if of_kind == kind}


def _stops(vocabulary: Vocabulary, recipe: Recipe) -> list[int]:
    """What ends an answer in the recipe's form, and eos, which ends a text that the model goes on with."""
    specials = vocabulary.specials
    return [specials.im_end, specials.eos] if recipe.data.form == CHAT else [specials.eos]


def _ids(vocabulary: Vocabulary, recipe: Recipe) -> dict[str, Any]:
    specials, stops = vocabulary.specials, _stops(vocabulary, recipe)
    eos = stops if stops[1:] else stops[0]
    return {"bos_token_id": specials.bos, "eos_token_id": eos, "pad_token_id": specials.pad}


def _copy_own(run: Run, own: Path) -> None:
    """What only mio reads; the summary only where it is about the weights that are exported."""
    own.mkdir()
    for file in STAGE_FILES:
        if (run.folder / file).is_file() and (file != SUMMARY or run.measured):
            shutil.copyfile(run.folder / file, own / file)
    if (run.folder / TOKENIZERS).is_dir():
        shutil.copytree(run.folder / TOKENIZERS, own / TOKENIZERS)
