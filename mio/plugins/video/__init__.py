"""Videos as sequences of image spans: a modality of parts, without codes of its own (MIO, arXiv 2409.17692, 2.1).

Options under `plugins: {video: {...}}` are the fields of `VideoOptions`. Media data: list of image arrays in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mio import DataModule, Frames, Modality, Template, UserError, hookimpl, number, one_of, read_options

if TYPE_CHECKING:
    from mio import Detokenizer, Splitter

TEMPLATES = {
    # MIO, arXiv 2409.17692 v4, appendix B
    "video_text": (
        Template(
            direction="video_to_text",
            prompt="Please describe the following video: {video}",
            response=" {description}",
        ),
        Template(
            direction="text_to_video",
            prompt="Please generate a video for “{description}”: ",
            response="{video}",
        ),
    ),
}


MOST_FPS = 100
"""Frames per second of a GIF, which counts hundredths of a second."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Options of the plugin."""

    min_frames: int = number(1, 1, 100_000)
    """Fewest frames of a video."""
    max_frames: int = number(8, 1, 100_000)
    """Most frames of a video; of a longer one, so many are chosen at even distances. MIO's WebVid clips have 4 to 8."""
    frames: str = one_of("uniform", "uniform", "scenes", "rate")
    """Which frames of files: `uniform`, at even distances in time; `scenes`, the middle of each scene that
    PySceneDetect finds (MIO's key frames; needs `mio[video]`), filled up to `min_frames` at even distances; `rate`,
    `rate` frames of every second, at even distances where that is fewer than `min_frames` or more than `max_frames`
    (VITA: 1, 4 and 16)."""
    rate: float = number(1.0, 0.001, 1000)
    """Frames per second of `frames: rate`."""
    square: int = number(0, 0, 8192)
    """Side in pixels of the square that is cut from the middle of every frame (VITA: 448, which its tower shows in one
    tile); 0 leaves frames as they are. Make `max_side` large enough for it."""
    max_side: int = number(512, 1, 16_384)
    """Longer side in pixels that frames of files are shrunk to while they are read."""
    fps: float = number(2.0, 0.001, MOST_FPS)
    """Frames per second of files written."""
    save_side: int = number(128, 1, 16_384)
    """Smallest side in pixels of files written; smaller frames are enlarged by a whole factor."""

    def __post_init__(self) -> None:
        if self.min_frames > self.max_frames:
            raise UserError(
                f"plugins.video: `min_frames` is {self.min_frames}, must be at most `max_frames`, {self.max_frames}"
            )


def _options(options: Mapping[str, Any]) -> VideoOptions:
    return read_options(VideoOptions, options, "plugins.video")


@hookimpl
def mio_requires() -> Sequence[str]:
    return ["image"]


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    video = _options(options)
    return [Modality(name="video", parts="image", frames=Frames(minimum=video.min_frames, maximum=video.max_frames))]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Splitter | None:
    if modality != "video":
        return None
    from mio.plugins.video.splitter import FrameSplitter

    return FrameSplitter(_options(options))


@hookimpl
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    if modality != "video":
        return None
    from mio.plugins.video.splitter import FrameJoiner

    return FrameJoiner(_options(options))


@hookimpl
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    if modality != "video":
        return None
    from mio.plugins.video import files

    video = _options(options)
    return DataModule(
        read=partial(
            files.read,
            frames=video.max_frames,
            fewest=video.min_frames,
            max_side=video.max_side,
            scenes=video.frames == "scenes",
            rate=video.rate if video.frames == "rate" else 0.0,
        ),
        in_memory=True,
        suffixes=files.SUFFIXES,
        media_type="video",
        templates=TEMPLATES,
    )
