"""Sounds of the digits world that are no speech: noise, music-like tones, beeps to count. Each is a function of a seed.

Mono float32 `[T]` in [-1, 1] at 8 kHz, with levels drawn, so that loudness alone tells nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 8000
MOST_BEEPS = 5

Samples = npt.NDArray[np.float32]
Wave = npt.NDArray[np.float64]


def noise(seed: int) -> Samples:
    """0.5 to 2 s of noise without any word: coloured noise, bursts, a hum, clicks, or two of these at once."""
    draw = np.random.default_rng((seed, 0))
    length = round(draw.uniform(0.5, 2.0) * RATE)
    kinds = (_coloured, _bursts, _hum, _clicks)
    sound = sum(
        (kinds[kind](draw, length) for kind in draw.integers(0, len(kinds), draw.integers(1, 3))), np.zeros(length)
    )
    return _at_level(draw, sound)


def tune(seed: int) -> Samples:
    """0.5 to 2.5 s of tones like music: notes with overtones, alone or in chords, with or without gaps."""
    draw = np.random.default_rng((seed, 1))
    overtones = draw.uniform(0, 1, 5) * 2.0 ** -np.arange(5)
    root, chord = draw.uniform(110, 440), draw.random() < 0.4
    pieces = []
    for _ in range(draw.integers(2, 9)):
        length = round(draw.uniform(0.1, 0.45) * RATE)
        steps = draw.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16], 3 if chord else 1)
        note = sum(_tone(length, root * 2 ** (step / 12), overtones) for step in steps)
        pieces += [note * _envelope(draw, length), np.zeros(round(draw.choice([0, 0.02, 0.1]) * RATE))]
    return _at_level(draw, np.concatenate(pieces)[: round(2.5 * RATE)])


def beeps(seed: int, count: int) -> Samples:
    """`count` equal beeps with silence between, 0.15 to 0.5 s each with its silence."""
    draw = np.random.default_rng((seed, 2))
    length, gap = round(draw.uniform(0.08, 0.2) * RATE), round(draw.uniform(0.1, 0.25) * RATE)
    beep = _tone(length, draw.uniform(400, 2000), draw.uniform(0, 0.3, 2)) * _envelope(draw, length)
    return _at_level(draw, np.concatenate([beep, np.zeros(gap)] * count))


def _at_level(draw: np.random.Generator, sound: Wave) -> Samples:
    sound = sound * (draw.uniform(0.1, 0.9) / max(np.abs(sound).max(), 1e-9))
    return np.asarray(sound + draw.normal(0, 10 ** -draw.uniform(2, 4), len(sound)), np.float32).clip(-1, 1)


def _tone(length: int, frequency: float, overtones: Wave) -> Wave:
    """A tone with its overtones below half of the rate; the first strength is that of the tone's octave."""
    phase = 2 * np.pi * np.arange(length) / RATE
    parts = [(frequency, 1.0), *((frequency * n, strength) for n, strength in enumerate(overtones, 2))]
    return sum((strength * np.sin(phase * pitch) for pitch, strength in parts if pitch < RATE / 2), np.zeros(length))


def _envelope(draw: np.random.Generator, length: int) -> Wave:
    """A rise of 5 to 20 ms, and a fall that is short or takes the whole tone."""
    time = np.arange(length) / RATE
    rise, fall = draw.uniform(0.005, 0.02), draw.choice([0.01, 0.1, 0.3])
    shape: Wave = np.minimum(1, time / rise) * np.minimum(1, (length / RATE - time) / fall)
    return shape


def _coloured(draw: np.random.Generator, length: int) -> Wave:
    """White, pink or brown noise, in a band or not, that swells slowly."""
    spectrum = np.fft.rfft(draw.normal(0, 1, length))
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    spectrum *= np.maximum(frequency, 20.0) ** -draw.choice([0, 0.5, 1])
    if draw.random() < 0.5:
        low = draw.uniform(50, 2500)
        spectrum *= (frequency > low) & (frequency < low * draw.uniform(1.2, 4))
    sound = np.fft.irfft(spectrum, length)
    swell = 1 + draw.uniform(0, 0.9) * np.sin(
        2 * np.pi * (draw.uniform(0.3, 3) * np.arange(length) / RATE + draw.random())
    )
    coloured: Wave = sound / max(np.abs(sound).max(), 1e-9) * swell
    return coloured


def _bursts(draw: np.random.Generator, length: int) -> Wave:
    """Coloured noise in bursts as long as syllables: knocks, steps, a cough."""
    gate = np.zeros(length)
    for _ in range(draw.integers(1, 7)):
        start, long = draw.integers(0, length), round(draw.uniform(0.03, 0.3) * RATE)
        gate[start : start + long] = np.exp(-np.arange(long) / RATE / draw.uniform(0.02, 0.2))[: length - start]
    return _coloured(draw, length) * gate


def _hum(draw: np.random.Generator, length: int) -> Wave:
    """A motor: a low tone with many overtones, whose pitch may slide."""
    slide = np.cumsum(np.linspace(1, draw.uniform(0.7, 1.4), length)) / RATE
    base = 2 * np.pi * draw.uniform(40, 200) * slide
    strengths = draw.uniform(0, 1, 12) / np.arange(1, 13)
    sound = sum((strength * np.sin(n * base) for n, strength in enumerate(strengths, 1)), np.zeros(length))
    hum: Wave = sound / max(np.abs(sound).max(), 1e-9)
    return hum


def _clicks(draw: np.random.Generator, length: int) -> Wave:
    """Clicks at random moments, each ringing a little: keys, crackling."""
    sound = np.zeros(length)
    ring = np.exp(-np.arange(200) / draw.uniform(3, 40)) * np.cos(np.arange(200) * draw.uniform(0.2, 3))
    moments = draw.integers(0, length, draw.integers(2, 40))
    sound[moments] = draw.normal(0, 1, len(moments))
    return np.convolve(sound, ring)[:length]
