"""Pretrained weights by our names: of a trained MM-Interleaved, or of CLIP and Stable Diffusion."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mio import UserError, networks
from mio.plugins.mm_interleaved.options import MMInterleavedOptions
from mio.plugins.mm_interleaved.published import CLIP, Rules, by_network, joined

CLIP_PREFIXES = ("vision_model.", "")
"""What stands before the vision transformer's names: in a whole CLIP, and alone."""
CLIP_NAMES = re.compile(r"(embeddings\.(?!position_ids)|pre_layrnorm\.|encoder\.)")
"""How names begin of what embeddings and maps depend on."""
AUTOENCODER: Rules = (
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)
"""Names of attention in older files of diffusers, to today's."""


def of_reader(options: MMInterleavedOptions) -> dict[str, Tensor]:
    """Of `ImageReader`: all, or CLIP's alone. Raises `UserError`, one line per checkpoint, for weights that are
    missing, of another shape, or surplus."""
    from mio.plugins.mm_interleaved.reader import ImageReader

    if options.checkpoint:
        path, tensors = _published(options, "reader")
        tensors = joined(tensors)
        needed = _parameters(lambda: ImageReader(options, len(tensors["proj.bias"])))
        return _fitting(path, "checkpoint", needed, tensors)
    if not options.clip:
        return {}
    path = Path(options.clip).expanduser()
    places = networks.tensor_places(path)
    prefix = next((one for one in CLIP_PREFIXES if f"{one}embeddings.class_embedding" in places), None)
    if prefix is None:
        raise UserError(
            f"plugins.mm_interleaved: `clip`: {path} holds no vision transformer of CLIP (no tensor "
            "vision_model.embeddings.class_embedding); take openai/clip-vit-large-patch14"
        )
    own = {name.removeprefix(prefix): name for name in places if name.startswith(prefix)}
    stored = networks.read_tensors(places, [name for one, name in own.items() if CLIP_NAMES.match(one)])
    tensors = joined({networks.renamed(name.removeprefix(prefix), CLIP): value for name, value in stored.items()})
    return _fitting(path, "clip", _parameters(lambda: ImageReader(options, 1), "clip."), tensors)


def of_painter(options: MMInterleavedOptions) -> dict[str, Tensor]:
    """Of `ImagePainter`: all, or the U-Net's and the autoencoder's, and the condition of an empty text. Raises
    `UserError` as `of_reader`."""
    from mio.plugins.mm_interleaved.painter import ImagePainter

    if options.checkpoint:
        path, tensors = _published(options, "painter")
        width = len(tensors["context_feat_proj.bias"]) if tensors else 1
        return _fitting(path, "checkpoint", _parameters(lambda: ImagePainter(options, width)), tensors)
    if not options.diffusion_checkpoint:
        return {}
    folder = Path(options.diffusion_checkpoint).expanduser()
    found: dict[str, Tensor] = {}
    parts: dict[str, tuple[str, Rules]] = {"unet": ("decoder.unet.", ())}
    if options.diffusion.latents == "vae":
        parts["vae"] = ("latents.vae.", AUTOENCODER)
    for part, (ours, rules) in parts.items():
        places = networks.tensor_places(folder / part)
        stored = networks.read_tensors(places, places)
        tensors = {ours + networks.renamed(name, rules): value for name, value in stored.items()}
        needed = _parameters(lambda: ImagePainter(options, 1), ours)
        found |= _fitting(folder / part, "diffusion_checkpoint", needed, tensors)
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        found["neg_prompt_embeds"] = _empty_text(folder, (options.perceiver.queries, options.perceiver.width))
    return found


def of_layers(options: MMInterleavedOptions) -> dict[str, Tensor]:
    """Of `LayerSynchroniser`, by layer and name. Raises `UserError` as `of_reader`."""
    from mio.plugins.mm_interleaved.layers import LayerSynchroniser

    if not options.checkpoint:
        return {}
    path, tensors = _published(options, "layers")
    numbers = sorted({int(name.partition(".")[0]) for name in tensors})
    if numbers != list(range(0, numbers[-1] + 1 if numbers else 1, options.layers.every)):
        raise UserError(
            f"plugins.mm_interleaved: `checkpoint`: {path} has synchronisers in the layers {numbers}, and not in every "
            f"{options.layers.every}th; `layers.every` must be the checkpoint's"
        )
    own = _parameters(lambda: LayerSynchroniser(options, len(tensors["0.norm1.weight"])))
    needed = {f"{number}.{name}": shape for number in numbers for name, shape in own.items()}
    return _fitting(path, "checkpoint", needed, tensors)


def _published(options: MMInterleavedOptions, network: str) -> tuple[Path, dict[str, Tensor]]:
    """Tensors of a network by our names, of a whole MM-Interleaved."""
    path = Path(options.checkpoint).expanduser()
    places = networks.tensor_places(path)
    named = by_network(places, options.vision.groups)
    if unknown := sorted(named.get("unknown", ())):
        raise UserError(
            f"plugins.mm_interleaved: `checkpoint`: {path} holds what MM-Interleaved does not: {', '.join(unknown[:5])}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}"
        )
    wanted = named.get(network, {})
    stored = networks.read_tensors(places, wanted.values())
    return path, {ours: stored[theirs] for ours, theirs in wanted.items()}


def _parameters(make: Callable[[], nn.Module], prefix: str = "") -> dict[str, torch.Size]:
    """Shapes of a network's parameters whose names begin so."""
    with torch.device("meta"):
        network = make()
    return {name: value.shape for name, value in network.named_parameters() if name.startswith(prefix)}


def _fitting(
    path: Path, option: str, needed: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors in float32. Raises `UserError` where they are not what is needed."""
    if problems := networks.described(networks.misfits(needed, tensors)):
        raise UserError(
            f"plugins.mm_interleaved: `{option}`: {path} does not fit the options: {problems}; sizes must be the "
            "checkpoint's"
        )
    return {name: value.float() for name, value in tensors.items()}


def _empty_text(folder: Path, shape: tuple[int, int]) -> Tensor:
    """What Stable Diffusion's text encoder makes of an empty text, `[1, 77, width]`."""
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except Exception as error:  # transformers has many of its own
        raise UserError(
            f"plugins.mm_interleaved: `diffusion_checkpoint`: {folder}: text encoder and tokenizer cannot be read: "
            f"{networks.one_line(error)}"
        ) from error
    ids = tokenizer([""], padding="max_length", max_length=shape[0], return_tensors="pt").input_ids
    with torch.no_grad():
        found: Tensor = encoder.eval()(ids).last_hidden_state
    if found.shape != (1, *shape):
        raise UserError(
            f"plugins.mm_interleaved: `diffusion_checkpoint`: {folder}: an empty text becomes {list(found.shape)}, and "
            f"what `perceiver` makes is {[1, *shape]}"
        )
    return found.float()
