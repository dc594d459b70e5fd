"""Media of requests: from bytes that a client sent to items that the run reads, within limits.

No URL is opened, and no path but those of a folder that the operator allows. What something is, is seen from its
content. Sizes are checked in headers, before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
import stat
import urllib.parse
from pathlib import Path

from mio.core.contract.values import Media, MemoryFile
from mio.core.errors import DataError, UserError
from mio.core.tokens.codecs import Codecs
from mio.media.containers import container
from mio.media.sound import sound_seconds
from mio.serve.abilities import Abilities
from mio.serve.errors import ApiError
from mio.serve.limits import Limits
from mio.serve.protocol.chat import Part
from mio.serve.remembered import name_of_bytes

IMAGE, AUDIO, VIDEO = "image", "audio", "video"
_PILLOW = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
"""Formats of pictures, with the ending that readers know them by."""
_ANIMATED = ("GIF", "WEBP", "PNG")
_VIDEOS = ("mov", "matroska", "avi", "mpegts", "flv", "asf", "mpeg", "mpegvideo", "ogg", "mxf", "dv", "ivf", "nut")
_TYPES = {"image_url": IMAGE, "input_audio": AUDIO, "audio_url": AUDIO, "video_url": VIDEO}


class Receiver:
    """Makes media of the parts of requests.

    Args:
        folder: whose files requests may name as `file:` URLs; None: no file at all.
    """

    def __init__(self, abilities: Abilities, codecs: Codecs, limits: Limits, folder: Path | None = None) -> None:
        self._abilities, self._codecs, self._limits = abilities, codecs, limits
        self._folder = folder.resolve(strict=True) if folder is not None else None

    def media(self, part: Part, param: str) -> Media:
        """The item of a part that holds media. Raises `ApiError`."""
        return self.item(*self.content(part, param))

    def content(self, part: Part, param: str) -> tuple[str, bytes, str, str]:
        """Modality, bytes, place in the request and file's ending of a part that holds media. Raises `ApiError`."""
        where = f"{param}.{part.type}"
        if part.type == "file":
            assert part.file is not None
            name = self._abilities.file_reader(part.file.filename, part.modality, f"{where}.filename")
            content = self._content(part.file.file_data, f"{where}.file_data", bare=True)
            return name, content, where, Path(part.file.filename).suffix.lower()
        if part.type == "input_audio":
            assert part.input_audio is not None
            source, bare, where = part.input_audio.data, True, f"{where}.data"
        else:
            source, bare, where = getattr(part, part.type).url, False, f"{where}.url"
        name = self._abilities.reader(_TYPES[part.type], part.modality, param)
        return name, self._content(source, where, bare), where, ""

    def item(self, modality: str, content: bytes, param: str, suffix: str = "") -> Media:
        """An item of a modality, of the bytes of a file, which is read. Raises `ApiError` for one that is too large, of
        another kind, or damaged."""
        if not content:
            raise _bad("it is empty", param)
        try:
            kind = self._abilities.media_type(modality)
            if kind == IMAGE:
                suffix = self._check_image(content, param)
            elif kind == AUDIO:
                suffix = self._check_sound(content, param)
            elif kind == VIDEO:
                suffix = self._check_video(content, param)
            key = f"sha256:{name_of_bytes(content)}{suffix}"
            return self._codecs.opened(Media(modality, MemoryFile(content, suffix), key))
        except UserError as error:
            raise _bad(str(error), param) from error

    def _content(self, source: str, param: str, bare: bool) -> bytes:
        """Bytes of a data URL, of an allowed file, or, `bare`, of base64."""
        scheme = source[:8].partition(":")[0].lower() if ":" in source[:8] else ""
        if scheme == "data":
            head, comma, encoded = source.partition(",")
            if not comma:
                raise _bad("a data URL is `data:TYPE;base64,CONTENT`", param)
            if head.lower().endswith(";base64"):
                return _decoded(encoded, param)
            return urllib.parse.unquote_to_bytes(encoded)
        if scheme == "file":
            return self._file(source, param)
        if bare and not scheme:
            return _decoded(source, param)
        raise ApiError(
            400, f"`{param}`: URLs are not opened; send the content itself, as `data:TYPE;base64,CONTENT`", param,
            "unsupported_url",
        )  # fmt: skip

    def _file(self, url: str, param: str) -> bytes:
        if self._folder is None:
            raise ApiError(400, f"`{param}`: this server opens no files; send a data URL", param, "unsupported_url")
        place = urllib.parse.urlsplit(url)
        path = Path(urllib.parse.unquote(place.path))
        if place.netloc not in ("", "localhost") or "\0" in str(path):
            raise _bad("a file of this machine is `file:///FOLDER/NAME`", param)
        try:
            real = (path if path.is_absolute() else self._folder / path).resolve(strict=True)
            if not real.is_relative_to(self._folder) or not stat.S_ISREG(real.stat().st_mode):
                raise FileNotFoundError
            if real.stat().st_size > self._limits.body:
                raise ApiError(413, f"`{param}`: files have at most {self._limits.body} bytes", param, "too_large")
            return real.read_bytes()
        except (OSError, RuntimeError) as error:  # of links in a circle
            raise _bad("there is no such file in the folder that is allowed", param) from error

    def _check_image(self, content: bytes, param: str) -> str:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(content), formats=list(_PILLOW)) as image:
                width, height = image.size
                kind = image.format or ""
        except Image.DecompressionBombError as error:
            raise _bad(f"it has too many pixels; at most {self._limits.pixels} are taken", param) from error
        except Exception as error:  # of a damaged header, Pillow raises whatever comes of it
            raise DataError(f"it is no picture of a known format ({', '.join(_PILLOW)})") from error
        self._check_pixels(width, height, param)
        return _PILLOW[kind]

    def _check_pixels(self, width: int, height: int, param: str) -> None:
        if width * height > self._limits.pixels:
            raise _bad(f"it has {width} x {height} pixels; at most {self._limits.pixels} are taken", param)

    def _check_sound(self, content: bytes, param: str) -> str:
        if sound_seconds(MemoryFile(content), self._limits.seconds) > self._limits.seconds:
            raise _bad(f"it lasts longer than {self._limits.seconds:g} s", param)
        return ""

    def _check_video(self, content: bytes, param: str) -> str:
        if (found := self._animation(content)) is not None:
            width, height, seconds, suffix = found
        else:
            width, height, seconds = _measured(content)
            suffix = ".mp4"
        self._check_pixels(width, height, param)
        if seconds > self._limits.seconds:
            raise _bad(f"it lasts longer than {self._limits.seconds:g} s", param)
        return suffix

    def _animation(self, content: bytes) -> tuple[int, int, float, str] | None:
        """Width, height, about the seconds, and ending of a file of moving pictures; None if it is none."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(content), formats=_ANIMATED) as image:
                frames = getattr(image, "n_frames", 1)
                seconds = frames * max(float(image.info.get("duration", 0)), 10.0) / 1000
                return *image.size, seconds, _PILLOW[image.format or ""]
        except Exception:  # as above
            return None


def _measured(content: bytes) -> tuple[int, int, float]:
    """Width, height and seconds of a video, from its headers and the times of its packets. Raises `DataError`."""
    import av

    file = MemoryFile(content)
    try:
        with container(file, _VIDEOS) as found:
            if not found.streams.video:
                raise DataError(f"{file}: holds no moving picture")
            stream = found.streams.video[0]
            seconds = 0.0
            for packet in found.demux(stream):
                if packet.pts is not None and packet.time_base is not None:
                    seconds = max(seconds, float(packet.pts * packet.time_base))
            return stream.codec_context.width, stream.codec_context.height, seconds
    except (av.FFmpegError, ArithmeticError, UnicodeError, ValueError) as error:
        raise DataError(f"{file}: damaged video: {getattr(error, 'strerror', None) or error}") from error


def _decoded(encoded: str, param: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()) if "\n" in encoded else encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("it is not valid base64", param) from error


def _bad(message: str, param: str) -> ApiError:
    return ApiError(400, f"`{param}`: {message}", param, "invalid_media")
