"""Tunes: bars of notes, as codes of the modality `score` and as text.

A code is a metre, the beginning of a bar, a pitch, a rest, or a step of the bar, all of one codebook. A span is a metre
and then whole bars: the beginning of the bar, and of each note its pitch, then the step at which it ends. So every
pitch stands behind the step at which it begins, by which a model finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import mio

METRES = {"2/4": 8, "3/4": 12, "4/4": 16, "2/2": 16, "6/8": 12}
"""Steps of a bar: sixteenths."""
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Steps of a note: those that one note with or without a dot has."""
LOWEST, HIGHEST = 55, 86
"""MIDI pitches, G3 to D6: the strings of a fiddle in its first positions."""
REST = 0
"""Pitch of a rest."""
PHRASE = 4
"""Codes of the beginnings of bars: they are numbered by fours."""

PITCHES = (REST, *range(LOWEST, HIGHEST + 1))
KINDS = {
    "metre": tuple(METRES),
    "bar": tuple(range(PHRASE)),
    "step": tuple(range(1, max(METRES.values()) + 1)),
    "pitch": PITCHES,
}
FIRST = dict(zip(KINDS, accumulate(map(len, KINDS.values()), initial=0), strict=False))
"""Code of the first value of each kind."""
CODES = sum(map(len, KINDS.values()))

Note = tuple[int, int]
"""MIDI pitch, or `REST`, and steps."""


@dataclass(frozen=True)
class Tune:
    """A melody of one voice. Each bar is as long as the metre says."""

    metre: str
    bars: tuple[tuple[Note, ...], ...]

    @property
    def notes(self) -> list[Note]:
        return [note for bar in self.bars for note in bar]

    @property
    def pitches(self) -> list[int]:
        """Of the notes, without rests."""
        return [pitch for pitch, _ in self.notes if pitch != REST]

    def moved(self, semitones: int) -> Tune:
        """Transposed."""
        bars = (tuple((pitch and pitch + semitones, length) for pitch, length in bar) for bar in self.bars)
        return Tune(self.metre, tuple(bars))

    def part(self, first: int, bars: int) -> Tune:
        return Tune(self.metre, self.bars[first : first + bars])

    @property
    def problem(self) -> str:
        """What keeps it from being written in codes, or the empty string."""
        if self.metre not in METRES:
            return f"the metre {self.metre}; known are {', '.join(METRES)}"
        for number, bar in enumerate(self.bars, 1):
            for pitch, length in bar:
                if pitch not in PITCHES:
                    return f"bar {number}: the pitch {pitch}, which is not from {LOWEST} to {HIGHEST}"
                if length not in LENGTHS:
                    return f"bar {number}: a note of {length} sixteenths; known are {', '.join(map(str, LENGTHS))}"
            if (total := sum(length for _, length in bar)) != METRES[self.metre]:
                return f"bar {number}: {total} sixteenths, {METRES[self.metre]} make a bar of {self.metre}"
        return ""


def code(kind: str, value: int | str) -> int:
    return FIRST[kind] + KINDS[kind].index(value)


def automaton() -> mio.Automaton:
    """What a span may be. A state is the size of a bar, the bar's number, and the step at which a pitch, or the end of
    a note, comes next; or it says that the beginning of that bar does."""
    arcs: dict = {"metre": [mio.Arc((code("metre", name),), (size, 0)) for name, size in METRES.items()]}
    pitches = range(FIRST["pitch"], CODES)
    for size in sorted(set(METRES.values())):
        for bar in range(PHRASE):
            following = (bar + 1) % PHRASE
            for step in range(size):
                arcs[size, bar, step, "pitch"] = [mio.Arc(pitches, (size, bar, step, "end"))]
                ends = [step + length for length in LENGTHS if step + length <= size]
                arcs[size, bar, step, "end"] = [
                    mio.Arc((code("step", end),), (size, bar, end, "pitch") if end < size else (size, following, "bar"))
                    for end in ends
                ]
            arcs[size, bar, "bar"] = [mio.Arc((code("bar", bar),), (size, bar, 0, "pitch"))]
        # the first bar is none behind which a span may end
        arcs[size, 0] = arcs[size, 0, "bar"]
    return mio.Automaton(start="metre", arcs=arcs, final=[state for state in arcs if state[-1] == "bar"])


def to_codes(tune: Tune) -> list[int]:
    """Codes of a tune that has no `problem`."""
    codes = [code("metre", tune.metre)]
    for number, bar in enumerate(tune.bars):
        codes.append(code("bar", number % PHRASE))
        for (pitch, _), end in zip(bar, accumulate(length for _, length in bar), strict=True):
            codes += (code("pitch", pitch), code("step", end))
    return codes


def from_codes(codes: Sequence[int]) -> Tune:
    """The tune of codes. Raises `ValueError` for codes that are none."""
    kinds = [max((kind for kind in KINDS if FIRST[kind] <= number), key=FIRST.__getitem__) for number in codes]
    values = [KINDS[kind][number - FIRST[kind]] for kind, number in zip(kinds, codes, strict=True)]
    if not kinds or kinds[0] != "metre":
        raise ValueError("it does not begin with a metre")
    bars: list[list[tuple]] = []
    for place in range(1, len(codes)):
        before, kind = kinds[place - 1 : place + 1]
        if kind == "bar" and before in ("metre", "step") and values[place] == len(bars) % PHRASE:
            bars.append([(REST, 0)])
        elif kind == "pitch" and before in ("bar", "step"):
            bars[-1].append((values[place], None))
        elif kind == "step" and before == "pitch":
            bars[-1][-1] = (bars[-1][-1][0], values[place])
        else:
            raise ValueError(f"code {place}, a {kind}, is not what follows a {before}")
    if kinds[-1] != "step":
        raise ValueError(f"it ends with a {kinds[-1]}")
    notes = (tuple((pitch, end - begin) for (_, begin), (pitch, end) in pairwise(bar)) for bar in bars)
    tune = Tune(values[0], tuple(notes))
    if tune.problem:
        raise ValueError(tune.problem)
    return tune


def to_text(tune: Tune) -> str:
    """In words: the metre, and of every bar the steps at which notes begin with their MIDI pitches, `-` for a rest.

    `6/8 bar one 0:62 2:64 4:66 6:69 bar two 0:62`: a note lasts until the next one, or to the end of the bar.
    """
    words = [tune.metre]
    for number, bar in enumerate(tune.bars):
        words += ["bar", NUMBERS[number + 1]]
        begins = accumulate((length for _, length in bar[:-1]), initial=0)
        words += [f"{begin}:{pitch or '-'}" for begin, (pitch, _) in zip(begins, bar, strict=True)]
    return " ".join(words)


def rests(sixteenths: int) -> list[Note]:
    """Rests that last so long together, the longest first."""
    found: list[Note] = []
    for length in reversed(LENGTHS):
        while length <= sixteenths:
            found.append((REST, length))
            sixteenths -= length
    return found


def tonic_of(tune: Tune) -> int | None:
    """Pitch class of the one major scale that holds all pitches, if there is exactly one."""
    classes = {pitch % 12 for pitch in tune.pitches}
    fitting = [tonic for tonic in range(12) if all((pitch - tonic) % 12 in MAJOR for pitch in classes)]
    return fitting[0] if len(fitting) == 1 else None


def continues(given: Tune, rest: Tune) -> bool:
    """Whether a continuation is two whole bars of the same metre, in the one major scale of what is given."""
    tonic = tonic_of(given)
    in_scale = tonic is not None and all((pitch - tonic) % 12 in MAJOR for pitch in rest.pitches)
    return rest.metre == given.metre and len(rest.bars) == 2 and in_scale


MAJOR = (0, 2, 4, 5, 7, 9, 11)
"""Semitones of a scale's notes above its tonic."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
