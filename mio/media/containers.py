"""Media files opened with care: regular files alone, told by their content, of named formats, and all there."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mio.core.errors import DataError
from mio.core.files import regular_file
from mio.media.structure import missing


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size in bytes.

    Raises `DataError` if it is not there, cannot be read, is empty, or is no regular file: a pipe or device might never
    end.
    """
    size = regular_file(path).st_size
    if not size:
        raise DataError(f"{path}: the file is empty")
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield file, size


_FARTHEST = 1 << 42
"""Bytes into a file, more than any file system objects to."""


class Nameless:
    """A file, or a part of one, to read: FFmpeg is to judge it by its content, and to know of no place it lies in."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end
        file.seek(0)

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def seek(self, place: int, whence: int = 0) -> int:
        """The new place; negative, as C has it, where there can be none: damaged files send readers anywhere."""
        place += (0, self._file.tell(), self._end)[whence]
        return self._file.seek(place) if 0 <= place <= _FARTHEST else -errno.EINVAL

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def container(path: Path, formats: Sequence[str], options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A file as PyAV's container.

    Args:
        formats: FFmpeg's names of the demuxers that may read it. Which one does is told by the content. A format that
            names other files, as a playlist does, should not be among them.
        options: FFmpeg's, of the container.

    Raises `DataError` for a file that is damaged, cut off, or of no such format, also where reading fails later.
    """
    with opened(path) as (file, size):
        if gone := missing(file, size):
            raise DataError(f"{path}: damaged: {gone}")
        with demuxed(path, Nameless(file, size), formats, options) as found:
            yield found


@contextmanager
def demuxed(path: Path, file: Any, formats: Sequence[str], options: Mapping[str, str] | None = None) -> Iterator[Any]:
    """PyAV's container of an open file; `path` is for messages."""
    import av

    given = {"format_whitelist": ",".join(formats), **(options or {})}
    try:
        found = av.open(file, metadata_errors="replace", options=given)
    except (av.FFmpegError, ArithmeticError, UnicodeError, ValueError) as error:
        raise DataError(f"{path}: its content is of no known format, or damaged: {told(error)}") from None
    with found:
        yield found


def told(error: Exception) -> str:
    """FFmpeg's words for an error, without its number."""
    return str(getattr(error, "strerror", None) or error)
