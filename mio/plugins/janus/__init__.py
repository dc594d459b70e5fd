"""Janus and Janus-Pro (arXiv 2410.13848, 2501.17811): images are read by an encoder and written by codes.

What does so are other plugins, which an ordinary recipe combines:

    image: {tokenizer: janus, tokens: janus, checkpoint: DIR}   # writes: 576 codes of 16,384
    vision_tower: {tower: siglip, checkpoint: DIR}              # reads: SigLIP and aligner, 576 positions

This one knows the published layout, so that `mio import DIR` reads a whole Janus, and brings the shapes of its language
models, `model: {preset: janus-pro-1b}` and `janus-pro-7b`. It has no options, and works whether a recipe lists it or
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mio import ModelLayout, hookimpl

_DEEPSEEK: Mapping[str, Any] = {"norm_eps": 1e-6, "rope_theta": 10_000.0, "tied_embeddings": False}
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "janus-pro-1b": {"width": 2048, "layers": 24, "heads": 16, "kv_heads": 16, "ffn_width": 5632, **_DEEPSEEK},
    "janus-pro-7b": {"width": 4096, "layers": 30, "heads": 32, "kv_heads": 32, "ffn_width": 11_008, **_DEEPSEEK},
}
"""Shapes of DeepSeek-LLM's 1.5 B and 7 B (arXiv 2401.02954, table 2; `language_config` of the published models)."""


@hookimpl
def mio_backbones() -> Mapping[str, Mapping[str, Any]]:
    return BACKBONES


@hookimpl
def mio_layouts() -> Mapping[str, ModelLayout]:
    from mio.plugins.janus.layout import BESIDE, NAMES, code_rows, language_config

    return {"janus": ModelLayout(config=language_config, names=NAMES, beside=BESIDE, code_rows=code_rows)}
