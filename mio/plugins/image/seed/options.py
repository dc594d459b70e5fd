"""Options of the `seed` tokenizer, and where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mio import UserError, number, one_of
from mio.plugins.image.options import DTYPES, ImageOptions

QUANTIZER = "seed_quantizer.pt"
VISION = "eva_vit_g.pth"
UNCLIP = "stable-diffusion-2-1-unclip"
FOLDER = "seed-tokenizer-2"
"""Folder of the tokenizer inside the model repositories of MIO."""

SOURCES = {
    QUANTIZER: f"`hf download AILab-CVC/seed-tokenizer-2 {QUANTIZER} --local-dir DIR` gets it",
    VISION: (
        f"https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/{VISION} has it, "
        f"and so has `hf download m-a-p/MIO-7B-Base {FOLDER}/{VISION} --local-dir DIR`"
    ),
    UNCLIP: f"`hf download m-a-p/MIO-7B-Base --include '{UNCLIP}/*' --local-dir DIR` gets it",
}


@dataclass(frozen=True, kw_only=True)
class SeedOptions(ImageOptions):
    """Options of the `seed` tokenizer."""

    checkpoint: str = ""
    """Folder with `seed_quantizer.pt` and `eva_vit_g.pth`, or a model of MIO, with both in `seed-tokenizer-2/`."""
    quantizer: str = ""
    """File to use instead of the folder's `seed_quantizer.pt`."""
    vision: str = ""
    """File to use instead of the folder's `eva_vit_g.pth`."""
    unclip: str = ""
    """Folder of Stable Diffusion 2.1 unCLIP in the diffusers layout. Default: `stable-diffusion-2-1-unclip/` in
    `checkpoint` or beside it. Needed only where images are generated."""
    ignore_keys: Sequence[str] = ()
    """Prefixes of names in the checkpoints to ignore. Other names that are neither needed nor known to be superfluous
    are an error, since they may mean another architecture."""
    device: str = "auto"
    """`auto`: the GPU if there is one; otherwise as torch names it, `cpu`, `cuda:1`."""
    dtype: str = one_of("float32", *DTYPES)
    """Of the networks: `float32`, `bf16`, or `fp16` as in the published code on a GPU. Codes are always searched, and
    embedded again, in float32."""
    batch_size: int = number(1, 1, 4096)
    """Images per forward pass. Smaller batches are padded: kernels, and so codes, stay the same."""
    resize: str = one_of("bicubic", "bicubic", "bilinear")
    """How an image is resized to 224 x 224, ignoring its aspect ratio: `bicubic` (`ImageTokenizer.processor` of the
    published code) or `bilinear` (its `get_transform`)."""
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted from pixels in [0, 1]: red, green, blue. CLIP's."""
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    """Divides the result."""
    steps: int = number(20, 1, 10_000)
    """Denoising steps of unCLIP."""
    guidance: float = number(10.0, 0, 1000)
    """Scale of its classifier-free guidance, against an embedding of zeros."""
    noise_level: int = number(0, 0, 999)
    """Noise added to the image embedding, as a step of unCLIP's own schedule."""
    seed: int = number(0, 0, 2**63 - 1)
    """Of the noise that unCLIP starts from: the same codes give the same image."""

    def __post_init__(self) -> None:
        for name in ("ignore_keys", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise _wrong("`mean` and `std` must be three numbers each, those of `std` above 0")

    @property
    def codebook_size(self) -> int:
        """Codes to choose from."""
        return 8192

    @property
    def frames(self) -> int:
        """Codes of one image."""
        return 32

    def quantizer_file(self) -> Path:
        """`seed_quantizer.pt`. Raises `UserError` that says where to get it."""
        return self._found(QUANTIZER, self.quantizer, "quantizer", self._folders())

    def vision_file(self) -> Path:
        """`eva_vit_g.pth`. Raises `UserError` that says where to get it."""
        return self._found(VISION, self.vision, "vision", self._folders())

    def unclip_folder(self) -> Path:
        """Folder of the unCLIP pipeline. Raises `UserError` that says where to get it."""
        beside = [folder.parent for folder in self._folders()[:1]]
        folder = self._found(UNCLIP, self.unclip, "unclip", self._folders() + beside)
        if not (folder / "model_index.json").is_file():
            raise _wrong(f"{folder} holds no model_index.json: `unclip` must be a pipeline in the diffusers layout")
        return folder

    def _folders(self) -> list[Path]:
        if not self.checkpoint:
            return []
        folder = Path(self.checkpoint).expanduser()
        return [folder, folder / FOLDER]

    def _found(self, name: str, file: str, option: str, folders: list[Path]) -> Path:
        if file:
            path = Path(file).expanduser()
            if path.exists():
                return path
            raise _wrong(f"`{option}`: {path} does not exist; {SOURCES[name]}")
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        if not folders:
            raise _wrong(f"tokenizer `seed` needs {name}: set `checkpoint` to its folder; {SOURCES[name]}")
        raise _wrong(f"no {name} in {' or '.join(str(folder) for folder in folders)}; {SOURCES[name]}")


def _wrong(problem: str) -> UserError:
    return UserError(f"plugins.image: {problem}")
