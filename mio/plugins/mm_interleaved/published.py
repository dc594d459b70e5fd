"""Names of the published MM-Interleaved (the state dict of `mm_interleaved/models/mm_interleaved.py: MMInterleaved` in
github.com/OpenGVLab/MM-Interleaved), and where each of its tensors is here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mio import networks

Rules = tuple[tuple[str, str], ...]

QFORMER: Rules = (
    (r"blip2qformer\.layernorm\.", "norm."),
    (r"blip2qformer\.encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.", ".self_attention."),
    (r"\.attention\.output\.dense\.", ".self_attention.out."),
    (r"\.attention\.output\.LayerNorm\.", ".self_attention.norm."),
    (r"\.crossattention\.attention\.", ".cross_attention."),
    (r"\.crossattention\.output\.dense\.", ".cross_attention.out."),
    (r"\.crossattention\.output\.LayerNorm\.", ".cross_attention.norm."),
    (r"\.intermediate_query\.dense\.", ".expand."),
    (r"\.output_query\.dense\.", ".contract."),
    (r"\.output_query\.LayerNorm\.", ".norm."),
)
CLIP: Rules = (
    (r"^embeddings\.class_embedding$", "clip.cls_token"),
    (r"^embeddings\.patch_embedding\.", "clip.patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "clip.pos_embed"),
    (r"^pre_layrnorm\.", "clip.norm_pre."),
    (r"^encoder\.layers\.", "clip.blocks."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"^adapter_spm\.", "adapter.prior."),
    (r"^adapter_interactions\.(\d+)\.injector\.", r"adapter.injectors.\1."),
    (r"^adapter_interactions\.(\d+)\.extractor\.", r"adapter.extractors.\1."),
    (r"^adapter_(level_embed|up)", r"adapter.\1"),
    (r"\.dwconv\.dwconv\.", ".dwconv."),
)
"""Names of CLIP's vision transformer of transformers, with the adapter's, to ours; of q, k and v see `joined`."""

PARTS: tuple[tuple[str, str, str, Rules], ...] = (
    ("visual_tokenizer.encoder.vision_model.", "reader", "", CLIP),
    ("visual_tokenizer.perceiver_resampler.", "reader", "resampler.", QFORMER),
    ("visual_tokenizer.", "reader", "", ()),
    ("image_decoder.perceiver_resampler.", "painter", "perceiver.", QFORMER),
    ("image_decoder.decoder.unet.", "painter", "decoder.unet.", ()),
    ("image_decoder.decoder.vae.", "painter", "latents.vae.", ()),
    ("image_decoder.decoder.mmfs_module.mmfs_down_blocks.", "painter", "decoder.down.", ()),
    ("image_decoder.decoder.mmfs_module.mmfs_mid_block.", "painter", "decoder.mid.0.", ()),
    ("image_decoder.neg_prompt_embeds", "painter", "neg_prompt_embeds", ()),
    ("context_feat_proj.", "painter", "context_feat_proj.", ()),
)
"""Prefix there, network here, prefix here, and what else changes, in the order in which they are tried."""

DROPPED = (
    (r"\.position_ids$", "numbers of positions, 0 to 256"),
    (r"^visual_tokenizer\.clip_(mean|std)$", "what images are normalised by, an option here"),
    (r"(^visual_tokenizer|\.mmfs_(down_blocks\.\d+|mid_block))\.pos_embed$", "sines and cosines, which are computed"),
    (r"\.ignore_token$", "0 and never trained: it adds nothing"),
    (r"\.rotary_emb\.inv_freq$", "frequencies of rotary positions, which are computed"),
)
"""Names that have no place here, and why."""

LAYER = re.compile(r"^mm_decoder\.layers\.(\d+)\.llama_cross_attn\.(.+)$")
HEADS = (
    "text_decoder.head.weight",
    "text_decoder.head.bias",
    "text_decoder.head_new.weight",
    "text_decoder.head_new.bias",
)
BEGIN = "soi_token"
LANGUAGE = "mm_decoder."


class Place(NamedTuple):
    """Where a tensor of the published layout is here."""

    network: str
    """`reader`, `painter`, `layers`, `language`; `folded` into rows of the vocabulary; or `dropped`."""
    name: str
    """Of the parameter in the network, of `layers` with the layer's number first; or why it is dropped."""


def place(name: str, groups: int = 4) -> Place | None:
    """Of a published tensor; None for an unknown one. `groups` of CLIP's layers."""
    for pattern, why in DROPPED:
        if re.search(pattern, name):
            return Place("dropped", why)
    if found := LAYER.match(name):
        return Place("layers", f"{found[1]}.{found[2]}")
    if name in HEADS or name == BEGIN:
        return Place("folded", name)
    for prefix, network, ours, rules in PARTS:
        if name.startswith(prefix):
            own = name.removeprefix(prefix)
            # behind the extractor of the last group are two more
            own = re.sub(
                r"^adapter_interactions\.\d+\.extra_extractors\.(\d+)\.",
                lambda match: f"adapter.extractors.{groups + int(match[1])}.",
                own,
            )
            return Place(network, ours + networks.renamed(own, rules))
    return Place("language", name.removeprefix(LANGUAGE)) if name.startswith(LANGUAGE) else None


def joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the reader by our names, with q, k and v of CLIP's layers in one, and in the shapes of timm."""
    found = dict(tensors)
    for name in tensors:
        if match := re.match(r"^(clip\.blocks\.\d+\.attn\.)q_proj\.(\w+)$", name):
            parts = [f"{match[1]}{one}_proj.{match[2]}" for one in "qkv"]
            if all(part in found for part in parts):
                found[f"{match[1]}qkv.{match[2]}"] = torch.cat([found.pop(part) for part in parts])
    for name in ("clip.cls_token", "clip.pos_embed"):
        if name in found:
            found[name] = found[name].view((1,) * (3 - found[name].ndim) + found[name].shape)
    return found


def by_network(tensors: Iterable[str], groups: int = 4) -> dict[str, dict[str, str]]:
    """Published names by network and our name. Dropped ones stand under `dropped`, unknown ones under `unknown`, by
    their own name."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        where = place(name, groups)
        network, own = ("unknown", name) if where is None else where
        found.setdefault(network, {})[name if network == "dropped" else own] = own if network == "dropped" else name
    return found
