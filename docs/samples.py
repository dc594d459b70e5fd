"""Draws docs/samples.png: what a trained run of the digits world answers to held-out prompts, none picked.

python docs/samples.py runs/stage4 docs/samples.png
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mio import Answer, Media, Record
from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.answering import answer_records
from mio.core.evaluation.evaluation import owned_tasks
from mio.core.generation.model import Model
from mio.core.runs.run import Run

CELL, TEXT, GAP, MARGIN, WIDTH = 48, 15, 6, 14, 1000
INK, PAPER, QUIET, GIVEN = (25, 25, 25), (255, 255, 255), (110, 110, 110), (226, 232, 240)

Item = str | np.ndarray


def spectrogram(speech: tuple[np.ndarray, int]) -> np.ndarray:
    """Speech as a picture: 40 bands of log energy, low ones at the bottom, 10 ms a column."""
    from scipy.signal import stft

    samples, rate = speech
    power = np.abs(stft(samples, rate, nperseg=rate // 40, noverlap=rate // 40 - rate // 100)[2]) ** 2
    level = np.log10(power[:40] + 1e-7)[::-1]
    return np.uint8(255 * (level - level.min()) / max(float(np.ptp(level)), 1e-9))


def shown(value: Any) -> list[tuple[Item, bool]]:
    """Pieces of a prompt's field as (content, whether it is sound)."""
    if isinstance(value, list):
        return [piece for inner in value for piece in shown(inner)]
    if isinstance(value, Media):
        if isinstance(value.data, tuple):
            return [(spectrogram(value.data), True)]
        return [(frame, False) for frame in (value.data if isinstance(value.data, list) else [value.data])]
    return [(str(value).strip(), False)]


def answered(answer: Answer) -> list[tuple[Item, bool]]:
    """Pieces of an answer."""
    pieces: list[tuple[Item, bool]] = []
    for name, content in answer.parts:
        if name == "text":
            pieces.append((content.strip(), False))
        elif name == "speech":
            pieces.append((spectrogram(content), True))
        else:
            pieces += [(frame, False) for frame in (content if isinstance(content, list) else [content])]
    return pieces


class Sheet:
    """A page that is filled line by line."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, 2000), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(TEXT)
        self.x, self.y = MARGIN, MARGIN

    def heading(self, text: str) -> None:
        self.draw.text((MARGIN, self.y), text, QUIET, self.font)
        self.y += TEXT + GAP

    def pair(self, given: Sequence[tuple[Item, bool]], answer: Sequence[tuple[Item, bool]]) -> None:
        """What was given, on a shade, an arrow, and the answer; goes to the next line where it does not fit."""
        width = sum(self._width(piece) + GAP for piece in (*given, *answer)) + 40
        if self.x + width > WIDTH and self.x > MARGIN:
            self.newline()
        before = self.x
        shade = sum(self._width(piece) + GAP for piece in given) - GAP
        self.draw.rectangle((before - 3, self.y - 3, before + shade + 3, self.y + CELL + 3), GIVEN)
        for piece in given:
            self._put(piece)
        middle = self.y + CELL // 2
        self.draw.line((self.x + 2, middle, self.x + 16, middle), QUIET, 2)
        self.draw.polygon([(self.x + 16, middle - 5), (self.x + 16, middle + 5), (self.x + 23, middle)], QUIET)
        self.x += 30
        for piece in answer:
            self._put(piece)
        self.x += 20

    def newline(self) -> None:
        self.x = MARGIN
        self.y += CELL + 2 * GAP

    def _width(self, piece: tuple[Item, bool]) -> int:
        content, sound = piece
        if isinstance(content, str):
            return int(self.font.getlength(content))
        return max(CELL, 2 * content.shape[1]) if sound else CELL

    def _put(self, piece: tuple[Item, bool]) -> None:
        content, sound = piece
        width = self._width(piece)
        if isinstance(content, str):
            self.draw.text((self.x, self.y + (CELL - TEXT) // 2), content, INK, self.font)
        else:
            method = Image.Resampling.BICUBIC if sound else Image.Resampling.NEAREST
            picture = Image.fromarray(255 - content).convert("RGB").resize((width, CELL), method)
            self.image.paste(picture, (self.x, self.y))
            self.draw.rectangle((self.x, self.y, self.x + width - 1, self.y + CELL - 1), None, (200, 200, 200))
        self.x += width + GAP

    def save(self, path: Path) -> None:
        self.image.crop((0, 0, WIDTH, self.y + MARGIN)).save(path, optimize=True)


ROWS: tuple[tuple[str, str, int, Callable[[Record], Any]], ...] = (
    ("draw", "draw: a name, and the picture made of it", 20, lambda record: record["caption"]),
    ("edit", "edit: one more or one less than the picture", 6, lambda record: [record["image"], record["change"]]),
    ("sum_pictures", "sum_pictures: adds pictures, drawing each result", 3, lambda record: record["operands"]),
    ("video_draw", "video_draw: frames made of a description", 4, lambda record: record["description"]),
    ("count_on", "count_on: continues a row of names and pictures", 3, lambda record: record["shown"]),
    ("transcribe", "transcribe: an unheard voice", 6, lambda record: record["speech"]),
    ("speak", "speak: a name, and the speech made of it (spectrogram)", 6, lambda record: record["transcription"]),
    ("picture_to_speech", "picture_to_speech", 4, lambda record: record["image"]),
    ("answer_aloud", "answer_aloud: a spoken sum, answered in speech", 2, lambda record: record["question"]),
    ("in_context", "in_context: a rule that is not said", 2, lambda record: [record["shown"], record["asked"]]),
    ("chart_quiz", "chart_quiz: a bar chart and a question", 2, lambda record: [record["image"], record["question"]]),
    ("clone", "clone: a word, and a voice to say it in", 3, lambda record: [record["text"], record["voice"]]),
)
"""Task, heading, items, and what the sheet shows of a prompt."""


def main(folder: str, path: str) -> None:
    model, sheet = Model.of(Run.open(folder, PluginManager.discover())), Sheet()
    for name, heading, count, given in ROWS:
        task = owned_tasks(model, [name])[0].task
        records = task.records(count)
        sheet.heading(heading)
        for record, answer in zip(records, answer_records(model, task, records), strict=True):
            sheet.pair(shown(given(record)), answered(answer))
        sheet.newline()
    sheet.save(Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
