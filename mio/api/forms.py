"""Media in the forms that Python programs and other programs have them in, by media type.

The media types, and the form of their items inside of mio (`DataModule.media_type`): `image`, uint8 arrays `[H, W]` or
`[H, W, 3]`; `audio`, pairs of samples `[T]` or `[T, C]` and their rate in hertz; `video`, lists of image arrays. Items
of `model` (RFC 2077), which are bodies, have whatever form their plugin gives them, and leave mio as the files that it
writes.

Shapes: H, W pixels, C channels, T samples, N frames.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mio.core.contract.values import MemoryFile
from mio.core.errors import UserError
from mio.core.terminal import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

IMAGE, AUDIO, VIDEO, MODEL = "image", "audio", "video", "model"

FORMS = {
    IMAGE: "a PIL image, an array [H, W] or [H, W, 3], a tensor [3, H, W], a file or bytes",
    AUDIO: "a pair (samples, rate), {'array': ..., 'sampling_rate': ...}, a file or bytes",
    VIDEO: "a list of images, an array [N, H, W, 3], a tensor [N, 3, H, W], a file or bytes",
}
"""What `from_python` takes, in words."""

FPS = 2.0
"""Frames per second of videos that are written, as the plugin `video` has it by default."""
_LEAST_SIDE = 128
"""Pixels of the shorter side of an MP4: smaller frames, of which its colours would be a blur, are enlarged."""
_MOST_CHANNELS = 8
_HIGHEST_RATE = 10**9
_KEYS = itertools.count()
"""Numbers in the keys of media whose content cannot be told from others': no two of a process have one key."""


def from_python(value: Any, media_type: str) -> Any:
    """`data` of a `mio.Media` of a modality of this media type: what its tokenizer takes, or a file.

    A path, as string too, and bytes stay the file that they are, which the modality's data module reads; so does
    everything of a modality without a media type. Floats of images go from 0 to 1.

    Raises:
        UserError: it is none of the `FORMS`.
    """
    if isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return MemoryFile(bytes(value), _suffix(bytes(value[:16])))
    if isinstance(value, MemoryFile):
        return value
    if media_type == IMAGE:
        return _image(value)
    if media_type == AUDIO:
        return _audio(value)
    if media_type == VIDEO:
        return _video(value)
    return value


def media_type_of(value: Any) -> str:
    """The media type of an object that can be of one alone; empty for others, such as a bare array of floats."""
    if _is_pillow(value):
        return IMAGE
    if isinstance(value, Mapping):
        return AUDIO if {"array", "sampling_rate"} <= value.keys() else ""
    if isinstance(value, tuple | list):
        if _is_sound(value):
            return AUDIO
        return VIDEO if value and all(media_type_of(one) == IMAGE for one in value) else ""
    if _is_array(value) and str(value.dtype).removeprefix("torch.") == "uint8":
        return {2: IMAGE, 3: IMAGE, 4: VIDEO}.get(len(value.shape), "")
    return ""


def to_bytes(media: Any, media_type: str) -> tuple[str, bytes]:
    """An item as a file that every program opens: its media type in full, and its content. Raises `UserError` for a
    media type that has none."""
    if media_type == IMAGE:
        return "image/png", to_png(media)
    if media_type == AUDIO:
        return "audio/wav", to_wav(media)
    if media_type == VIDEO:
        return "video/mp4", to_mp4(media)
    raise UserError(f"media of the type `{media_type}` have no form outside of mio; save them as files")


def to_pillow(image: Pixels) -> Any:
    """An image as Pillow has it, of mode `L` or `RGB`."""
    from PIL import Image

    return Image.fromarray(image)


def to_png(image: Pixels) -> bytes:
    """An image as PNG: the same pixels."""
    file = io.BytesIO()
    to_pillow(image).save(file, "PNG")
    return file.getvalue()


def to_wav(audio: tuple[Any, int]) -> bytes:
    """Sound as WAV of 16 bits."""
    samples, rate = audio
    pcm = to_pcm(samples)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(pcm.shape[1] if pcm.ndim == 2 else 1)
        written.setsampwidth(2)
        written.setframerate(int(rate))
        written.writeframes(pcm.tobytes())
    return file.getvalue()


def to_pcm(samples: Any) -> npt.NDArray[np.int16]:
    """Samples as integers of 16 bits, little-endian, of the same shape. What is louder than full scale is clipped."""
    import numpy as np

    samples = np.asarray(samples)
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    pcm: npt.NDArray[np.int16] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return pcm


def to_mp4(video: Sequence[Pixels], fps: float = FPS) -> bytes:
    """A video as MP4 (H.264, 4:2:0), which every player takes. Frames are given the size of the first."""
    from fractions import Fraction

    import av

    file = io.BytesIO()
    frames = _alike(video, even=True)
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "15"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def to_apng(video: Sequence[Pixels], fps: float = FPS) -> bytes:
    """A video as an animated PNG without an end: the same pixels, in every browser. Frames are given the size of the
    first."""
    frames = [to_pillow(frame) for frame in _alike(video)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=1000 / fps, loop=0)
    return file.getvalue()


def key_of_content(data: Any) -> str:
    """A key for media that are given as objects: the same for the same content, so that it is encoded once."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces(data):
        digest.update(piece)
    return f"given/{digest.hexdigest()}"


def _pieces(data: Any) -> Iterator[bytes]:
    """What an object consists of, so that no two objects consist of the same."""
    import numpy as np

    if isinstance(data, np.ndarray) and data.dtype.kind != "O":
        array = np.ascontiguousarray(data)
        yield f"{array.dtype.str}{array.shape}".encode()
        yield array.tobytes()
    elif isinstance(data, list | tuple):
        yield f"{type(data).__name__}{len(data)}".encode()
        for one in data:
            yield from _pieces(one)
    elif isinstance(data, bool | int | float | str | bytes):
        yield f"{type(data).__name__}{data!r};".encode()
    else:
        yield f"object{next(_KEYS)}".encode()


def _alike(video: Sequence[Pixels], even: bool = False) -> list[Pixels]:
    """Frames in colour, of the first one's size; with `even`, enlarged by a whole factor and of even sides."""
    import numpy as np
    from PIL import Image

    height, width = video[0].shape[:2]
    factor = max(1, -(-_LEAST_SIDE // min(height, width))) if even else 1
    height, width = height * factor, width * factor
    frames = []
    for frame in video:
        pixels = np.asarray(to_pillow(frame).convert("RGB").resize((width, height), Image.Resampling.NEAREST))
        if even:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frames.append(np.ascontiguousarray(pixels))
    return frames


def _image(value: Any) -> Pixels:
    import numpy as np

    if _is_pillow(value):
        return _pixels_of(value)
    if not _is_array(value):
        raise _unfit(IMAGE, type(value).__name__)
    array = _numpy(value, planes=3)
    if array.ndim == 3 and array.shape[2] in (1, 4):
        array = array[..., 0] if array.shape[2] == 1 else _on_white(array)
    if not array.size or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise _unfit(IMAGE, f"{array.dtype} {list(array.shape)}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"an image of floats goes from 0 (black) to 1 (white), this one from {array.min():g} to "
                f"{array.max():g}; scale it, or give integers of 8 bits"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"an image of {array.dtype} does not say what is white; give integers of 8 bits, or floats")
    return np.asarray(array, np.uint8)


def _pixels_of(image: Any) -> Pixels:
    """Pixels of an image of Pillow's: upright, on white, of 16 bits the upper 8."""
    import numpy as np
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        return _image(np.asarray(image))
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        transparent = image.convert("RGBA")
        white = Image.new("RGB", transparent.size, "white")
        white.paste(transparent, mask=transparent)
        return np.asarray(white.getchannel(0) if grey else white)
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _on_white(array: Any) -> Any:
    """Pixels `[H, W, 4]` of integers or floats, composed on white."""
    import numpy as np

    most = 255 if array.dtype == np.uint8 else 1
    alpha = array[..., 3:].astype(np.float64) / most
    flat = array[..., :3] * alpha + most * (1 - alpha)
    return np.rint(flat).astype(np.uint8) if most == 255 else flat


def _audio(value: Any) -> tuple[Any, int]:
    import numpy as np

    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
        value = (value["array"], value["sampling_rate"])
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise _unfit(AUDIO, type(value).__name__)
    samples, rate = value
    if not _is_rate(rate):
        told = printable(repr(rate))[:40]
        raise UserError(f"the rate of sound is a whole number of samples a second, not {told}: (samples, rate)")
    if _is_tensor(samples) and samples.ndim == 2:
        samples = samples.T  # torchaudio has channels first
    try:
        samples = _numpy(samples) if _is_array(samples) else np.asarray(samples)
    except (TypeError, ValueError, OverflowError):
        raise _unfit(AUDIO, f"samples of {type(samples).__name__}") from None
    channels = samples.shape[1] if samples.ndim == 2 else 1
    if samples.dtype.kind not in "fi" or not samples.size or samples.ndim not in (1, 2) or channels > _MOST_CHANNELS:
        raise _unfit(AUDIO, f"samples of {samples.dtype} {list(samples.shape)}")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise UserError("the samples of the sound are not all finite")
    return samples, int(rate)


def _video(value: Any) -> list[Pixels]:
    if _is_array(value):
        if len(value.shape) not in (3, 4):
            raise _unfit(VIDEO, f"{value.dtype} {list(value.shape)}")
        value = list(value)
    if not isinstance(value, list | tuple) or not value:
        raise _unfit(VIDEO, "an empty list" if isinstance(value, list | tuple) else type(value).__name__)
    frames = []
    for number, frame in enumerate(value):
        try:
            frames.append(_image(frame))
        except UserError as error:
            raise UserError(f"frame {number} of the video: {error}") from None
    return frames


def _numpy(value: Any, planes: int = 0) -> Any:
    """An array, or a tensor as one. Of a tensor with so many dimensions the first is that of colours."""
    import numpy as np

    if not _is_tensor(value):
        return np.asarray(value)
    value = value.detach().cpu()
    if planes and value.ndim == planes and value.shape[0] in (1, 3, 4):
        value = value.permute(1, 2, 0)
    if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
        value = value.float()
    return value.numpy()


def _is_rate(value: Any) -> bool:
    import numpy as np

    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return bool(number and 0 < value <= _HIGHEST_RATE and int(value) == value)


def _is_sound(value: Sequence[Any]) -> bool:
    """Whether it is a pair of samples and a rate."""
    if len(value) != 2 or not _is_array(value[0]) or len(value[0].shape) not in (1, 2):
        return False
    import numpy as np

    return isinstance(value[1], int | float | np.integer | np.floating) and not isinstance(value[1], bool)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_tensor(value: Any) -> bool:
    return _is_array(value) and type(value).__module__.split(".")[0] == "torch"


def _is_pillow(value: Any) -> bool:
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def _suffix(head: bytes) -> str:
    """Ending for the name of a file that came as bytes, where a program may go by it; readers go by the content."""
    known = {
        b"\x89PNG": ".png",
        b"\xff\xd8": ".jpg",
        b"fLaC": ".flac",
        b"OggS": ".ogg",
        b"ID3": ".mp3",
        b"GIF8": ".gif",
    }
    if head[:4] == b"RIFF":
        return {b"WAVE": ".wav", b"WEBP": ".webp", b"AVI ": ".avi"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return ".mp4"
    return next((suffix for magic, suffix in known.items() if head.startswith(magic)), "")


def _unfit(media_type: str, found: str) -> UserError:
    article = "an" if media_type != VIDEO else "a"
    what = {IMAGE: "image", AUDIO: "item of sound", VIDEO: "video"}[media_type]
    return UserError(f"{article} {what} is {FORMS[media_type]}, not {found}")
