"""The spoken clips: what the package ships is what `voices` says, and variations stay the word that they were."""

import json
from collections import Counter

import numpy as np
import pytest

from mio import DataError
from mio.plugins.digits import render_clips
from mio.plugins.digits.voices import DIGITS, FOLDER, clips, vary


def test_splits_hold_every_word_of_every_take_and_share_no_voice():
    train, test = clips("train"), clips("test")
    for split, found in (("train", train), ("test", test)):
        voices = render_clips.VOICES[split]
        assert Counter((clip.voice, clip.take) for clip in found) == {
            (voice, take): len(render_clips.WORDS) for voice in voices for take in range(render_clips.TAKES[split])
        }
        assert {clip.word for clip in found} == {*DIGITS, "plus"}
    # the variant is what follows the accent: a test voice has an unheard vocal tract, not just an unheard accent
    assert not {clip.voice.split("+")[1] for clip in train} & {clip.voice.split("+")[1] for clip in test}
    keys = [clip.key for clip in (*train, *test)]
    assert len(set(keys)) == len(keys)


def test_clips_are_short_trimmed_and_of_one_peak():
    for clip in (*clips("train"), *clips("test")):
        assert clip.rate == 8000
        assert 0.15 < len(clip.samples) / clip.rate < 0.6
        assert np.abs(clip.samples).max() == pytest.approx(render_clips.PEAK, abs=0.01)
        loud = np.flatnonzero(np.abs(clip.samples) > 0.02)
        assert loud[0] <= 0.02 * clip.rate
        assert len(clip.samples) - loud[-1] <= 0.02 * clip.rate + 1


def test_folder_is_small_and_its_index_covers_the_files():
    index = json.loads((FOLDER / "index.json").read_text())
    words = json.loads((FOLDER / "words.json").read_text())
    files = {voice["file"] for voice in index["voices"]} | {clip[0] for clip in words["clips"]}
    assert files == {path.name for path in FOLDER.glob("*.flac")}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_700_000


def test_clips_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        clips("test")[0].samples[0] = 1


def test_unknown_split():
    with pytest.raises(DataError, match="`train` and `test`, not `valid`"):
        clips("valid")


def test_variations_are_a_function_of_clip_and_seed():
    one, other = clips("train")[:2]
    assert np.array_equal(vary(one, 3), vary(one, 3))
    lengths = {len(vary(one, seed)) for seed in range(20)}
    assert len(lengths) > 10
    assert all(0.9 < len(one.samples) / length < 1.11 for length in lengths)
    assert vary(one, 3).dtype == np.float32
    assert all(np.abs(vary(other, seed)).max() <= 1 for seed in range(20))


def test_variations_keep_the_spectrum():
    # the long-term spectrum in 1 kHz bands is that of the word: no band rises or falls by more than 10 dB
    def bands(samples):
        power = np.abs(np.fft.rfft(samples, 8192)[1:]) ** 2
        decibels = 10 * np.log10(power.reshape(4, -1).mean(axis=1))
        return decibels - decibels.max()

    clip = next(clip for clip in clips("train") if clip.word == "six")
    for seed in range(20):
        assert np.abs(bands(vary(clip, seed)) - bands(clip.samples)).max() < 10
