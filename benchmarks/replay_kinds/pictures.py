"""Pictures of all depths, modes and turns. PNG and TIFF files are written sample by sample, so that what they hold is
known; what Pillow writes is held against the array that it was given, and against OpenCV where that reads it."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from replays import Variant, in_turn

from mio.plugins.image import files

Array = np.ndarray[Any, Any]
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed(rows: Array, depth: int) -> list[bytes]:
    """Samples `[H, W, C]` as the bytes of each row."""
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in rows]
    bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return [np.packbits(row).tobytes() for row in bits.reshape(len(rows), -1)]


def png(
    samples: Array, depth: int, colour: int, before: bytes = b"", behind: bytes = b"", woven: bool = False
) -> bytes:
    height, width = samples.shape[:2]
    passes = _ADAM7 if woven else [(0, 0, 1, 1)]
    parts = [samples[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, depth))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(woven))
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + behind + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(
    samples: Array,
    bits: int,
    photometric: int,
    form: int = 1,
    order: str = "<",
    planar: bool = False,
    deflated: bool = False,
) -> bytes:
    """A TIFF in one strip per plane."""
    height, width, channels = samples.shape
    kind = {(8, 1): "u1", (16, 1): "u2", (32, 1): "u4", (8, 2): "i1", (16, 2): "i2", (32, 2): "i4", (32, 3): "f4"}
    planes = [samples[..., c : c + 1] for c in range(channels)] if planar else [samples]
    if bits == 12:
        rows = samples.reshape(height, -1).astype(int)
        texts = ["".join(format(value, "012b") for value in row) for row in rows]
        strips = [b"".join(int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big") for text in texts)]
    else:
        strips = [plane.astype(order + kind[bits, form]).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    tags: list[tuple[int, int, list[int]]] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * channels),
        (259, 3, [8 if deflated else 1]),
        (262, 3, [photometric]),
        (273, 4, [0] * len(strips)),
        (277, 3, [channels]),
        (278, 4, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if planar else 1]),
        (339, 3, [form] * channels),
    ]
    end = 8 + 2 + 12 * len(tags) + 4
    outside = b""
    place = end + sum(len(values) * (2 if kind == 3 else 4) for _, kind, values in tags)
    directory = struct.pack(order + "H", len(tags))
    for number, type_, values in tags:
        if number == 273:
            values = [place + sum(map(len, strips[:index])) for index in range(len(strips))]  # noqa: PLW2901
        content = struct.pack(f"{order}{len(values)}{'H' if type_ == 3 else 'I'}", *values)
        if len(content) > 4:
            at, outside = struct.pack(order + "I", end + len(outside)), outside + content
            content = at
        directory += struct.pack(order + "HHI", number, type_, len(values)) + content.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + directory + bytes(4) + outside
    return head.ljust(place, b"\0") + b"".join(strips)


def same(wanted: Array, tolerance: int = 0) -> Callable[[Any], str]:
    """Grey and colour are compared as colours."""

    def right(found: Any) -> str:
        if found.dtype != np.uint8 or found.shape[:2] != wanted.shape[:2]:
            return f"{found.dtype} {found.shape}, not {wanted.shape}"
        one, other = (
            np.broadcast_to(array if array.ndim == 3 else array[..., None], (*found.shape[:2], 3))
            for array in (found, np.asarray(wanted))
        )
        worst = int(np.abs(one.astype(int) - other.astype(int)).max())
        return "" if worst <= tolerance else f"off by {worst}"

    return right


def on_white(samples: Array, alpha: Array) -> Array:
    """`samples` of 0 ... 255 as floats, `alpha` 0 ... 1."""
    return np.rint(255 - alpha * (255 - samples)).astype(int)


def made(folder: Path, name: str, content: bytes, right: Callable[[Any], str], readable: bool | None = True) -> Variant:
    path = folder / (name.replace(" ", "-").replace("/", "-") + ".png")
    path.write_bytes(content)
    return Variant(name, lambda: files.read(path), right, readable)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    """Endless rounds over all scenarios, with other sizes and samples."""
    for _, scenario, place in in_turn(SCENARIOS, folder):
        yield from scenario(place, np.random.default_rng(random.getrandbits(32)))


def sides(chance: np.random.Generator) -> tuple[int, int]:
    return int(chance.integers(1, 40)), int(chance.integers(1, 40))


def grey_keys(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    for depth in (1, 2, 4, 8, 16):
        most = (1 << depth) - 1
        samples = chance.integers(0, most + 1, (*sides(chance), 1))
        key = int(samples[0, 0, 0])
        shown = samples >> 8 if depth == 16 else samples * 255 // most
        for woven in (False, True):
            before = chunk(b"tRNS", struct.pack(">H", key))
            name = f"grey PNG of {depth} bits{', woven' if woven else ''}"
            clear = np.where(samples == key, 255, shown)
            yield made(folder, f"{name}, a clear grey", png(samples, depth, 0, before, woven=woven), same(clear))
            yield made(folder, name, png(samples, depth, 0, woven=woven), same(shown))


def colour_keys(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    for depth in (8, 16):
        samples = chance.integers(0, 1 << depth, (*sides(chance), 3))
        key = samples[-1, -1]
        if depth == 16:
            samples[0, 0] = key ^ 1  # the same upper bytes
        clear = np.where((samples == key).all(-1, keepdims=True), 255, samples >> (depth - 8))
        before = chunk(b"tRNS", struct.pack(">HHH", *map(int, key)))
        for woven in (False, True):
            name = f"RGB PNG of {depth} bits, a clear colour{', woven' if woven else ''}"
            yield made(folder, name, png(samples, depth, 2, before, woven=woven), same(clear))


def palettes(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    for depth in (1, 2, 4, 8):
        count = 1 << depth
        colours = chance.integers(0, 256, (count, 3))
        alphas = np.concatenate([chance.integers(0, 256, (count + 1) // 2), np.full(count // 2, 255)])
        samples = chance.integers(0, count, (*sides(chance), 1))
        plte = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
        index = samples[..., 0]
        yield made(folder, f"palette of {depth} bits", png(samples, depth, 3, plte), same(colours[index]))
        clear = plte + chunk(b"tRNS", alphas[: (count + 1) // 2].astype(np.uint8).tobytes())
        wanted = on_white(colours[index], alphas[index][..., None] / 255)
        yield made(folder, f"palette of {depth} bits, half clear", png(samples, depth, 3, clear), same(wanted, 1))


def alpha(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    for depth in (8, 16):
        for channels, colour in ((2, 4), (4, 6)):
            samples = chance.integers(0, 1 << depth, (*sides(chance), channels))
            eight = samples >> (depth - 8)
            wanted = on_white(eight[..., :-1], eight[..., -1:] / 255)
            yield made(folder, f"{channels} channels of {depth} bits", png(samples, depth, colour), same(wanted, 1))
    rgba = chance.integers(0, 256, (*sides(chance), 4), dtype=np.uint8)
    wanted = on_white(rgba[..., :3], rgba[..., 3:] / 255)
    for form, options in {"WEBP": {"lossless": True, "exact": True}, "TIFF": {}}.items():
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, form, **options)
        yield made(folder, f"RGBA {form}", buffer.getvalue(), same(wanted, 1))
    grey = rgba[..., :2].copy()
    buffer = io.BytesIO()
    Image.fromarray(grey, "LA").save(buffer, "TIFF")
    yield made(folder, "LA TIFF", buffer.getvalue(), same(on_white(grey[..., :1], grey[..., 1:] / 255), 1))


def turned(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    pixels = chance.integers(0, 256, (*sides(chance), 3), dtype=np.uint8)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }
    forms: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 95}}
    for orientation, wanted in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for form, options in forms.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, form, exif=exif, **options)
            right = same(wanted)
            if form == "JPEG":  # OpenCV decodes and turns
                decoded = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
                right = same(decoded[..., ::-1], 8)
            yield made(folder, f"{form}, orientation {orientation}", buffer.getvalue(), right)


def deep_tiffs(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    shape = (*sides(chance), 1)
    sixteen = chance.integers(0, 1 << 16, shape)
    for order in "<>":
        name = f"TIFF of 16 bits, {order}"
        yield made(folder, name, tiff(sixteen, 16, 1, order=order), same(sixteen >> 8))
        inverted = made(folder, f"{name}, white is 0", tiff(sixteen, 16, 0, order=order), same(255 - (sixteen >> 8)))
        inverted.readable = order == "<" or None  # Pillow knows the other order only without inversion
        yield inverted
        floats = chance.random(shape)
        shown = np.rint(floats * 255)
        for deflated in (False, True):
            name = f"TIFF of floats, {order}{', deflated' if deflated else ''}"
            yield made(folder, name, tiff(floats, 32, 1, 3, order, deflated=deflated), same(shown, 1))
            content = tiff(floats, 32, 0, 3, order, deflated=deflated)
            yield made(folder, f"{name}, white is 0", content, same(255 - shown, 1))
        for least, most in ((0, 255), (-1, 1), (0, 65535)):
            wide = least + (most - least) * floats
            wide.flat[0] = most
            yield made(folder, f"floats of {least} to {most}, {order}", tiff(wide, 32, 1, 3, order), same(wide), False)
        floats.flat[0] = np.nan
        yield made(folder, f"not a number, {order}", tiff(floats, 32, 1, 3, order), same(floats), False)
        for bits, form in ((32, 1), (32, 2), (16, 2)):
            name = f"integers of {bits} bits, {'with' if form == 2 else 'without'} sign, {order}"
            yield made(folder, name, tiff(sixteen // 3, bits, 1, form, order), same(sixteen), False)
    signed = chance.integers(-128, 128, shape)
    yield made(folder, "TIFF of 8 bits with sign", tiff(signed, 8, 1, 2), same(signed), False)
    twelve = chance.integers(0, 1 << 12, shape)
    yield made(folder, "TIFF of 12 bits", tiff(twelve, 12, 1), same(twelve >> 4))
    eight = chance.integers(0, 256, (*sides(chance), 3))
    yield made(folder, "RGB TIFF by planes", tiff(eight, 8, 2, planar=True), same(eight))
    colour = chance.integers(0, 1 << 16, (*sides(chance), 3))
    for order in "<>":
        yield made(folder, f"RGB TIFF of 16 bits, {order}", tiff(colour, 16, 2, order=order), same(colour >> 8, 1))
        for deflated in (False, True):
            name = f"RGB TIFF of 16 bits by planes, {order}{', deflated' if deflated else ''}"
            planes = tiff(colour, 16, 2, order=order, planar=True, deflated=deflated)
            yield made(folder, name, planes, same(colour >> 8, 1), deflated or None)
    one = chance.integers(0, 256, shape)
    yield made(folder, "TIFF of 8 bits, white is 0", tiff(one, 8, 0), same(255 - one))


def by_opencv(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    for dtype, shift in ((np.uint8, 0), (np.uint16, 8)):
        for channels in (1, 3, 4):
            shape = (*sides(chance), channels)
            pixels = chance.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
            for ending in (".png", ".tiff"):
                _, content = cv2.imencode(ending, pixels)
                eight = (pixels >> shift).astype(int)
                wanted = eight if channels == 1 else eight[..., 2::-1]
                if channels == 4:
                    wanted = on_white(wanted, eight[..., 3:] / 255)
                name = f"OpenCV's {ending} of {8 + shift} bits and {channels} channels"
                yield made(folder, name, content.tobytes(), same(wanted, 1))


def modes(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    pixels = chance.integers(0, 256, (*sides(chance), 4), dtype=np.uint8)
    ink = pixels.astype(int)
    wanted = np.rint((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "CMYK").save(buffer, "TIFF")
    yield made(folder, "CMYK TIFF", buffer.getvalue(), same(wanted, 2))
    flat = np.broadcast_to(pixels[:1, :1], (16, 16, 4))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(flat), "CMYK").save(buffer, "JPEG", quality=100)
    yield made(folder, "CMYK JPEG", buffer.getvalue(), same(np.broadcast_to(wanted[:1, :1], (16, 16, 3)), 6))
    lab = np.zeros((*sides(chance), 3), np.uint8)
    lab[..., 0] = chance.integers(0, 256, lab.shape[:2])
    lab[..., 1:] = 128
    buffer = io.BytesIO()
    Image.frombytes("LAB", lab.shape[1::-1], (lab ^ np.array([0, 128, 128], np.uint8)).tobytes()).save(buffer, "TIFF")
    greys = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    yield made(folder, "LAB TIFF", buffer.getvalue(), same(greys, 3))
    bits = chance.integers(0, 2, sides(chance)).astype(bool)
    for compression in ("raw", "group4", "packbits"):
        buffer = io.BytesIO()
        Image.fromarray(bits).save(buffer, "TIFF", compression=compression)
        yield made(folder, f"TIFF of 1 bit, {compression}", buffer.getvalue(), same(bits * 255))
    rgb = pixels[..., :3]
    for name, image in {
        "RGB": Image.fromarray(rgb),
        "L": Image.fromarray(rgb[..., 0]),
        "1": Image.fromarray(bits),
    }.items():
        buffer = io.BytesIO()
        image.save(buffer, "BMP")
        yield made(folder, f"{name} BMP", buffer.getvalue(), same(np.asarray(image) * (255 if name == "1" else 1)))
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "TIFF", compression=compression)
        yield made(folder, f"RGB TIFF, {compression}", buffer.getvalue(), same(rgb))


def moving(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    frames = [np.full((8, 9, 3), value, np.uint8) for value in chance.choice(250, 3, replace=False)]
    pictures = [Image.fromarray(frame) for frame in frames]
    forms: dict[str, dict[str, Any]] = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
    for form, options in forms.items():
        buffer = io.BytesIO()
        pictures[0].save(buffer, form, save_all=True, append_images=pictures[1:], **options)
        yield made(folder, f"{form} of three frames", buffer.getvalue(), same(frames[0], 2))
    clear = Image.fromarray(chance.integers(0, 4, (7, 5), dtype=np.uint8), "P")
    colours = chance.integers(0, 256, (4, 3))
    clear.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    clear.save(buffer, "GIF", transparency=2)
    index = np.asarray(clear)
    wanted = np.where(index[..., None] == 2, 255, colours[index])
    yield made(folder, "GIF with a clear colour", buffer.getvalue(), same(wanted))


def long_texts(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    pixels = chance.integers(0, 256, (*sides(chance), 3))
    size = int(chance.choice([1_100_000, 3_000_000]))
    long = zlib.compress(bytes(size))
    chunks = {
        "zTXt": chunk(b"zTXt", b"key\0\0" + long),
        "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long),
        "tEXt": chunk(b"tEXt", b"key\0" + b"x" * size),
        "iCCP": chunk(b"iCCP", b"key\0\0" + long),
        "text that is named transparency and": chunk(b"tEXt", b"transparency\0" + b"1" * 10),
        "100 x zTXt": chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000))) * 100,
    }
    for name, text in chunks.items():
        yield made(folder, f"{name} of {size:,} bytes", png(pixels, 8, 2, before=text), same(pixels))
        if name != "iCCP":
            yield made(folder, f"{name} of {size:,} bytes behind", png(pixels, 8, 2, behind=text), same(pixels))


def damaged(folder: Path, chance: np.random.Generator) -> Iterator[Variant]:
    picture = Image.fromarray(chance.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, form)
        content = buffer.getvalue()
        for share in (0.02, 0.5, 0.9):
            place = int(len(content) * share) + int(chance.integers(0, 9))
            yield made(folder, f"{form} cut to {share:.0%}", content[:place], same(np.zeros((1, 1))), False)
    pixels = chance.integers(0, 256, (20, 20, 3))
    flipped = bytearray(png(pixels, 8, 2))
    flipped[len(flipped) // 2] ^= 1 << int(chance.integers(0, 8))
    yield made(folder, "PNG with a flipped bit", bytes(flipped), same(pixels), False)
    for name, content in {"nothing": b"", "text": b"no picture", "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n"}.items():
        yield made(folder, name, content, same(pixels), False)
    for width, height in ((0, 5), (5, 0), (8_100, 8_100), (100_000, 100_000), (2**31 - 1, 2**31 - 1)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        yield made(folder, f"PNG of {width} x {height}", content, same(pixels), False)
    noise = Image.Exif()
    noise[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=b"Exif\0\0" + chance.bytes(60))
    yield made(folder, "noise for EXIF", buffer.getvalue(), same(np.asarray(picture)))
    for kind in ("pipe", "folder", "device", "missing", "link to a pipe"):
        path = folder / f"{kind}.png"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind != "missing":
            path.symlink_to("/dev/zero" if kind == "device" else "pipe.png")
        yield Variant(kind, lambda path=path: files.read(path), same(pixels), readable=False)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    wanted = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    yield made(folder, "JPEG with the ending of a PNG", buffer.getvalue(), same(wanted, 8))


SCENARIOS = (grey_keys, deep_tiffs, colour_keys, long_texts, palettes, alpha, modes, damaged, moving, by_opencv, turned)
