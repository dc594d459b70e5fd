"""Images as spans of codes: MIO's SEED declaration, and a small patch codebook that trains in seconds.

Options under `plugins: {image: {...}}`:

    tokenizer: seed       # MIO: 32 codes per image out of 8192; needs weights, see `SeedOptions` in `seed/options.py`
    tokenizer: patch_vq   # (size / patch)^2 codes per image out of `codebook_size`; further options in `PatchOptions`

Media data: uint8 arrays `[H, W]` (grey) or `[H, W, 3]` (RGB).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mio import DataModule, Frames, Modality, Template, UserError, hookimpl
from mio.plugins.image.seed.options import SeedOptions

if TYPE_CHECKING:
    from mio import Detokenizer, Tokenizer

SEED_CODES, SEED_FRAMES = 8192, 32

TEMPLATES = {
    # MIO, arXiv 2409.17692 v4, appendix B
    "image_text": (
        Template(direction="image_to_text", prompt="{image} The caption of this image is:", response=" {caption}"),
        Template(direction="text_to_image", prompt="Please generate an image of “{caption}”: ", response="{image}"),
    ),
    # the same, table 12
    "image_text_sft": (
        Template(
            direction="image_to_text",
            prompt="Provide a one-sentence caption for the provided image. {image}",
            response="{caption}",
        ),
        Template(
            direction="text_to_image",
            prompt="Please generate an image according to the given description. {caption}",
            response="{image}",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Options of the `patch_vq` tokenizer."""

    size: int = 8
    """Side in pixels that every image is resized to, its aspect ratio not kept."""
    patch: int = 2
    """Side in pixels of the square that one code stands for."""
    codebook_size: int = 64
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    save_side: int = 128
    """Smallest side in pixels of files written; smaller images are enlarged by a whole factor."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise UserError(f"plugins.image: `size` {self.size} must be a multiple of `patch` {self.patch}")
        if self.codebook_size < 2:
            raise UserError(f"plugins.image: `codebook_size` is {self.codebook_size}, must be at least 2")
        if self.channels not in (1, 3):
            raise UserError(f"plugins.image: `channels` is {self.channels}, must be 1 or 3")

    @property
    def frames(self) -> int:
        """Codes of one image."""
        return (self.size // self.patch) ** 2


TOKENIZERS: dict[str, type[PatchOptions | SeedOptions]] = {"seed": SeedOptions, "patch_vq": PatchOptions}


def _options_of(options: Mapping[str, Any]) -> PatchOptions | SeedOptions:
    """The chosen tokenizer's options. Raises `UserError` for an unknown tokenizer or option."""
    given = dict(options)
    name = given.pop("tokenizer", "seed")
    if name not in TOKENIZERS:
        raise UserError(f"plugins.image: unknown tokenizer `{name}`; known are `seed` and `patch_vq`")
    known = [field.name for field in fields(TOKENIZERS[name])]
    for option in given:
        if option not in known:
            raise UserError(f"plugins.image: tokenizer `{name}` has no option `{option}`; it has {', '.join(known)}")
    try:
        return TOKENIZERS[name](**given)
    except TypeError as error:
        raise UserError(f"plugins.image: an option of tokenizer `{name}` has the wrong type: {error}") from error


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    chosen = _options_of(options)
    patch = chosen if isinstance(chosen, PatchOptions) else None
    frames = patch.frames if patch else SEED_FRAMES
    return [
        Modality(
            name="image",
            codebooks=(patch.codebook_size if patch else SEED_CODES,),
            begin="<image>",
            end="</image>",
            code_token="<img{}>",
            frames=Frames(minimum=frames, maximum=frames),
        )
    ]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Tokenizer | None:
    if modality != "image":
        return None
    chosen = _options_of(options)
    if isinstance(chosen, SeedOptions):
        from mio.plugins.image.seed.tokenizer import SeedTokenizer

        return SeedTokenizer(chosen)
    from mio.plugins.image.patch_vq import PatchTokenizer

    return PatchTokenizer(chosen)


@hookimpl
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    if modality != "image":
        return None
    chosen = _options_of(options)
    if isinstance(chosen, SeedOptions):
        from mio.plugins.image.seed.tokenizer import SeedDetokenizer

        return SeedDetokenizer(chosen)
    from mio.plugins.image.patch_vq import PatchDetokenizer

    return PatchDetokenizer(chosen)


@hookimpl
def mio_datamodule(modality: str) -> DataModule | None:
    if modality != "image":
        return None
    from mio.plugins.image import files

    return DataModule(
        read=files.read,
        suffixes=files.SUFFIXES,
        templates=TEMPLATES,
        filters={"aspect_ratio": files.aspect_ratio, "min_side": files.min_side},
    )
