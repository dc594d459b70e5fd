"""Videos to images and back: choice of frames, and animated files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mio import DataError, Media
from mio.plugins.video import VideoOptions
from mio.plugins.video.sampling import evenly

Pixels = npt.NDArray[np.uint8]


class FrameSplitter:
    """Tokenizer of videos (`Splitter`): list of image arrays -> image media, at most `max_frames` at even distances."""

    def __init__(self, options: VideoOptions) -> None:
        self.options = options
        # everything that frames depend on; the number is the version of the choice
        self.fingerprint = f"frames-3-{options.min_frames}-{options.max_frames}-{options.frames}-{options.max_side}"
        if options.frames == "rate":
            self.fingerprint += f"-{options.rate:g}"
        if options.square:
            self.fingerprint += f"-square-{options.square}"

    def split(self, media: Media) -> list[Media]:
        """Chosen frames in order; the key of each is the video's with the frame's index. Raises `DataError`."""
        count = len(media.data)
        if count < self.options.min_frames:
            raise DataError(f"video {media.key}: has {count} frames, needs at least {self.options.min_frames}")
        return [
            Media("image", self._squared(media.data[index]), f"{media.key}/{index}")
            for index in evenly(count, self.options.max_frames)
        ]

    def _squared(self, frame: Pixels) -> Pixels:
        """The largest square in the middle of a frame, bicubic, as `CLIPImageProcessor` cuts it."""
        side = self.options.square
        if not side:
            return frame
        from PIL import Image, ImageOps

        return np.asarray(ImageOps.fit(Image.fromarray(frame), (side, side), Image.Resampling.BICUBIC))


class FrameJoiner:
    """Detokenizer of videos: list of image arrays in order -> the same list, and animated GIF files."""

    def __init__(self, options: VideoOptions) -> None:
        self.options = options

    def decode(self, codes: Sequence[Pixels]) -> list[Pixels]:
        """Frames `[H, W]` or `[H, W, 3]` as they came. Raises `DataError` if there are none."""
        if not len(codes):
            raise DataError("a video needs at least one frame")
        return list(codes)

    def save(self, media: Sequence[Pixels], stem: Path) -> Path:
        """Writes an endless GIF: every viewer and browser plays it. Frames of other sizes take the first one's."""
        from PIL import Image

        path = stem.with_name(stem.name + ".gif")
        height, width = media[0].shape[:2]
        factor = max(1, -(-self.options.save_side // min(height, width)))
        size = (width * factor, height * factor)
        frames = [Image.fromarray(frame).convert("RGB").resize(size, Image.Resampling.NEAREST) for frame in media]
        # equal neighbours would be merged into one long frame: harmless to watch, and the timing stays the same
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / self.options.fps),
            loop=0,
            optimize=False,
        )
        return path
