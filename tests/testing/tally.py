"""A plugin that conforms, in one file, of which `test_seeded_faults.py` changes a line at a time.

Tallies are whole numbers from 0 to 39 in a row; each is two codes. They are read aloud, and drawn.
"""

import dataclasses
import itertools

import numpy as np

import mio

TEMPLATES = (
    mio.Template(direction="understand", prompt="{tally} The values are:", response=" {values}"),
    mio.Template(direction="generate", prompt="Please draw {values}:", response="{tally}"),
)


@dataclasses.dataclass(frozen=True)
class Options:
    shift: int = mio.number(0, 0, 39)
    """Added to every number before it becomes codes."""


class Codec:
    def __init__(self, options):
        self.shift = options.shift
        self.fingerprint = f"tally-1-{self.shift}"

    def encode(self, media):
        shifted = [(np.asarray(values, np.int64) + self.shift) % 40 for values in media]
        return [np.stack([values // 4, values % 4]) for values in shifted]

    def frames(self, media):
        return len(media)

    def decode(self, codes):
        values = codes[0] * 4 + codes[1]
        if (values[:1] == 39).any():
            raise mio.DataError("no tally begins with 39")
        return (values - self.shift) % 40

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.tally")
        path.write_text(spell(media), encoding="utf-8")
        return path


class Tallies:
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        draw = np.random.default_rng([index, self.split == "test"])
        values = draw.integers(0, 39, 2 + index % 4)
        media = mio.Media("tally", values, key=f"{self.split}-{index}")
        return {"tally": media, "values": spell(values)}


def spell(values):
    return " ".join(map(str, values))


def read(file):
    return np.array(file.read_bytes().split(), np.int64)


def probe(file):
    return file.read_bytes().split()


def label(turn):
    return "short" if len(turn.record.get("values", "").split()) == 2 else ""


def named(answers, records):
    return [answer.text == f" {record['values']}" for answer, record in zip(answers, records, strict=True)]


def drawn(answers, records):
    return [
        any(spell(media) == record["values"] for media in answer.media("tally"))
        for answer, record in zip(answers, records, strict=True)
    ]


def ceiling(records, round_trip):
    media = round_trip([record["tally"] for record in records])
    return sum(spell(one) == record["values"] for one, record in zip(media, records, strict=True)) / len(records)


def held_out(count):
    source = Tallies("test")
    return [source[index] for index in range(min(count, len(source)))]


def read_options(options):
    return mio.read_options(Options, options, "plugins.tally")


@mio.hookimpl
def mio_modalities(options):
    read_options(options)
    return [
        mio.Modality(
            name="tally",
            codebooks=(10, 4),
            begin="<tally>",
            end="</tally>",
            code_token="<tally{}>",
            specials=("<one>", "<two>", "<three>", "<four>", "<five>", "<six>"),
            layout="frame_major",
            frames=mio.Frames(minimum=1, maximum=8),
        )
    ]


@mio.hookimpl
def mio_tokenizer(modality, options):
    return Codec(read_options(options)) if modality == "tally" else None


@mio.hookimpl
def mio_detokenizer(modality, options):
    return Codec(read_options(options)) if modality == "tally" else None


@mio.hookimpl
def mio_datamodule(modality):
    if modality != "tally":
        return None
    return mio.DataModule(read=read, probe=probe, in_memory=True, suffixes=(".tally",), templates={"tally": TEMPLATES})


@mio.hookimpl
def mio_control_tokens():
    return mio.ControlTokens(tokens=[mio.ControlToken(name="short", token="<short>")], label=label)


@mio.hookimpl
def mio_sources():
    return {"tally/tallies": lambda split, _: Tallies(split)}


@mio.hookimpl
def mio_tasks():
    read_aloud = mio.Task(name="name", template=TEMPLATES[0], records=held_out, output="text", judge=named)
    draw = mio.Task(name="draw", template=TEMPLATES[1], records=held_out, output="tally", judge=drawn, ceiling=ceiling)
    return [read_aloud, draw]


COUNTER = itertools.count(1)
"""For faults: what it gives differs at every call."""
