"""MM-Interleaved (arXiv 2401.10208): images and text in any order, read and written.

    image: {tokenizer: none, tokens: mm_interleaved}
    mm_interleaved: {clip: openai/clip-vit-large-patch14, diffusion_checkpoint: stabilityai/stable-diffusion-2-1-base}

An image is read as 64 positions: CLIP with ViT-Adapter (`reader.py`), and a Q-Former. It also gives maps of four sizes.
In every fourth layer of the language model a synchroniser (`synchroniser.py`, `layers.py`) reads them at places that a
position chooses. An image is written by Stable Diffusion's U-Net (`painter.py`, `unet.py`) under a condition made of
the hidden states before it, and synchronisers of its own read the maps of the image before.

Options are the fields of `MMInterleavedOptions` (`options.py`); the defaults are those of the published 13B model.
Parameters are called `encoders.image.*`, `layers.N.adapters.mm_interleaved.*` and `heads.image.*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import hookimpl, read_options
from mio.plugins.mm_interleaved.options import MMInterleavedOptions

if TYPE_CHECKING:
    from mio import Adapter, Encoder, Head, ModelLayout

VICUNA: Mapping[str, Any] = {
    **{"width": 5120, "layers": 40, "heads": 40, "kv_heads": 40, "ffn_width": 13_824},
    **{"norm_eps": 1e-6, "rope_theta": 10_000.0, "tied_embeddings": False},
}
"""Shape of Vicuna 13B, which is LLaMA's (arXiv 2302.13971, table 2; `config.json` of lmsys/vicuna-13b-v1.3)."""


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint", "clip", "diffusion_checkpoint"]


@hookimpl
def mio_requires() -> Sequence[str]:
    return ["image"]


@hookimpl
def mio_encoder(modality: str, options: Mapping[str, Any]) -> Encoder | None:
    if modality != "image":
        return None
    from mio.plugins.mm_interleaved.parts import ImageEncoder

    return ImageEncoder(_options_of(options))


@hookimpl
def mio_adapters(options: Mapping[str, Any]) -> Adapter | None:
    chosen = _options_of(options)
    if not chosen.layers.every:
        return None
    from mio.plugins.mm_interleaved.parts import LayerAdapter

    return LayerAdapter(chosen)


@hookimpl
def mio_head(modality: str, options: Mapping[str, Any]) -> Head | None:
    chosen = _options_of(options)
    if modality != "image" or not chosen.write:
        return None
    from mio.plugins.mm_interleaved.parts import ImageHead

    return ImageHead(chosen)


@hookimpl
def mio_layouts() -> Mapping[str, ModelLayout]:
    from mio.plugins.mm_interleaved.layout import layout

    return {"mm_interleaved": layout()}


@hookimpl
def mio_backbones() -> Mapping[str, Mapping[str, Any]]:
    return {"vicuna-13b": VICUNA}


def _options_of(options: Mapping[str, Any]) -> MMInterleavedOptions:
    return read_options(MMInterleavedOptions, options, "plugins.mm_interleaved")
