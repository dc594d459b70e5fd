"""The image tokenizer of Janus (arXiv 2410.13848): 16,384 codes, one for every 16 x 16 pixels, both ways.

The networks are `JanusVQVAE` of transformers; the model is the VQGAN of LlamaGen (arXiv 2406.06525, section 2.1).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mio import UserError, networks
from mio.plugins.image.files import checked_codes, picture, write_png
from mio.plugins.image.options import (
    JANUS_CONFIG,
    JANUS_PATCH,
    JanusOptions,
)

Pixels = npt.NDArray[np.uint8]

VERSION = 1
"""Version of the preprocessing; part of the fingerprint."""

PREFIXES = ("model.vqmodel.", "vqmodel.", "")
"""Prefixes of the weights' names: in a whole Janus, saved by newer and older versions, and alone."""
CODEBOOK = "quantize.embedding.weight"

EXPECTED = {"num_embeddings": 16_384, "in_channels": 3, "out_channels": 3, "double_latent": False}
"""Properties of the published configuration that codes depend on. Widths and depths may differ."""


class JanusTokenizer:
    """Tokenizer (`Tokenizer`): uint8 images -> codes int64 `[1, (size / 16)^2]` in reading order.

    The weights are read at once, which gives the fingerprint: of weights, size and dtype.
    """

    def __init__(self, options: JanusOptions) -> None:
        self.options = options
        self.device = networks.device(options.device, "plugins.image")
        self._model = _loaded(options)
        # codes do not depend on the decoder
        del self._model.decoder, self._model.post_quant_conv
        digest = hashlib.sha256(json.dumps([VERSION, options.size, options.dtype]).encode())
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(f"\n{name} {list(value.shape)}\n".encode() + value.numpy().tobytes())
        self.fingerprint = f"janus-{digest.hexdigest()[:16]}"

    @cached_property
    def _network(self) -> Any:
        return _ready(self._model, self.device, self.options)

    def encode(self, media: Sequence[Pixels]) -> list[npt.NDArray[np.int64]]:
        """One image at a time: a kernel for several may round differently. Raises `DataError` for other media."""
        codes = []
        for image in media:
            pixels = prepared(image, self.options.size)
            network = self._network
            with networks.exact(self.device):
                batch = pixels[None].to(self.device, networks.dtype(self.options.dtype))
                features = network.quant_conv(network.encoder(batch))[0].flatten(1).T
                codes.append(nearest(features, network.quantize.embedding.weight)[None].cpu().numpy())
        return codes

    def frames(self, media: Any) -> int:  # noqa: ARG002  every image has as many
        return self.options.frames


class JanusDetokenizer:
    """Detokenizer: codes `[1, (size / 16)^2]` -> uint8 `[size, size, 3]`, and PNG files."""

    def __init__(self, options: JanusOptions) -> None:
        self.options = options
        self._device = networks.device(options.device, "plugins.image")
        self._model = _loaded(options)
        del self._model.encoder, self._model.quant_conv

    @cached_property
    def _network(self) -> Any:
        return _ready(self._model, self._device, self.options)

    def decode(self, codes: npt.NDArray[np.int64]) -> Pixels:
        """Raises `DataError` unless there are as many codes as an image has, each in the codebook."""
        codes = checked_codes(codes, self.options.frames, self.options.codebook_size)
        network = self._network
        with networks.exact(self._device):
            entries = network.quantize.get_codebook_entry(torch.from_numpy(codes).to(self._device))
            drawn = network.decoder(network.post_quant_conv(entries.to(networks.dtype(self.options.dtype))))
            values: Tensor = ((drawn[0].float() + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0)
        return np.asarray(values.cpu().numpy(), np.uint8)

    def save(self, media: Pixels, stem: Path) -> Path:
        from PIL import Image

        return write_png(Image.fromarray(media), stem)


def prepared(image: Pixels, size: int) -> Tensor:
    """uint8 `[H, W]` or `[H, W, 3]` -> float32 `[3, size, size]` in [-1, 1]: the largest square in the middle, bicubic.

    Raises `DataError` for anything else.
    """
    from PIL import Image, ImageOps

    square = ImageOps.fit(picture(image), (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Index of the entry `[K, D]` that has the smallest angle to each point `[F, D]`.

    Janus compares both at unit length (`codebook_l2_norm` of github.com/deepseek-ai/Janus, `janus/models/vq_model.py`).
    `JanusVQVAE.decode` of transformers 5 does so too, its `encode` does not: the codes are the same only for entries
    that are of one length.
    """
    return (normalize(points.float(), dim=-1) @ normalize(entries.float(), dim=-1).T).argmax(-1)


def _loaded(options: JanusOptions) -> Any:
    """The model on the CPU in float32, its weights read from the disk once and nothing initialised.

    Raises `UserError` without transformers, for files that are missing or damaged, for another configuration, and, by
    name, for weights that are missing, of another shape, or surplus.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError('plugins.image: the tokenizer `janus` needs transformers: pip install "mio[janus]"')
    from transformers import JanusVQVAE

    folder = options.folder()
    config = _config(folder / JANUS_CONFIG, options.size // JANUS_PATCH)
    tensors = _tensors(folder)
    with torch.device("meta"):
        model = JanusVQVAE(config)
    needed = {name: value.shape for name, value in model.state_dict().items()}
    if problems := networks.described(networks.misfits(needed, tensors)):
        raise UserError(f"{folder}: the image tokenizer does not fit {JANUS_CONFIG}: {problems}")
    model.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return model


def _config(path: Path, patches: int) -> Any:
    """The configuration of the tokenizer, that of a whole Janus included, for images of `patches` x `patches` codes."""
    from transformers import JanusVQVAEConfig

    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        kind = written.get("model_type")
        if kind == "janus":
            written = written["vq_config"]
        config = JanusVQVAEConfig(**{**written, "num_patches": patches})
        saved = {name: getattr(config, name) for name in EXPECTED} | {"halvings": len(config.channel_multiplier) - 1}
    # transformers raises errors of many kinds for wrong values
    except Exception as error:
        raise UserError(f"{path}: not a configuration of Janus: {networks.one_line(error)}") from error
    if kind not in ("janus", JanusVQVAEConfig.model_type):
        raise UserError(f"{path}: `model_type` is {kind!r}; the tokenizer `janus` reads `janus` and `janus_vqgan`")
    if 2 ** saved.pop("halvings") != JANUS_PATCH:
        raise UserError(f"{path}: `channel_multiplier` must have 5 items, so that a code is {JANUS_PATCH} pixels wide")
    wrong = [f"`{name}` is {saved[name]!r} instead of {due!r}" for name, due in EXPECTED.items() if saved[name] != due]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)}; the plugin's codes are those of the published Janus")
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The tokenizer's weights by their names in `JanusVQVAE`; nothing else of a whole Janus is read."""
    places = networks.tensor_places(folder)
    prefix = next((prefix for prefix in PREFIXES if prefix + CODEBOOK in places), None)
    if prefix is None:
        raise UserError(
            f"{folder}: holds no image tokenizer of Janus ({PREFIXES[0]}{CODEBOOK}); the layout must be that of "
            "transformers, as in deepseek-community/Janus-Pro-1B"
        )
    stored = networks.read_tensors(places, [name for name in places if name.startswith(prefix)])
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}


def _ready(model: Any, device: torch.device, options: JanusOptions) -> Any:
    """The model for inference, its codebook in float32."""
    networks.check_worker(device, "plugins.image")
    for name, part in model.named_children():
        part.to(device, torch.float32 if name == "quantize" else networks.dtype(options.dtype))
    return model.eval().requires_grad_(False)
