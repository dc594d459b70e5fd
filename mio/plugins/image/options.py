"""Options of the image tokenizers, except `seed` (see `seed/options.py`), and of images without one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mio import UserError, number, one_of

TOKENS = {
    "mio": ("<image>", "</image>", "<img{}>"),
    "anygpt": ("<soim>", "<eoim>", "<\N{EYES}{}>"),
    "janus": ("<begin_of_image>", "<end_of_image>", "<img{}>"),
}
"""Begin, end and code tokens by convention: MIO's, those of AnyGPT (arXiv 2402.12226), and those of Janus (arXiv
2410.13848), whose codes are no tokens of its text tokenizer."""

DTYPES = ("float32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options of every tokenizer."""

    tokens: str = one_of("mio", *TOKENS)
    """Strings of the tokens: `mio` (`<image>`, `</image>`, `<img0>`), `anygpt` (`<soim>`, `<eoim>`, `<👀0>`) or `janus`
    (`<begin_of_image>`, `<end_of_image>`, `<img0>`)."""


BEGINNINGS = {"mm_interleaved": "<|beginofimage|>"}
"""Tokens by convention, of those that have one before an image and none behind it."""


@dataclass(frozen=True, kw_only=True)
class UncodedOptions:
    """Options of images without a tokenizer: an encoder of another plugin reads them, and a head may write them."""

    tokens: str = one_of("none", "none", *TOKENS, *BEGINNINGS)
    """Tokens around an image: `none`, those of `mio`, `anygpt` or `janus`, or of `mm_interleaved`: `<|beginofimage|>`
    before it."""

    @property
    def borders(self) -> tuple[str, str]:
        """Begin and end token; empty for none."""
        return TOKENS[self.tokens][:2] if self.tokens in TOKENS else (BEGINNINGS.get(self.tokens, ""), "")


@dataclass(frozen=True, kw_only=True)
class PatchOptions(ImageOptions):
    """Options of the `patch_vq` tokenizer."""

    size: int = number(8, 1, 4096)
    """Side in pixels that every image is resized to, its aspect ratio not kept."""
    patch: int = number(2, 1, 4096)
    """Side in pixels of the square that one code stands for."""
    codebook_size: int = number(64, 2, 2**24)
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    save_side: int = number(128, 1, 16_384)
    """Smallest side in pixels of files written; smaller images are enlarged by a whole factor."""

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise UserError(f"plugins.image: `size` {self.size} must be a multiple of `patch` {self.patch}")
        if self.channels not in (1, 3):
            raise UserError(f"plugins.image: `channels` is {self.channels}, must be 1 or 3")

    @property
    def frames(self) -> int:
        """Codes of one image."""
        return (self.size // self.patch) ** 2


JANUS_CONFIG, JANUS_WEIGHTS = "config.json", "model.safetensors"
JANUS_INDEX = f"{JANUS_WEIGHTS}.index.json"
JANUS_SOURCE = "deepseek-community/Janus-Pro-1B"
JANUS_PATCH = 16
"""Side in pixels of the square that one code of Janus stands for."""


@dataclass(frozen=True, kw_only=True)
class JanusOptions(ImageOptions):
    """Options of the `janus` tokenizer."""

    checkpoint: str = ""
    """Folder of deepseek-community/Janus-Pro-1B or another Janus in the layout of transformers, of which only the
    image tokenizer is read, or of a `JanusVQVAE` alone: `config.json` and safetensors, whole or in shards."""
    size: int = number(384, JANUS_PATCH, 4096)
    """Side in pixels of the square that is cut from the middle of every image: `(size / 16)^2` codes. Janus's."""
    device: str = "auto"
    """`auto`: the GPU if there is one; otherwise as torch names it: `cpu`, `cuda:1`. Data workers only use `cpu`."""
    dtype: str = one_of("float32", *DTYPES)
    """Of the networks: `float32`, `bf16` or `fp16`. The codebook is always searched in float32."""

    def __post_init__(self) -> None:
        if self.size % JANUS_PATCH:
            raise UserError(f"plugins.image: `size` is {self.size}, must be a multiple of {JANUS_PATCH}")

    @property
    def codebook_size(self) -> int:
        """Codes to choose from."""
        return 16_384

    @property
    def frames(self) -> int:
        """Codes of one image."""
        return (self.size // JANUS_PATCH) ** 2

    def folder(self) -> Path:
        """The folder of the files. Raises `UserError` that says what is missing and where to get it."""
        get = f"`hf download {JANUS_SOURCE} --include config.json '*.safetensors*' --local-dir DIR` gets it"
        if not self.checkpoint:
            raise UserError(f"plugins.image: tokenizer `janus` needs a model: set `checkpoint` to its folder; {get}")
        folder = Path(self.checkpoint).expanduser()
        if not (folder / JANUS_CONFIG).is_file():
            raise UserError(f"plugins.image: `checkpoint`: no {JANUS_CONFIG} in {folder}; {get}")
        if not any((folder / name).is_file() for name in (JANUS_WEIGHTS, JANUS_INDEX)):
            raise UserError(f"plugins.image: `checkpoint`: no {JANUS_WEIGHTS} or {JANUS_INDEX} in {folder}; {get}")
        return folder
