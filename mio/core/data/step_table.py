"""A CSV file with a line per step that outlives interruptions, and a digest of its lines for checkpoints. No torch."""

from __future__ import annotations

import csv
import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from mio.core.files import write_text


class StepTable(ABC):
    """A table whose lines are on disk as soon as they are added.

    Lines that a killed run wrote after its last checkpoint are replaced when their steps are trained again. A line has
    values by column, among them its `step`; a new column is empty in earlier lines.
    """

    counted: str
    """Key of `state` that has the number of lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._columns: list[str] = []
        self._file: TextIO | None = None

    @abstractmethod
    def _read(self) -> list[dict[str, str]]:
        """The lines of the file."""

    @abstractmethod
    def _signed(self, line: Mapping[str, str]) -> str:
        """What the digest covers of a line."""

    def state(self) -> dict[str, Any]:
        """How many lines there are, and their digest."""
        return {self.counted: self.lines, "digest": self._digest.hexdigest()}

    def matches(self, state: Mapping[str, Any], step: int) -> bool:
        """Whether the lines up to `step` are those that were there when `state` was taken."""
        self._lines_until(step)
        return self.state() == {self.counted: state[self.counted], "digest": state["digest"]}

    def add_line(self, line: Mapping[str, str]) -> None:
        """Writes a line. Those of the same step and later ones, which a killed run left behind, are replaced."""
        if self._file is None or any(name not in self._columns for name in line):
            self.close()
            earlier = self._lines_until(int(line["step"]) - 1)
            self._columns = list(dict.fromkeys(name for some in (*earlier, line) for name in some))
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self._columns)
            writer.writeheader()
            writer.writerows(earlier)
            write_text(self.path, text.getvalue())
            self._file = self.path.open("a", newline="", encoding="utf-8")
        csv.DictWriter(self._file, self._columns).writerow(line)
        self._file.flush()
        self._count(line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines_until(self, step: int) -> list[dict[str, str]]:
        """Lines up to a step, which the next ones are added to."""
        lines = [line for line in self._read() if int(line["step"]) <= step]
        self.lines, self._digest = 0, hashlib.blake2b(digest_size=16)
        for line in lines:
            self._count(line)
        return lines

    def _count(self, line: Mapping[str, str]) -> None:
        self._digest.update(self._signed(line).encode())
        self.lines += 1
