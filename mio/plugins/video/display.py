"""How a player shows the frames of a file: rotated, mirrored, with square pixels, transparency on white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

WIDEST = 16
"""Largest aspect ratio of a pixel; more is damage."""

_ROWS = 256
"""Rows that are composed on white at a time."""

_ALPHA = {"bgra": 3, "rgba": 3, "argb": 0, "abgr": 0}
"""Which of a pixel's four bytes is alpha."""

_STRAIGHT = 0.02
"""Sine of the largest angle, about a degree, by which a rotation may differ from a multiple of 90 degrees."""


@dataclass(frozen=True)
class Display:
    """A stream's settings for showing its frames."""

    pixel: float = 1.0
    """Width of a pixel by its height."""
    turn: int = 0
    """Degrees clockwise by the stream's tag `rotate`, which older programs wrote. A frame's own matrix wins."""

    @classmethod
    def of(cls, stream: Any) -> Display:
        """Those of PyAV's stream. Raises `ValueError` for unsupported ones."""
        ratio = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
        if not 1 / WIDEST <= ratio <= WIDEST:
            raise ValueError(f"its pixel aspect ratio is {ratio:g}, which cannot be right")
        tag = tag_of(stream, "rotate") or "0"
        try:
            turn = float(tag)
        except ValueError:
            raise ValueError(f"its tag `rotate` is {tag!r}, which is not an angle") from None
        if turn % 90:
            raise ValueError(_tilted(turn))
        return cls(ratio, int(turn) % 360)

    def picture(self, frame: Any, side: int) -> Picture:
        """The frame as RGB `[H, W, 3]`, its longer side at most `side`.

        Raises `ValueError` for an unsupported rotation, and FFmpeg's errors for unknown colours.
        """
        wide = frame.width * self.pixel
        shrink = min(1.0, side / max(wide, frame.height))
        size = max(1, round(wide * shrink)), max(1, round(frame.height * shrink))
        return np.ascontiguousarray(self._upright(frame, _converted(frame, *size)))

    def _upright(self, frame: Any, picture: Picture) -> Picture:
        matrix = _matrix(frame)
        if matrix is None:
            return np.rot90(picture, -self.turn // 90) if self.turn else picture
        # a pixel at (x, y) goes to (a x + c y, b x + d y), of which all but two are zero
        a, b, c, d = matrix
        across, along = max(abs(b), abs(c)), max(abs(a), abs(d))
        if min(across, along) > _STRAIGHT * max(across, along) or not across + along:
            raise ValueError(_tilted(math.degrees(math.atan2(b, a))))
        if across > along:
            picture, x, y = picture.swapaxes(0, 1), c, b
        else:
            x, y = a, d
        return picture[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def tag_of(stream: Any, name: str) -> str:
    """A stream's tag, which some containers write in capitals; empty if it has none of this name."""
    return next((value for key, value in stream.metadata.items() if key.lower() == name), "")


def _tilted(degrees: float) -> str:
    return f"it asks for a rotation by {degrees:.3g} degrees; only multiples of 90 are supported; encode it upright"


def _matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The linear part (a, b, c, d) of the frame's display matrix; None if it has none."""
    from av.sidedata.sidedata import SideDataContainer

    # `frame.side_data` would be kept in the frame that it refers to: a cycle, which the frame's memory waits to be
    # collected with
    every = SideDataContainer(frame)  # type: ignore[call-arg]
    matrix = next((data for data in every if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def _converted(frame: Any, width: int, height: int) -> Picture:
    """The frame as RGB `[height, width, 3]`."""
    clear = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    if not clear or _opaque(frame):
        return np.asarray(frame.to_ndarray(width=width, height=height, format="rgb24"), np.uint8)
    from av import VideoFrame

    pixels = frame.to_ndarray(format="rgba")
    # composed before it is shrunk, so that colours of transparent pixels do not bleed into others
    white = np.empty((*pixels.shape[:2], 3), np.uint8)
    for row in range(0, len(pixels), _ROWS):
        some = pixels[row : row + _ROWS].astype(np.uint16)
        opaque = some[..., 3:]
        white[row : row + _ROWS] = (some[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255
    if white.shape[:2] == (height, width):
        return white
    flat = VideoFrame.from_ndarray(white, format="rgb24")
    return np.asarray(flat.to_ndarray(width=width, height=height, format="rgb24"), np.uint8)


def _opaque(frame: Any) -> bool:
    """Whether the frame is known to be opaque without converting it."""
    place = _ALPHA.get(frame.format.name)
    if place is None:
        return False
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height]
    return bool((rows[:, place : 4 * frame.width : 4] == 255).all())
