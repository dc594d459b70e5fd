"""Somebody hums a tune: sound made by numpy, with the unsteadiness of a voice.

Drawn anew for every hum: tempo, tuning, vibrato, the colour of the voice, how far notes glide into each other and where
they stop, how steady the beat is, breath and noise of the room.
"""

from __future__ import annotations

import numpy as np

from mio_music.tunes import REST, Tune

RATE = 8000
"""Samples per second."""
EVERY = 8
CONTROL = RATE // EVERY
"""Values of the pitch per second, one for so many samples."""
HARMONICS = 6
REFERENCE = 440.0
"""Hertz of A4, MIDI pitch 69."""


def hum(tune: Tune, seed: int) -> tuple[np.ndarray, int]:
    """Samples float32 `[T]` in [-1, 1] of a hum, and their rate. An eighth lasts 0.21 to 0.25 s."""
    draw = np.random.default_rng(seed)
    eighth, tuning = draw.uniform(0.21, 0.25), draw.uniform(-0.2, 0.2)
    pitches, loudness = [], []
    for pitch, sixteenths in tune.notes:
        steps = round(CONTROL * eighth * sixteenths / 2 * draw.uniform(0.95, 1.05))
        pitches.append(np.full(steps, np.nan if pitch == REST else pitch + tuning + draw.normal(0, 0.06)))
        loudness.append(_envelope(steps * EVERY, draw) * (pitch != REST) * draw.uniform(0.75, 1.0))
    pitch, level = _held(np.concatenate(pitches)), np.concatenate(loudness).astype(np.float32)
    glide = np.hanning(2 * round(CONTROL * draw.uniform(0.01, 0.03)) + 1)
    pitch = np.convolve(np.pad(pitch, len(glide) // 2, mode="edge"), glide / glide.sum(), mode="valid")
    seconds = np.arange(len(pitch)) / CONTROL
    pitch = pitch + draw.uniform(0, 0.25) * np.sin(2 * np.pi * (draw.uniform(4.5, 6.5) * seconds + draw.random()))
    frequency = np.interp(np.arange(len(level)) / EVERY, np.arange(len(pitch)), hertz(pitch))
    turns = np.cumsum(frequency) / RATE
    phase = (2 * np.pi * (turns - np.floor(turns))).astype(np.float32)
    colour = draw.uniform(0.25, 0.65) ** np.arange(HARMONICS) * draw.uniform(0.6, 1.4, HARMONICS)
    tone, before, sine, twice = np.zeros(len(level), np.float32), np.float32(0), np.sin(phase), 2 * np.cos(phase)
    for number, loud in enumerate(colour.astype(np.float32), 1):
        # what is above half the rate would come back as another tone
        tone += loud * sine * (number * frequency < 0.45 * RATE)
        before, sine = sine, twice * sine - before
    breath, room = draw.standard_normal((2, len(level)), np.float32) * draw.uniform(0, (0.05, 0.01))[:, None]
    voice = level * (tone + breath)
    voice = voice / np.abs(voice).max() * draw.uniform(0.3, 0.9) + room
    return np.clip(voice, -1, 1).astype(np.float32), RATE


def hertz(pitch: np.ndarray) -> np.ndarray:
    """Of MIDI pitches, equal temperament."""
    return REFERENCE * 2 ** ((pitch - 69) / 12)


def _envelope(samples: int, draw: np.random.Generator) -> np.ndarray:
    """Of one note: it begins within 20 ms, fades, and stops for a moment before the next one."""
    attack, silence = round(0.02 * RATE), round(RATE * draw.uniform(0.07, 0.09))
    level = np.linspace(1, draw.uniform(0.6, 0.9), samples)
    level[:attack] *= np.linspace(0, 1, attack)
    level[samples - silence - attack : samples - silence] *= np.linspace(1, 0, attack)
    level[samples - silence :] = 0
    return level


def _held(pitch: np.ndarray) -> np.ndarray:
    """Over rests the pitch before, or the first one."""
    known = np.flatnonzero(~np.isnan(pitch))
    return pitch[known[np.maximum(np.searchsorted(known, np.arange(len(pitch)), side="right") - 1, 0)]]
