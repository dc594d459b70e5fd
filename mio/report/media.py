"""Media inside the page, as data URIs within a budget of bytes. What finds no place is counted, and says so.

Files are written anew, so that nothing of theirs but pixels and samples reaches the page: pictures as PNG or WebP,
moving ones as animated WebP, sound as FLAC. A file is only opened inside of its run folder.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.report.numbers import size

IMAGE, AUDIO, VIDEO = "image", "audio", "video"

BUDGET = 3_200_000
"""Bytes of all data URIs of a page, by default: a page has less than 5 MB."""
LARGEST = 400_000
"""Bytes of the data URI of one item."""
ARRAYS = ".npz"
"""Ending of files of media that are only read (see `mio.core.evaluation.shown_parts`)."""
_LARGEST_FILE = 64 << 20
_LONGEST_SIDE = 384
"""Pixels of the longer side of a picture in the page; larger ones are made smaller."""
_LEAST_SIDE = 72
"""On the screen."""
_LONGEST_VIDEO_SIDE = 256
_MOST_FRAMES = 60
_LONGEST_SOUND = 30.0
"""Seconds."""
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".apng", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
_SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif"}
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Of Pillow's: those without code in them."""
_CONTAINERS = {".mp4", ".webm", ".mkv", ".mov", ".avi"}


class Unfit(Exception):
    """Why a file has no place in the page."""


@dataclass(frozen=True)
class Shown:
    """One item as the page has it: a data URI, or the reason why there is none."""

    kind: str
    """`image`, `audio`, `video`, or empty for a file of another kind."""
    name: str
    """Of its file."""
    uri: str = ""
    reason: str = ""
    width: int = 0
    height: int = 0
    """Pixels on the screen."""
    pixelated: bool = False
    note: str = ""
    """Of its size, for a title."""


@dataclass
class Gallery:
    """Puts media into a page until the budget is used up. A file that is shown twice is kept once and counted twice."""

    budget: int = BUDGET
    used: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Items without a place, by reason."""

    def show(self, path: Path, inside: Path, media_type: str = "") -> Shown:
        """The file at `path`, if it lies inside of the folder `inside`. `media_type` says of what its arrays are."""
        kind = media_type if path.suffix == ARRAYS else _kind(path)
        try:
            if not path.resolve().is_relative_to(inside.resolve()):
                raise Unfit("it lies outside of the run folder")
            if not path.is_file():
                raise Unfit("the file is missing")
            if path.stat().st_size > _LARGEST_FILE:
                raise Unfit("the file is too large")
            if path.suffix == ARRAYS:
                shown = _of_arrays(path, media_type)
            else:
                shown = _SHOWN[kind](path)
            if len(shown.uri) > LARGEST:
                raise Unfit(f"larger than {size(LARGEST)}")
            if self.used + len(shown.uri) > self.budget:
                raise Unfit("the page's budget is used up")
        except Unfit as error:
            return self._without(kind, path, str(error))
        except Exception as error:  # decoders of damaged files raise anything; one file does not end a report
            if isinstance(error, MemoryError):
                raise
            return self._without(kind, path, "the file cannot be read")
        self.used += len(shown.uri)
        return shown

    def _without(self, kind: str, path: Path, reason: str) -> Shown:
        self.left_out[reason] += 1
        return Shown(kind, path.name, reason=reason)

    @property
    def told(self) -> str:
        """What was left out, in a line; empty if nothing was."""
        return "; ".join(f"{count:,} left out: {reason}" for reason, count in sorted(self.left_out.items()))


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _IMAGES:
        return IMAGE
    if suffix in _SOUNDS:
        return AUDIO
    return VIDEO if suffix in _CONTAINERS else ""


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _image(path: Path) -> Shown:
    from PIL import Image, ImageSequence

    with Image.open(path, formats=_FORMATS) as image:
        if getattr(image, "n_frames", 1) == 1:
            return _still(image, path.name)
        frames: list[Any] = []
        durations: list[int] = []
        for frame in ImageSequence.Iterator(image):
            if len(frames) == _MOST_FRAMES:
                break
            durations.append(int(frame.info.get("duration", 0)) or 100)
            frames.append(_smaller(frame.convert("RGB"), _LONGEST_VIDEO_SIDE))
        return _moving(frames, durations, path.name)


def _still(image: Any, name: str) -> Shown:
    note = f"{image.width}x{image.height}"
    if image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = _smaller(image, _LONGEST_SIDE)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    kind = "image/png"
    if file.tell() > 20_000:  # a photograph
        file = io.BytesIO()
        image.save(file, "WEBP", quality=82, method=4)
        kind = "image/webp"
    return Shown(IMAGE, name, _uri(kind, file.getvalue()), note=note, **_on_screen(image))


def _moving(frames: list[Any], durations: list[int], name: str) -> Shown:
    file = io.BytesIO()
    lossless = max(frames[0].size) <= 128
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=lossless,
        quality=70, method=4, minimize_size=True,
    )  # fmt: skip
    note = f"{len(frames)} frames of {frames[0].width}x{frames[0].height}, {sum(durations) / 1000:.1f} s"
    return Shown(VIDEO, name, _uri("image/webp", file.getvalue()), note=note, **_on_screen(frames[0]))


def _video(path: Path) -> Shown:
    import av
    from PIL import Image

    frames: list[Any] = []
    with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        for frame in container.decode(stream):
            frames.append(_smaller(Image.fromarray(frame.to_ndarray(format="rgb24")), _LONGEST_VIDEO_SIDE))
            if len(frames) == _MOST_FRAMES:
                break
    if not frames:
        raise Unfit("the file cannot be read")
    each = round(1000 * seconds / len(frames)) if seconds else 100
    return _moving(frames, [min(max(each, 20), 5000)] * len(frames), path.name)


def _smaller(image: Any, longest: int) -> Any:
    from PIL import Image

    factor = longest / max(image.size)
    if factor >= 1:
        return image.copy()
    return image.resize(tuple(max(1, round(side * factor)) for side in image.size), Image.Resampling.LANCZOS)


def _on_screen(image: Any) -> dict[str, Any]:
    """Small pictures are enlarged by whole factors, with their pixels as squares; those that a plugin has enlarged
    already take no more room than these."""
    longest = max(image.size)
    if longest <= _LEAST_SIDE:
        factor = float(_LEAST_SIDE // longest)
    else:
        factor = _LEAST_SIDE / longest if longest <= 2 * _LEAST_SIDE else 1.0
    return {
        "width": round(image.width * factor),
        "height": round(image.height * factor),
        "pixelated": factor > 1,
    }


def _audio(path: Path) -> Shown:
    import soundfile

    with soundfile.SoundFile(path) as sound:
        seconds = sound.frames / sound.samplerate
        samples, rate = sound.read(int(_LONGEST_SOUND * sound.samplerate), dtype="int16"), sound.samplerate
    return _sound(samples, rate, seconds, path.name)


def _sound(samples: Any, rate: int, seconds: float, name: str) -> Shown:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    note = f"{seconds:.2f} s, {rate / 1000:g} kHz" + (", its beginning" if seconds > _LONGEST_SOUND else "")
    content, kind = file.getvalue(), "audio/flac"
    if len(content) * 4 / 3 > LARGEST and rate >= 8000:
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="MP3", compression_level=0.6)
        content, kind = file.getvalue(), "audio/mpeg"
    return Shown(AUDIO, name, _uri(kind, content), note=note)


def _of_arrays(path: Path, media_type: str) -> Shown:
    """Media in the forms that docs/plugins.md gives for each media type."""
    import numpy as np
    from PIL import Image

    with np.load(path, allow_pickle=False) as file:
        arrays = [file[str(place)] for place in range(min(len(file.files), _MOST_FRAMES))]
    if media_type == AUDIO:
        samples, rate = arrays[0], int(arrays[1])
        seconds = len(samples) / rate
        samples = samples[: int(_LONGEST_SOUND * rate)]
        if samples.dtype.kind == "f":
            samples = np.clip(samples, -1, 1)
        return _sound(samples, rate, seconds, path.name)
    frames = [Image.fromarray(np.asarray(array, np.uint8)) for array in arrays]
    if media_type == IMAGE:
        return _still(frames[0], path.name)
    if media_type == VIDEO:
        frames = [_smaller(frame.convert("RGB"), _LONGEST_VIDEO_SIDE) for frame in frames]
        return _moving(frames, [500] * len(frames), path.name)
    raise Unfit(f"no browser shows media of the type {media_type or 'unknown'}")


def _unknown(path: Path) -> Shown:
    raise Unfit(f"no browser shows {path.suffix or 'a file without a suffix'}")


_SHOWN = {IMAGE: _image, AUDIO: _audio, VIDEO: _video, "": _unknown}
