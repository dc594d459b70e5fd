"""Reads SEED's checkpoints: the keys they must have, the keys they may have, and their fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mio import UserError, networks
from mio.plugins.image.seed.model import SIDE, Dimensions, SeedDecoder, SeedEncoder
from mio.plugins.image.seed.options import QUANTIZER, VISION, SeedOptions

VISION_PREFIX = "visual_encoder."

NAMES = (
    (r"^quantize\.", "quantize.embedding."),
    (r"^qformer\.norm\.", "Qformer.bert.embeddings.LayerNorm."),
    (r"^qformer\.layers\.(\d+)\.", r"Qformer.bert.encoder.layer.\1."),
    (r"\.self_attention\.", ".attention."),
    (r"\.cross_attention\.", ".crossattention."),
    (r"attention\.(query|key|value)\.", r"attention.self.\1."),
    (r"attention\.out\.", "attention.output.dense."),
    (r"attention\.norm\.", "attention.output.LayerNorm."),
    (r"(layer\.\d+)\.expand\.", r"\1.intermediate_query.dense."),
    (r"(layer\.\d+)\.contract\.", r"\1.output_query.dense."),
    (r"(layer\.\d+)\.norm\.", r"\1.output_query.LayerNorm."),
)
"""Our parameter names to those of `seed_quantizer.pt`, applied in order; other names are the same."""

QUANTIZER_SURPLUS = (
    # queries are not looked up and have no positions
    r"Qformer\.bert\.embeddings\.(word_embeddings|position_embeddings|position_ids)\b",
    # feed-forward networks of text tokens, and BERT's head: BLIP-2's text side
    r"Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\.",
    r"Qformer\.cls\.",
    # BLIP-2's losses
    r"(vision_proj|text_proj|itm_head)\.|temp$",
    # the loss that reconstructs the Q-Former's output
    r"blocks\.\d+\.|pos_embed$",
    # distillation into text embeddings
    r"blocks_text\.|pos_embed_text$|text_down\.|distill_text_proj\.|Reverse_Qformer_text\.|reverse_tokens_text$",
)
"""Keys of `seed_quantizer.pt` that neither direction uses, as patterns of their beginnings. The published file has 146
surplus keys (github.com/OpenMOSS/AnyGPT, issue 14); the patterns come from the training code."""

VISION_SURPLUS = (r"(norm|fc_norm|head)\.", r"mask_token$")
"""Keys of `eva_vit_g.pth` that are not used: the layers behind the blocks, and masked pre-training. Nor is the block
that BLIP-2 leaves out."""

SAMPLED_ABOVE = 2**18
"""Tensors of more elements enter the fingerprint with `SAMPLES` of them, evenly spaced; smaller ones, the codebook of
8192 x 32 among them, in full."""
SAMPLES = 64

Network = TypeVar("Network", SeedEncoder, SeedDecoder)


def checkpoint_key(name: str) -> str:
    """Key in the checkpoint of a parameter of `SeedEncoder` or `SeedDecoder`; `visual_encoder.` stands for the other
    file."""
    if name.startswith(VISION_PREFIX):
        return name
    return networks.renamed(name, NAMES)


@dataclass(frozen=True)
class SeedWeights:
    """The two files, checked. Tensors are read from the disk when they are used."""

    tensors: Mapping[str, Tensor]
    """The needed tensors by key; those of `eva_vit_g.pth` begin with `visual_encoder.`."""
    encoding: frozenset[str]
    """Keys that the codes depend on."""

    @classmethod
    def open(cls, options: SeedOptions, dimensions: Dimensions, vision: bool = True) -> SeedWeights:
        """Opens `seed_quantizer.pt` and, unless `vision` is false, `eva_vit_g.pth`.

        Raises `UserError` that names the keys if one is missing, has another shape, or is neither needed nor known.
        """
        encoding = _shapes(_blank(SeedEncoder, dimensions))
        needed = encoding | _shapes(_blank(SeedDecoder, dimensions))
        quantizer_file, vision_file = options.quantizer_file(), options.vision_file() if vision else None
        theirs = {key: shape for key, shape in needed.items() if not key.startswith(VISION_PREFIX)}
        stored = networks.load_tensors(quantizer_file)
        tensors = _checked(quantizer_file, stored, theirs, QUANTIZER_SURPLUS, options.ignore_keys)
        if vision_file is not None:
            theirs = {
                key.removeprefix(VISION_PREFIX): shape for key, shape in needed.items() if key.startswith(VISION_PREFIX)
            }
            stored = networks.load_tensors(vision_file)
            _check_image_size(vision_file, stored.get("pos_embed"), theirs["pos_embed"])
            surplus = (*VISION_SURPLUS, rf"blocks\.{dimensions.vision_depth}\.")
            checked = _checked(vision_file, stored, theirs, surplus, options.ignore_keys)
            tensors |= {VISION_PREFIX + key: value for key, value in checked.items()}
        return cls(tensors, frozenset(encoding))

    def fingerprint(self) -> str:
        """64 hexadecimal digits of SHA-256 over key, dtype, shape and content of what the codes depend on.

        Large tensors are sampled (`SAMPLED_ABOVE`), so that 2 GB need not be read to tell one checkpoint from another.
        """
        digest = hashlib.sha256()
        for key in sorted(self.encoding):
            value = self.tensors[key].detach()
            digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
            flat = value.flatten()
            if len(flat) > SAMPLED_ABOVE:
                flat = flat[torch.arange(SAMPLES) * (len(flat) - 1) // (SAMPLES - 1)]
            digest.update(flat.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def load(
        self, network: Callable[[Dimensions], Network], dimensions: Dimensions, device: torch.device, dtype: torch.dtype
    ) -> Network:
        """`network` for inference with the weights on `device` in `dtype`, its codebook in float32.

        Each tensor is copied once, from the mapped file to its place: nothing is initialised first.
        """
        loaded = _blank(network, dimensions)
        weights = {
            name: self.tensors[checkpoint_key(name)].to(
                device, torch.float32 if name.startswith("quantize.") else dtype, copy=True
            )
            for name in loaded.state_dict()
        }
        loaded.load_state_dict(weights, assign=True)
        for buffer in loaded.buffers():
            buffer.data = buffer.to(device, dtype)
        return loaded.eval().requires_grad_(False)


def _blank(network: Callable[[Dimensions], Network], dimensions: Dimensions) -> Network:
    """The network without memory for its parameters."""
    with torch.device("meta"):
        return network(dimensions)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {checkpoint_key(name): value.shape for name, value in network.state_dict().items()}


def _check_image_size(path: Path, positions: Tensor | None, shape: torch.Size) -> None:
    if positions is not None and positions.ndim == 3 and positions.shape[1] != shape[1]:
        raise UserError(
            f"{path}: `pos_embed` has {positions.shape[1]} positions, images of {SIDE} x {SIDE} pixels have "
            f"{shape[1]}; the tokenizer `seed` works at {SIDE} only"
        )


def _checked(
    path: Path,
    stored: Mapping[str, Tensor],
    needed: Mapping[str, torch.Size],
    surplus: Sequence[str],
    ignored: Sequence[str],
) -> dict[str, Tensor]:
    """The needed tensors. Raises `UserError` that names what is missing, of another shape, or unknown."""
    problems = networks.misfits(needed, stored)
    problems["unknown"] = unknown = [
        key
        for key in problems.pop("surplus")
        if not any(re.match(pattern, key) for pattern in surplus) and not key.startswith(tuple(ignored))
    ]
    if listed := networks.described(problems):
        advice = f"is it the {VISION if 'patch_embed.proj.weight' in needed else QUANTIZER} of SEED version 2?"
        if unknown and not problems["missing"] and not problems["of another shape"]:
            advice += " If these are not needed, list how they begin in `ignore_keys`"
        raise UserError(f"{path}: {listed}; {advice}")
    return {key: stored[key] for key in needed}
