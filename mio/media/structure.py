"""Whether a media file is complete, by the sizes in its own structure. Nothing is decoded.

Only certain signs count: a box, chunk or page that reaches beyond the end of the file, or a missing end mark. Streams
written with an open length say so, and count as complete.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

UNKNOWN = 0x7FFF0000
"""Recorders write 32-bit sizes from here on to leave the length open."""

UNENDED = "the file was cut off: its last Ogg page is not marked as the last"

_BOXES = b"ftyp styp moov moof mdat free skip wide pnot sidx ssix mfra meta uuid udta emsg prft".split()
_CAF = b"desc data free pakt chan peak info kuki strg mark".split()
_PARTS = 1 << 18
"""Most chunks of a file that are read: a run of zeros would be endless chunks of no length."""
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_Order = Literal["little", "big"]
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def missing(file: BinaryIO, size: int) -> str:
    """What is missing from a file of `size` bytes; empty if it is complete. Moves the position of `file`."""
    head = _at(file, 0, 16)
    for begins, walk in _KINDS:
        if begins(head):
            return walk(file, size)
    return ""


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _beyond(what: str, length: int, present: int) -> str:
    return f"the file was cut off: {what} has {length:,} bytes, of which {max(0, present):,} are there"


# --- ISO base media: MP4, MOV, M4A, 3GP


def _boxes(file: BinaryIO, size: int) -> str:
    place, kinds = 0, set()
    while place + 8 <= size:
        head = _at(file, place, 16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind not in _BOXES or length == 0:
            kinds.add(kind)
            break
        if length < 8:
            break
        if place + length > size:
            return _beyond(f"its `{kind.decode()}` box", length, size - place)
        kinds.add(kind)
        place += length
    if b"moov" not in kinds and b"moof" not in kinds and b"mdat" in kinds:
        return "the file was cut off: its index (`moov` box), which follows the content, is not there"
    return ""


# --- RIFF and its relatives: AVI, WAV, AIFF, AU, Wave64, CAF


def _chunks(file: BinaryIO, place: int, size: int, order: _Order, wide: int = 4) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and length of each chunk from `place` on. Lengths of 8 bytes are signed."""
    for _ in range(_PARTS):
        begin = place + 4 + wide
        if begin > size:
            break
        head = _at(file, place, 4 + wide)
        length = int.from_bytes(head[4:], order, signed=wide == 8)
        yield head[:4], begin, length
        place = begin + max(0, length) + (length % 2 if wide == 4 else 0)


def _avi(file: BinaryIO, size: int) -> str:
    for kind, begin, length in _chunks(file, 0, size, "little"):
        if kind != b"RIFF" or length == 0 or length >= UNKNOWN:
            break
        if begin + length > size + 1:
            return _beyond("its RIFF chunk", length, size - begin)
    return ""


@dataclass(frozen=True)
class WaveData:
    """Where the samples of a WAV file lie."""

    begin: int
    length: int | None
    """Bytes of samples by the header; None if it leaves them open."""
    codec: int
    """Number of the codec in the chunk `fmt `."""


def wave_data(file: BinaryIO, size: int) -> WaveData | None:
    """The `data` chunk of a RIFF, RIFX, RF64 or BW64 file; None if there is none."""
    head = _at(file, 0, 12)
    order: _Order = "big" if head[:4] == b"RIFX" else "little"
    riff, large, codec = int.from_bytes(head[4:8], order) + 8, None, 0
    for kind, begin, length in _chunks(file, 12, size, order):
        if kind == b"fmt ":
            codec = int.from_bytes(_at(file, begin, 2), order)
        if kind == b"ds64":
            large = int.from_bytes(_at(file, begin + 8, 8), "little")
        if kind == b"data":
            if large is not None and length == 0xFFFFFFFF:
                return WaveData(begin, large if 0 < large < 1 << 62 else None, codec)
            if length >= UNKNOWN > size - begin:
                return WaveData(begin, None, codec)
            # a length of 0: the recorder never filled it in, unless only further chunks follow
            streamed = length == 0 and size > begin and abs(riff - size) > 1 and not _chunked(file, begin, size, order)
            return WaveData(begin, None if streamed else length, codec)
    return None


def _chunked(file: BinaryIO, place: int, size: int, order: _Order) -> bool:
    """Whether the rest of a file consists of chunks."""
    for _, begin, length in _chunks(file, place, size, order):
        place = begin + length + length % 2
    return place == size


def _wave(file: BinaryIO, size: int) -> str:
    data = wave_data(file, size)
    if data and data.length is not None and data.begin + data.length > size:
        return _beyond("its `data` chunk", data.length, size - data.begin)
    return ""


def _aiff(file: BinaryIO, size: int) -> str:
    for kind, begin, length in _chunks(file, 12, size, "big"):
        if kind == b"SSND" and length < UNKNOWN and begin + length > size:
            return _beyond("its `SSND` chunk", length, size - begin)
    return ""


def _au(file: BinaryIO, size: int) -> str:
    head = _at(file, 0, 12)
    order: _Order = "big" if head[:4] == b".snd" else "little"
    begin, length = int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
    return _beyond("its content", length, size - begin) if length < UNKNOWN and begin + length > size else ""


def wave64_end(file: BinaryIO, size: int) -> int | None:
    """End of the samples of a Wave64 file by its header; None if it leaves it open."""
    place = 40
    while place + 24 <= size:
        head = _at(file, place, 24)
        length = int.from_bytes(head[16:], "little")
        if length < 24:
            break
        if head[:4] == b"data":
            return place + length if length < 1 << 62 else None
        place += -(-length // 8) * 8
    return None


def _wave64(file: BinaryIO, size: int) -> str:
    end = wave64_end(file, size)
    return _beyond("its content", end, size) if end is not None and end > size else ""


def sphere_end(file: BinaryIO) -> int | None:
    """End of the samples of a NIST SPHERE file by its header; None if it lacks it."""
    lines = _at(file, 0, 1024).decode("latin-1").splitlines()
    fields = {words[0]: words[-1] for line in lines if len(words := line.split()) == 3}
    try:
        sample = int(fields.get("channel_count", "1")) * int(fields["sample_n_bytes"])
        return int(lines[1]) + int(fields["sample_count"]) * sample
    except (KeyError, ValueError, IndexError):
        return None


def _sphere(file: BinaryIO, size: int) -> str:
    end = sphere_end(file)
    return _beyond("its content", end, size) if end is not None and end > size else ""


def _caf(file: BinaryIO, size: int) -> str:
    for kind, begin, length in _chunks(file, 8, size, "big", 8):
        if length < 0:
            break
        if kind in _CAF and begin + length > size:
            return _beyond(f"its `{kind.decode()}` chunk", length, size - begin)
    return ""


def caf_frames(file: BinaryIO, size: int) -> int | None:
    """Samples of a CAF file with packets of variable size; None for others."""
    for kind, begin, _ in _chunks(file, 8, size, "big", 8):
        if kind == b"pakt":
            return int.from_bytes(_at(file, begin + 8, 8), "big")
    return None


# --- Matroska, FLV, ASF


def _matroska(file: BinaryIO, size: int) -> str:
    place, end = 0, size
    while place + 2 <= size:
        head = _at(file, place, 12)
        width = 9 - head[0].bit_length()
        if not 1 <= width <= 4 or width >= len(head):
            break
        name, wide = head[:width], 9 - head[width].bit_length()
        if not 1 <= wide <= 8:
            break
        coded = int.from_bytes(head[width : width + wide], "big") & ((1 << 7 * wide) - 1)
        unknown = coded == (1 << 7 * wide) - 1
        begin = place + width + wide
        if not unknown and begin + coded > end and name in _MATROSKA:
            return _beyond(f"its {_MATROSKA[name]}", coded, size - begin)
        if name == b"\x18\x53\x80\x67" and unknown:
            place = begin  # of a stream; its parts may know their sizes
        elif unknown or name == b"\x18\x53\x80\x67":
            break
        else:
            place = begin + coded
    return ""


_MATROSKA = {b"\x18\x53\x80\x67": "segment", b"\x1f\x43\xb6\x75": "last cluster"}


def _flv(file: BinaryIO, size: int) -> str:
    place = int.from_bytes(_at(file, 5, 4), "big") + 4
    while place + 11 <= size:
        head = _at(file, place, 4)
        length = int.from_bytes(head[1:], "big")
        if head[0] & 0x1F not in (8, 9, 18):
            return ""
        if place + 11 + length > size:
            return _beyond("its last tag", length, size - place - 11)
        place += 11 + length + 4
    return "" if place >= size else "the file was cut off: it ends within a tag"


def _asf(file: BinaryIO, size: int) -> str:
    place = 0
    while place + 24 <= size:
        length = int.from_bytes(_at(file, place + 16, 8), "little")
        if length < 24 or (place and length >= 1 << 62):
            break
        if place + length > size:
            return _beyond("its data object" if place else "its header", length, size - place)
        place += length
    return ""


# --- Ogg


@dataclass(frozen=True)
class Page:
    """One page of an Ogg stream."""

    begin: int
    end: int
    first: bool
    last: bool
    serial: int
    number: int
    content: bytes
    """The first bytes of its content."""


def pages(file: BinaryIO, size: int) -> Iterator[Page]:
    """The pages of an Ogg file. Raises `ValueError` for one that is damaged, cut off, or gone."""
    place = 0
    numbers: dict[int, int] = {}
    while place < size:
        head = _at(file, place, 27)
        if head[:4] != b"OggS":
            after = _next_page(file, place, size)
            if after is None and place:
                return  # bytes behind the last page do not belong to the sound
            if after is None or place:
                raise ValueError(f"no Ogg page at byte {place:,}")
            place = after
            continue
        table = file.read(head[26]) if len(head) == 27 else b""
        content = file.read(sum(table))
        if len(head) < 27 or len(table) < head[26] or len(content) < sum(table):
            raise ValueError("the file was cut off: it ends within an Ogg page")
        checked = head[:22] + bytes(4) + head[26:] + table + content
        if _ogg_checksum(checked) != int.from_bytes(head[22:26], "little"):
            raise ValueError(f"the Ogg page at byte {place:,} is damaged")
        serial, number = int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
        first, last = bool(head[5] & 2), bool(head[5] & 4)
        if not first and number != numbers.get(serial, number - 1) + 1:
            raise ValueError(f"Ogg pages are missing before byte {place:,}")
        numbers[serial] = number
        yield Page(place, file.tell(), first, last, serial, number, content[:16])
        place += 27 + len(table) + len(content)


def _next_page(file: BinaryIO, place: int, size: int) -> int | None:
    while place < size:
        block = _at(file, place, 1 << 16)
        offset = block.find(b"OggS")
        if offset >= 0:
            return place + offset
        if len(block) < 4:
            return None
        place += len(block) - 3
    return None


def _ogg_checksum(content: bytes) -> int:
    """CRC-32 with zlib's polynomial, but with reversed bits and without inversion."""
    mirrored = ~zlib.crc32(content.translate(_MIRRORED), 0xFFFFFFFF) & 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def _ogg(file: BinaryIO, size: int) -> str:
    open_streams: set[int] = set()
    try:
        for page in pages(file, size):
            if page.first:
                open_streams.add(page.serial)
            if page.last:
                open_streams.discard(page.serial)
    except ValueError as error:
        return str(error)
    return UNENDED if open_streams else ""


# --- GIF and PNG


def _gif(file: BinaryIO, size: int) -> str:
    head = _at(file, 0, 13)
    if len(head) < 13:
        return "the file was cut off"
    place = 13 + (3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0)
    while place < size:
        head = _at(file, place, 10)
        if head[0] == _GIF_END:
            return ""
        if head[0] == _GIF_IMAGE and len(head) == 10:
            place += 11 + (3 << (head[9] & 7) + 1 if head[9] & 0x80 else 0)
        elif head[0] == _GIF_EXTENSION:
            place += 2
        else:
            return ""  # not what a GIF may hold here: left to the decoder
        while place < size and (length := _at(file, place, 1)[0]):
            place += 1 + length
        place += 1
    return "the file was cut off: its last picture does not end"


def _png(file: BinaryIO, size: int) -> str:
    place = 8
    for _ in range(_PARTS):
        if place + 8 > size:
            break
        head = _at(file, place, 8)
        if head[4:] == b"IEND":
            return ""
        place += 12 + int.from_bytes(head[:4], "big")
    return "the file was cut off: its last chunk is not there"


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], str]], ...] = (
    (lambda head: head[4:8] in _BOXES, _boxes),
    (lambda head: head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE", _wave),
    (lambda head: head[:4] == b"RIFF" and head[8:11] == b"AVI", _avi),
    (lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"), _aiff),
    (lambda head: head[:4] in (b".snd", b"dns."), _au),
    (lambda head: head[:4] == b"riff", _wave64),
    (lambda head: head[:4] == b"NIST", _sphere),
    (lambda head: head[:4] == b"caff", _caf),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[:3] == b"FLV", _flv),
    (lambda head: head == _ASF, _asf),
    (lambda head: head[:4] == b"OggS", _ogg),
    (lambda head: head[:4] == b"GIF8", _gif),
    (lambda head: head[:8] == b"\x89PNG\r\n\x1a\n", _png),
)
