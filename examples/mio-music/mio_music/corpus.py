"""Real tunes: the collections of dance music in music21's corpus, and which of them are held out.

O'Neill's Music of Ireland (1903), Ryan's Mammoth Collection (1883) and Aird's Airs (1782) lie as ABC files in the
package music21. They are read once, in some ten seconds, and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mio_music.tunes import METRES, REST, Tune

COLLECTIONS = ("oneills1850", "ryansMammoth", "airdsAirs")
FILES = 10_000
"""Of each collection, at most."""
VERSION = 1
"""Of the reading, which names the file in the cache."""
HELD_OUT = 26
"""Of 256 tunes."""
NAMES = {"C": "4/4", "C|": "2/2"}
"""ABC's signs for metres."""


@cache
def tunes(split: str) -> tuple[Tune, ...]:
    """The whole bars of all tunes, in stretches of two bars and more.

    Collections share tunes, under other names and in other keys: what `test` has in common with `train` is left out
    where it is used, by `signature`.
    """
    return tuple(tune for name, tune in _all() if _held_out(name) == (split == "test"))


@cache
def known(bars: int) -> frozenset[str]:
    """Signatures of all excerpts of so many bars in the tunes of `train`."""
    return frozenset(signature(excerpt) for tune in tunes("train") for excerpt in excerpts(tune, bars))


def excerpts(tune: Tune, bars: int) -> Iterator[Tune]:
    """Excerpts of so many bars, from every bar on."""
    for first in range(len(tune.bars) - bars + 1):
        yield tune.part(first, bars)


def signature(tune: Tune) -> str:
    """What an excerpt is in any key: its notes relative to the first."""
    base = next(iter(tune.pitches), REST)
    return tune.metre + str([[(pitch and pitch - base + 100, length) for pitch, length in bar] for bar in tune.bars])


def _held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] < HELD_OUT


@cache
def _all() -> tuple[tuple[str, Tune], ...]:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mio-music"
    path = folder / f"tunes-{VERSION}-{version('music21')}.json"
    if not path.exists():
        found = [(name, tune.metre, tune.bars) for name, tune in _read()]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(path)  # several processes may do this at once
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        (name, Tune(metre, tuple(tuple((pitch, length) for pitch, length in bar) for bar in bars)))
        for name, metre, bars in found
    )


def _read() -> Iterator[tuple[str, Tune]]:
    import music21
    from music21 import abcFormat

    folder = Path(music21.__file__).parent / "corpus"
    for collection in COLLECTIONS:
        for path in sorted((folder / collection).glob("*.abc"))[:FILES]:
            handler = abcFormat.ABCHandler()
            handler.process(path.read_text(encoding="utf-8", errors="replace"))
            for part in handler.splitByReferenceNumber().values():
                for tune in stretches(part.tokens):
                    yield part.getTitle() or str(path), tune


def stretches(tokens: list) -> Iterator[Tune]:
    """Stretches of whole bars in what music21 has read of an ABC file. Bars with triplets, chords and lengths that a
    `Tune` has not, and bars that are not full, part stretches. Grace notes are left out and ties joined."""
    from music21 import abcFormat

    metre, bars, bar, grace, tied = "", [], [], False, False
    for token in [*tokens, abcFormat.ABCBar("|")]:
        if isinstance(token, abcFormat.ABCMetadata):
            if token.isMeter():
                yield from _whole(metre, bars)
                bars, metre = [], NAMES.get(token.data.strip(), token.data.strip())
        elif isinstance(token, abcFormat.ABCGraceStart | abcFormat.ABCGraceStop):
            grace = isinstance(token, abcFormat.ABCGraceStart)
        elif isinstance(token, abcFormat.ABCTie):
            tied = True
        elif isinstance(token, abcFormat.ABCChord):
            bar.append((-1, 0.0))
        elif isinstance(token, abcFormat.ABCNote) and not grace:
            pitch, length = REST if token.isRest else _midi(token.pitchName), 4 * token.quarterLength
            if tied and bar and bar[-1][0] == pitch:
                bar[-1] = (pitch, bar[-1][1] + length)
            else:
                bar.append((pitch, length))
            tied = False
        elif isinstance(token, abcFormat.ABCBar) and bar:  # a bar line right behind another parts nothing
            if Tune(metre, (tuple(bar),)).problem:
                yield from _whole(metre, bars)
                bars = []
            else:
                bars.append(tuple((pitch, int(length)) for pitch, length in bar))
            bar = []
    yield from _whole(metre, bars)


@cache
def _midi(name: str) -> int:
    """Of a pitch as music21 calls it; it marks naturals with an n, which it does not read."""
    from music21 import pitch

    return pitch.Pitch(name.replace("n", "")).midi


def _whole(metre: str, bars: list) -> Iterator[Tune]:
    if len(bars) >= 2 and metre in METRES:
        yield Tune(metre, tuple(bars))
