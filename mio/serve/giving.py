"""Media of answers: from what the model made to bytes that other programs open."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

from mio.api.forms import FORMS, to_bytes, to_pillow
from mio.core.generation.model import Model


def image_file(pixels: Any, kind: str = "png", quality: int | None = None) -> bytes:
    """A picture as PNG, JPEG or WebP; of the two others, `quality` up to 100. WebP of 100 keeps every pixel."""
    file = io.BytesIO()
    image = to_pillow(pixels)
    options: dict[str, Any] = {}
    if kind != "png":
        best = quality is None or quality == 100
        options = {"quality": 95 if quality is None and kind == "jpeg" else quality or 0}
        if kind == "webp" and best:
            options = {"lossless": True}
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def as_file(model: Model, modality: str, media_type: str, content: Any) -> tuple[str, bytes]:
    """Media type in full and bytes of an item of any modality; where its media type has no form outside of mio, the
    file that its plugin writes, whose ending comes in place of the type."""
    if media_type in FORMS:
        return to_bytes(content, media_type)
    with tempfile.TemporaryDirectory(prefix="mio-serve-") as folder:
        path = model.codecs.saver(modality).save(content, Path(folder) / modality)
        return path.suffix, path.read_bytes()


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
