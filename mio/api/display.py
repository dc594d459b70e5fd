"""Answers in notebooks and at prompts. Nothing of an answer is markup: text is escaped, media are data of their own."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mio.api import forms
from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT
from mio.core.terminal import printable

_LEAST_SIDE = 128
"""Pixels that the shorter side of a picture has on a screen, by whole factors."""
_LONGEST = 60
"""Characters of a text in a summary."""

Part = tuple[str, Any]
"""Modality and content, as `mio.Answer.parts` has them."""


def html(parts: Sequence[Part], media_types: Mapping[str, str]) -> str:
    """Parts of an answer as HTML without scripts: text, pictures, players, names of control tokens."""
    shown = "".join(_shown(name, content, media_types.get(name, "")) for name, content in parts)
    return f'<div class="mio-answer">{shown}</div>'


def summary(parts: Sequence[Part], media_types: Mapping[str, str]) -> str:
    """Parts in a line: `'seven: ', image 8x8, speech 0.64 s`."""
    return ", ".join(_told(name, content, media_types.get(name, "")) for name, content in parts)


def _shown(name: str, content: Any, media_type: str) -> str:
    if name == TEXT:
        return f'<span style="white-space: pre-wrap">{escape(content)}</span>'
    if name == CONTROL:
        return f"<code>[{escape(content)}]</code> "
    title = escape(f"{name}: {_size(content, media_type)}", quote=True)
    if media_type == forms.IMAGE:
        return _picture(forms.to_png(content), content, title)
    if media_type == forms.VIDEO:
        return _picture(forms.to_apng(content), content[0], title)
    if media_type == forms.AUDIO:
        source = _url("audio/wav", forms.to_wav(content))
        return f'<audio controls title="{title}" src="{source}" style="vertical-align: middle"></audio>'
    return f"<code>{title}</code>"


def _picture(file: bytes, pixels: Any, title: str) -> str:
    height, width = pixels.shape[:2]
    factor = max(1, -(-_LEAST_SIDE // min(height, width)))
    size = f'width="{width * factor}" height="{height * factor}"'
    smooth = "" if factor == 1 else "image-rendering: pixelated; "
    style = f"{smooth}vertical-align: middle; max-width: 100%; object-fit: contain"
    return f'<img title="{title}" {size} style="{style}" src="{_url("image/png", file)}">'


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _told(name: str, content: Any, media_type: str) -> str:
    if name == TEXT:
        text = repr(printable(content))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"[{content}]" if name == CONTROL else f"{name} {_size(content, media_type)}"


def _size(content: Any, media_type: str) -> str:
    if media_type == forms.IMAGE:
        return f"{content.shape[1]}x{content.shape[0]}"
    if media_type == forms.VIDEO:
        return f"{len(content)} frames of {content[0].shape[1]}x{content[0].shape[0]}"
    if media_type == forms.AUDIO:
        return f"{len(content[0]) / content[1]:.2f} s"
    shape = getattr(content, "shape", None)
    return f"{type(content).__name__}" + (f" {list(shape)}" if shape is not None else "")
