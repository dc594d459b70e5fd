"""The digits world: what its records hold is checked against arithmetic, scikit-learn's labels and real media."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from digits_data import CORPORA, media_in, number, true

from mio import Media, UserError
from mio.plugins import digits
from mio.plugins.digits import charts, scans, voices
from mio.plugins.digits.corpora import SOURCES
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import World

# ---- scans


def test_scans_are_scikit_learns_and_split_once():
    from sklearn.datasets import load_digits

    original = load_digits()
    pixels, labels = scans.scans()
    np.testing.assert_array_equal(np.rint(pixels / 255 * 16), original.images)
    np.testing.assert_array_equal(labels, original.target)
    train, test = scans.indices("train"), scans.indices("test")
    assert (len(train), len(test)) == (1297, 500)
    assert set(train) | set(test) == set(range(1797))
    # the first draws of NumPy's RandomState(0), whose stream is frozen
    assert test[:5] == (1081, 1707, 927, 713, 262)


def test_variants_are_bounded_small_and_keep_all_ink():
    for index in scans.indices("train")[:200]:
        scan = scans.vary(index, 0)
        for variant in range(1, 8):
            varied = scans.vary(index, variant)
            shifts = [np.roll(scan, (down, right), (0, 1)).astype(float) for down in (-1, 0, 1) for right in (-1, 0, 1)]
            nearest = min(np.abs(varied - 0.9 * shifted).mean() for shifted in shifts)
            assert nearest < 16
            assert 0.7 < varied.sum() / scan.sum() < 1.1
            np.testing.assert_array_equal(varied, scans.vary.__wrapped__(index, variant))


def test_noise_is_on_ink_alone_and_as_strong_as_asked_for():
    for noise in (8.0, 24.0):
        differences = []
        for index in scans.indices("train"):
            quiet, varied = scans.vary.__wrapped__(index, 1, 0.0), scans.vary(index, 1, noise)
            assert not varied[quiet == 0].any()  # paper stays blank
            middle = (quiet > 90) & (quiet < 165)  # three deviations from either end
            differences.append((varied.astype(float) - quiet)[middle])
        together = np.concatenate(differences)
        assert abs(together.mean()) < 0.05 * noise
        assert together.std() == pytest.approx(noise, rel=0.02)


def test_a_corpus_has_the_noise_that_it_is_asked_for():
    quiet, loud = (SOURCES["digits/captions"]("train", options) for options in ({}, {"noise": 45}))
    for index in range(100):
        one, other = quiet[index]["image"], loud[index]["image"]
        scan, variant = (int(part.lstrip("v")) for part in one.key.split("/")[1:])
        assert other.key == one.key + ("/noise45.0" if variant else "")  # a key is one picture
        np.testing.assert_array_equal(other.data, scans.vary(scan, variant, 45))
        assert quiet[index]["caption"] == loud[index]["caption"]
    nearly = SOURCES["digits/captions"]("train", {"noise": 45.0000001})
    assert any(nearly[index]["image"].key != loud[index]["image"].key for index in range(100))
    held_out = (SOURCES["digits/captions"]("test", options) for options in ({}, {"noise": 45}))
    for one, other in zip(*held_out, strict=True):
        assert one["image"].key == other["image"].key
        np.testing.assert_array_equal(one["image"].data, other["image"].data)
    with pytest.raises(UserError, match="noise"):
        SOURCES["digits/captions"]("train", {"noise": -1})


# ---- corpora


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_records_are_the_same_at_every_reading(name, split):
    first, second = SOURCES[name](split, {}), SOURCES[name](split, {})
    backwards = [second[index] for index in reversed(range(30))]
    for index, again in zip(range(30), reversed(backwards), strict=True):
        assert repr(first[index]) == repr(again)
        for one, other in zip(media_in(first[index]), media_in(again), strict=True):
            np.testing.assert_array_equal(one.data[0], other.data[0])
    assert repr(first[0]) != repr(SOURCES[name](split, {"seed": 1})[0])


def test_records_are_the_same_in_every_version():
    """Golden values of the first release: a run is a function of its recipe."""
    keys = {name: [media.key for media in media_in(SOURCES[name]("train", {})[0])] for name in SOURCES}
    assert keys["digits/captions"] == ["digit/400/v0"]
    assert keys["digits/speech"] == ["spoken/en-gb+klatt2/1/three/v2"]
    assert keys["digits/videos"] == ["video/734/v10+137/v15+515/v3+125/v4"]
    fact = SOURCES["digits/facts"]("train", {})[0]["text"]
    assert fact == "counting up from two to six: two three four five six"


def test_lengths_splits_and_options():
    source = SOURCES["digits/captions"]("train", {"length": 7})
    assert len(source) == 7
    assert len(list(source)) == 7  # stops at IndexError
    for wrong in (-1, 7):
        with pytest.raises(IndexError):
            source[wrong]
    with pytest.raises(UserError, match="lenght"):
        SOURCES["digits/captions"]("train", {"lenght": 7})
    with pytest.raises(UserError, match="validation"):
        SOURCES["digits/captions"]("validation", {})
    with pytest.raises(UserError, match="size"):
        digits.mio_sources({"size": 3})


def test_held_out_media_never_occur_in_training():
    train_scans, test_scans = set(scans.indices("train")), set(scans.indices("test"))
    voice_of = {split: {clip.voice for clip in voices.clips(split)} for split in ("train", "test")}
    assert not train_scans & test_scans
    assert not voice_of["train"] & voice_of["test"]
    for opened in CORPORA.values():
        for split, own_scans in (("train", train_scans), ("test", test_scans)):
            source = opened(split, {})
            for index in range(300):
                for media in media_in(source[index]):
                    kind, rest = media.key.split("/", 1)
                    if kind == "spoken":
                        assert rest.split("/")[0] in voice_of[split]
                    elif kind != "chart":  # see `test_digits_abilities.py`
                        numbers = {int(part.split("/")[0]) for part in rest.split("+")}
                        assert numbers <= own_scans


def test_labels_are_what_the_media_show_and_keys_name_the_content():
    seen: dict[str, Any] = {}
    labels = scans.scans()[1]
    clips = {f"spoken/{clip.key}": clip for clip in voices.clips("train")}
    for opened in CORPORA.values():
        source = opened("train", {})
        for index in range(200):
            for media in media_in(source[index]):
                content = media.data[0] if media.modality == "speech" else np.asarray(media.data)
                np.testing.assert_array_equal(seen.setdefault(media.key, content), content)
                if media.key.startswith("chart/"):
                    assert [number(word) for word in media.label.split()] == list(charts.read_chart(content))
                elif media.modality == "image":
                    assert number(media.label) == labels[int(media.key.split("/")[1])]
                elif media.modality == "video":
                    parts = media.key.removeprefix("video/").split("+")
                    assert [number(word) for word in media.label.split()] == [
                        labels[int(p.split("/")[0])] for p in parts
                    ]
                elif " " not in media.label:
                    assert clips[media.key.rsplit("/", 1)[0]].word == media.label


def test_a_phrase_is_its_words_in_one_voice():
    world = World("train")
    speaker = world.speaker(Random(0))
    phrase = world.phrase(speaker, ["three", "plus", "four"])
    words = {c.word: c.samples for c in voices.clips("train") if (c.voice, c.take) == speaker}
    samples, rate = phrase.data
    assert rate == 8000
    gap = np.zeros(480)
    np.testing.assert_array_equal(samples, np.concatenate([words["three"], gap, words["plus"], gap, words["four"]]))
    assert phrase.label == "three plus four"


def test_training_media_come_in_a_bounded_number():
    keys = {media.key for i in range(3000) for media in media_in(SOURCES["digits/pictures_aloud"]("train", {})[i])}
    pictures = {key for key in keys if key.startswith("digit/")}
    assert {int(key.rsplit("v", 1)[1]) for key in pictures} == set(range(16))
    assert {int(key.rsplit("v", 1)[1]) for key in keys - pictures} == set(range(4))


# ---- what records say


def test_facts_are_true_and_varied():
    source = SOURCES["digits/facts"]("train", {})
    texts = [source[index]["text"] for index in range(2000)]
    for text in texts:
        if text.startswith("counting"):
            way, first, last, listed = re.fullmatch(r"counting (\w+) from (\w+) to (\w+): (.*)", text).groups()
            counted = [number(word) for word in listed.split()]
            assert (counted[0], counted[-1]) == (number(first), number(last))
            assert {b - a for a, b in pairwise(counted)} == {1 if way == "up" else -1}
        elif match := re.fullmatch(r"(\d) is (\w+)", text):
            assert int(match[1]) == number(match[2])
        else:
            assert true(text)
    assert len(set(texts)) > 250


def test_sums_edits_and_questions_are_right():
    for name in ("sums", "edits", "questions"):
        source = SOURCES[f"digits/{name}"]("train", {})
        assert all(true(source[index]["reading"]) for index in range(500))
    for index in range(500):
        record = SOURCES["digits/sums"]("train", {})[index]
        operands = [number(media.label) for media in media_in(record["operands"])]
        assert record["reading"].split()[::2][: len(operands)] == [DIGITS[operand] for operand in operands]
        assert number(record["total"]) == sum(operands)
        results = list(np.cumsum(operands))[1:]
        assert [number(media.label) for media in media_in(record["working"])] == results
        assert record["drawn"] == " ".join(DIGITS[result] for result in results)
        assert all(true(part.strip()) for part in record["working"] if isinstance(part, str))
    totals = [SOURCES["digits/sums"]("train", {})[index]["total"] for index in range(2000)]
    assert min(totals.count(word) for word in DIGITS) > 140  # 200 expected: every sum as likely as any other


def test_edits_questions_and_videos_hold_what_they_say():
    for index in range(300):
        edit = SOURCES["digits/edits"]("train", {})[index]
        assert (
            number(edit["edited"].label) - number(edit["image"].label)
            == {"one more": 1, "one less": -1}[edit["change"]]
        )
        assert edit["name"] == edit["edited"].label
        question = SOURCES["digits/questions"]("train", {})[index]
        assert question["question"].label == question["asked"]
        assert question["reading"] == f"{question['asked']} is {question['answer'].label}"
        assert question["answer"].key.split("/")[1:3] == question["question"].key.split("/")[1:3]  # one voice
        shown = SOURCES["digits/videos"]("train", {})[index]
        frames = [number(word) for word in shown["video"].label.split()]
        assert shown["names"] == shown["video"].label
        assert 3 <= len(frames) == len(shown["video"].data) <= 5
        way = {1: "up", -1: "down"}[frames[1] - frames[0]]
        assert shown["description"] == f"counting {way} from {DIGITS[frames[0]]} to {DIGITS[frames[-1]]}"


def test_counting_and_stories_put_the_right_word_before_each_picture():
    for name, fields in (("counting", ("shown", "rest")), ("stories", ("parts",))):
        for index in range(300):
            record = SOURCES[f"digits/{name}"]("train", {})[index]
            parts = [part for field in fields for part in record[field]]
            for before, part in pairwise(parts):
                if isinstance(part, Media):
                    assert before.split()[-1] == part.label
    for index in range(300):
        record = SOURCES["digits/counting"]("train", {})[index]
        counted = [number(media.label) for media in media_in([record["shown"], record["rest"]])]
        assert {b - a for a, b in pairwise(counted)} == {1 if record["way"] == "up" else -1}
        assert len(list(media_in(record["shown"]))) >= 2
        assert record["next"] == next(media_in(record["rest"])).label
