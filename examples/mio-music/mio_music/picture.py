"""A tune as notes on a staff, drawn with Pillow. Black keys are sharps, beams are flags, a system holds four bars."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from mio_music.tunes import REST, Note, Tune

SCALE = 3
"""The picture is drawn so much larger and made small then, which smooths it."""
GAP = 10 * SCALE
"""Between two lines of the staff."""
NOTE, BAR, MARGIN, SYSTEM = int(2.6 * GAP), int(0.9 * GAP), 5 * GAP, 14 * GAP
"""Widths of a note, of the room behind a bar line and before the first note; height of a system."""
PER_SYSTEM = 4
STEPS = ("C", "^C", "D", "^D", "E", "F", "^F", "G", "^G", "A", "^A", "B")
"""Pitch classes, black keys as sharps."""
INK = 0


def draw(tune: Tune) -> Image.Image:
    """Grey, white paper."""
    systems = [tune.bars[first : first + PER_SYSTEM] for first in range(0, len(tune.bars), PER_SYSTEM)]
    width = MARGIN + max(sum(len(bar) * NOTE + BAR for bar in bars) for bars in systems) + GAP
    image = Image.new("L", (width, SYSTEM * len(systems)), 255)
    pen = ImageDraw.Draw(image)
    for number, bars in enumerate(systems):
        middle = SYSTEM * number + SYSTEM // 2
        _staff(pen, width, middle, tune.metre if number == 0 else "")
        left = MARGIN
        for bar in bars:
            for note in bar:
                _note(pen, left + NOTE // 2, middle, note)
                left += NOTE
            pen.line((left, middle - 2 * GAP, left, middle + 2 * GAP), INK, SCALE)
            left += BAR
    return image.resize((width // SCALE, image.height // SCALE), Image.Resampling.LANCZOS)


def _staff(pen: ImageDraw.ImageDraw, width: int, middle: int, metre: str) -> None:
    for line in range(-2, 3):
        pen.line((GAP // 2, middle + line * GAP, width - GAP // 2, middle + line * GAP), INK, SCALE // 2 + 1)
    # a clef that curls around the line of G, the second from below
    x, y = int(1.7 * GAP), middle + GAP
    curl = [
        (0.1, 0.3),
        (-0.5, 0.2),
        (-0.5, -0.5),
        (0.2, -0.8),
        (0.9, -0.2),
        (0.7, 0.7),
        (0, 1),
        (-1, 0.7),
        (-1.2, -0.4),
    ]
    stem = [(-0.4, -1.8), (0.5, -3), (0.5, -4.2), (0.1, -4.6), (-0.3, -3.8), (0.3, 1.9), (0, 2.4), (-0.6, 2.2)]
    pen.line([(x + a * GAP, y + b * GAP) for a, b in curl + stem], INK, SCALE, joint="curve")
    font = ImageFont.load_default(2 * GAP)
    for row, number in enumerate(metre.split("/") if metre else ()):
        pen.text((int(3.4 * GAP), middle - GAP + row * 2 * GAP), number, INK, font, anchor="mm")


def _note(pen: ImageDraw.ImageDraw, x: int, middle: int, note: Note) -> None:
    pitch, sixteenths = note
    dotted = sixteenths in (3, 6, 12)
    length = sixteenths * 2 // 3 if dotted else sixteenths
    if pitch == REST:
        return _rest(pen, x, middle, length, dotted)
    step = STEPS[pitch % 12]
    # the middle line is B4
    place = 34 - (7 * (pitch // 12 - 1) + "CDEFGAB".index(step[-1]))
    y = middle + place * GAP // 2
    for line in [*range(6, place + 1, 2), *range(-6, place - 1, -2)]:
        pen.line((x - GAP, middle + line * GAP // 2, x + GAP, middle + line * GAP // 2), INK, SCALE // 2 + 1)
    wide, high = int(0.62 * GAP), int(0.45 * GAP)
    pen.ellipse((x - wide, y - high, x + wide, y + high), INK if length < 8 else 255, INK, SCALE)
    if step.startswith("^"):
        pen.text((x - int(1.2 * GAP), y), "#", INK, ImageFont.load_default(int(1.6 * GAP)), anchor="mm")
    if length < 16:
        down = place < 0
        side, way = (x - wide, 1) if down else (x + wide, -1)
        end = y + way * int(3.5 * GAP)
        pen.line((side, y, side, end), INK, SCALE)
        for flag in range({1: 2, 2: 1}.get(length, 0)):
            start = end - way * flag * GAP
            pen.line((side, start, side + GAP, start - way * GAP), INK, 2 * SCALE)
    _dot(pen, x, y if place % 2 else y - GAP // 2, dotted)
    return None


def _rest(pen: ImageDraw.ImageDraw, x: int, middle: int, length: int, dotted: bool) -> None:
    if length >= 8:  # a bar under the fourth line, or on the third
        top = middle - GAP if length == 16 else middle - GAP // 2
        pen.rectangle((x - GAP // 2, top, x + GAP // 2, top + GAP // 2), INK)
    elif length == 4:
        zigzag = [(-0.3, -1.4), (0.3, -0.6), (-0.2, 0), (0.3, 0.8), (-0.3, 0.6), (0.1, 1.4)]
        pen.line([(x + a * GAP, middle + b * GAP) for a, b in zigzag], INK, 2 * SCALE, joint="curve")
    else:
        pen.line((x + GAP // 2, middle - GAP, x, middle + int(1.5 * GAP)), INK, SCALE)
        for hook in range({1: 2, 2: 1}[length]):
            y = middle - GAP // 2 + hook * GAP
            pen.ellipse((x - GAP // 2, y - GAP // 4, x, y + GAP // 4), INK)
            pen.line((x - GAP // 4, y + GAP // 4, x + GAP // 3, y - GAP // 4), INK, SCALE)
    _dot(pen, x, middle - GAP // 2, dotted)


def _dot(pen: ImageDraw.ImageDraw, x: int, y: int, dotted: bool) -> None:
    if dotted:
        pen.ellipse((x + GAP, y - GAP // 6, x + GAP + GAP // 3, y + GAP // 6), INK)
