"""A plugin for tests: humming, which is constant for twenty milliseconds at a time. Its codes are how loud it is."""

from __future__ import annotations

import numpy as np

import mio
from mio import media
from mio.api import forms

RATE, FRAME = 8000, 0.02
"""Hertz of what is decoded, and seconds of a code."""
LEVELS = 8


def hum(levels, rate=24000, seconds=FRAME):
    """Sound of these levels, `seconds` each."""
    return np.repeat(np.array(levels) / LEVELS, round(seconds * rate)).astype(np.float32)


class Hums:
    fingerprint = "hums"

    def encode(self, media):
        return [np.array([[round(float(block.mean()) * LEVELS) for block in self._blocks(*one)]]) for one in media]

    def frames(self, media):
        return len(self._blocks(*media))

    def _blocks(self, samples, rate):
        size = round(FRAME * rate)
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    def decode(self, codes):
        return hum(codes[0], RATE), RATE

    def stream(self):
        return self

    def push(self, codes):
        return self.decode(codes)

    def finish(self):
        return None

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.wav")
        path.write_bytes(forms.to_wav(media))
        return path


class Voice:
    """Says each word as a hum of 100 ms that is as loud as the word is long."""

    def say(self, text):
        return (hum([min(len(word), 7) for word in text.split()], RATE, 0.1), RATE) if text.strip() else None

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.wav")
        path.write_bytes(forms.to_wav(media))
        return path


def read_hum(file):
    found = media.read_sound(file, 10.0)
    return found.samples, found.rate


@mio.hookimpl
def mio_modalities():
    return [mio.Modality(name="hum", codebooks=(LEVELS,), begin="<hum>", end="</hum>", code_token="<h{}>",
                         frames=mio.Frames(minimum=1, maximum=200))]  # fmt: skip


@mio.hookimpl
def mio_tokenizer(modality):
    return Hums() if modality == "hum" else None


@mio.hookimpl
def mio_detokenizer(modality):
    return Hums() if modality == "hum" else None


@mio.hookimpl
def mio_synthesiser(modality):
    return Voice() if modality == "hum" else None


@mio.hookimpl
def mio_datamodule(modality):
    if modality == "hum":
        return mio.DataModule(read=read_hum, in_memory=True, suffixes=(".wav",), media_type="audio")
    return None
