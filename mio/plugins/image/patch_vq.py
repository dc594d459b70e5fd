"""Images as codes of their square patches: one k-means codebook, encoded in NumPy.

Vector quantisation with exponential moving averages as in VQ-VAE (arXiv 1711.00937, appendix A.1), on pixels instead of
features: there is no encoder to train, and a code is a small picture.

Shapes: H, W pixels; C channels; F codes of an image; D = patch * patch * C values of a patch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import Media, UserError
from mio.plugins.image.files import checked_codes, checked_pixels, write_png
from mio.plugins.image.options import PatchOptions

EPOCHS = 20
MAX_PATCHES = 65_536
"""Most patches of training data, drawn at random."""

Pixels = npt.NDArray[np.uint8]


def resized(image: Pixels, size: int, channels: int) -> Pixels:
    """`image` `[H, W]` or `[H, W, 3]` as `[size, size, channels]`: area average when it shrinks, bicubic when it grows.

    Raises `DataError` for an array of another shape or type.
    """
    image = checked_pixels(image)
    grey = image.ndim == 2
    if image.shape[:2] != (size, size) or grey != (channels == 1):
        from PIL import Image

        shrinks = min(image.shape[:2]) >= size
        resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        picture = Image.fromarray(image).convert("L" if channels == 1 else "RGB")
        image = np.asarray(picture.resize((size, size), resampling))
    return image.reshape(size, size, channels)


class Codebook:
    """Codebook `[codebook_size, D]` of patches, values in [0, 1], with its options; empty until trained or loaded."""

    FILE = "codebook.safetensors"
    CONFIG = "config.json"

    def __init__(self, options: PatchOptions) -> None:
        self.options = options
        self.entries = np.empty((0, options.patch**2 * options.channels), np.float32)
        self._half_norms = np.empty(0, np.float32)

    def _shape(self) -> dict[str, int]:
        """The options that codes depend on."""
        return {name: value for name, value in asdict(self.options).items() if name not in ("save_side", "tokens")}

    @property
    def fingerprint(self) -> str:
        """Options and entries as `patch_vq-` and 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self._shape(), sort_keys=True).encode())
        digest.update(self.entries.tobytes())
        return f"patch_vq-{digest.hexdigest()[:16]}"

    def use(self, entries: npt.NDArray[np.float32]) -> None:
        self.entries = np.ascontiguousarray(entries, dtype=np.float32)
        self._half_norms = 0.5 * (self.entries**2).sum(axis=1)

    def trained(self) -> npt.NDArray[np.float32]:
        """The entries. Raises `UserError` while there are none."""
        if not len(self.entries):
            raise UserError("the image tokenizer `patch_vq` has no codebook yet: train it, or load a run that did")
        return self.entries

    def nearest(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Index of the entry nearest (Euclid) to each patch `[N, D]`."""
        # |p - e|^2 = |p|^2 + 2 (|e|^2 / 2 - p.e), and |p|^2 is the same for all entries
        return np.asarray(np.argmin(self._half_norms - patches @ self.trained().T, axis=1), np.int64)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"codebook": self.trained()}, folder / self.FILE)
        (folder / self.CONFIG).write_text(json.dumps(self._shape(), indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Raises `UserError` if the folder holds no codebook or one made with other options."""
        from safetensors.numpy import load_file

        try:
            saved = json.loads((folder / self.CONFIG).read_text(encoding="utf-8"))
            entries = load_file(folder / self.FILE)["codebook"]
        except FileNotFoundError as error:
            raise UserError(f"{folder}: no codebook of the image tokenizer `patch_vq` here") from error
        if saved != self._shape():
            raise UserError(f"{folder}: the image codebook was made with {saved}, the recipe asks for {self._shape()}")
        self.use(entries)


def to_patches(image: Pixels, patch: int) -> npt.NDArray[np.float32]:
    """`[size, size, C]` -> `[F, D]` in [0, 1], patches in reading order."""
    side, channels = image.shape[0] // patch, image.shape[2]
    blocks = image.reshape(side, patch, side, patch, channels).swapaxes(1, 2)
    return blocks.reshape(side * side, patch * patch * channels).astype(np.float32) / np.float32(255)


def from_patches(patches: npt.NDArray[np.float32], patch: int) -> Pixels:
    """Inverse of `to_patches`: `[F, D]` -> uint8 `[size, size, C]`."""
    side = round(len(patches) ** 0.5)
    blocks = patches.reshape(side, side, patch, patch, -1).swapaxes(1, 2)
    pixels = np.clip(np.rint(blocks * 255), 0, 255).astype(np.uint8)
    return pixels.reshape(side * patch, side * patch, -1)


class PatchTokenizer:
    """Tokenizer (`Tokenizer`, `Trainable`): uint8 images -> codes `[1, F]`."""

    def __init__(self, options: PatchOptions) -> None:
        self.options = options
        self.codebook = Codebook(options)
        self.fingerprint = self.codebook.fingerprint

    def encode(self, media: Sequence[Pixels]) -> list[npt.NDArray[np.int64]]:
        return [self.codebook.nearest(self._patches(image))[None] for image in media]

    def frames(self, media: Any) -> int:  # noqa: ARG002  every image has as many
        return self.options.frames

    def fit(self, items: Sequence[Media], seed: int) -> Mapping[str, float]:
        """Trains the codebook on patches of the items: k-means, then `EPOCHS` passes of moving averages.

        Returns the mean squared error of a pixel in [0, 1] and the share of codes in use. Labels are not used.
        """
        import torch
        from vector_quantize_pytorch import VectorQuantize

        patches = np.concatenate([self._patches(item.data) for item in items])
        if len(patches) > MAX_PATCHES:
            chosen = np.random.default_rng(seed).choice(len(patches), MAX_PATCHES, replace=False)
            patches = patches[np.sort(chosen)]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            quantizer = VectorQuantize(
                dim=patches.shape[1],
                codebook_size=self.options.codebook_size,
                kmeans_init=True,
                decay=0.8,
                threshold_ema_dead_code=2,
            )
            batch = torch.from_numpy(patches)[None]
            quantizer.train()
            for _ in range(EPOCHS):
                quantizer(batch)
            self.codebook.use(quantizer.codebook.numpy())
        self.fingerprint = self.codebook.fingerprint
        codes = self.codebook.nearest(patches)
        error = float(((patches - self.codebook.trained()[codes]) ** 2).mean())
        return {"pixel_mse": error, "codes_used": len(np.unique(codes)) / self.options.codebook_size}

    def save_weights(self, folder: Path) -> None:
        self.codebook.save(folder)

    def load(self, folder: Path) -> None:
        self.codebook.load(folder)
        self.fingerprint = self.codebook.fingerprint

    def _patches(self, image: Pixels) -> npt.NDArray[np.float32]:
        return to_patches(resized(image, self.options.size, self.options.channels), self.options.patch)


class PatchDetokenizer:
    """Detokenizer: codes `[1, F]` -> uint8 `[size, size]` (grey) or `[size, size, 3]`, and PNG files."""

    def __init__(self, options: PatchOptions) -> None:
        self.options = options
        self.codebook = Codebook(options)

    def load(self, folder: Path) -> None:
        self.codebook.load(folder)

    def decode(self, codes: npt.NDArray[np.int64]) -> Pixels:
        """Raises `DataError` unless there are exactly F codes, each in the codebook."""
        entries = self.codebook.trained()
        codes = checked_codes(codes, self.options.frames, len(entries))
        image = from_patches(entries[codes[0]], self.options.patch)
        return image[..., 0] if self.options.channels == 1 else image

    def save(self, media: Pixels, stem: Path) -> Path:
        from PIL import Image

        factor = max(1, -(-self.options.save_side // min(media.shape[:2])))
        picture = Image.fromarray(media)
        # whole squares instead of a blur: exactly what the model drew
        size = (picture.width * factor, picture.height * factor)
        return write_png(picture.resize(size, Image.Resampling.NEAREST), stem)
