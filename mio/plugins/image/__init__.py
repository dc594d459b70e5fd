"""Images as spans of codes: SEED as in MIO and AnyGPT, Janus's VQGAN, and a small codebook that trains in seconds.

Options under `plugins: {image: {...}}`:

    tokenizer: seed       # MIO: 32 codes per image out of 8192; needs weights, see `SeedOptions` in `seed/options.py`
    tokenizer: janus      # 576 codes per image of 384 x 384 pixels out of 16,384; needs weights, see `JanusOptions`
    tokenizer: patch_vq   # (size / patch)^2 codes per image out of `codebook_size`; further options in `PatchOptions`
    tokenizer: none       # no codes: images are read by another plugin's encoder (`vision_tower`), and never written
    tokens: mio           # or `anygpt`, `janus`: strings of the tokens

Media data: uint8 arrays `[H, W]` (grey) or `[H, W, 3]` (RGB).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import DataModule, Frames, Modality, Template, UserError, hookimpl, read_options
from mio.plugins.image.options import TOKENS, JanusOptions, PatchOptions, UncodedOptions
from mio.plugins.image.seed.options import SeedOptions

if TYPE_CHECKING:
    from mio import Detokenizer, Tokenizer

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


AnyOptions = SeedOptions | JanusOptions | PatchOptions | UncodedOptions

TOKENIZERS: Mapping[str, type[AnyOptions]] = {
    "seed": SeedOptions,
    "janus": JanusOptions,
    "patch_vq": PatchOptions,
    "none": UncodedOptions,
}


def _options_of(options: Mapping[str, Any]) -> AnyOptions:
    """The chosen tokenizer's options. Raises `UserError` for an unknown tokenizer or option."""
    rest = dict(options)
    name = rest.pop("tokenizer", "seed")
    if not isinstance(name, str) or name not in TOKENIZERS:
        raise UserError(f"plugins.image: unknown tokenizer `{name}`; known are {', '.join(TOKENIZERS)}")
    return read_options(TOKENIZERS[name], rest, f"plugins.image: tokenizer `{name}`")


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    chosen = _options_of(options)
    if isinstance(chosen, UncodedOptions):
        begin, end = chosen.borders
        return [Modality(name="image", begin=begin, end=end)]
    begin, end, code_token = TOKENS[chosen.tokens]
    return [
        Modality(
            name="image",
            codebooks=(chosen.codebook_size,),
            begin=begin,
            end=end,
            code_token=code_token,
            frames=Frames(minimum=chosen.frames, maximum=chosen.frames),
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
    if isinstance(chosen, JanusOptions):
        from mio.plugins.image.janus import JanusTokenizer

        return JanusTokenizer(chosen)
    if isinstance(chosen, UncodedOptions):
        return None
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
    if isinstance(chosen, JanusOptions):
        from mio.plugins.image.janus import JanusDetokenizer

        return JanusDetokenizer(chosen)
    if isinstance(chosen, UncodedOptions):
        return None
    from mio.plugins.image.patch_vq import PatchDetokenizer

    return PatchDetokenizer(chosen)


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint", "quantizer", "vision", "unclip"]


@hookimpl
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    if modality != "image":
        return None
    from mio.plugins.image import files

    templates: Mapping[str, tuple[Template, ...]] = TEMPLATES
    if isinstance(_options_of(options), UncodedOptions):
        templates = {
            name: tuple(one for one in templates if "{image}" not in one.response)
            for name, templates in TEMPLATES.items()
        }
    return DataModule(
        read=files.read,
        in_memory=True,
        probe=files.probe,
        suffixes=files.SUFFIXES,
        media_type="image",
        templates=templates,
        filters={"aspect_ratio": files.aspect_ratio, "min_side": files.min_side},
    )
