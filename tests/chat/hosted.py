"""Conversations in tests: with a model whose answers are written down."""

from __future__ import annotations

from pathlib import Path

from served import png, scripted, tone

from mio.api.loaded import Loaded
from mio.chat.composing import Composed
from mio.chat.conversation import Conversation
from mio.chat.host import Host
from mio.chat.media import MediaFile

SEVEN, ONE = (0, 1, 2, 3), (3, 3, 0, 0)
SCRIPT = {
    "both": ["so ", ("picture", SEVEN), " and ", ("tone", [4, 8 - 1])],
    "again": "more",
    f"what is {list(SEVEN)}?": "a seven",
    f"{list(ONE)} then {list(SEVEN)}": "two",
    f"{list(SEVEN)}{list(ONE)}look": "both before",
    "hear [1, 2]": "low",
    "clip": [("picture", SEVEN), ("picture", ONE)],
    "long": "word " * 40,
    "nothing": "",
}


def host(folder: Path, script=None, form="chat", rows=4, **options) -> Host:
    """A host of such a model."""
    run = Loaded(scripted(SCRIPT if script is None else script, form, **options), rows)
    return Host(run, folder / "media", "made", seed=3)


def ask(one: Conversation, text: str, *files: Path, output: str = "", first: bool = False, **options):
    """Asks, and returns what was to be seen meanwhile."""
    settings = one.host.settings(output, options, options.pop("seed", 0), options.pop("alone", False))
    return list(one.ask(Composed(text, files), settings, first))


def told(one: Conversation, number: int = -1):
    """The answer to a question: text as it is, media by modality."""
    answer = one.exchanges[number].answer
    return [part.modality if isinstance(part, MediaFile) else part for part in answer]


def picture(folder: Path, *pixels: int, name: str = "picture.png") -> Path:
    path = folder / name
    path.write_bytes(png(*pixels))
    return path


def sound(folder: Path, *levels: int, name: str = "tone.wav") -> Path:
    path = folder / name
    path.write_bytes(tone(*levels))
    return path
