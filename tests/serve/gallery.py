"""A plugin for tests: pictures of four pixels, tones of steps, clips of pictures. Their codes are what they show."""

from __future__ import annotations

import io

import numpy as np

import mio
from mio import media
from mio.api import forms

RATE, STEP = 8000, 80
"""Hertz, and samples of a code."""
LEVELS = 8


class Pictures:
    """Grey pictures `[2, 2]` of four levels."""

    fingerprint = "pictures"

    def encode(self, media):
        return [(pixels.reshape(1, 4) // 85).astype(np.int64) for pixels in media]

    def frames(self, media):  # noqa: ARG002
        return 4

    def decode(self, codes):
        return (codes[0] * 85).astype(np.uint8).reshape(2, 2)

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.png")
        path.write_bytes(forms.to_png(media))
        return path


class Tones:
    """Sound that is constant for ten milliseconds at a time."""

    fingerprint = "tones"

    def encode(self, media):
        return [np.round(samples.reshape(-1, STEP).mean(1) * LEVELS).astype(np.int64)[None] for samples, _ in media]

    def frames(self, media):
        return len(media[0]) // STEP

    def decode(self, codes):
        return np.repeat(codes[0] / LEVELS, STEP).astype(np.float32), RATE

    def stream(self):
        return Steps()

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.wav")
        path.write_bytes(forms.to_wav(media))
        return path


class Steps:
    """A tone while its codes come."""

    def push(self, codes):
        return Tones().decode(codes)

    def finish(self):
        return None


class Clips:
    """Videos, picture by picture."""

    def split(self, media):
        return [mio.Media("picture", frame, f"{media.key}/{number}") for number, frame in enumerate(media.data)]

    def decode(self, codes):
        return list(codes)

    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.gif")
        path.write_bytes(forms.to_apng(media))
        return path


def read_picture(file):
    from PIL import Image

    with Image.open(io.BytesIO(file.read_bytes())) as image:
        pixels = np.asarray(image.convert("L"))
    if pixels.shape != (2, 2):
        raise mio.DataError(f"{file}: is no picture of four pixels")
    return pixels


def read_tone(file):
    found = media.read_sound(file, 10.0)
    return found.samples[: len(found.samples) // STEP * STEP], found.rate


def read_clip(file):
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)]


@mio.hookimpl
def mio_modalities():
    return [
        mio.Modality(name="picture", codebooks=(4,), begin="<pic>", end="</pic>", code_token="<p{}>",
                     frames=mio.Frames(minimum=4, maximum=4)),
        mio.Modality(name="tone", codebooks=(LEVELS,), begin="<tone>", end="</tone>", code_token="<t{}>",
                     frames=mio.Frames(minimum=1, maximum=16)),
        mio.Modality(name="clip", parts="picture", frames=mio.Frames(minimum=2, maximum=4)),
    ]  # fmt: skip


@mio.hookimpl
def mio_tokenizer(modality):
    return {"picture": Pictures, "tone": Tones, "clip": Clips}.get(modality, lambda: None)()


@mio.hookimpl
def mio_detokenizer(modality):
    return {"picture": Pictures, "tone": Tones, "clip": Clips}.get(modality, lambda: None)()


@mio.hookimpl
def mio_datamodule(modality):
    say = mio.Template(direction="text_to_tone", prompt="Say {words}", response="{tone}")
    write = mio.Template(direction="tone_to_text", prompt="{tone}Write", response="{words}")
    draw = mio.Template(direction="text_to_picture", prompt="Draw {words}", response="{picture}")
    modules = {
        "picture": mio.DataModule(
            read=read_picture, in_memory=True, suffixes=(".png",), media_type="image", templates={"drawn": (draw,)}
        ),
        "tone": mio.DataModule(
            read=read_tone, in_memory=True, suffixes=(".wav",), media_type="audio", templates={"said": (say, write)}
        ),
        "clip": mio.DataModule(read=read_clip, in_memory=True, suffixes=(".gif",), media_type="video"),
    }
    return modules.get(modality)
