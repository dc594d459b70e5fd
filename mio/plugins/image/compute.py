"""What tokenizers that are networks share: devices, dtypes, exact arithmetic, and images as pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mio import DataError, UserError

TORCH_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def picture(image: Any) -> Any:
    """uint8 `[H, W]` or `[H, W, 3]` as an RGB image of Pillow. Raises `DataError` for anything else."""
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise DataError(f"an image must be uint8 [H, W] or [H, W, 3], this is {image.dtype} {list(image.shape)}")
    return Image.fromarray(image).convert("RGB")


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """No gradients, and the arithmetic that was asked for whatever the surrounding training run has switched on."""
    precision = torch.get_float32_matmul_precision()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


def device_of(name: str) -> torch.device:
    """The device that the option names; `auto` is the GPU if there is one. Raises `UserError` if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"plugins.image: `device` is {name!r}, which torch does not know") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"plugins.image: `device` is {name}, but torch sees no GPU")
    return device
