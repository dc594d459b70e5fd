"""Opens media files: only regular and complete ones, of known formats, recognised by their content."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mio.core.contract.values import File
from mio.core.errors import DataError
from mio.core.files import regular_file
from mio.media.structure import missing


@contextmanager
def opened(path: File) -> Iterator[tuple[BinaryIO, int]]:
    """A file, on a disk or in memory, and its size in bytes.

    Raises `DataError` if it is missing, unreadable, empty, or not a regular file: a pipe or device might never end.
    """
    size = regular_file(path).st_size if isinstance(path, Path) else len(path.content)
    if not size:
        raise DataError(f"{path}: the file is empty")
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield file, size


_FARTHEST = 1 << 42
"""Largest position in a file; file systems reject larger ones."""


class Nameless:
    """A file, or its first `end` bytes, without a name: FFmpeg must recognise it by its content."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end
        file.seek(0)

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def seek(self, place: int, whence: int = 0) -> int:
        """The new position; a negative error number, as in C, for an impossible one: damaged files lead anywhere."""
        place += (0, self._file.tell(), self._end)[whence]
        return self._file.seek(place) if 0 <= place <= _FARTHEST else -errno.EINVAL

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def container(path: File, formats: Sequence[str], options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A file as PyAV's container.

    Args:
        formats: FFmpeg's names of the demuxers that may read it; the content decides which one does. Leave out formats
            that name other files, such as playlists.
        options: FFmpeg's options of the container.

    Raises `DataError` for a file that is damaged, cut off, or of another format, also if reading fails later.
    """
    with opened(path) as (file, size):
        if gone := missing(file, size):
            raise DataError(f"{path}: damaged: {gone}")
        with demuxed(path, Nameless(file, size), formats, options) as demuxer:
            yield demuxer


@contextmanager
def demuxed(path: File, file: Any, formats: Sequence[str], options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """PyAV's container of an open file; `path` is for messages."""
    import av

    settings = {"format_whitelist": ",".join(formats), **(options or {})}
    try:
        demuxer = av.open(file, metadata_errors="replace", options=settings)
    except (av.FFmpegError, ArithmeticError, UnicodeError, ValueError) as error:
        raise DataError(f"{path}: its content is of no known format, or damaged: {ffmpeg_reason(error)}") from None
    with demuxer:
        yield demuxer


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's text of an error, without its number."""
    return str(getattr(error, "strerror", None) or error)
