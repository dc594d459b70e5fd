"""A modality from somebody else's package: short melodies of eight notes, with their names to read and to play.

Everything that mio asks of a modality is here: declaration, tokenizer, detokenizer, data, templates and a task.
"""

import hashlib
import itertools

import mio

NOTES = ("do", "re", "mi", "fa", "sol", "la", "ti", "high")
TEMPLATES = (
    mio.Template(direction="understand", prompt="{melody} The notes are:", response=" {notes}"),
    mio.Template(direction="generate", prompt="Please play {notes}:", response="{melody}"),
)


class Codec:
    """Notes 0 to 7 are their own codes `[1, F]`."""

    fingerprint = "melody-1"

    def encode(self, media):
        import numpy as np

        return [np.asarray([notes], dtype=np.int64) for notes in media]

    def frames(self, media):
        return len(media)

    def decode(self, codes):
        return tuple(int(code) for code in codes[0])

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text(spell(media) + "\n", encoding="utf-8")
        return path


class Tunes:
    """Every melody of two or three notes; a hash of its name decides which are held out."""

    def __init__(self, split):
        tunes = [notes for size in (2, 3) for notes in itertools.product(range(len(NOTES)), repeat=size)]
        self.tunes = [notes for notes in tunes if held_out(notes) == (split == "test")]

    def __len__(self):
        return len(self.tunes)

    def __getitem__(self, index):
        notes = self.tunes[index]
        return {"melody": mio.Media("melody", notes, key=spell(notes), label=spell(notes)), "notes": spell(notes)}


def spell(notes):
    return " ".join(NOTES[note] for note in notes)


def held_out(notes):
    return hashlib.sha256(bytes(notes)).digest()[0] < 128


def judge(answers, records):
    return [
        answer.media("melody")[:1] == [record["melody"].data] for answer, record in zip(answers, records, strict=True)
    ]


def read(path):
    return tuple(NOTES.index(name) for name in path.read_text(encoding="utf-8").split())


@mio.hookimpl
def mio_modalities():
    return [
        mio.Modality(
            name="melody",
            codebooks=(len(NOTES),),
            begin="<melody>",
            end="</melody>",
            code_token="<note{}>",
            frames=mio.Frames(minimum=1, maximum=8),
        )
    ]


@mio.hookimpl
def mio_tokenizer(modality):
    return Codec() if modality == "melody" else None


@mio.hookimpl
def mio_detokenizer(modality):
    return Codec() if modality == "melody" else None


@mio.hookimpl
def mio_datamodule(modality):
    if modality == "melody":
        return mio.DataModule(read=read, suffixes=(".txt",), templates={"melody": TEMPLATES})
    return None


@mio.hookimpl
def mio_sources():
    return {"melody/tunes": lambda split, _options: Tunes(split)}


@mio.hookimpl
def mio_tasks():
    tunes = Tunes("test")
    return [
        mio.Task(
            name="play",
            template=TEMPLATES[1],
            records=lambda count: [tunes[i] for i in range(min(count, len(tunes)))],
            output="melody",
            judge=judge,
            decoding=mio.Decoding(media_temperature=0.0, max_tokens=16),
        )
    ]
