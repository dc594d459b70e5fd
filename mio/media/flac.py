"""How many samples a FLAC file holds, by its header and its last frame, where these agree (RFC 9639). Nothing is
decoded.

The header's number may be missing or wrong. The last frame, which its two checksums tell, says where its first sample
stands in the stream and how many it has.
"""

from __future__ import annotations

from functools import cache
from typing import BinaryIO, NamedTuple

_MARK = b"fLaC"
_STREAMINFO = 34
_MOST = 1 << 20
"""Longest last frame, in bytes, that is looked for."""
_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
"""Samples of a block by their code; 6 and 7 are written behind the header."""
_RATES = (0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_BEHIND = {12: (1, 1000), 13: (2, 1), 14: (2, 10)}
"""Rates that are written behind the header, by code: bytes, and factor."""
_CRC8, _CRC16 = 0x07, 0x8005


class FlacLength(NamedTuple):
    """A FLAC stream."""

    samples: int
    rate: int
    channels: int


class _Frame(NamedTuple):
    number: int
    by_sample: bool
    """Whether `number` counts samples; otherwise blocks."""
    block: int
    rate: int
    channels: int
    size: int
    """Bytes of the header."""


def flac_length(file: BinaryIO, size: int) -> FlacLength | None:
    """Length of the FLAC file of `size` bytes; None if it is no FLAC file, or if its header and end do not agree."""
    file.seek(0)
    head = file.read(8 + _STREAMINFO)
    if head[:4] != _MARK or head[4] & 0x7F or len(head) < 8 + _STREAMINFO:
        return None
    info = head[8:]
    blocks, packed = int.from_bytes(info[:2], "big"), int.from_bytes(info[10:18], "big")
    stream = FlacLength(packed & (1 << 36) - 1, packed >> 44, (packed >> 41 & 7) + 1)
    longest = int.from_bytes(info[7:10], "big") or _MOST
    start = max(8 + _STREAMINFO, size - min(longest, _MOST))
    file.seek(start)
    tail = file.read(size - start)
    place = len(tail)
    while (place := max(tail.rfind(b"\xff\xf8", 0, place), tail.rfind(b"\xff\xf9", 0, place))) >= 0:
        frame = _frame(tail[place : place + 16], stream)
        if frame and _crc(tail[place:-2], _CRC16, 16) == int.from_bytes(tail[-2:], "big"):
            end = (frame.number if frame.by_sample else frame.number * blocks) + frame.block
            right = (end, frame.rate, frame.channels) == stream
            return stream if right and end else None
    return None


def _frame(head: bytes, stream: FlacLength) -> _Frame | None:
    """The frame whose header `head` begins with; None if it is none."""
    if len(head) < 6 or head[3] & 1:
        return None
    wide = max(1, 8 - (~head[4] & 0xFF).bit_length())  # as in UTF-8: leading ones are its bytes
    at = 4 + wide
    if wide > 7 or len(head) < at or any(byte >> 6 != 2 for byte in head[5:at]):
        return None
    number = head[4] & (0x7F if wide == 1 else (1 << 7 - wide) - 1)
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    block, rate = _BLOCKS.get(head[2] >> 4, 0), head[2] & 15
    if head[2] >> 4 in (6, 7):
        length = (head[2] >> 4) - 5
        block = int.from_bytes(head[at : at + length], "big") + 1
        at += length
    if rate in _BEHIND:
        length, factor = _BEHIND[rate]
        hertz = int.from_bytes(head[at : at + length], "big") * factor
        at += length
    else:
        hertz = (stream.rate, *_RATES[1:])[rate] if rate < len(_RATES) else 0
    assigned = head[3] >> 4
    channels = assigned + 1 if assigned < 8 else 2
    if not block or len(head) <= at or _crc(head[:at], _CRC8, 8) != head[at]:
        return None
    return _Frame(number, bool(head[1] & 1), block, hertz, channels, at + 1)


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    """CRC without inversion or reflection."""
    table, value, mask = _table(polynomial, bits), 0, (1 << bits) - 1
    for byte in content:
        value = value << 8 & mask ^ table[value >> bits - 8 ^ byte]
    return value


@cache
def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
            value &= (1 << bits) - 1
        entries.append(value)
    return tuple(entries)
