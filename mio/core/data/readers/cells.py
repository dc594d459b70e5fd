"""Cells that hold media: paths, `data:` addresses, bytes, and objects of these, as data sets write them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from mio.core.contract.values import Codes, Media, MemoryFile
from mio.core.data.readers.coded import CodedText
from mio.core.data.readers.json_values import a_json_type
from mio.core.errors import DataError
from mio.core.files import regular_file
from mio.core.terminal import printable

PLACES = ("bytes", "path", "url", "data", "file")
"""Keys of objects that hold media."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_NAMED: ContextVar[list[str] | None] = ContextVar("named", default=None)
"""Where files of media are noted, in place of being looked at."""
_SHOWN = 80
"""Characters of a path that messages show: what is taken for one may be megabytes of something else."""


@dataclass(frozen=True)
class MediaCells:
    """Makes media of the cells of one source."""

    folder: Path
    """Where relative paths start."""
    suffixes: Any = field(repr=False)
    """Call that gives the file name endings that can be read, by modality."""
    coded: CodedText = field(repr=False)
    """Finds codes that are written out in text."""

    def item(self, modality: str, value: Any, where: str) -> Media | Codes:
        """As `media`; codes, where a cell is text that holds those of one item and nothing else."""
        if isinstance(value, str):
            match self.coded.parse(value, where):
                case [Codes() as codes]:
                    return codes
        return self.media(modality, value, where)

    def media(self, modality: str, value: Any, where: str) -> Media:
        """A cell as media. Raises `DataError` for one that holds none, and for a file that is not there."""
        if empty(value):
            raise DataError(f"{where} is empty, it must hold media of `{modality}`")
        if isinstance(value, Mapping):
            return self._of_object(modality, value, where)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._of_bytes(modality, bytes(value), "")
        if not isinstance(value, str):
            raise DataError(f"{where} must be the path of a {modality} file, this is {a_json_type(value)}")
        if value[:5].lower() == "data:":
            return self._of_address(modality, value, where)
        if scheme := _ADDRESS.match(value):
            if scheme[1].lower() != "file":
                address = printable(value[:_SHOWN])
                raise DataError(
                    f"{where}: {address}: nothing is fetched from a network; download it, and give its path"
                )
            value = unquote(value[scheme.end() :].removeprefix("localhost"))
        return media_file(modality, self.folder / value, where)

    def _of_object(self, modality: str, value: Mapping[str, Any], where: str) -> Media:
        held = {name: value[name] for name in PLACES if not empty(value.get(name))}
        name = held.pop("path", None) if "bytes" in held else None
        if len(held) != 1:
            keys = ", ".join(f"`{name}`" for name in held or value) or "nothing"
            raise DataError(f"{where} must hold one of {', '.join(f'`{name}`' for name in PLACES)}; it holds {keys}")
        [(place, content)] = held.items()
        if place in ("bytes", "data") and isinstance(content, str) and content[:5].lower() != "data:":
            content = decoded(content, f"{where}: `{place}`")
            name = name or (value.get("format") and f".{value['format']}")
        if isinstance(content, bytes | bytearray | memoryview):
            return self._of_bytes(modality, bytes(content), Path(name).suffix if isinstance(name, str) else "")
        if not isinstance(content, str):
            wanted = "bytes" if place == "bytes" else "text"
            raise DataError(f"{where}: `{place}` must be {wanted}, this is {a_json_type(content)}")
        return self.media(modality, content, f"{where}: `{place}`")

    def _of_address(self, modality: str, value: str, where: str) -> Media:
        """RFC 2397."""
        head, comma, content = value[5:].partition(",")
        kind_of_media, *parameters = head.split(";")
        if not comma:
            raise DataError(f"{where}: a `data:` address without a comma")
        if parameters and parameters[-1].strip().lower() == "base64":
            plain = decoded(unquote(content), where)
        else:
            plain = unquote_to_bytes(content)
        if not plain:
            raise DataError(f"{where}: a `data:` address without content")
        return self._of_bytes(modality, plain, mimetypes.guess_extension(kind_of_media.strip().lower()) or "")

    def _of_bytes(self, modality: str, content: bytes, suffix: str) -> Media:
        known = self.suffixes().get(modality, ())
        if suffix.lower() not in known:
            suffix = known[0] if known else suffix
        if _NAMED.get() is not None:
            return Media(modality, Path(), key="")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return Media(modality, MemoryFile(content, suffix), key=f"{digest}{suffix}")


def media_file(modality: str, path: Path, where: str) -> Media:
    """A file as media. Raises `DataError` if it is not there."""
    if (named := _NAMED.get()) is not None:
        named.append(str(path))
        return Media(modality, path, key=str(path))
    state = regular_file(path, f"{where}: {shown(path)}")
    # the same key means the same codes, so a file that is replaced gets another key
    return Media(modality, path, key=f"{path}#{state.st_size}-{state.st_mtime_ns}")


def files_named(read: Callable[[], Any]) -> list[str]:
    """The files of media that a record names which `read` reads, whether they are there or not, looking at none."""
    named: list[str] = []
    token = _NAMED.set(named)
    try:
        read()
    except MemoryError:
        raise
    except Exception:
        pass  # what is wrong with a record is told where it is used
    finally:
        _NAMED.reset(token)
    return [name for name in named if "\0" not in name]


def shown(path: Path) -> str:
    """A path for messages, printable and not longer than makes sense."""
    text = str(path)
    return printable(text if len(text) <= 4 * _SHOWN else f"{text[:_SHOWN]}...")


def empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, no text but white space, no bytes, a list or an object of nothing else."""
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, list | tuple):
        return all(map(empty, value))
    if isinstance(value, Mapping):
        return all(map(empty, value.values()))
    return value is None or (isinstance(value, bytes) and not value)


def decoded(text: str, where: str) -> bytes:
    """What base64 holds (RFC 4648, both alphabets; padding and line breaks do not matter). Raises `DataError`."""
    packed = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: is no base64 (it begins with {text[:20]!r})") from None
