"""The package against music21, which reads what it writes, and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from mio_music import corpus, files, hum_codec, humming, patterns, tasks, tunes
from mio_music.records import SOURCES, Records
from mio_music.tunes import Tune
from music21 import abcFormat, converter, scale

import mio
import mio.testing

KEYS = ("C", "D-", "D", "E-", "E", "F", "F#", "G", "A-", "A", "B-", "B")
"""As music21 calls them."""
JIG = """X:1
T:A jig
M:6/8
L:1/8
K:D
A|DEF GAB|{e}d3 c>BA|(3ABc d2 z2|e'6|d6-|d3 A2:|
"""
WHOLE = Tune(
    "6/8",
    (
        ((62, 2), (64, 2), (66, 2), (67, 2), (69, 2), (71, 2)),
        ((74, 6), (73, 3), (71, 1), (69, 2)),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory):
    """One collection, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(corpus, "COLLECTIONS", ("ryansMammoth",))
        patch.setattr(corpus, "FILES", 150)
        for function in (corpus.tunes, corpus.known, corpus._all):
            function.cache_clear()
        yield
        for function in (corpus.tunes, corpus.known, corpus._all):
            function.cache_clear()


def notes_of(part):
    """MIDI pitch, 0 for a rest, and sixteenths, as music21 has them."""
    return [
        (0 if note.isRest else note.pitch.midi, round(4 * note.quarterLength)) for note in part.flatten().notesAndRests
    ]


def test_whole_bars_of_an_abc_file_are_read():
    """The upbeat, the bar with a triplet, what is too high and the last bar are left out, the grace note too."""
    handler = abcFormat.ABCHandler()
    handler.process(JIG)
    assert list(corpus.stretches(handler.tokens)) == [WHOLE]


def test_text_says_the_notes_and_where_they_begin():
    text = "6/8 bar one 0:62 2:64 4:66 6:67 8:69 10:71 bar two 0:74 6:73 9:71 10:69"
    assert tunes.to_text(WHOLE) == text
    rests = Tune("2/4", (((60, 4), (0, 4)),))
    assert tunes.to_text(rests) == "2/4 bar one 0:60 4:-"


def test_files_are_what_music21_reads(tmp_path):
    for index in range(8):
        tune = Records(SOURCES["score/played"], "test")[index]["score"].data
        path = files.save(tune, tmp_path / str(index), beside=True)
        assert path.suffix == ".mid"
        assert [n for n in notes_of(converter.parse(path)) if n[0]] == [n for n in tune.notes if n[0]]
        assert files.read(path) == tune
        assert all(path.with_suffix(suffix).stat().st_size > 500 for suffix in (".wav", ".png"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("X:1\nM:5/4\nL:1/4\nK:C\nCDEFG|\n", "metre 5/4"),
        ("X:1\nM:4/4\nL:1/4\nK:C\nC,,DEF|\n", "pitch 36"),
        ("X:1\nM:4/4\nL:1/4\nK:C\nC5/4D11/4|\n", "5 sixteenths"),
        ("nothing", "music21"),
    ],
)
def test_what_a_tune_has_not_is_said(tmp_path, text, words):
    path = tmp_path / "tune.abc"
    path.write_text(text)
    with pytest.raises(mio.DataError, match=words):
        files.read(path)


def test_codes_are_a_metre_then_bars_of_pitches_and_ends():
    codes = tunes.to_codes(WHOLE)
    kinds = [max((kind for kind in tunes.KINDS if tunes.FIRST[kind] <= code), key=tunes.FIRST.get) for code in codes]
    assert kinds == ["metre", "bar", *["pitch", "step"] * 6, "bar", *["pitch", "step"] * 4]
    assert codes[2:4] == [tunes.code("pitch", 62), tunes.code("step", 2)]
    assert tunes.from_codes(codes) == WHOLE
    for broken in (codes[:-1], codes[1:], [*codes[:3], *codes[4:]], codes[:-2], codes[:1]):
        with pytest.raises(ValueError, match=r"begin|end|follows|bar"):
            tunes.from_codes(broken)


def test_the_automaton_accepts_what_can_be_decoded_and_nothing_else():
    automaton = tunes.automaton()

    def accepts(codes):
        state = automaton.start
        for code in codes:
            [state] = [arc.to for arc in automaton.arcs[state] if code in arc.codes] or [None]
            if state is None:
                return False
        return state in automaton.final

    draw = np.random.default_rng(0)
    for index in range(60):
        codes = tunes.to_codes(Records(SOURCES["score/written"], "train")[index]["score"].data)
        assert accepts(codes)
        changed = list(codes)
        changed[draw.integers(len(codes))] = int(draw.integers(tunes.CODES))
        try:
            tunes.from_codes(changed)
        except ValueError:
            assert not accepts(changed)
        else:
            assert accepts(changed)


def test_a_scale_is_said_where_music21_has_one_that_holds_all_pitches():
    scales = [{pitch.pitchClass for pitch in scale.MajorScale(tonic).getPitches()} for tonic in KEYS]
    said = 0
    for index in range(60):
        tune = Records(SOURCES["score/described"], "train")[index]["score"].data
        fitting = [tonic for tonic, classes in enumerate(scales) if {pitch % 12 for pitch in tune.pitches} <= classes]
        assert tunes.tonic_of(tune) == (fitting[0] if len(fitting) == 1 else None)
        said += len(fitting) == 1
    assert said > 5


def test_continuations_stay_in_the_scale_of_what_is_given():
    scales = [{pitch.pitchClass for pitch in scale.MajorScale(tonic).getPitches()} for tonic in KEYS]
    for split in ("train", "test"):
        for index in range(20):
            record = Records(SOURCES["score/continued"], split)[index]
            given, rest = ({pitch % 12 for pitch in record[part].data.pitches} for part in ("score", "rest"))
            [fitting] = [classes for classes in scales if given <= classes]
            assert rest <= fitting


def test_no_held_out_excerpt_is_in_a_training_tune_in_any_key():
    def moves(tune):
        return tune.metre, tuple((pitch - tune.pitches[0] if pitch else "", length) for pitch, length in tune.notes)

    def fresh(bars, source, split):
        records = Records(SOURCES[source], split)
        drawn = [records[index]["score"].data for index in range(60)]
        excerpts = [tune for tune in drawn if len(tune.bars) == bars]
        seen = {moves(part) for tune in corpus.tunes("train") for part in corpus.excerpts(tune, bars) if part.pitches}
        return [moves(tune) not in seen for tune in excerpts]

    for bars, source in ((1, "score/transposed"), (1, "score/hummed"), (3, "score/described")):
        held_out = fresh(bars, source, "test")
        assert len(held_out) > 5
        assert all(held_out)
        assert not any(fresh(bars, source, "train"))


def test_patterns_are_what_they_say():
    tune = patterns.notes(62, "a major chord", "down to", "quarters", "6/8")
    assert tunes.to_text(tune) == "6/8 bar one 0:74 4:69 8:66 bar two 0:62 4:-"
    words, drawn = patterns.draw(np.random.default_rng(0), "test")
    assert patterns.held_out(words)
    assert not drawn.problem


def test_a_hum_has_the_pitches_of_its_tune():
    """By autocorrelation in the middle of each note, within a quarter tone and the tuning."""
    tune = Tune("4/4", (((60, 4), (67, 4), (64, 4), (72, 4)),))
    for seed in range(5):
        samples, rate = humming.hum(tune, seed)
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 1
        for number, (pitch, _) in enumerate(tune.notes):
            middle = int((number + 0.45) * len(samples) / 4)
            piece = samples[middle - 400 : middle + 400]
            lags = np.arange(rate // 1100, rate // 180)
            likeness = [np.dot(piece[:-lag], piece[lag:]) / (len(piece) - lag) for lag in lags]
            best = next(lag for lag, one in zip(lags, likeness, strict=True) if one > 0.9 * max(likeness))
            assert abs(69 + 12 * np.log2(rate / best / 440) - pitch) < 1


def test_the_codec_of_hums_hears_pitch_and_no_notes():
    items = [Records(SOURCES["score/hummed"], "train")[index]["hum"] for index in range(24)]
    codec = hum_codec.HumTokenizer(16)
    figures = codec.fit(items, 0)
    assert figures["frames"] > 500
    [codes] = codec.encode([items[0].data])
    assert codes.shape == (1, codec.frames(items[0].data))
    [again] = codec.encode([(0.5 * items[0].data[0], 8000)])
    assert (codes == again).mean() > 0.95  # loudness is no part of it


def test_judges_want_all_of_an_answer():
    def said(record, answer, name):
        [task] = [task for task in tasks.tasks() if task.name == name]
        [verdict] = task.judge([answer], [record])
        return verdict

    record = Records(SOURCES["score/continued"], "test")[0]
    given = record["score"].data
    for tune, right in ((given, True), (given.moved(1), False), (given.part(0, 1), False)):
        answer = mio.Answer((("score", tune),))
        assert said(record, answer, "score_continue")["accuracy"] == right
    assert not said(record, mio.Answer(()), "score_continue")["accuracy"]
    record = Records(SOURCES["score/described"], "test")[0]
    assert said(record, mio.Answer((("text", record["facts"]),)), "score_describe")["accuracy"]
    wrong = said(record, mio.Answer((("text", "9/8" + record["facts"][3:]),)), "score_describe")
    assert wrong == {"accuracy": False, "metre": False, "bars": True, "ends": True}


def test_the_plugin_keeps_mios_contract():
    mio.testing.check_plugin("score", {})
