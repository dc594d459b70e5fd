"""Journals of runs, whole and damaged, as `mio recipe verify` judges them, beside Python's `csv` in strict use.

A journal is right if its rows are those of the plan, each step once. What `csv` reads otherwise has to be refused.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from replays import Variant

from mio.core.data.journal import Journal, JournalEntry, compare, read
from mio.core.errors import DataError

STEPS = 40
HEADER = b"step,rows,documents,tokens,digest"


def plan(draw: random.Random) -> list[JournalEntry]:
    return [
        JournalEntry(step, 8, draw.randrange(8, 90), draw.randrange(500, 4000), draw.getrandbits(64))
        for step in range(1, STEPS + 1)
    ]


def judged(path: Path, planned: list[JournalEntry]) -> list[JournalEntry]:
    """As `mio recipe verify` does with a finished run. Raises `DataError` for other rows than planned."""
    journal = read(path)
    found = compare(journal, planned, STEPS)
    if not found.exact:
        raise DataError(f"{path}: {found}")
    return journal


def by_csv(content: bytes) -> list[tuple[int, ...]] | None:
    """Rows as `csv` reads them, by step; None for what is no journal. A last line without its end is none yet."""
    try:
        text = content.decode("utf-8")
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True))
        if rows[0] != HEADER.decode().split(","):
            return None
        return sorted((*map(int, row[:4]), int(row[4], 16)) for row in rows[1:] if len(row) == 5 or 1 / 0)
    except (ArithmeticError, csv.Error, IndexError, ValueError):
        return None


def variants(folder: Path, draw: random.Random) -> Iterator[Variant]:
    planned = plan(draw)
    path = folder / "whole.csv"
    journal = Journal(path)
    for entry in planned:
        journal.add(entry)
    journal.close()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)

    def at(change: Callable[[bytes], bytes]) -> bytes:
        """One line changed."""
        index = draw.randrange(1, len(lines))
        return b"".join([*lines[:index], change(lines[index]), *lines[index + 1 :]])

    def column(index: int, value: Callable[[bytes], bytes]) -> bytes:
        def change(line: bytes) -> bytes:
            cells = line.rstrip(b"\r\n").split(b",")
            cells[index] = value(cells[index])
            return b",".join(cells) + b"\r\n"

        return at(change)

    def flipped() -> bytes:
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(content)

    def made() -> Iterator[tuple[str, bytes]]:
        yield "whole", whole
        yield "line ends of Unix", whole.replace(b"\r\n", b"\n")
        yield "empty", b""
        yield "a header alone", lines[0]
        yield "no header", b"".join(lines[1:])
        yield "another header", whole.replace(b"digest", b"checksum", 1)
        yield "a byte order mark", b"\xef\xbb\xbf" + whole
        yield "in UTF-16", whole.decode().encode("utf-16")
        yield "backwards", b"".join([lines[0], *lines[:0:-1]])
        yield "twice", whole + b"".join(lines[1:])
        yield "zeros at its end", whole + bytes(512)
        yield "half of it zeros", whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
        yield "semicolons", whole.replace(b",", b";")
        while True:
            yield "cut", whole[: draw.randrange(len(whole))]
            yield "cut at a line's end", b"".join(lines[: draw.randrange(1, len(lines))])
            yield "its last line cut", whole[: -draw.randrange(1, len(lines[-1]))]
            yield "half a line more", whole + lines[-1][: draw.randrange(1, len(lines[-1]) - 2)]
            yield "a bit flipped", flipped()
            yield "a line gone", at(lambda line: line[:0])
            yield "a line twice", at(lambda line: line * 2)
            yield "a line emptied", at(lambda line: line[-2:])
            yield "another step", column(0, lambda cell: str(int(cell) + draw.randrange(1, 9)).encode())
            yield "a step of long ago", column(0, lambda cell: b"-" + cell)
            yield "a huge step", column(0, lambda cell: cell + b"0" * draw.randrange(1, 40))
            yield "other rows", column(draw.randrange(1, 4), lambda cell: cell + b"1")
            yield "a number with a fraction", column(draw.randrange(4), lambda cell: cell + b".5")
            yield "another digest", column(4, lambda cell: cell[::-1])
            yield "no digest", column(4, lambda cell: cell[:0])
            yield "letters for a number", column(draw.randrange(4), lambda cell: b"x" + cell)
            yield "a cell too many", column(3, lambda cell: cell + b",1")
            yield "bytes that are no text", column(draw.randrange(5), lambda cell: cell + b"\xff")
            yield "a zero byte", column(draw.randrange(5), lambda cell: cell + b"\0")
            yield "digits of another script", column(1, lambda cell: cell[:0] + "٣".encode())
            yield "two lines exchanged", _exchanged(lines, draw)

    expected = sorted(tuple(entry) for entry in planned)
    for number, (name, content) in enumerate(made()):
        path = folder / f"{number}.csv"
        path.write_bytes(content)
        yield Variant(
            name,
            partial(judged, path, planned),
            lambda journal: "" if sorted(map(tuple, journal)) == expected else "other rows than planned",
            readable=by_csv(content) == expected,
        )


def _exchanged(lines: list[bytes], draw: random.Random) -> bytes:
    changed = list(lines)
    one, other = draw.sample(range(1, len(lines)), 2)
    changed[one], changed[other] = changed[other], changed[one]
    return b"".join(changed)
