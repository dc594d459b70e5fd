"""Published weights of the vision tower: OpenGVLab's InternViT, timm's, and a whole VITA, by our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mio import UserError, networks
from mio.plugins.vision_tower.options import VisionTowerOptions
from mio.plugins.vision_tower.tower import VisionTower

NAMES = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.(ls[12])$", r".\1.gamma"),
)
"""Names of InternViT to those of timm, applied in order; other names are the same."""

TOWER_PREFIXES = ("model.vision_tower.vision_tower.", "vision_tower.vision_tower.", "vision_model.", "")
"""What stands before the tower's names: in a whole VITA, in an InternVL, and alone."""
PROJECTOR_PREFIXES = ("model.mm_projector.", "mm_projector.", "projector.")
PROJECTOR = "projector."
TOWER = "tower."


def pretrained(options: VisionTowerOptions) -> dict[str, Tensor]:
    """Weights by the names of `VisionTower`'s parameters: the tower's, and the projector's where a checkpoint has it.

    A projector's last layers have the width of the transformer it was trained for: the caller compares shapes. Raises
    `UserError`, one line per checkpoint, for weights that are missing, of another shape, surplus, or not there at all.
    """
    weights: dict[str, Tensor] = {}
    if options.checkpoint:
        path = Path(options.checkpoint).expanduser()
        places = networks.tensor_places(path)
        weights |= _tower(path, places, options)
        if not options.projector_checkpoint and _prefix(places, PROJECTOR_PREFIXES, "0.weight") is not None:
            weights |= _projector(path, places, options)
    if options.projector_checkpoint:
        path = Path(options.projector_checkpoint).expanduser()
        weights |= _projector(path, networks.tensor_places(path), options)
    return weights


def timm_name(name: str) -> str:
    """Name of a parameter in timm by its name in InternViT."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _tower(path: Path, places: Mapping[str, Path], options: VisionTowerOptions) -> dict[str, Tensor]:
    first = ("embeddings.class_embedding", "cls_token")
    prefix = next((p for p in TOWER_PREFIXES if any(p + name in places for name in first)), None)
    if prefix is None:
        raise UserError(
            f"plugins.vision_tower: `checkpoint`: {path} holds no vision tower (no tensor "
            f"{TOWER_PREFIXES[0]}{first[0]} or {first[0]}); take OpenGVLab/InternViT-300M-448px or a whole VITA"
        )
    # a tower alone has no prefix; of a whole model only what has one is the tower's
    return _read(path, places, prefix, TOWER, timm_name, options)


def _projector(path: Path, places: Mapping[str, Path], options: VisionTowerOptions) -> dict[str, Tensor]:
    prefix = _prefix(places, PROJECTOR_PREFIXES, "0.weight")
    if prefix is None:
        raise UserError(
            f"plugins.vision_tower: `projector_checkpoint`: {path} holds no projector (no tensor "
            f"{PROJECTOR_PREFIXES[0]}0.weight)"
        )
    return _read(path, places, prefix, PROJECTOR, str, options)


def _prefix(places: Mapping[str, Path], prefixes: tuple[str, ...], first: str) -> str | None:
    return next((prefix for prefix in prefixes if prefix + first in places), None)


def _read(
    path: Path,
    places: Mapping[str, Path],
    prefix: str,
    part: str,
    rename: Callable[[str], str],
    options: VisionTowerOptions,
) -> dict[str, Tensor]:
    """Tensors of one part, `tower.` or `projector.`, checked against the network that the options describe."""
    named = [name for name in places if name.startswith(prefix)]
    stored = networks.read_tensors(places, named)
    tensors = {part + rename(name.removeprefix(prefix)): value.float() for name, value in stored.items()}
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
