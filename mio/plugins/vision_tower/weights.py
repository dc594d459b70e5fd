"""Published weights of the vision tower by our names: OpenGVLab's InternViT, Google's SigLIP, timm's, and those inside
of a whole VITA and a whole Janus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio import UserError, networks
from mio.plugins.vision_tower.options import SiglipOptions, VisionTowerOptions
from mio.plugins.vision_tower.tower import VisionTower

PROJECTOR = "projector."
TOWER = "tower."

NAMES = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding(\.weight)?$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.(ls[12])$", r".\1.gamma"),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.(out_proj|projection_layer)\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^post_layernorm\.", "norm."),
)
"""Names of InternViT and SigLIP to those of timm, applied in order; other names are the same."""

THIRDS = tuple(f".{letter}_proj." for letter in "qkv")
"""Matrices of SigLIP that are one in timm, `.qkv.`, in this order."""


CONFIG = "config.json"
EPSILON = 1e-6
"""Of the norms of the tower: timm's."""

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "janus": {"num_attention_heads": 16, "layer_norm_eps": 1e-6, "hidden_act": "gelu", "use_qk_norm": False},
    "siglip": {"num_attention_heads": 12, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
}
"""What `vision_config` says of a tower beyond shapes, by `model_type`, with the defaults of transformers, which it may
leave out."""


@dataclass(frozen=True)
class Layout:
    """Where a tower and its projector are in published checkpoints."""

    prefixes: Sequence[str]
    """What stands before the tower's names, of whole models first."""
    first: Sequence[str]
    """A name that the tower has, published or timm's."""
    pooling: str
    """Names of the tower that are not read match this: a head that pools, which gives no positions."""
    projector_prefixes: Sequence[str]
    projector_first: Sequence[str]
    """A name that the projector has."""
    source: str
    """What to take."""


INTERNVIT = Layout(
    prefixes=("model.vision_tower.vision_tower.", "vision_tower.vision_tower.", "vision_model.", ""),
    first=("embeddings.class_embedding", "cls_token"),
    pooling=r"(?!)",
    projector_prefixes=("model.mm_projector.", "mm_projector.", "projector."),
    projector_first=("0.weight",),
    source="OpenGVLab/InternViT-300M-448px or a whole VITA",
)
SIGLIP = Layout(
    prefixes=("model.vision_model.", "vision_model.vision_tower.", "vision_model.", ""),
    first=("embeddings.position_embedding.weight", "pos_embed"),
    pooling=r"head\.|attn_pool\.|embeddings\.position_ids$",
    projector_prefixes=("model.aligner.", "aligner.", "projector."),
    projector_first=("fc1.weight", "layers.0.weight", "0.weight"),
    source="google/siglip-large-patch16-384 or a whole Janus, deepseek-community/Janus-Pro-1B",
)


def pretrained(options: VisionTowerOptions) -> dict[str, Tensor]:
    """Weights by the names of `VisionTower`'s parameters: the tower's, and the projector's where a checkpoint has it.

    A projector's last layers have the width of the transformer it was trained for: the caller compares shapes. Raises
    `UserError`, one line per checkpoint, for weights that are missing, of another shape, surplus, or not there at all.
    """
    layout = SIGLIP if isinstance(options, SiglipOptions) else INTERNVIT
    weights: dict[str, Tensor] = {}
    if options.checkpoint:
        path = Path(options.checkpoint).expanduser()
        places = networks.tensor_places(path)
        if isinstance(options, SiglipOptions):
            _check_config(path, options)
        weights |= _tower(path, places, layout, options)
        has_projector = _prefix(places, layout.projector_prefixes, layout.projector_first) is not None
        if not options.projector_checkpoint and has_projector:
            weights |= _projector(path, places, layout, options)
    if options.projector_checkpoint:
        path = Path(options.projector_checkpoint).expanduser()
        weights |= _projector(path, networks.tensor_places(path), layout, options)
    return weights


def _check_config(path: Path, options: SiglipOptions) -> None:
    """Compares what shapes do not show with the `config.json` beside the weights, where there is one of transformers.
    Raises `UserError` that names every difference."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        vision = config["vision_config"]
        defaults = PUBLISHED[config["model_type"]]
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another kind
        return
    read = {**defaults, **{name: vision[name] for name in defaults if name in vision}}
    ours = {
        "num_attention_heads": options.heads,
        "layer_norm_eps": EPSILON,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[options.activation],
        "use_qk_norm": False,
    }
    wrong = [f"`{name}` is {read[name]!r:.40} there, {ours[name]!r} here" for name in read if read[name] != ours[name]]
    if wrong:
        raise UserError(
            f"plugins.vision_tower: {path / CONFIG} does not fit the options `heads` and `activation`: "
            f"{', '.join(wrong)}"
        )


def timm_name(name: str) -> str:
    """Name of a parameter in timm by its name in InternViT or SigLIP."""
    return networks.renamed(name, NAMES)


def projector_name(name: str) -> str:
    """Number of a layer of the projector, activations counted, by its name in VITA or Janus."""
    name = re.sub(r"^layers\.", "", re.sub(r"^fc1\.", "0.", name))
    return re.sub(r"^hidden_layers\.(\d+)\.", lambda found: f"{2 * int(found[1]) + 2}.", name)


def _tower(path: Path, places: Mapping[str, Path], layout: Layout, options: VisionTowerOptions) -> dict[str, Tensor]:
    prefix = _prefix(places, layout.prefixes, layout.first)
    if prefix is None:
        raise UserError(
            f"plugins.vision_tower: `checkpoint`: {path} holds no vision tower (no tensor "
            f"{layout.prefixes[0]}{layout.first[0]} or {layout.first[0]}); take {layout.source}"
        )
    # a tower alone has no prefix; of a whole model only what has one is the tower's
    pooling = re.compile(re.escape(prefix) + f"(?:{layout.pooling})")
    named = [name for name in places if name.startswith(prefix) and not pooling.match(name)]
    return _read(path, places, named, prefix, TOWER, timm_name, options)


def _projector(
    path: Path, places: Mapping[str, Path], layout: Layout, options: VisionTowerOptions
) -> dict[str, Tensor]:
    prefix = _prefix(places, layout.projector_prefixes, layout.projector_first)
    if prefix is None:
        raise UserError(
            f"plugins.vision_tower: `projector_checkpoint`: {path} holds no projector (no tensor "
            f"{layout.projector_prefixes[0]}{layout.projector_first[0]})"
        )
    named = [name for name in places if name.startswith(prefix)]
    return _read(path, places, named, prefix, PROJECTOR, projector_name, options)


def _prefix(places: Mapping[str, Path], prefixes: Sequence[str], first: Sequence[str]) -> str | None:
    return next((prefix for prefix in prefixes if any(prefix + name in places for name in first)), None)


def _read(
    path: Path,
    places: Mapping[str, Path],
    named: Sequence[str],
    prefix: str,
    part: str,
    rename: Callable[[str], str],
    options: VisionTowerOptions,
) -> dict[str, Tensor]:
    """Tensors of one part, `tower.` or `projector.`, checked against the network that the options describe."""
    stored = networks.read_tensors(places, named)
    tensors = {part + rename(name.removeprefix(prefix)): value.float() for name, value in stored.items()}
    if isinstance(options, SiglipOptions):
        tensors = _joined(tensors)
    width = next((value.shape[0] for name, value in tensors.items() if name == f"{PROJECTOR}0.weight"), 1)
    with torch.device("meta"):
        state = VisionTower(options, width).state_dict()
    needed = {name: value.shape for name, value in state.items() if name.startswith(part)}
    if problems := networks.described(networks.misfits(needed, tensors)):
        raise UserError(
            f"plugins.vision_tower: {path} does not fit the options, {part.rstrip('.')}: {problems}; `width`, "
            "`layers`, `ffn_width`, `patch`, `image_size`, `shuffle` and `projector_layers` must be the checkpoint's"
        )
    return tensors


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of SigLIP as one matrix, and its table of positions `[G * G, V]` as `[1, G * G, V]`."""
    joined = dict(tensors)
    for name in [name for name in tensors if THIRDS[0] in name]:
        parts = [name.replace(THIRDS[0], third) for third in THIRDS]
        if all(part in tensors for part in parts):
            joined[name.replace(THIRDS[0], ".qkv.")] = torch.cat([joined.pop(part) for part in parts])
    places = f"{TOWER}pos_embed"
    if places in joined and joined[places].dim() == 2:
        joined[places] = joined[places][None]
    return joined
