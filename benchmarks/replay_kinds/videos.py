"""Video files that are not to be shown as they are stored, are not what they are called, or not as long as they say.

Oracles: FFmpeg through PyAV with a graph of filters that is written out here, OpenCV, the frames that Pillow was given,
and content that tells a frame's number and which way up it is.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from PIL import Image
from replays import Variant

from mio.plugins import video

FRAMES = 8
"""That the plugin gives at most."""
COLOURS = ((220, 30, 30), (30, 200, 30), (40, 40, 220))
Picture = Any


@dataclass(frozen=True)
class Case:
    """A file and what is to be seen of it."""

    name: str
    content: bytes
    ending: str = ".mp4"
    turn: int = 0
    """Degrees counter-clockwise that players turn it by, before they mirror it."""
    mirror: tuple[bool, bool] = (False, False)
    """Left to right, top to bottom."""
    pixel: Fraction = Fraction(1)
    readable: bool | None = True
    right: Callable[[Any], str] | None = None
    """Another oracle than FFmpeg's filters."""
    pristine: bytes | None = field(default=None, repr=False)
    """What FFmpeg is to read in place of a file with a damage."""
    tolerance: float = 4.0


def drawn(number: int, count: int, width: int, height: int) -> Picture:
    """A quarter each of red, green and blue; the fourth gets lighter from frame to frame."""
    picture = np.zeros((height, width, 3), np.uint8)
    middle = height // 2, width // 2
    picture[: middle[0], : middle[1]], picture[: middle[0], middle[1] :], picture[middle[0] :, : middle[1]] = COLOURS
    picture[middle[0] :, middle[1] :] = 20 + 215 * number // max(1, count - 1)
    return picture


def made(
    form: str,
    codec: str,
    size: tuple[int, int] = (96, 64),
    count: int = 20,
    times: Sequence[float] = (),
    turn: tuple[int, bool, bool] | None = None,
    pixel: Fraction | None = None,
    depth: str = "yuv420p",
    colours: tuple[int | None, int | None] = (None, None),
    tags: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> bytes:
    # an index comes to the front of a file that has a place alone
    file = tempfile.TemporaryFile()  # noqa: SIM115
    named = f"/proc/self/fd/{file.fileno()}" if "faststart" in str(muxer) else file
    with av.open(named, "w", format=form, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=10, options=encoder or {})
        stream.width, stream.height, stream.pix_fmt = *size, depth
        stream.bit_rate = 2_000_000
        if turn:
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        if pixel:
            stream.codec_context.sample_aspect_ratio = pixel
        space, span = colours
        if space:
            stream.codec_context.colorspace = space
        if span:
            stream.codec_context.color_range = span
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.metadata.update(tags or {})
        for number in range(len(times) or count):
            frame = av.VideoFrame.from_ndarray(drawn(number, len(times) or count, *size), format="rgb24")
            frame = frame.reformat(format=depth, dst_colorspace=space, dst_color_range=span)
            if times:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with file:
        return file.read()


def shown(case: Case) -> list[tuple[float, Picture]]:
    """All frames with their times, by FFmpeg with the filters that bring them into the right place and shape."""
    found = []
    with av.open(io.BytesIO(case.pristine or case.content)) as container:
        stream = next(one for one in container.streams.video if not one.disposition & Disposition.attached_pic)
        graph = av.filter.Graph()
        chain = [graph.add_buffer(template=stream)]
        width = round(stream.width * case.pixel)
        chain += [
            graph.add("scale", f"{width}:{stream.height}"),
            graph.add("setsar", "1"),
            graph.add("format", "rgb24"),
        ]
        chain += [graph.add("transpose", "cclock") for _ in range(case.turn // 90)]
        chain += [graph.add(name, "") for name, wanted in zip(("hflip", "vflip"), case.mirror, strict=True) if wanted]
        chain.append(graph.add("buffersink"))
        for one, other in pairwise(chain):
            one.link_to(other)
        graph.configure()
        for frame in container.decode(stream):
            graph.push(frame)
            # a time before the beginning is none to Matroska
            found.append((frame.time if frame.time is not None else -math.inf, graph.pull().to_ndarray(format="rgb24")))
    # frames come in the order in which they are shown; of some files FFmpeg guesses times from another order
    times = sorted(time for time, _ in found)
    first = next((time for time in times if time > -math.inf), 0.0)
    early = times.count(-math.inf)
    times = [first + (at - early) / 10 if at < early else time for at, time in enumerate(times)]
    return list(zip(times, [picture for _, picture in found], strict=True))


def even(times: Sequence[float]) -> list[int]:
    """Numbers of the frames nearest to so many points at even distances in time."""
    if len(times) <= FRAMES:
        return list(range(len(times)))
    points = [times[0] + (times[-1] - times[0]) * number / (FRAMES - 1) for number in range(FRAMES)]
    nearest = [min(range(len(times)), key=lambda at: (abs(times[at] - point), at)) for point in points]
    for number in range(1, FRAMES):
        nearest[number] = min(max(nearest[number], nearest[number - 1] + 1), len(times) - FRAMES + number)
    return nearest


def differences(found: Sequence[Picture], due: Sequence[Picture], tolerance: float) -> str:
    if len(found) != len(due):
        return f"{len(found)} frames instead of {len(due)}"
    for number, (one, other) in enumerate(zip(found, due, strict=True)):
        if one.shape != other.shape:
            return f"frame {number} is {one.shape} instead of {other.shape}"
        if (off := float(np.abs(one.astype(int) - other).mean())) > tolerance:
            return f"frame {number} is {off:.1f} off"
    return ""


def right(case: Case) -> Callable[[Any], str]:
    if case.right is not None:
        return case.right

    def check(found: list[Picture]) -> str:
        frames = shown(case)
        return differences(found, [frames[at][1] for at in even([time for time, _ in frames])], case.tolerance)

    return check


def numbers_of(pictures: Sequence[Picture]) -> list[float]:
    """The lightness of the fourth quarter."""
    return [float(one[one.shape[0] * 3 // 4, one.shape[1] * 3 // 4].mean()) for one in pictures]


def some_beginning(case: Case) -> Callable[[Any], str]:
    """Of a file that lost its end: frames of what is left, evenly spread over it."""

    def check(found: list[Picture]) -> str:
        frames = [picture for _, picture in shown(case)]
        levels, known = numbers_of(found), numbers_of(frames)
        at = [min(range(len(known)), key=lambda number: abs(known[number] - level)) for level in levels]
        if any(one.shape != frames[0].shape for one in found) or at != sorted(set(at)) or at[0] != 0:
            return f"frames {at} of {len(frames)}"
        steps = np.diff(at)
        return "" if len(at) < 2 or steps.max() - steps.min() <= 1 else f"frames {at} are not even"

    return check


def by_opencv(case: Case, folder: Path) -> Callable[[Any], str]:
    """The first frame as OpenCV shows it, which turns it by itself."""

    def check(found: list[Picture]) -> str:
        path = folder / "opencv.mp4"
        path.write_bytes(case.content)
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        _, picture = capture.read()
        capture.release()
        return differences(found[:1], [picture[..., ::-1]], case.tolerance) or right(case)(found)

    return check


def turned(random: Random) -> Iterator[Case]:
    coders = (("mp4", "libx264", ".mp4"), ("mov", "mpeg4", ".mov"), ("matroska", "libx264", ".mkv"))
    for turn in (0, 90, 180, 270):
        for mirror in ((False, False), (True, False), (False, True)):
            form, codec, ending = random.choice(coders)
            size = random.choice([(96, 64), (64, 96), (90, 50)])
            content = made(form, codec, size, turn=(turn, *mirror))
            yield Case(f"{form} of {size} turned {turn}, mirrored {mirror}", content, ending, turn, mirror)
    for form, codec, ending in coders:
        pixel = random.choice([Fraction(4, 3), Fraction(8, 9), Fraction(3, 4)])
        content = made(form, codec, turn=(90, False, False), pixel=pixel)
        yield Case(f"{form} turned 90, pixels of {pixel}", content, ending, 90, pixel=pixel)
    # a, b, c, d of the header's matrix by hand: a point (x, y) goes to (a x + c y, b x + d y)
    plain = made("mp4", "libx264", turn=(180, False, False))
    for matrix, turn, left in (
        *(((1, 0, 0, 1), 0, False), ((0, 1, -1, 0), 270, False), ((-1, 0, 0, -1), 180, False)),
        *(((0, -1, 1, 0), 90, False), ((-1, 0, 0, 1), 0, True), ((0, 1, 1, 0), 270, True)),
    ):
        content = bytearray(plain)
        place = content.index(b"tkhd") + 4 + 40
        a, b, c, d = (65536 * value for value in matrix)
        content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        yield Case(f"matrix {matrix}", bytes(content), turn=turn, mirror=(left, False))
    for degrees, turn in (("90", 270), ("180", 180), ("270", 90), ("-90", 90)):
        content = made("matroska", "libx264", tags={"rotate": degrees})
        yield Case(f"tag `rotate` of {degrees}", content, ".mkv", turn)
    yield Case("turned by 45", made("mp4", "libx264", turn=(45, False, False)), readable=False)


def stretched(random: Random) -> Iterator[Case]:
    for form, codec in (
        ("mp4", "libx264"),
        ("matroska", "mpeg4"),
        ("mpegts", "mpeg2video"),
        ("avi", "mpeg4"),
        ("asf", "wmv2"),
    ):
        pixel = random.choice([Fraction(4, 3), Fraction(16, 11), Fraction(8, 9), Fraction(2), Fraction(1, 2)])
        if codec == "mpeg2video":
            pixel = random.choice([Fraction(8, 9), Fraction(32, 27)])  # the whole picture is 4:3 or 16:9
        yield Case(f"{form}, pixels of {pixel}", made(form, codec, pixel=pixel), ".mp4", pixel=pixel)


def called(random: Random) -> Iterator[Case]:
    """Every container, under its own name and others'."""
    endings = {
        **{"mp4 libx264": ".m4v", "3gp mpeg4": ".3gp", "mpegts libx264": ".ts", "mpegts mpeg2video": ".m2ts"},
        **{"flv flv": ".flv", "flv libx264": ".flv", "asf wmv2": ".wmv", "vob mpeg2video": ".mpg"},
        **{
            "ogg libvpx": ".ogv",
            "avi mpeg4": ".avi",
            "avi mjpeg": ".avi",
            "webm libvpx-vp9": ".webm",
            "webm libvpx": ".webm",
        },
        **{"matroska libx265": ".mkv", "mov mjpeg": ".mov", "mp4 libsvtav1": ".mp4", "apng apng": ".apng"},
    }
    for name, ending in endings.items():
        form, codec = name.split()
        depth = {"mjpeg": "yuvj420p", "apng": "rgb24"}.get(codec, "yuv420p")
        encoder = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        try:
            content = made(form, codec, depth=depth, encoder=encoder)
        except av.FFmpegError:
            continue  # this FFmpeg lacks the encoder
        yield Case(f"{name}, {ending}", content, ending)
        other = random.choice([one for one in (".mp4", ".avi", ".webm", ".mkv", ".gif", ".dat") if one != ending])
        yield Case(f"{name}, but {other}", content, other)


def timed(random: Random) -> Iterator[Case]:
    uneven = [0.0]
    for _ in range(24):
        uneven.append(uneven[-1] + random.choice([0.01, 0.05, 0.4, 1.5]))
    burst = [number / 100 for number in range(15)] + [1.0 + number for number in range(8)]
    for form, codec in (("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("mov", "mpeg4")):
        for name, times in (
            ("uneven", uneven),
            ("a burst, then slow", burst),
            ("from 5 s", [5 + time for time in burst]),
        ):
            yield Case(f"{form}, {name}", made(form, codec, times=times))
    for form in ("matroska", "mp4"):
        negative = [-1 + number / 10 for number in range(25)]
        content = made(form, "libx264", times=negative, muxer={"avoid_negative_ts": "disabled"})
        yield Case(f"{form} that begins at -1 s", content)
    for count in (1, 2, 7, 9, 200):
        yield Case(f"{count} frames", made("mp4", "libx264", count=count))
    for depth in (0, 2, 4):
        encoder = {"bf": str(depth), "g": "12"}
        for form in ("avi", "mpegts", "mp4"):
            yield Case(f"{form} with {depth} frames out of order", made(form, "libx264", count=40, encoder=encoder))
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    yield Case("MP4 in fragments", made("mp4", "libx264", muxer=fragments, encoder={"g": "5"}))
    yield Case("MP4 with its index in front", made("mp4", "libx264", muxer={"movflags": "faststart"}))
    yield Case("WebM of a browser", made("webm", "libvpx", muxer={"live": "1"}))
    for said in (3, 5000):
        avi = bytearray(made("avi", "mpeg4"))
        for name, offset in ((b"avih", 24), (b"strh", 40)):
            place = avi.index(name) + offset
            avi[place : place + 4] = said.to_bytes(4, "little")
        yield Case(f"AVI that says it has {said} frames", bytes(avi), ".avi")
        webm = bytearray(made("webm", "libvpx"))
        place = webm.index(b"\x44\x89\x88") + 3
        webm[place : place + 8] = struct.pack(">d", said)
        yield Case(f"WebM that says it lasts {said} ms", bytes(webm), ".webm")


def coloured(_: Random) -> Iterator[Case]:
    for codec, depth, colours in (
        *(("ffv1", "yuv420p10le", (None, None)), ("libx264", "yuv420p10le", (1, 1)), ("ffv1", "gray", (None, None))),
        *(("mjpeg", "yuvj420p", (None, 2)), ("libx264", "yuv420p", (1, 1)), ("libx264", "yuv420p", (1, 2))),
        *(("libx264", "yuv420p", (5, 1)), ("libx264", "yuv444p", (1, 2)), ("ffv1", "yuv422p", (None, None))),
        *(("ffv1", "gray16le", (None, None)), ("ffv1", "bgr0", (None, None)), ("libx264", "yuv420p", (9, 1))),
    ):
        content = made("matroska", codec, depth=depth, colours=colours)
        yield Case(f"{codec} of {depth}, colours {colours}", content, ".mkv")
    for size in ((63, 47), (33, 90), (2, 2), (17, 16)):
        content = made("matroska", "ffv1", size, depth="yuv444p")
        yield Case(f"of {size} pixels", content, ".mkv")
    content = made("mpegts", "mpeg2video", (96, 64), encoder={"flags": "+ildct+ilme", "top": "1"})
    yield Case("interlaced", content, ".ts")


def seen_through(random: Random) -> Iterator[Case]:
    """Transparent frames, on white."""
    base = [drawn(number, 6, 64, 48) for number in range(6)]
    veil = np.zeros((48, 64, 1), np.uint8)
    veil[:, :40] = 255
    frames = [np.concatenate([picture, veil], axis=2) for picture in base]
    due = [np.where(veil == 255, picture, 255).astype(np.uint8) for picture in base]

    def check(tolerance: float) -> Callable[[Any], str]:
        return lambda found: differences(found, due, tolerance)

    images = [Image.fromarray(frame, "RGBA") for frame in frames]
    for form, options in (("GIF", {"disposal": 2}), ("PNG", {}), ("WEBP", {"lossless": True})):
        file = io.BytesIO()
        images[0].save(
            file, form, save_all=True, append_images=images[1:], duration=random.choice([40, 200]), **options
        )
        yield Case(f"animated {form}", file.getvalue(), ".gif", right=check(6.0))
    for form, codec, depth in (
        ("webm", "libvpx-vp9", "yuva420p"),
        ("mov", "qtrle", "argb"),
        ("matroska", "ffv1", "bgra"),
    ):
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, depth
            if depth == "yuva420p":
                stream.metadata["alpha_mode"] = "1"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=depth)))
            container.mux(stream.encode())
        yield Case(f"{codec} with transparency", file.getvalue(), ".webm", right=check(6.0))


def together(_: Random) -> Iterator[Case]:
    """Files that hold more than one video, or none."""

    def file_of(form: str, sound: bool, cover: bool, moving: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            streams = []
            if cover:
                picture = container.add_stream("mjpeg", rate=10)
                picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
                picture.disposition = Disposition.attached_pic
                streams.append(picture)
            for number in range(moving):
                stream = container.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = 96 - 32 * number, 64, "yuv420p"
                streams.append(stream)
            noise = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
            if noise:
                heard = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 16_000, 0, Fraction(1, 16_000)
                container.mux(noise.encode(heard))
                container.mux(noise.encode())
            for number in range(12):
                for stream in streams:
                    if stream.width == 32 and number:
                        continue
                    frame = av.VideoFrame.from_ndarray(drawn(number, 12, stream.width, stream.height), format="rgb24")
                    frame = frame.reformat(format=stream.pix_fmt)
                    frame.pts, frame.time_base = number, Fraction(1, 10)
                    container.mux(stream.encode(frame))
            for stream in streams:
                container.mux(stream.encode())
        return file.getvalue()

    yield Case("a cover before the video", file_of("mp4", True, True, 1))
    yield Case("two videos", file_of("mp4", False, False, 2))
    yield Case("two videos, Matroska", file_of("matroska", True, False, 2), ".mkv")
    yield Case("sound alone", file_of("mp4", True, False, 0), readable=False)
    yield Case("sound with a cover", file_of("mp4", True, True, 0), readable=False)


def damaged(random: Random) -> Iterator[Case]:
    for form, codec in (
        *(("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")),
        *(("asf", "wmv2"), ("ogg", "libvpx"), ("gif", "gif")),
    ):
        depth = "rgb8" if codec == "gif" else "yuv420p"
        content, part = made(form, codec, count=40, depth=depth), random.uniform(0.3, 0.9)
        yield Case(f"{form} cut at {part:.2f}", content[: int(len(content) * part)], readable=False)
    for form, codec in (("mpegts", "libx264"), ("mpegts", "mpeg2video"), ("flv", "flv")):
        content, part = made(form, codec, count=40), random.uniform(0.3, 0.9)
        whole = Case("", content, tolerance=40)
        cut = content[: int(len(content) * part)]
        yield Case(f"{form} cut at {part:.2f}", cut, ".ts", readable=None, right=some_beginning(whole))
    noise = np.random.default_rng(0)
    for codec in ("libx264", "mpeg4", "mpeg2video"):
        file = io.BytesIO()
        with av.open(file, "w", format="mpegts") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 900_000
            for _ in range(30):
                picture = noise.integers(0, 255, (96, 128, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        content = bytearray(file.getvalue())
        place = len(content) // 2 // 188 * 188 + 60
        content[place : place + 60] = random.randbytes(60)
        yield Case(f"{codec} with 60 other bytes", bytes(content), readable=None, pristine=file.getvalue())
    picture = io.BytesIO()
    Image.fromarray(drawn(0, 2, 64, 48)).save(picture, "JPEG")
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
    for name, content in (
        *(("a playlist", playlist), ("words", b"no video " * 99), ("nothing", b"")),
        *(("noise", random.randbytes(9999)), ("a JPEG", picture.getvalue())),
    ):
        yield Case(name, content, readable=False)


def variants(folder: Path, random: Random) -> Iterator[Variant]:
    module = video.mio_datamodule("video", {"max_frames": FRAMES})
    parts = (turned, stretched, called, timed, coloured, seen_through, together, damaged)
    cases = [case for part in parts for case in part(random)]
    random.shuffle(cases)
    for number, case in enumerate(cases):
        path = folder / f"{number}{case.ending}"
        path.write_bytes(case.content)
        asked = case.turn and case.pixel == 1 and not any(case.mirror) and case.ending != ".mkv"
        check = by_opencv(case, folder) if asked else right(case)
        yield Variant(case.name, lambda path=path: module.read(path), check, case.readable)
    pipe, inside = folder / "pipe.mp4", folder / "folder.mp4"
    os.mkfifo(pipe)
    inside.mkdir()
    for path in (pipe, inside):
        yield Variant(path.stem, lambda path=path: module.read(path), lambda _: "was read", readable=False)
