"""Conversations of the digits world: answers are checked by arithmetic of their own, sounds by counting in the wave."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml

from mio import Answer, Media
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import chain
from mio.core.stages.check import check
from mio.plugins.digits import render_clips, scans, sounds, talk, talk_tasks, voices
from mio.plugins.digits.corpora import SOURCES
from mio.plugins.digits.voices import DIGITS
from mio.plugins.digits.world import OWN_VOICE, World

RECIPES = Path(__file__).parents[2] / "recipes/vita/digits"
NUMBER = f"(?:{'|'.join(DIGITS)})"
QUESTION = re.compile(
    rf"which number(?: is (?:first|last))?|how many|one (?:more|less)|count (?:up|down)|{NUMBER} plus {NUMBER}|"
    rf"plus {NUMBER}"
)
SPLITS = ("train", "test")


def digits_of(words: str) -> list[int]:
    return [DIGITS.index(word) for word in words.split() if word in DIGITS]


def about(digit: int, asked: str) -> list[int]:
    """The answer to a question about a digit, by arithmetic."""
    if asked == "which number":
        return [digit]
    if asked.startswith("count"):
        return list(range(digit, 10)) if asked.endswith("up") else list(range(digit, -1, -1))
    if asked.startswith("plus"):
        return [digit + digits_of(asked)[0]]
    return [digit + {"one more": 1, "one less": -1}[asked]]


def records(name: str, split: str, count: int = 150):
    source = SOURCES[f"digits/{name}"](split, {})
    return [source[index] for index in range(count)]


def samples_of(media: Media) -> np.ndarray:
    samples, rate = media.data
    assert (samples.dtype, rate) == (np.float32, 8000)
    return samples


# ---- clips


def test_every_talker_has_all_words_in_a_voice_of_one_split():
    found = {split: voices.question_clips(split) for split in SPLITS}
    for split, clips in found.items():
        said = {(clip.voice, clip.take, clip.word) for clip in clips}
        takes = range(render_clips.QUESTION_TAKES[split])
        expected = {
            (voice, take, word)
            for voice in render_clips.VOICES[split]
            for take in takes
            for word in render_clips.QUESTION_WORDS
        }
        assert said == expected
        assert all(0.1 < len(clip.samples) / clip.rate < 1.0 for clip in clips)
        assert all(np.abs(clip.samples).max() == pytest.approx(render_clips.PEAK, abs=0.02) for clip in clips)
    assert set(talk.FURTHER) == set(render_clips.QUESTION_WORDS)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", [build.__name__ for build in talk.BUILDERS])
def test_media_are_of_their_split_and_speech_is_in_range(name, split):
    own, shown = set(render_clips.VOICES[split]), set(scans.indices(split))
    for record in records(name, split, 40):
        contents = [value for value in record.values() if isinstance(value, Media)]
        for turn in record.get("messages", ()):
            contents += [value for value in turn["content"] if isinstance(value, Media)]
        for media in contents:
            if media.modality == "speech":
                samples = samples_of(media)
                assert np.abs(samples).max() <= 1
                assert 0.05 < len(samples) / 8000 < 8
                spoken = set(re.findall(r"(?:talk|spoken)/([^/]+)/", media.key))
                assert spoken <= (own | {OWN_VOICE[0]} if name == "replies" else own)
            else:
                assert {int(number) for number in re.findall(r"(\d+)/v", media.key)} <= shown


# ---- questions


def test_records_are_the_same_in_every_version():
    """Golden values of the first release: a run is a function of its recipe."""
    first = {
        name: SOURCES[f"digits/{name}"]("train", {})[0] for name in ("picture_questions", "remarks", "crowds", "noises")
    }
    assert first["picture_questions"]["image"].key == "digit/1587/v3"
    assert first["picture_questions"]["question"].key == "talk/en-us+m7/0/one-more/1760331774"
    assert first["remarks"]["speech"].key == "talk/en-gb-x-rp+klatt4/0/two-one-zero/3861095685"
    assert first["crowds"]["speech"].key == (
        "together/talk/en-gb+victor/0/eight-is-one-more/3765844960/talk/en-gb+Alex/0/eight-is-last/1450679039/837273220"
    )
    assert first["noises"]["speech"].key == "tones/3715362341"


def test_answers_about_pictures_are_right():
    kinds = set()
    for split in SPLITS:
        for record in records("picture_questions", split):
            digit = DIGITS.index(record["image"].label)
            assert digits_of(record["answer"]) == about(digit, record["asked"])
            assert record["question"].label == record["asked"]
            kinds.add(re.sub(NUMBER, "N", record["asked"]))
    assert kinds == {"which number", "N more", "N less", "plus N", "count up", "count down"}


def test_answers_about_videos_beeps_and_sums_are_right():
    for record in records("video_questions", "test"):
        frames = digits_of(record["video"].label)
        expected = {"how many": len(frames), "which number is first": frames[0], "which number is last": frames[-1]}
        assert digits_of(record["answer"]) == [expected[record["asked"]]]
    for record in records("sum_questions", "test"):
        assert sum(digits_of(record["asked"])) == digits_of(record["answer"])[0]
    for record in records("replies", "test", 60):
        assert digits_of(record["answer"]) == about(DIGITS.index(record["image"].label), record["asked"])
        assert record["reply"].label == record["answer"]
        assert record["reply"].key.startswith("spoken/" + OWN_VOICE[0])


def test_beeps_can_be_counted_in_the_wave():
    for record in records("sound_questions", "test"):
        samples = samples_of(record["sound"])
        loud = np.abs(samples) > 0.3 * np.abs(samples).max()
        quiet = np.diff(np.flatnonzero(loud)) > 0.05 * 8000
        assert DIGITS[1 + int(quiet.sum())] == record["answer"]


def test_written_questions_hold_all_that_answers_need():
    for record in records("written", "train"):
        question, expected = record["question"], digits_of(record["answer"])
        if question.startswith("repeat: "):
            assert record["answer"] == question.removeprefix("repeat: ")
            continue
        about_what, _, asked = question.rpartition(", ")
        known = digits_of(about_what)
        if not known:
            assert expected == [sum(digits_of(question))]
        elif asked == "how many":
            assert expected == [len(known)]
        elif " is " in asked:
            assert expected == [known[0 if asked.endswith("first") else -1]]
        else:
            assert expected == about(known[0], asked)


# ---- what is not addressed


def test_questions_and_remarks_are_told_apart_by_their_words():
    draw = Random(0)
    assert all(QUESTION.fullmatch(" ".join(talk._question(draw))) for _ in range(300))
    heard = {record["heard"] for split in SPLITS for record in records("remarks", split, 300)}
    assert not any(QUESTION.fullmatch(words) for words in heard)
    to_another = [words for words in heard if words.startswith("tom ")]
    assert all(QUESTION.fullmatch(words.removeprefix("tom ")) for words in to_another)
    assert 0.2 < len(to_another) / len(heard) < 0.6
    for words in heard:
        if re.fullmatch(rf"{NUMBER} plus {NUMBER} is {NUMBER}", words):
            first, second, total = digits_of(words)
            assert first + second == total


def alone(world: World, key: str) -> list[Media]:
    """What each of two people says, made again from the key."""
    found = []
    for voice, take, words, seed in re.findall(r"talk/([^/]+)/([^/]+)/([^/]+)/(\d+)", key):

        class Fixed(Random):
            def getrandbits(self, k: int, seed: int = int(seed)) -> int:  # noqa: ARG002
                return seed

        found.append(world.utterance(Fixed(), words.split("-"), (voice, int(take))))
    return found


def test_two_people_are_two_voices_at_once():
    world = World("train")
    for index in range(30):
        both = world.together(Random(index), ("which number",), ("one", "more"))
        first, second = re.findall(r"talk/([^/]+)/", both.key)
        assert first != second
        longer = max(len(samples_of(one)) for one in alone(world, both.key))
        assert longer <= len(samples_of(both)) < 1.7 * longer  # they overlap


def test_what_is_seen_and_marked_beside_talk_to_others():
    for name in ("remarks", "crowds", "noises"):
        some = records(name, "train")
        assert 0.3 < np.mean([len(record["seen"]) for record in some]) < 0.7
        assert all(record["unaddressed"] is True for record in some)


def test_sounds_are_functions_of_their_seeds():
    for make in (sounds.noise, sounds.tune):
        np.testing.assert_array_equal(make(1), make(1))
        assert not np.array_equal(make(1)[:1000], make(2)[:1000])
    kinds = {record["heard"] for record in records("noises", "test", 40)}
    assert kinds == {"noise", "tones"}


def test_exchanges_learn_the_second_answer_alone_and_mark_it_where_nothing_was_addressed():
    marked = cut = 0
    for record in records("exchanges", "train", 200):
        first, answer, second, reply = record["messages"]
        assert [turn.get("train", True) for turn in (answer, reply)] == [False, True]
        assert all(value.modality == "speech" for value in first["content"] if isinstance(value, Media))
        picture, said = second["content"]
        asked = said.label if isinstance(said, Media) else said
        if record["unaddressed"]:
            assert record["unaddressed"] == [3]
            assert not QUESTION.fullmatch(asked)
            marked += 1
        else:
            assert digits_of(reply["content"][0]) == about(DIGITS.index(picture.label), asked)
        remembered = first["content"][0].label if isinstance(first["content"][0], Media) else first["content"][0]
        if remembered.startswith("count"):
            run = digits_of(answer["content"][0])
            whole = about(run[0], remembered)
            assert run == whole[: len(run)]
            cut += run != whole
    assert 25 < marked < 85  # a quarter
    assert cut


# ---- tasks


def test_judges_want_the_right_words_in_the_right_state():
    tasks = {task.name: task for task in talk_tasks.talk_tasks()}
    (record,) = tasks["picture_asked_aloud"].records(1)

    def verdict(name: str, state: str, text: str) -> bool:
        parts = (("control", state),) if state else ()
        answer = Answer((*parts, ("text", text)), silent=state == "unaddressed")
        return bool(tasks[name].judge([answer], [record])[0])

    right = record["answer"]
    assert verdict("picture_asked_aloud", "spoken", right)
    assert not verdict("picture_asked_aloud", "written", right)
    assert not verdict("picture_asked_aloud", "", right)
    assert not verdict("picture_asked_aloud", "spoken", f"{right} {right}")
    assert verdict("picture_asked", "written", right)
    assert verdict("noise", "unaddressed", "")
    assert not verdict("noise", "spoken", "noise")
    assert verdict("addressed", "spoken", "anything")
    assert not verdict("addressed", "spoken", "")
    assert not verdict("addressed", "unaddressed", "anything")


def test_tasks_have_enough_different_items():
    for task in talk_tasks.talk_tasks():
        assert len(task.records(200)) == 200


def test_the_chain_passes_every_check_and_trains_the_prompts_of_all_tasks():
    manager = PluginManager.discover()
    stages = chain([str(RECIPES / "stage3.yaml")], [], manager)
    for stage in stages:
        check(stage, manager.enable(stage.plugins))
    assert [stage.name for stage in stages] == [f"vita-digits-{part}" for part in ("0", "1", "1-audio", "2", "3")]
    trained = {
        (template["prompt"], template["response"])
        for templates in yaml.safe_load((RECIPES / "world.yaml").read_text())["data"]["templates"].values()
        for template in templates
        if "prompt" in template
    }
    named = yaml.safe_load((RECIPES / "stage3.yaml").read_text())["evaluate"]["tasks"]
    tasks = {task.name: task.template for task in talk_tasks.talk_tasks()}
    assert set(named) == set(tasks)
    asked = {(one.prompt, one.response) for name, one in tasks.items() if name != "addressed"}
    assert asked <= trained
