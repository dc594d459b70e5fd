"""Adapters in the layout of PEFT (https://github.com/huggingface/peft), out and in again: `adapter_config.json` and
`adapter_model.safetensors`, which PEFT opens over the exported base. Free of PEFT."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.errors import UserError
from mio.core.exchange.huggingface import huggingface_name
from mio.core.exchange.model_files import AGAIN
from mio.core.exchange.weights import check_finite
from mio.core.files import read_json, write_json
from mio.core.model.lora import LORA_A, LORA_B, MAGNITUDE, ROWS, adapt
from mio.core.model.transformer import Transformer
from mio.core.recipe.adapters import linear_layers
from mio.core.recipe.model import network_of
from mio.core.recipe.schema import LoraConfig, TrainConfig
from mio.core.runs.adapters import FoldedWeights, known_note
from mio.core.runs.tensor_files import Planned, in_file_order, write_file
from mio.core.runs.weights import SavedWeights
from mio.core.tokens.vocabulary import Vocabulary

ADAPTER = "adapter"
"""Folder of an export that holds the adapters."""
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_KINDS = {LORA_A: "lora_A.weight", LORA_B: "lora_B.weight", MAGNITUDE: "lora_magnitude_vector"}
_TOKENS = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class ExportedAdapter:
    """The files of an adapter."""

    folder: Path
    layers: int
    """That have one."""
    rows: int
    """Vocabulary rows of each matrix that has trained ones."""
    bytes: int


def check_exportable(weights: FoldedWeights) -> None:
    """Raises `UserError` for what PEFT has no place for."""
    if expert := next((name for name in weights.adapters if ".experts." in name), ""):
        raise UserError(
            f"`{expert}` has an adapter, and PEFT keeps those of a mixture's experts in another form; give `--merge`"
        )
    normed = any(".query_norm." in name for name in weights.infos())
    for name in _whole(weights):
        if normed and (".router." in name or ".experts." in name):
            raise UserError(f"`{name}` is trained beside adapters, which PEFT has no place for; give `--merge`")
        if name.endswith(".bias") and name.removesuffix(".bias") in weights.adapters:
            raise UserError(f"`{name}` is trained beside an adapter, which PEFT has no place for; give `--merge`")


def write_adapter(
    folder: Path, base: Path, weights: FoldedWeights, lora: LoraConfig, config: TransformerConfig
) -> ExportedAdapter:
    """Writes the adapters of a run.

    Args:
        folder: is made.
        base: where the exported base will lie, for `base_model_name_or_path`.
        weights: of the run.
        lora: of its recipe.
        config: of its transformer.
    """
    whole = _whole(weights)
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in whole))
    infos = {name: info for name, info in weights.trained.infos().items() if not network_of(name)}
    # PEFT replaces whole modules: what of such a module is not trained comes from the base
    beside = [name for name in weights.infos() if name.rpartition(".")[0] in modules and name not in infos]
    planned = in_file_order(
        Planned(name, info.dtype, info.shape)
        for name, info in (*infos.items(), *((name, weights.infos()[name]) for name in beside))
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, dtype, _ in planned:
            tensor = weights.trained.read(name) if name in infos else weights.read(name)
            check_finite(tensor, dtype, name, weights.trained.path)
            yield peft_name(name), tensor

    folder.mkdir()
    write_json(folder / CONFIG, _config(base, weights, lora, config, modules))
    renamed = [tensor._replace(name=peft_name(tensor.name)) for tensor in planned]
    write_file(folder / TENSORS, renamed, tensors(), known_note(weights.known))
    count = sum(end - first for first, end in weights.ranges) if any(name in ROWS for name in infos) else 0
    return ExportedAdapter(folder, len(weights.adapters), count, sum(tensor.bytes for tensor in planned))


def _whole(weights: FoldedWeights) -> list[str]:
    """Parameters of the base that were trained as a whole, those of encoders left out."""
    trained, base = weights.trained.infos(), weights.infos()
    return [name for name in trained if name in base and not network_of(name)]


def peft_name(name: str) -> str:
    """The name in PEFT's layout of a tensor that is trained."""
    layer, _, kind = name.rpartition(".")
    if kind in _KINDS:
        return f"{_PREFIX}{_module(layer)}.{_KINDS[kind]}"
    if name in ROWS:
        return f"{_PREFIX}{_module(ROWS[name].removesuffix('.weight'))}.{_TOKENS}"
    return f"{_PREFIX}{huggingface_name(name)}"


def _module(layer: str) -> str:
    return huggingface_name(f"{layer}.weight").removesuffix(".weight")


def _config(
    base: Path, weights: FoldedWeights, lora: LoraConfig, config: TransformerConfig, modules: Sequence[str]
) -> dict[str, Any]:
    adapters, trained = weights.adapters, weights.trained.infos()
    ids = [index for first, end in weights.ranges for index in range(first, end)]
    tokens = {_module(ROWS[name].removesuffix(".weight")): ids for name in ROWS if name in trained}
    layers = linear_layers(config)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": _plain(lora.alpha),
        "lora_dropout": 0.0,
        "use_dora": lora.dora,
        "use_rslora": lora.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": list(_by_kind(dict.fromkeys(adapters, True), layers)),
        "rank_pattern": _pattern({name: one.rank for name, one in adapters.items()}, lora.rank, layers),
        "alpha_pattern": _pattern({name: _plain(one.alpha) for name, one in adapters.items()}, lora.alpha, layers),
        "modules_to_save": [_module(name) for name in modules] or None,
        "trainable_token_indices": tokens or None,
        # without it PEFT leaves a tied head the frozen embedding; single rows it ties by itself
        **({"ensure_weight_tying": True} if config.tied_embeddings and "embedding" in modules else {}),
    }


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _by_kind(values: Mapping[str, Any], layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values of linear layers by the names of PEFT: by the last part, `q_proj`, where all layers of a kind have the
    same one, else by the whole name."""
    kinds: dict[str, list[str]] = {}
    for name in layers:
        kinds.setdefault(_module(name).rpartition(".")[2], []).append(name)
    found: dict[str, Any] = {}
    for kind, names in kinds.items():
        own = [name for name in names if name in values]
        if len(own) == len(names) and all(values[name] == values[own[0]] for name in own):
            found[kind] = values[own[0]]
        else:
            found |= {_module(name): values[name] for name in own}
    return found


def _pattern(values: Mapping[str, float], default: float, layers: Mapping[str, Any]) -> dict[str, float]:
    """What differs from the default, by regular expressions."""
    return {re.escape(name): value for name, value in _by_kind(values, layers).items() if value != default}


def trained_names(
    config: TransformerConfig,
    train: TrainConfig,
    vocabulary: Vocabulary,
    known: int,
    networks: Networks = Networks(),  # noqa: B008 - frozen
) -> list[str]:
    """Names of what a run with adapters trains; `known` is the number of ids that its stage started with."""
    with torch.device("meta"):
        transformer = Transformer(config, vocabulary.rows, networks)
        adapt(transformer, train, vocabulary, known)
    return [name for name, _ in transformer.named_parameters() if name not in transformer.frozen]


def adapter_file(folder: Path) -> SavedWeights | None:
    """The adapters of an export; None if it has none. Raises `UserError` if a file is missing or damaged."""
    if not (folder / ADAPTER).is_dir():
        return None
    read_json(folder / ADAPTER / CONFIG, AGAIN)
    return SavedWeights(folder / ADAPTER / TENSORS)


def restore_adapter(file: SavedWeights, names: Sequence[str], path: Path, more: Mapping[str, Tensor] = {}) -> int:
    """Writes the adapters of an export as the weights of a run that trains parameters of these `names`, some of which
    are those of plugins' networks, `more`.

    Returns the number of parameters. Raises `UserError` if one is missing or holds NaN or infinities.
    """
    stored = file.infos()
    whole = {name: more[name] for name in names if name in more}
    theirs = {name: peft_name(name) for name in names if name not in whole}
    if missing := [name for name in theirs.values() if name not in stored]:
        raise UserError(f"{file.path}: lacks the tensor `{missing[0]}`; {AGAIN}")
    planned = in_file_order(
        [Planned(name, stored[other].dtype, stored[other].shape) for name, other in theirs.items()]
        + [Planned(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in whole.items()]
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, dtype, _ in planned:
            if name in whole:
                yield name, whole[name]
                continue
            tensor = file.read(theirs[name])
            check_finite(tensor, dtype, theirs[name], file.path)
            yield name, tensor

    write_file(path, planned, tensors())
    return sum(math.prod(tensor.shape) for tensor in planned)
