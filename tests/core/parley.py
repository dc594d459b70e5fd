"""A plugin for tests: conversations in melodies. Chunks of its stream are lists of notes."""

from __future__ import annotations

import mio

QUESTION, NOISE, TYPED, ASIDE = "<1>", "<2>", "<3>", "<4>"
"""Control tokens: an effective query, none, a typed one, and one whose answer can wait."""


class Notes:
    """A `mio.Segmenter` whose chunks are lists of notes; an empty one is the silence that ends what is played."""

    def __init__(self):
        self.notes, self.heard, self.start = [], 0.0, 0.0

    def push(self, chunk):
        if not isinstance(chunk, list):
            raise mio.DataError(f"a chunk is a {type(chunk).__name__}")
        self.heard += 0.1
        if chunk:
            self.start = self.start if self.notes else self.heard - 0.1
            self.notes += chunk
            return []
        return self.close()

    def close(self):
        notes, self.notes = self.notes, []
        if not notes:
            return []
        ignored = "" if len(notes) > 1 else "one note alone"
        return [mio.Utterance(tuple(notes), self.start, self.heard, ignored)]


class Singer:
    """A `mio.Synthesiser` whose melodies are as long as the text."""

    def say(self, text):
        if "?" in text:
            raise mio.DataError(f"nobody can sing {text!r}")
        return (len(text.strip()),) if text.strip() else None

    def save(self, media, stem):
        path = stem.with_suffix(".txt")
        path.write_text(str(media))
        return path


class Reader:
    """A `mio.Encoder` of melodies: a position for each note."""

    fingerprint = "reader-1"

    def positions(self, media):
        return len(media)

    def prepare(self, media):
        import numpy as np

        if 7 in media:
            raise mio.DataError("nobody can read a 7")
        return {"notes": np.array(media, np.int64)}

    def dummy(self):
        return self.prepare((0,))

    def module(self, width):
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.notes = nn.Embedding(8, width)

            def forward(self, items):
                return self.notes(items.arrays["notes"])

        return Network()


def notes_of(path):
    """A file with the notes of a chunk in each line."""
    try:
        lines = [[int(note) for note in line.split()] for line in path.read_text().splitlines()]
    except ValueError as error:
        raise mio.DataError(f"{path}: {error}") from None
    return [(0.1 * (place + 1), line) for place, line in enumerate(lines)]


@mio.hookimpl
def mio_session(options):
    chosen = {"decoding": mio.Decoding(media_temperature=0.0, max_tokens=60), **options.get("session", {})}
    seconds = chosen.pop("seconds_per_note", 0.0)
    return mio.SessionPolicy(
        stream=mio.Stream(modality="melody", segmenter=Notes, open=notes_of),
        seconds=lambda _, content: seconds * len(content),
        **chosen,
    )


@mio.hookimpl
def mio_synthesiser(modality):
    return Singer() if modality == "melody" else None


@mio.hookimpl
def mio_encoder(modality, options):
    return Reader() if modality == "melody" and options.get("encoder") else None


@mio.hookimpl
def mio_control_tokens():
    actions = {QUESTION: "interrupt", NOISE: "silence", TYPED: "interrupt", ASIDE: "go_on", "<5>": "stop"}
    return mio.ControlTokens(
        tokens=[
            mio.ControlToken(name=f"state{token[1]}", token=token, plain_text=True, action=action)
            for token, action in actions.items()
        ]
        + [mio.ControlToken(name="own", token="<own>", anywhere=True)]
    )
