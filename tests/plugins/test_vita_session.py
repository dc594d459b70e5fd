"""Utterances in streams of sound: bursts at known places, and the digits world's unheard voices."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from mio import DataError, UserError
from mio.core.contract.plugins import PluginManager
from mio.plugins import vita
from mio.plugins.digits.world import World
from mio.plugins.vita.session import SessionOptions, VoiceOptions
from mio.plugins.vita.voice_activity import WINDOW, VoiceSegmenter, open_sound, sound_seconds

RATE = 8000
ENERGY = VoiceOptions(detector="energy", shortest=0.2, silence=0.3, padding=0.05, longest=2.0)


def bursts(*places, seconds=4.0, rate=RATE):
    """Noise of -20 dB at these places, in seconds, in silence of -60 dB."""
    noise = np.random.default_rng(0).normal(0, 1, round(seconds * rate))
    loud = np.full(len(noise), 10 ** (-60 / 20))
    for start, end in places:
        loud[round(start * rate) : round(end * rate)] = 10 ** (-20 / 20)
    return (noise * loud).astype(np.float32)


def segmented(options, samples, sizes=(800,), rate=RATE):
    segmenter, found, start, turn = VoiceSegmenter(options), [], 0, 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        found += segmenter.push((samples[start : start + size], rate))
        start, turn = start + size, turn + 1
    return [*found, *segmenter.close()]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_utterances_are_where_the_sound_is(rate):
    places = [(0.5, 1.2), (2.0, 2.6)]
    found = segmented(ENERGY, bursts(*places, rate=rate), rate=rate)
    assert len(found) == 2
    for utterance, (start, end) in zip(found, places, strict=True):
        assert start - 0.05 - WINDOW <= utterance.start <= start - 0.05 + WINDOW
        assert end + 0.05 - WINDOW <= utterance.end <= end + 0.05 + WINDOW
        samples, of = utterance.data
        assert of == rate
        assert len(samples) == pytest.approx((utterance.end - utterance.start) * rate, abs=1)
        assert utterance.ignored == ""


def test_an_utterance_is_the_stream_between_its_times():
    samples = bursts((0.5, 1.2))
    [found] = segmented(ENERGY, samples)
    assert np.array_equal(found.data[0], samples[round(found.start * RATE) : round(found.end * RATE)])


@pytest.mark.parametrize("sizes", [(1,), (7, 5000, 13), (256,), (32_000,)])
def test_the_size_of_chunks_changes_nothing(sizes):
    samples = bursts((0.1, 0.9), (1.5, 1.6), (2.0, 2.9))
    expected = segmented(ENERGY, samples)
    found = segmented(ENERGY, samples, sizes)
    assert [(one.start, one.end, one.ignored) for one in found] == [
        (one.start, one.end, one.ignored) for one in expected
    ]
    assert all(np.array_equal(one.data[0], other.data[0]) for one, other in zip(found, expected, strict=True))


def test_short_ones_are_told_and_ignored_and_long_ones_are_cut():
    found = segmented(ENERGY, bursts((0.5, 0.6), (1.5, 6.5), seconds=8.0))
    assert [bool(one.ignored) for one in found] == [True, False, False, False]
    assert found[0].ignored.endswith("s of speech, shorter than 0.2 s")
    pieces = [(one.start, one.end) for one in found[1:]]
    assert [first[1] for first in pieces[:-1]] == [second[0] for second in pieces[1:]], "nothing is lost in between"
    assert pieces[0][0] == pytest.approx(1.45, abs=WINDOW)
    assert pieces[-1][1] == pytest.approx(6.55, abs=WINDOW)


def test_what_is_being_said_when_the_stream_ends_is_an_utterance():
    segmenter = VoiceSegmenter(ENERGY)
    assert segmenter.push((bursts((3.0, 4.0)), RATE)) == []
    [found] = segmenter.close()
    assert (found.start, found.end) == (pytest.approx(2.95, abs=WINDOW), 4.0)
    assert segmenter.close() == []
    again = [*segmenter.push((bursts((0.5, 1.2), rate=16000), 16000)), *segmenter.close()]
    assert [one.start for one in again] == [pytest.approx(0.45, abs=WINDOW)], "a new stream, from its own beginning"


def test_silence_needs_no_memory():
    segmenter = VoiceSegmenter(ENERGY)
    for _ in range(50):
        segmenter.push((bursts(seconds=1.0), RATE))
    assert len(segmenter._kept) < 0.2 * RATE


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ("sound", "must be a pair"),
        ((np.zeros((2, 2, 2)), RATE), r"samples \[T\] or \[T, C\], not float64 \[2, 2, 2\]"),
        ((np.zeros(10), 10), "1,000 to 768,000 samples a second, not 10"),
        ((np.full(10, np.nan), RATE), "not numbers"),
        ((np.zeros(10, np.float32), 16000), "began with 8000 samples a second and goes on with 16000"),
    ],
)
def test_chunks_that_are_no_part_of_the_stream_are_refused(chunk, message):
    segmenter = VoiceSegmenter(ENERGY)
    segmenter.push((np.zeros(10, np.float32), RATE))
    with pytest.raises(DataError, match=message):
        segmenter.push(chunk)


def test_integers_and_channels_are_heard_as_the_same_sound():
    samples = bursts((0.5, 1.2))
    [mono] = segmented(ENERGY, samples)
    for other in (np.stack((samples, samples), 1), (samples * 32768).astype(np.int16)):
        [found] = segmented(ENERGY, other)
        assert (found.start, found.end) == (mono.start, mono.end)
        np.testing.assert_allclose(found.data[0], mono.data[0], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_silero_hears_unheard_voices_and_no_noise(rate):
    pytest.importorskip("silero_vad")
    from scipy.signal import resample

    options = VoiceOptions(shortest=0.3)
    world, threads = World("test"), torch.get_num_threads()
    for seed in range(3):
        draw = Random(seed)
        samples, _ = world.phrase(world.speaker(draw), ["three", "plus", "four"]).data
        quiet = np.random.default_rng(seed).normal(0, 1e-3, 20 * RATE).astype(np.float32)
        quiet[8000 : 8000 + len(samples)] += samples
        quiet[10 * RATE :] *= 50  # noise of -26 dB
        stream = np.asarray(resample(quiet, 20 * rate), np.float32)
        [found] = segmented(options, stream, sizes=(rate // 10,), rate=rate)
        assert found.start == pytest.approx(1.0, abs=0.35)
        assert found.end == pytest.approx(1.0 + len(samples) / RATE, abs=0.35)
    assert torch.get_num_threads() == threads


def test_files_are_streams(tmp_path):
    import soundfile

    samples = bursts((0.5, 1.2), seconds=1.23)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    chunks = list(open_sound(tmp_path / "a.wav"))
    assert [end for end, _ in chunks] == [pytest.approx(min(0.1 * (place + 1), 1.23)) for place in range(13)]
    np.testing.assert_allclose(np.concatenate([chunk for _, (chunk, _) in chunks]), samples, atol=1e-4)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"b\.wav"):
        next(iter(open_sound(tmp_path / "b.wav")))


def test_sound_plays_as_long_as_it_lasts():
    assert sound_seconds("speech", (np.zeros(4000), 8000)) == 0.5
    assert sound_seconds("image", np.zeros((8, 8))) == 0.0


def test_options_are_those_of_the_published_demo():
    made = vita.mio_session({})
    assert (made.history, made.older_media, made.answers, made.least) == (1, False, "model", 5)
    voice = SessionOptions().voice
    assert (voice.detector, voice.threshold, voice.silence, voice.shortest) == ("silero", 0.7, 0.5, 1.5)
    with pytest.raises(UserError, match=r"plugins\.vita: `session\.voice\.threshold` is 2; it must be at most 1"):
        vita.mio_session({"session": {"voice": {"threshold": 2.0}}})
    with pytest.raises(UserError, match=r"has no option `session\.histroy`; did you mean `history`"):
        vita.mio_session({"session": {"histroy": 2}})


def test_options_are_changed_one_by_one():
    """What a person changes for a conversation leaves the recipe's other options, those beside it inside of one too."""
    recipe = {"text": {"tokenizer": "bytes"}, "speech": {"tokenizer": "mel_rvq"},
              "vita": {"session": {"history": 3, "voice": {"silence": 0.4, "shortest": 0.2}}}}  # fmt: skip
    plugins = PluginManager.discover().enable(recipe)
    owner, made = plugins.session({"older_media": True, "voice": {"detector": "energy"}})
    assert (owner, made.history, made.older_media) == ("vita", 3, True)
    voice = made.stream.segmenter()._options
    assert (voice.detector, voice.silence, voice.shortest) == ("energy", 0.4, 0.2)
    assert plugins.session({})[1].stream.segmenter()._options.detector == "silero"


def test_what_finds_utterances_can_be_chosen_and_tells_where_one_began():
    options = {"session": {"voice": {"detector": "energy", "shortest": 0.2, "silence": 1.0, "padding": 0.05}}}
    stream = vita.mio_session(options).stream
    assert (stream.detection.silence, stream.detection.padding) == (1.0, 0.05)
    samples = bursts((0.5, 1.0), (1.4, 2.0))
    usual = stream.segmenter()
    assert len([*usual.push((samples, RATE)), *usual.close()]) == 1
    sooner = stream.detect(replace(stream.detection, silence=0.2, padding=0.0))
    onsets, found = [], []
    for start in range(0, len(samples), 400):
        found += sooner.push((samples[start : start + 400], RATE))
        onsets.append(sooner.onset)
    assert [(round(one.start, 1), round(one.end, 1)) for one in found] == [(0.5, 1.0), (1.4, 2.0)]
    assert {round(onset, 1) for onset in onsets if onset is not None} == {0.5, 1.4}
    assert onsets[0] is onsets[-1] is None
