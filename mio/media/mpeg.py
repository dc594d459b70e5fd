"""The frames of MPEG audio (MP3, MP2), located one by one: no header states their number reliably."""

from __future__ import annotations

from dataclasses import dataclass

_MPEG1, _LAYERS = 3, {3: 1, 2: 2, 1: 3}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits per second by MPEG-1 or later, and layer."""
_LEADING = 1 << 16
"""Bytes before the first frame that may be something else."""
_SURE = 3
"""Frames in a row that confirm the beginning of a stream."""


@dataclass(frozen=True)
class Header:
    """The four bytes at the beginning of a frame, decoded."""

    stream: tuple[int, int, int]
    """Version, layer and samples per second: the same in all frames of a stream."""
    size: int
    """Bytes of the frame."""
    samples: int
    mono: bool


def header(content: bytes, place: int) -> Header | None:
    """The header of the frame at `place`, if there is one."""
    head = content[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, _LAYERS.get(head[1] >> 1 & 3)
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer is None or rate == 3 or kbits in (0, 15) or head[3] & 3 == 2:
        return None
    first = version == _MPEG1
    hertz, bits, padding = _RATES[version][rate], 1000 * _KBITS[first, layer][kbits], head[2] >> 1 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return Header((version, layer, hertz), size, samples, head[3] >> 6 == 3)


def _sure(content: bytes, place: int) -> bool:
    """Whether `_SURE` frames of one stream follow each other here, or fewer up to the end of the content."""
    stream = None
    for number in range(_SURE):
        head = header(content, place)
        if head is None or (stream is not None and head.stream != stream):
            return number > 0 and place == len(content)
        stream = head.stream
        place += head.size
    return True


def begin(content: bytes, start: int = 0, within: int = _LEADING) -> int | None:
    """Position of the first frame, if it is `within` so many bytes."""
    place = start - 1
    while (place := content.find(b"\xff", place + 1, start + within)) >= 0:
        if _sure(content, place):
            return place
    return None


def id3_size(content: bytes, place: int = 0) -> int:
    """Bytes of the ID3v2 tag at `place`; 0 if there is none."""
    head = content[place : place + 10]
    if head[:3] != b"ID3" or len(head) < 10 or any(byte & 0x80 for byte in head[6:]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return size + (20 if head[5] & 0x10 else 10)


def _tag_size(content: bytes, place: int) -> int:
    """Bytes of a tag between or behind the frames; 0 if there is none."""
    if content[place : place + 3] == b"TAG":
        return 128
    if content[place : place + 8] == b"APETAGEX":
        return int.from_bytes(content[place + 12 : place + 16], "little") + 32
    if content[place : place + 11] == b"LYRICSBEGIN":
        end = content.find(b"LYRICS200", place)
        return end + 9 - place if end >= 0 else 0
    return id3_size(content, place)


def _frame_count(content: bytes, place: int, first: Header) -> int | None:
    """Number of frames in the Xing, Info or VBRI header at `place`: 0 if it lacks it, None if there is no header."""
    version, _, _ = first.stream
    side = (17 if first.mono else 32) if version == _MPEG1 else (9 if first.mono else 17)
    name = place + 4 + side
    if content[name : name + 4] in (b"Xing", b"Info"):
        return int.from_bytes(content[name + 8 : name + 12], "big") if content[name + 7] & 1 else 0
    if content[place + 36 : place + 40] == b"VBRI":
        return int.from_bytes(content[place + 50 : place + 54], "big")
    return None


def frames(content: bytes, whole: bool, seconds: float) -> bytes | None:
    """The frames of `content` in a row, without tags and other data; None if it is not MPEG audio.

    The header frame is kept if its number of frames is right: it tells decoders how much padding encoders added.

    Args:
        whole: whether the content goes to the end of the file.
        seconds: frames for a little longer than this are enough.

    Raises `ValueError` for a stream that is damaged or cut off.
    """
    place = begin(content)
    if place is None:
        return None
    first = header(content, place)
    assert first is not None
    promised = _frame_count(content, place, first)
    spans: list[tuple[int, int]] = []
    # beside a header frame, encoders put up to 4095 samples before the sound
    wanted = seconds * first.stream[2] / first.samples + 12
    while place < len(content) and len(spans) < wanted:
        frame = header(content, place)
        if frame and frame.stream == first.stream:
            if place + frame.size > len(content):
                if whole:
                    raise ValueError("the file was cut off: it ends within a frame")
                break
            spans.append((place, place + frame.size))
            place += frame.size
        elif tag := _tag_size(content, place):
            place += tag
        else:
            if beyond := begin(content, place + 1, 16 * _LEADING):
                raise ValueError(f"{beyond - place} bytes between its frames are not frames, or of another stream")
            break
    more = len(spans) >= wanted or not whole
    used = sum(end - start for start, end in spans)
    if not more:
        count = len(spans) - (promised is not None)
        if promised and count < promised - 1:
            raise ValueError(f"the file was cut off: {count} of {promised} frames are there")
        if len(content) - place > used:
            raise ValueError("more than half of it is not sound")
        if promised is not None and count != promised:
            spans = spans[1:]
    return b"".join(content[start:end] for start, end in spans)
