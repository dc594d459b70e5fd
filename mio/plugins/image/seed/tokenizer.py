"""SEED as mio calls it: images -> codes `[1, 32]`, codes -> images of 768 x 768 pixels."""

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

from mio import UserError, networks
from mio.plugins.image.files import checked_codes, picture, write_png
from mio.plugins.image.seed.model import QUERIES, SIDE, Dimensions, SeedDecoder, SeedEncoder
from mio.plugins.image.seed.options import SeedOptions
from mio.plugins.image.seed.weights import SeedWeights

Pixels = npt.NDArray[np.uint8]


class SeedTokenizer:
    """Tokenizer (`Tokenizer`): uint8 images -> codes int64 `[1, 32]`.

    The files are opened and checked at once, which also gives the fingerprint: weights (see `SeedWeights.fingerprint`),
    dtype, and how pixels are prepared. The network is loaded at the first `encode`.
    """

    def __init__(self, options: SeedOptions, dimensions: Dimensions = Dimensions()) -> None:  # noqa: B008  frozen
        self.options, self.dimensions = options, dimensions
        self.device = networks.device(options.device, "plugins.image")
        settings = json.dumps([options.dtype, options.resize, options.mean, options.std])
        weights = SeedWeights.open(options, dimensions).fingerprint()
        self.fingerprint = f"seed-{hashlib.sha256(f'{weights} {settings}'.encode()).hexdigest()[:16]}"

    @cached_property
    def encoder(self) -> SeedEncoder:
        """The network, loaded once."""
        weights = SeedWeights.open(self.options, self.dimensions)
        return weights.load(SeedEncoder, self.dimensions, self.device, networks.dtype(self.options.dtype))

    def encode(self, media: Sequence[Pixels]) -> list[npt.NDArray[np.int64]]:
        """Raises `DataError` for an array that is not an image."""
        size, dtype, codes = self.options.batch_size, networks.dtype(self.options.dtype), []
        for start in range(0, len(media), size):
            images = media[start : start + size]
            # a kernel for another number of images may round differently, and a code change with it
            batch = torch.zeros(size, 3, SIDE, SIDE)
            for index, image in enumerate(images):
                batch[index] = prepared(image, self.options)
            encoder = self.encoder
            with networks.exact(self.device):
                batch_codes = encoder(batch.to(self.device, dtype)).cpu().numpy()
            codes += [row[None] for row in batch_codes[: len(images)]]
        return codes

    def frames(self, media: Any) -> int:  # noqa: ARG002  every image has as many
        return QUERIES


class SeedDetokenizer:
    """Detokenizer: codes `[1, 32]` -> uint8 `[768, 768, 3]`, drawn by Stable Diffusion 2.1 unCLIP, and PNG files.

    Needs the extra `mio[seed]`. The networks are loaded at the first `decode`.
    """

    def __init__(self, options: SeedOptions, dimensions: Dimensions = Dimensions()) -> None:  # noqa: B008  frozen
        self.options, self.dimensions = options, dimensions
        self.device = networks.device(options.device, "plugins.image")
        options.quantizer_file()
        self.folder = options.unclip_folder()
        if importlib.util.find_spec("diffusers") is None:
            raise UserError('plugins.image: drawing images of `seed` needs diffusers: pip install "mio[seed]"')

    @cached_property
    def decoder(self) -> SeedDecoder:
        """The network from codes to embeddings, in float32."""
        weights = SeedWeights.open(self.options, self.dimensions, vision=False)
        return weights.load(SeedDecoder, self.dimensions, self.device, torch.float32)

    @cached_property
    def pipeline(self) -> Any:
        """The unCLIP pipeline, from the folder alone. Raises `UserError` for any other, or one that brings code."""
        from diffusers import StableUnCLIPImg2ImgPipeline

        load: Any = StableUnCLIPImg2ImgPipeline.from_pretrained
        try:
            pipeline = load(
                self.folder,
                torch_dtype=networks.dtype(self.options.dtype),
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, TypeError) as error:
            reason = networks.one_line(error)
            raise UserError(f"{self.folder}: not an unCLIP pipeline that can be loaded: {reason}") from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def decode(self, codes: npt.NDArray[np.int64]) -> Pixels:
        """The same image for the same codes. Raises `DataError` unless there are 32 codes, each in the codebook."""
        options, decoder, pipeline = self.options, self.decoder, self.pipeline
        with networks.exact(self.device):
            image = pipeline(
                image_embeds=embedding(decoder, codes).to(networks.dtype(options.dtype)),
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                noise_level=options.noise_level,
                # on the CPU, so that every device starts from the same noise
                generator=torch.Generator("cpu").manual_seed(options.seed),
                output_type="np",
            ).images[0]
        return np.asarray(np.rint(image * 255), np.uint8)

    def save(self, media: Pixels, stem: Path) -> Path:
        from PIL import Image

        return write_png(Image.fromarray(media), stem)


def prepared(image: Pixels, options: SeedOptions) -> Tensor:
    """uint8 `[H, W]` or `[H, W, 3]` -> float32 `[3, 224, 224]`, normalised. Raises `DataError` for anything else."""
    from PIL import Image

    resized = picture(image).resize((SIDE, SIDE), Image.Resampling[options.resize.upper()])
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([options.mean, options.std])[..., None, None]
    normalised: Tensor = (pixels - mean) / std
    return normalised


def embedding(decoder: SeedDecoder, codes: npt.NDArray[np.int64]) -> Tensor:
    """Codes `[1, 32]` -> unCLIP's image embedding float32 `[1, 1024]`. Raises `DataError` for other codes."""
    codes = checked_codes(codes, QUERIES, decoder.quantize.num_embeddings)
    embeddings: Tensor = decoder(torch.from_numpy(codes).to(decoder.quantize.weight.device))
    return embeddings
