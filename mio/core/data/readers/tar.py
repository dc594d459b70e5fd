"""Members of tar archives, header by header: what cannot be read is an error, never the end of the archive.

Python's `tarfile` takes the first damaged header, and the end of the first of several archives that were concatenated,
for the end of it all. Formats: POSIX.1-2001 pax, ustar, GNU (long names, sparse files), v7.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from mio.core.errors import DataError
from mio.core.terminal import printable

BLOCK = 512
MAX_SPARSE = 1 << 30
"""Bytes of the largest sparse file that is read: a few blocks can say that they are terabytes."""
_MAX_EXTENDED = 1 << 24
"""Bytes of the largest extended header that is read."""
_LINKS = 40
"""Links that are followed one after another, as Linux does."""
_ZERO = bytes(BLOCK)
_PACKED = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\0": "xz -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"\x04\x22\x4d\x18": "lz4 -d",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive, or a link to one."""

    name: str
    """Path inside the archive. Bytes that are no UTF-8 are escaped."""
    section: int
    """Which of several archives that were concatenated, from 0."""
    offset: int
    """Of its first byte; of its headers if it is sparse."""
    size: int
    link: str = ""
    """Name of the member that this one is a link to."""
    sparse: bool = False
    problem: str = ""
    """Why it has no content."""


def members(path: Path) -> Iterator[Member]:
    """Files and links of an archive in their order, directories left out.

    Raises:
        DataError: a header is damaged, or the archive is cut off, compressed, or no tar archive.
    """
    try:
        with path.open("rb") as file:
            yield from _Walk(path, file, path.stat().st_size).members()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def resolved(members: Iterable[Member]) -> list[Member]:
    """`members` with links replaced by the files that they lead to, under the links' names.

    A link that leads to no file of the archive has a `problem` instead.
    """
    listed = list(members)
    links = [number for number, member in enumerate(listed) if member.link]
    if not links:
        return listed
    places = {(member.section, posixpath.normpath(member.name)): member for member in listed}
    for number in links:
        link = target = listed[number]
        for _ in range(_LINKS):
            if not target.link:
                break
            aim = places.get((link.section, target.link))
            if aim is None:
                problem = f"is a link to `{printable(target.link)}`, which the archive does not hold"
                target = replace(target, link="", problem=problem)
            else:
                target = aim
        if target.link:
            target = replace(target, link="", problem="is a link that leads back to itself")
        listed[number] = replace(target, name=link.name)
    return listed


def content(file: BinaryIO, member: Member, where: str) -> bytes:
    """The bytes of a file of the archive `file`. Raises `DataError`, naming `where`, if they are not there."""
    if member.problem:
        raise DataError(f"{where}: {member.problem}")
    file.seek(member.offset)
    if not member.sparse:
        whole = file.read(member.size)
        if len(whole) < member.size:
            raise DataError(f"{where}: the archive is cut short")
        return whole
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            only = archive.next()
            if only is None:
                raise DataError(f"{where}: the archive has changed since it was indexed")
            if only.size > MAX_SPARSE:
                raise DataError(f"{where}: is a sparse file of {only.size:,} bytes (at most {MAX_SPARSE:,})")
            stream = archive.extractfile(only)
            return stream.read() if stream else b""
    except (tarfile.TarError, ValueError, IndexError, EOFError) as error:
        raise DataError(f"{where}: damaged sparse file: {error}") from error


class _Walk:
    """One pass over the headers of an archive."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._at = 0

    def members(self) -> Iterator[Member]:
        section, zeros, first = 0, 0, True
        common: dict[str, bytes] = {}
        while self._at < self._size:
            start = self._at
            block = self._block()
            if block == _ZERO:
                zeros += 1
                continue
            if zeros == 1:
                raise self._damaged(start - BLOCK, "a header of nothing but zeros")
            if zeros and not first:
                section, common = section + 1, {}
            zeros = 0
            member = self._member(start, block, section, common, first)
            first = False
            if member:
                yield member
        if first:
            raise DataError(f"{self._path}: is no tar archive, or an empty one")
        if not zeros:
            raise DataError(
                f"{self._path}: has no end-of-archive marker, as if it were cut off after its last whole member. Get "
                f"it again; if nothing is missing, add the marker: head -c 1024 /dev/zero >> {self._path}"
            )

    def _member(self, start: int, block: bytes, section: int, common: dict[str, bytes], first: bool) -> Member | None:
        """The member whose headers begin with `block`; None for what is no file."""
        own: dict[str, bytes] = {}
        long: dict[str, bytes] = {}
        while True:
            at = self._at - BLOCK
            self._verify(at, block, first)
            kind = block[156:157]
            size = self._number(at, block[124:136], "size")
            if kind == b"L":
                long["path"] = self._extended(at, size).split(b"\0")[0]
            elif kind == b"K":
                long["linkpath"] = self._extended(at, size).split(b"\0")[0]
            elif kind in b"xX":
                own |= self._records(at, size)
            elif kind == b"g":
                common |= self._records(at, size)
            else:
                break
            first = False
            if self._at >= self._size:
                if kind == b"g":
                    return None
                raise self._damaged(at, "the archive ends after it")
            block = self._block()
            if block == _ZERO:
                if kind == b"g" and not own and not long:
                    self._at -= BLOCK
                    return None
                raise self._damaged(at, "no member follows it")
        values = common | long | own
        plain = self._name(block)
        raw = values.get("GNU.sparse.name", values.get("path", plain))
        name = _text(raw)
        if "size" in values:
            size = self._decimal(at, values["size"])
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in own)
        if kind == b"S":
            more = block[482]
            while more:
                more = self._block()[504]
        if kind == b"M":
            raise self._damaged(at, "the archive goes on from another volume, which cannot be read alone")
        offset = self._at
        linked = kind in (b"1", b"2")
        if not (linked or kind in (b"3", b"4", b"5", b"6")):
            if offset + size > self._size:
                raise DataError(
                    f"{self._path}: is cut short within its member `{printable(name)}`, or its size is damaged"
                )
            self._at += -(-size // BLOCK) * BLOCK
        if kind in (b"5", b"V", b"D", b"N") or (kind in (b"\0", b"0") and raw.endswith(b"/")):
            return None
        if kind in (b"3", b"4", b"6"):
            return Member(name, section, offset, 0, problem="is a device or pipe, not a file")
        if linked:
            target = _text(values.get("linkpath", block[157:257].split(b"\0")[0]))
            if kind == b"2":
                target = posixpath.join(posixpath.dirname(name), target)
            return Member(name, section, offset, 0, link=posixpath.normpath(target))
        return Member(name, section, start if sparse else offset, size, sparse=sparse)

    def _block(self) -> bytes:
        self._file.seek(self._at)
        block = self._file.read(BLOCK)
        if len(block) < BLOCK:
            if block.strip(b"\0"):
                raise self._damaged(self._at, "the archive ends within it") if self._at else self._foreign(block)
            block = _ZERO
        self._at += BLOCK
        return block

    def _verify(self, at: int, block: bytes, first: bool) -> None:
        """Refuses a block that is no header: its sum of bytes, signed in some old archives, is part of it."""
        written = block[148:156].strip(b" \0")
        try:
            wanted = int(written, 8)
        except ValueError:
            wanted = -1
        rest = block[:148] + b" " * 8 + block[156:]
        if wanted != sum(rest) and wanted != sum(rest) - 256 * sum(byte > 127 for byte in rest):
            raise self._foreign(block) if first else self._damaged(at, "its checksum is wrong")

    def _number(self, at: int, value: bytes, what: str) -> int:
        """A number of a header: octal digits, or binary where the first bit is set."""
        if value[0] == 0x80:
            return int.from_bytes(value[1:], "big")
        digits = value.strip(b" \0")
        try:
            if value[0] & 0x80 or not digits.isdigit():
                raise ValueError
            return int(digits, 8)
        except ValueError:
            if not digits:
                return 0
            raise self._damaged(at, f"its {what} is no number") from None

    def _decimal(self, at: int, value: bytes) -> int:
        if not value.isdigit() or len(value) > 20:
            raise self._damaged(at, "its size is no number")
        return int(value)

    def _extended(self, at: int, size: int) -> bytes:
        if size > _MAX_EXTENDED:
            raise self._damaged(at, f"it says that {size:,} bytes of names follow")
        if self._at + size > self._size:
            raise self._damaged(at, "the archive ends after it")
        self._file.seek(self._at)
        header = self._file.read(size)
        self._at += -(-size // BLOCK) * BLOCK
        return header

    def _records(self, at: int, size: int) -> dict[str, bytes]:
        """Records of a pax header: `LENGTH KEY=VALUE` and a line break, the length being that of all of it."""
        records, text, begin = {}, self._extended(at, size).rstrip(b"\0"), 0
        while begin < len(text):
            length = text[begin : begin + 9].split(b" ")[0]
            end = begin + int(length) if length.isdigit() else 0
            key, equals, value = text[begin + len(length) + 1 : end].partition(b"=")
            if not equals or end > len(text) or not value.endswith(b"\n"):
                raise self._damaged(at, "its extended attributes cannot be read")
            records[_text(key)] = value[:-1]
            begin = end
        return records

    def _name(self, block: bytes) -> bytes:
        name = block[:100].split(b"\0")[0]
        if block[257:263] == b"ustar\0":  # in GNU archives the prefix's place holds something else
            prefix = block[345:500].split(b"\0")[0]
            name = prefix + b"/" + name if prefix else name
        return name

    def _foreign(self, block: bytes) -> DataError:
        for magic, command in _PACKED.items():
            if block.startswith(magic):
                return DataError(f"{self._path}: is compressed, and cannot be read at random; unpack it: {command}")
        return DataError(f"{self._path}: is no whole tar archive: it does not begin with a header")

    def _damaged(self, at: int, reason: str) -> DataError:
        return DataError(
            f"{self._path}: is no whole tar archive: damaged header at byte {at:,} ({reason}); get or make it again"
        )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
