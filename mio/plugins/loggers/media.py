"""Files of samples, by what they show."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from pathlib import Path

import mio

IMAGE, AUDIO, VIDEO = "image", "audio", "video"


def kind(path: Path) -> str:
    """`image`, `audio`, `video`, or another first half of a MIME type; a GIF moves. Empty if nobody knows, and for
    MIDI: its notes are no sound, though their MIME type says so."""
    if path.suffix.lower() == ".gif":
        return VIDEO
    guessed = mimetypes.guess_type(path.name)[0] or ""
    return "" if "midi" in guessed else guessed.split("/")[0]


def files(sample: mio.Sample) -> Iterator[tuple[str, Path]]:
    """(kind, path) of the files of a sample that are there."""
    for path in sample.files:
        if path.is_file():
            yield kind(path), path
