"""Sound as bytes, whole and in pieces."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from mio import MemoryFile
from mio.media import read_sound
from mio.serve.sound import SoundWriter, whole, with_size

RATE = 16000
SINE = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) / 2).astype(np.float32)


def pieces(kind, samples, rate, size=1000):
    writer = SoundWriter(kind)
    found = [writer.push(samples[start : start + size], rate) for start in range(0, len(samples), size)]
    return [*found, writer.finish()]


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "aac"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 11111])
def test_every_format_is_read_back(kind, rate):
    for content in (whole(SINE, rate, kind), b"".join(pieces(kind, SINE, rate))):
        sound = read_sound(MemoryFile(content), 30)
        seconds = len(sound.samples) / sound.rate
        assert seconds == pytest.approx(len(SINE) / rate, abs=0 if kind in ("wav", "flac") else 0.2)
        part = sound.samples[: sound.rate // 4]
        peak = np.argmax(np.abs(np.fft.rfft(part))) * sound.rate / len(part)
        assert abs(peak - 440 * rate / RATE) < 8
        if kind in ("wav", "flac"):
            assert np.abs(sound.samples - SINE).max() < 1 / 32768


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac"])
def test_sound_comes_while_it_is_made(kind):
    found = pieces(kind, SINE, RATE)
    assert len(b"".join(found[: len(found) // 2])) > 0.2 * len(b"".join(found))


def test_pcm_has_the_rate_that_clients_take_for_granted():
    samples = np.frombuffer(whole(SINE, RATE, "pcm"), "<i2") / 32768
    assert len(samples) == pytest.approx(24000, abs=40)
    assert np.argmax(np.abs(np.fft.rfft(samples[:24000]))) == pytest.approx(440, abs=1)


def test_channels():
    stereo = np.stack([SINE, -SINE], 1)
    assert read_sound(MemoryFile(whole(stereo, RATE, "flac")), 9).samples.shape == (RATE, 2)
    mixed = read_sound(MemoryFile(whole(np.stack([SINE] * 3, 1), RATE, "wav")), 9).samples
    assert np.abs(mixed - SINE).max() < 1 / 32768


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_sounds_of_several_rates_and_channels_become_one(kind):
    """A second of a tone, one of its double at another rate in stereo, and one of the first again."""
    high = (np.sin(np.arange(2 * RATE) * 2 * np.pi * 440 / RATE) / 2).astype(np.float32)  # 880 Hz at twice the rate
    writer = SoundWriter(kind)
    found = [writer.push(SINE, RATE)]
    found += [writer.push(np.stack([part, part], 1), 2 * RATE) for part in np.split(high, 20)]
    found += [writer.push(SINE, RATE), writer.finish()]
    content = b"".join(found)
    sound = read_sound(MemoryFile(with_size(content) if kind == "wav" else content), 30)
    assert (sound.rate, sound.samples.ndim) == (RATE, 1)
    assert len(sound.samples) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    for second, hertz in enumerate((440, 880, 440)):
        part = sound.samples[int((second + 0.25) * RATE) : int((second + 0.75) * RATE)]
        assert 2 * np.argmax(np.abs(np.fft.rfft(part))) == pytest.approx(hertz, abs=4)


def test_the_header_of_a_wav_says_how_long_it_is():
    content = with_size(b"".join(pieces("wav", SINE, RATE)))
    assert content == whole(SINE, RATE, "wav")
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnframes(), file.getframerate()) == (len(SINE), RATE)
