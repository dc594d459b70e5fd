"""Pictures made by rectified flow in positions of the model itself: BAGEL's way (arXiv 2505.14683).

A picture that is made has positions of its own, one for each patch of its latents. They begin with the noisy patch, the
timestep and the place in the picture, go through every layer of the transformer, where they see what stands before them
and each other, and come out as the velocity from the picture to noise (arXiv 2209.03003). What follows reads the
picture by the encoder of its modality, if there is one.

    image: {tokenizer: none, tokens: mio}
    vision_tower: {tower: siglip, attention: full}  # reads them
    flow_head: {image_size: 512, vae: {checkpoint: FLUX.1-schnell/vae}}

Options are the fields of `FlowOptions`; the defaults are BAGEL's. Parameters are called `heads.image.*` in rules; the
autoencoder is `heads.image.autoencoder.*`, and is never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import hookimpl, read_options
from mio.plugins.flow_head.options import FlowOptions

if TYPE_CHECKING:
    from mio import Head


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["vae.checkpoint"]


@hookimpl
def mio_requires(options: Mapping[str, Any]) -> Sequence[str]:
    return [read_options(FlowOptions, options, "plugins.flow_head").modality]


@hookimpl
def mio_head(modality: str, options: Mapping[str, Any]) -> Head | None:
    chosen = read_options(FlowOptions, options, "plugins.flow_head")
    if modality != chosen.modality:
        return None
    from mio.plugins.flow_head.head import FlowHead

    return FlowHead(chosen)
