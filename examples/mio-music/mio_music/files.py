"""Tunes as files: MIDI by music21, sound by numpy, notes on a staff by `picture.py`; and what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mio
from mio_music.hum_codec import RULES
from mio_music.humming import RATE, hertz
from mio_music.tunes import METRES, REST, Note, Tune, rests

SUFFIXES = (".mid", ".midi", ".abc", ".musicxml", ".mxl")
BEATS_PER_MINUTE = 100
"""Quarters."""


def save(tune: Tune, stem: Path, beside: bool) -> Path:
    """Writes `.mid`, which is returned, and where asked `.wav` and `.png` beside it."""
    from mio_music.picture import draw

    path = stem.with_name(f"{stem.name}.mid")
    stream(tune).write("midi", fp=str(path))
    if beside:
        RULES.write((sound(tune), RATE), stem)
        draw(tune).save(stem.with_name(f"{stem.name}.png"))
    return path


def stream(tune: Tune):
    """The tune as music21 has it, with which it can be written as MusicXML and analysed too."""
    from music21 import meter, note, tempo
    from music21.stream import Stream

    whole = Stream([tempo.MetronomeMark(number=BEATS_PER_MINUTE), meter.TimeSignature(tune.metre)])
    for pitch, sixteenths in tune.notes:
        whole.append(
            note.Rest(quarterLength=sixteenths / 4) if pitch == REST else note.Note(pitch, quarterLength=sixteenths / 4)
        )
    return whole


def sound(tune: Tune) -> np.ndarray:
    """Float32 `[T]` at `RATE`: plucked strings, so that notes are told apart."""
    pieces = []
    for pitch, sixteenths in tune.notes:
        seconds = np.arange(round(RATE * sixteenths * 15 / BEATS_PER_MINUTE)) / RATE
        overtones = np.arange(1, 6)[:, None]
        tone = np.exp(-(2 + overtones) * seconds) * np.sin(2 * np.pi * overtones * hertz(pitch) * seconds) / overtones
        ramp = np.minimum(1, np.minimum(seconds, seconds[::-1]) * 200)  # no clicks
        pieces.append(0.5 * ramp * tone.sum(0) * (pitch != REST))
    return np.concatenate(pieces).astype(np.float32)


def read(path: Path) -> Tune:
    """The highest notes of the first part of a file, in whole bars from its beginning on.

    Raises `mio.DataError` for what is no music, and for notes that a `Tune` has not.
    """
    from music21 import converter

    try:
        part = converter.parse(path, forceSource=True).parts[0].flatten()
        metres = [sign.ratioString for sign in part.getElementsByClass("TimeSignature")] or ["4/4"]
        notes = [
            (REST if note.isRest else max(pitch.midi for pitch in note.pitches), float(4 * note.quarterLength))
            for note in part.notesAndRests
        ]
    except Exception as error:  # whatever music21 raises for a file that is damaged
        raise mio.DataError(f"{path}: not music that music21 reads ({type(error).__name__}: {error})") from error
    if len(set(metres)) > 1:
        raise mio.DataError(f"{path}: the metre changes, from {metres[0]} to {metres[1]}; give one part of it")
    tune = Tune(metres[0], tuple(_bars(notes, METRES.get(metres[0], 16))))
    if problem := tune.problem or ("" if tune.bars else "no notes"):
        raise mio.DataError(f"{path}: {problem}")
    return tune


def _bars(notes: list[tuple[int, float]], size: int) -> list[tuple[Note, ...]]:
    """Notes in bars of so many sixteenths. A note that goes on in the next bar is begun again there, as there are no
    ties; the last bar is filled with rests."""
    bars: list[list] = []
    left: float = 0
    for pitch, length in notes:
        while length > 0:
            if left == 0:
                bars.append([])
                left = size
            here = min(length, left)
            bars[-1] += rests(int(here)) if pitch == REST and here == int(here) else [(pitch, here)]
            left, length = left - here, length - here  # noqa: PLW2901
    if left:
        bars[-1] += rests(int(left))
    return [tuple((pitch, int(length) if length == int(length) else length) for pitch, length in bar) for bar in bars]
