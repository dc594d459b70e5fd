"""How like pictures are: SSIM, CLIP's cosine and the Frechet distance of Inception's features, all by torchmetrics.

Pictures are uint8 arrays `[H, W]` or `[H, W, 3]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mio import DataError, UserError
from mio.plugins.benchmarks.metrics.checkpoints import loaded
from mio.plugins.benchmarks.options import WANTED

SIDE = 256
"""Side of the squares on which SSIM is measured, so that figures of models are comparable that draw in other sizes."""


def read(path: Path) -> np.ndarray:
    """A picture's pixels. Raises `DataError` for a file that is none."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity, from -1 to 1 (doi:10.1109/TIP.2003.819861), of pictures brought to `SIDE`."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = (_square(_tensor(picture)) for picture in (first, second))
    likeness = structural_similarity_index_measure(one, other, data_range=255.0)
    assert not isinstance(likeness, tuple)  # the whole picture's is not asked for
    return min(1.0, float(likeness))


class Clip:
    """Likeness by a CLIP network (arXiv 2103.00020)."""

    def __init__(self, folder: Path) -> None:
        """Raises `UserError` if the folder holds no such network or transformers is not installed."""

        def load() -> tuple[Any, Any]:
            from transformers import AutoProcessor, CLIPModel

            local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            processor: Any = AutoProcessor  # which has no types
            return CLIPModel.from_pretrained(folder, **local), processor.from_pretrained(folder, **local)

        model, self._processor = loaded("clip", folder, load)
        self._model = model.eval()
        self.config = self._model.config

    @classmethod
    @cache
    def of(cls, folder: str) -> Clip:
        """Loaded once per process."""
        return cls(Path(folder).expanduser())

    @torch.no_grad()
    def likeness(self, pictures: Sequence[np.ndarray], others: Sequence[np.ndarray] | Sequence[str]) -> list[float]:
        """100 times the cosine of each picture and the other picture (CLIP-I), or the text (CLIP-T); 0 if negative."""
        from torchmetrics.functional.multimodal import clip_score

        def network() -> tuple[Any, Any]:
            return self, self._processor

        pairs = zip(pictures, others, strict=True)
        return [
            min(100.0, float(clip_score([_tensor(picture)], [_given(other)], network)))  # type: ignore[arg-type]
            for picture, other in pairs
        ]

    # what `clip_score` asks of a model: transformers 5 gives an output with the features inside

    def to(self, device: Any) -> Clip:
        self._model.to(device)
        return self

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return _features(self._model.get_image_features(pixels))

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        return _features(self._model.get_text_features(ids, mask))


class Inception:
    """Features of the Inception network that the Frechet distance is defined by (arXiv 1706.08500)."""

    def __init__(self, weights: Path) -> None:
        """Raises `UserError` if these are not its weights or torch-fidelity is not installed."""
        from torchmetrics.image.fid import FrechetInceptionDistance

        try:
            distance = FrechetInceptionDistance(feature_extractor_weights_path=str(weights))
        except ModuleNotFoundError:
            raise UserError(
                "plugins.benchmarks: `inception` needs torch-fidelity: pip install 'mio[benchmarks]'"
            ) from None
        except Exception as error:  # of unpickling, and of weights of another network
            raise UserError(
                f"plugins.benchmarks: `inception`: {weights}: {_line(error)}; name {WANTED['inception']}"
            ) from error
        self._network = distance.inception.eval()

    @classmethod
    @cache
    def of(cls, weights: str) -> Inception:
        """Loaded once per process."""
        return cls(Path(weights).expanduser())

    @torch.no_grad()
    def features(self, drawn: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each pair float32 `[2, D]`: the features of the picture drawn, then those of the one that was wanted."""
        pairs = zip(drawn, wanted, strict=True)
        return [
            torch.cat([self._network(_tensor(picture)[None]) for picture in pair]).float().numpy() for pair in pairs
        ]


class _Given(nn.Module):
    """Features that are there already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(features: Sequence[np.ndarray]) -> float:
    """Between the pictures drawn and those wanted, of `Inception.features` of at least two pairs."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    if len(features) < 2:
        return 0.0
    both = torch.from_numpy(np.stack(features)).double()  # (N, 2, D)
    distance = FrechetInceptionDistance(feature=_Given(both.shape[-1]))
    distance.update(both[:, 0], real=False)
    distance.update(both[:, 1], real=True)
    return float(distance.compute())


def _tensor(picture: np.ndarray) -> Tensor:
    """uint8 `[3, H, W]`."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None].repeat(3, 1, 1) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _given(other: np.ndarray | str) -> Tensor | str:
    return other if isinstance(other, str) else _tensor(other)


def _square(picture: Tensor) -> Tensor:
    """float64 `[1, 3, SIDE, SIDE]`: variances are differences of squares, of which float32 loses the fourth digit."""
    return nn.functional.interpolate(picture[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True).double()


def _features(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
