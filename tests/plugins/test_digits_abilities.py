"""Questions, charts and stories of the digits world: records against arithmetic, judges against wrong answers."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from digits_data import media_in, number, true

from mio import Answer
from mio.plugins.digits import charts
from mio.plugins.digits.corpora import SOURCES
from mio.plugins.digits.storytelling import COMES, GOES, counted
from mio.plugins.digits.tasks import tasks
from mio.plugins.digits.voices import DIGITS

TASKS = {task.name: task for task in tasks()}
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def records(name: str, split: str = "train", count: int = 400):
    source = SOURCES[f"digits/{name}"](split, {"length": count})
    return [source[index] for index in range(count)]


def numbers(text: str) -> list[int]:
    """Digits that a text names, in turn."""
    return [number(word) for word in re.findall(r"\w+", text) if word in DIGITS]


def kind_of(question: str) -> str:
    """A question without its numbers and places."""
    return re.sub(rf"\b({'|'.join((*DIGITS, *ORDINALS))})\b", "#", question)


def shown(record, field: str) -> list[int]:
    return [digit for media in media_in(record[field]) for digit in numbers(media.label)]


def extreme(question: str, some: list[int]) -> int:
    return max(some) if re.search("larg|high", question) else min(some)


# ---- held out


@pytest.mark.parametrize("name", ["quiz", "quiz_aloud", "chart_quiz", "charts"])
def test_combinations_of_one_split_never_occur_in_the_other(name):
    """A model that has seen every training record has seen none of the questions or charts that it is asked about."""
    combinations = {
        split: {
            record["image"].key.rsplit("/", 1)[0] if "image" in record else record["question"]
            for record in records(name, split, 3000)
        }
        for split in ("train", "test")
    }
    assert not combinations["train"] & combinations["test"]
    assert min(len(some) for some in combinations.values()) > 200


@pytest.mark.parametrize(
    "name",
    [*("quiz", "quiz_aloud", "spoken_quiz", "image_quiz", "video_quiz"),
     *("reason", "in_context", "chart_quiz", "storytelling")],
)  # fmt: skip
def test_one_answer_for_all_questions_is_rarely_right(name):
    items = TASKS[name].records(400)
    field = {"quiz": "result", "quiz_aloud": "result", "storytelling": "counts"}.get(name, "answer")
    (_, most), *_ = Counter(record[field] for record in items).most_common(1)
    assert most / len(items) < 0.25


# ---- questions


@pytest.mark.parametrize("name", ["quiz", "quiz_aloud"])
def test_answers_to_questions_in_words_are_right(name):
    kinds = Counter()
    for record in records(name):
        question, result = record["question"], record["result"]
        some = numbers(question)
        text = record["answer"] if name == "quiz" else record["working"]
        assert text.split(": ")[-1] == result
        if question.startswith("What is"):
            kinds["chain"] += 1
            steps = text.split(": ")[0].split(", ")
            assert len(steps) == 2
            assert all(true(step) for step in steps)
            assert numbers(steps[0])[-1] == numbers(steps[1])[0]
            asked = re.findall(r"plus|minus", question)
            assert re.findall(r"plus|minus", text) == asked
            assert [numbers(steps[0])[0], *(numbers(step)[1] for step in steps)] == some
        elif question.startswith("Which"):
            kinds["extreme"] += 1
            assert numbers(result) == [extreme(question, some)]
        elif question.endswith("backwards."):
            kinds["backwards"] += 1
            assert numbers(result) == some[::-1]
        else:
            kinds["order"] += 1
            assert numbers(result) == sorted(some)
        if name == "quiz_aloud":
            assert record["answer"].label == result
    assert len(kinds) == (4 if name == "quiz" else 2)
    assert min(kinds.values()) > 60


def test_answers_to_spoken_questions_are_right():
    for record in records("spoken_quiz"):
        asked, answer = record["asked"].split(), number(record["answer"])
        assert record["question"].label == record["asked"]
        operands = shown(record, "operands")
        if asked[0] in ("first", "last", "more"):
            assert operands == [number(asked[1]), number(asked[2])]
            assert answer == {"first": operands[0], "last": operands[1], "more": max(operands)}[asked[0]]
        elif asked[1] == "plus":
            assert answer == sum(operands)
        else:
            assert answer - operands[0] == {"more": 1, "less": -1}[asked[2]]


def test_answers_about_pictures_are_right():
    for record in records("image_quiz"):
        some, question, answer = shown(record, "pictures"), record["question"], record["answer"]
        assert numbers(record["reading"])[: len(some)] == some
        if question.startswith("Is it"):
            truth = some[0] > numbers(question)[0] if "more than" in question else some[0] % 2 == 0
            assert answer == ("yes" if truth else "no")
        elif question.startswith("What is one"):
            assert number(answer) - some[0] == (1 if "more" in question else -1)
        elif question.startswith("Which is"):
            assert some[ORDINALS.index(answer)] == extreme(question, some) == numbers(record["reading"])[-1]
        elif place := re.search("|".join(ORDINALS), question):
            assert number(answer) == some[ORDINALS.index(place[0])]
        else:
            assert number(answer) == extreme(question, some)


def test_steps_of_reasoning_lead_to_the_answer():
    for record in records("reasoning"):
        some = shown(record, "pictures")
        reading, *working = record["reading"].split(", ")
        assert numbers(reading) == some
        if working[0].startswith("in order"):
            assert numbers(working.pop(0)) == sorted(some)
        if "middle" in record["question"]:
            assert working == [DIGITS[sorted(some)[1]], f"one more is {record['answer']}"]
            assert number(record["answer"]) == sorted(some)[1] + 1
        else:
            (step,) = working
            assert true(step)
            one, other, result = numbers(step)
            assert DIGITS[result] == record["answer"]
            operands = {"How": [max(some), min(some)], "smaller": sorted(some)[:2], "first": [some[0], some[2]]}
            (kind,) = (kind for kind in operands if kind in record["question"])
            assert [one, other] == operands[kind]


def test_examples_follow_one_rule_that_is_never_said():
    rules = Counter()
    for record in records("examples"):
        digits = [number(media.label) for media in media_in([record["shown"], record["asked"]])]
        said = [part.strip(" ,") for part in record["shown"] if isinstance(part, str)] + [record["answer"]]
        assert len(digits) == len(said) == len(set(digits)) in (3, 4)
        if said[0] in ("odd", "even"):
            assert said == ["odd" if digit % 2 else "even" for digit in digits]
            rules["parity"] += 1
            rule, result = "parity", said[-1]
        else:
            values = [number(word) if word in DIGITS else int(word) for word in said]
            (step,) = {value - digit for value, digit in zip(values, digits, strict=True)}
            assert len({word.isdigit() for word in said}) == 1
            rules[step, said[0].isdigit()] += 1
            rule, result = f"{DIGITS[abs(step)]} {'less' if step < 0 else 'more'}", DIGITS[values[-1]]
        pairs = [f"{DIGITS[digit]} {one} {rule}" for digit, one in zip(digits[:-1], said, strict=False)]
        assert record["reading"] == ", ".join([*pairs, f"{DIGITS[digits[-1]]} {rule} {result}"])
        assert not any(rule in part for part in record["shown"] if isinstance(part, str))
    assert len(rules) == 11


def test_answers_about_videos_are_right():
    ways = Counter()
    for record in records("video_quiz", count=1200):
        some, question, answer = shown(record, "video"), record["question"], record["answer"]
        assert numbers(record["reading"]) == some
        if question.startswith("Do"):
            ways[answer] += 1
            assert answer == {(1,): "up", (-1,): "down"}.get(tuple({int(s) for s in np.sign(np.diff(some))}), "neither")
        elif question.startswith("How many"):
            assert number(answer) == len(some)
        elif "last" in question:
            assert number(answer) == some[-1]
        elif "largest" in question:
            assert number(answer) == max(some)
        else:
            assert number(answer) == some[ORDINALS.index(question.split()[-1].rstrip("?"))]
    assert set(ways) == {"up", "down", "neither"}
    assert max(ways.values()) < 0.45 * sum(ways.values())


def test_dialogues_about_videos_go_on_from_what_was_read():
    for record in records("video_dialogues", count=100):
        asked, first, again, second = (message["content"] for message in record["messages"])
        assert numbers(first[0].split(":")[0]) == shown({"video": asked[:1]}, "video")
        if asked[1].strip() == again[0]:
            assert first[0].split(": ")[1] == second[0]


def test_questions_about_digits_in_words_are_those_about_what_is_seen():
    seen = {
        name: {kind_of(record["question"]) for record in records(name)}
        for name in ("image_quiz", "reasoning", "video_quiz", "chart_quiz")
    }
    asked = Counter()
    held_out = {record["image"].label for record in records("chart_quiz", "test", 2000)}
    for record in records("in_words", count=1000):
        given, _, question = record["question"].partition(". ")
        names = {name for name, kinds in seen.items() if kind_of(question) in kinds}
        asked[next(iter(names), question.split(" ")[0])] += 1
        if names:
            assert numbers(record["answer"])[: len(numbers(given))] == numbers(given)
        if question.startswith("Tell"):
            assert [DIGITS[digit] for digit in numbers(given)] == counted(record["answer"].split(": ")[1])
        if "bar" in question:
            assert given not in held_out
    assert set(asked) >= {"image_quiz", "reasoning", "video_quiz", "chart_quiz"}
    assert len(asked) == 7


# ---- charts


def test_charts_show_their_bars_in_every_look():
    for record in records("charts"):
        heights = numbers(record["caption"])
        assert len(heights) == len(set(heights)) == charts.BARS
        for look in range(charts.LOOKS):
            picture = charts.chart(heights, look)
            assert charts.read_chart(picture) == tuple(heights)
            assert charts.read_chart(np.repeat(picture[..., None], 3, axis=2)) == tuple(heights)
    assert charts.read_chart(charts.chart([1, 2, 3, 4], 0)[::-1]) != (1, 2, 3, 4)


def test_answers_about_charts_are_right():
    for record in records("chart_quiz"):
        bars, question, answer = shown(record, "image"), record["question"], record["answer"]
        assert numbers(record["reading"])[: len(bars)] == bars
        places = [bars[ORDINALS.index(word)] for word in re.findall("|".join(ORDINALS), question)]
        if question.startswith("Which bar"):
            assert bars[ORDINALS.index(answer)] == extreme(question, bars) == numbers(record["reading"])[-1]
        elif question.startswith("How high"):
            assert [number(answer)] == places
        elif question.startswith("How much"):
            assert number(answer) == max(bars) - min(bars)
        elif question.startswith("Is"):
            assert answer == ("yes" if places[0] > places[1] else "no")
        else:
            assert number(answer) == sum(bar > numbers(question)[0] for bar in bars)


# ---- stories

STORY = "Ann has three cups. Then she has five, for she finds two. At last she has four, for she loses one."


def test_stories_count_what_their_pictures_show():
    assert counted(STORY) == ["three", "five", "four"]
    for record in records("storytelling"):
        assert counted(record["story"]) == record["counts"].split() == [DIGITS[n] for n in shown(record, "pictures")]


def test_stories_may_be_about_anyone_and_anything():
    other = STORY.replace("Ann", "Eve").replace("cups", "stars").replace("finds", COMES[-1]).replace("loses", GOES[-1])
    assert counted(other) == counted(STORY)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("she loses", "he loses"),
        ("Then she", "Then he"),
        ("finds", "loses"),
        ("finds two", "finds three"),
        ("five", "six"),
        ("cups", "fun"),
        ("Ann", "Bob"),
        ("three", "many"),
        (" Then", " Suddenly"),
        ("loses one.", "loses one. The end."),
        (STORY, ""),
    ],
)
def test_a_story_that_does_not_hold_together_counts_nothing(said, instead):
    assert counted(STORY.replace(said, instead)) == []


def test_the_judge_of_stories_wants_every_picture_in_its_place():
    task = TASKS["storytelling"]
    for record in task.records(20):

        def verdict(story: str) -> bool:
            return task.judge([Answer((("text", story),))], [record])[0]  # noqa: B023

        sentences = re.findall(r"[^.]+\.", record["story"])
        assert verdict(record["story"])
        assert verdict(f" {record['story']}\n")
        assert not verdict("".join(sentences[:-1]))
        assert not verdict("".join(reversed(sentences)).strip())
        assert not verdict(record["counts"])
