"""Speech in the voice of a prompt: what the corpus holds, and a judge of voices that hears them and nothing else."""

import numpy as np
import pytest

from mio import Answer, Media, Template
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.plugins.digits.cloning import LONGEST, VERDICTS, cloned, cloning, cloning_ceiling, cloning_tasks
from mio.plugins.digits.corpus import Corpus
from mio.plugins.digits.measuring import held_out
from mio.plugins.digits.voice_judge import Spoken, likeness
from mio.plugins.digits.voices import DIGITS, Clip, clips, in_another_voice


def _names(split):
    return list(dict.fromkeys(clip.voice for clip in clips(split)))


def _said(*recordings):
    return Answer(tuple(("speech", recording) for recording in recordings))


def test_a_record_asks_for_another_word_in_the_voice_of_its_prompt():
    for split in ("train", "test"):
        corpus = Corpus("cloning", cloning, split, {})
        for index in range(200):
            record = corpus[index]
            (voice, take, prompt), (same, again, word) = (
                record[name].key.removeprefix("spoken/").rsplit("/", 1)[0].split("/") for name in ("voice", "speech")
            )
            assert (voice, take) == (same, again)
            assert record["voice"].key.rsplit("/", 1)[1] == record["speech"].key.rsplit("/", 1)[1]
            assert (prompt, word) == (record["voice"].label, record["speech"].label)
            assert prompt != word == record["text"]
            assert voice == record["speaker"] != record["other"]
            assert voice in _names(split)
            assert sum(len(record[name].data[0]) / 8000 for name in ("voice", "speech")) <= LONGEST


def test_the_prompt_carries_the_voice():
    record = held_out(cloning, 1)[0]
    (task,) = cloning_tasks()
    segments = to_document(record, CompiledTemplate(task.template)).segments
    spans = [(one.content.key, one.view) for one in segments if isinstance(one.content, Media)]
    assert spans == [(record["voice"].key, "generate"), (record["speech"].key, "generate")]
    assert task.template == Template(
        direction="clone", prompt="Say {text} in this voice. {voice:generate}", response="{speech}"
    )


def test_a_voice_that_is_made_moves_pitch_and_formants_alike_for_all_words():
    # a tone, whose frequency the Fourier transform tells to 0.5 Hz: it moves as much as the length, inversely
    rate, seconds = 8000, 0.5
    tone = np.sin(2 * np.pi * 300 * np.arange(int(rate * seconds)) / rate).astype(np.float32)
    ratios = set()
    for variant in range(1, 9):
        moved = []
        for word, samples in (("one", tone), ("two", tone[:3000])):
            heard = in_another_voice(Clip(word, "somebody", 0, samples), variant)
            spectrum = np.abs(np.fft.rfft(heard, 1 << 14))
            moved.append(np.argmax(spectrum) * rate / (1 << 14) / 300)
            assert moved[-1] == pytest.approx(len(samples) / len(heard), rel=0.01)
            assert np.abs(heard).max() == pytest.approx(np.abs(samples).max(), rel=1e-5)
        assert moved[0] == pytest.approx(moved[1], rel=0.01)
        assert 0.88 < moved[0] < 1.13
        ratios.add(round(moved[0], 3))
    assert len(ratios) == 8


def test_the_judge_tells_unheard_voices_by_their_other_takes():
    spoken = [clip for clip in clips("test") if clip.word in DIGITS]
    alike = likeness([Spoken(clip.samples, clip.rate, clip.word, clip.key) for clip in spoken])
    held_out_voices = _names("test")
    right = [
        max(held_out_voices, key=lambda name: one[name]) == clip.voice for one, clip in zip(alike, spoken, strict=True)
    ]
    assert np.mean(right) > 0.98
    # against each single voice of both splits; chance is one half
    closer = [
        one[clip.voice] > one[name]
        for one, clip in zip(alike, spoken, strict=True)
        for name in one
        if name != clip.voice
    ]
    assert np.mean(closer) > 0.97


def test_the_judge_does_not_hear_level_rate_or_gate():
    from scipy.signal import resample_poly

    clip = clips("test")[0]
    gated = np.concatenate([np.zeros(800, np.float32), clip.samples * 0.1, np.zeros(400, np.float32)])
    finer = np.stack([resample_poly(clip.samples, 2, 1)] * 2, axis=1)
    plain, quiet, stereo = likeness(
        [Spoken(clip.samples, 8000, clip.word), Spoken(gated, 8000, clip.word), Spoken(finer, 16000, clip.word)]
    )
    for name, value in plain.items():
        assert quiet[name] == pytest.approx(value, abs=0.1)
        assert stereo[name] == pytest.approx(value, abs=0.1)


def test_verdicts_on_answers_made_by_hand():
    records = held_out(cloning, 40)
    real = {(clip.voice, clip.word): (clip.samples, clip.rate) for clip in clips("test")}
    some = [record for record in records if record["other"] in _names("test")]
    assert len(some) > 2

    def verdicts(answer):
        return {name: np.mean([one[name] for one in cloned([answer(r) for r in some], some)]) for name in VERDICTS}

    def wrong(record):
        return DIGITS[(DIGITS.index(record["text"]) + 1) % 10]

    assert verdicts(lambda r: _said(real[r["speaker"], r["text"]])) == dict.fromkeys(VERDICTS, 1)
    other = verdicts(lambda r: _said(real[r["other"], r["text"]]))
    assert (other["content"], other["voice"], other["nearest"], other["accuracy"]) == (1, 0, 0, 0)
    word = verdicts(lambda r: _said(real[r["speaker"], wrong(r)]))
    assert (word["content"], word["accuracy"]) == (0, 0)
    assert verdicts(lambda _: _said()) == dict.fromkeys(VERDICTS, 0)
    assert verdicts(lambda r: _said(*[real[r["speaker"], r["text"]]] * 2)) == dict.fromkeys(VERDICTS, 0)


def test_voices_through_no_codec_are_right_and_one_voice_for_all_is_chance():
    records = held_out(cloning, 200)
    originals = cloning_ceiling(records, lambda media: [item.data for item in media])
    assert originals["content"] == 1
    assert originals["accuracy"] > 0.97
    one = {clip.word: (clip.samples, clip.rate) for clip in clips("train") if clip.voice == "en-us+f2"}
    fixed = cloning_ceiling(records, lambda media: [one[item.label] for item in media])
    assert fixed["content"] > 0.98
    # whatever voice it is, an answer that does not hear the prompt is right half of the time, and nearest in a sixth
    assert 0.35 < fixed["voice"] < 0.65
    assert fixed["nearest"] < 0.3
