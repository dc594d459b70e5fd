"""The tasks of the digits world and its recipe: judges on right and on wrong answers, ceilings through the codecs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from digits_data import CORPORA, DATA, RATIOS, RECIPE, SETS, SOURCES_IN_USE, TUNING, media_in

from mio import Answer, DataError, Media, Template
from mio.core.contract.checker import Checker
from mio.core.recipe.data_schema import DataConfig
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.plugins import digits, image, speech
from mio.plugins.digits import judges, scans, voices
from mio.plugins.digits.corpora import SOURCES
from mio.plugins.digits.tasks import tasks
from mio.plugins.digits.voices import DIGITS

TASKS = {task.name: task for task in tasks()}
ABILITIES = {
    "text generation": "quiz",
    "captioning": "caption",
    "image understanding": "image_quiz",
    "image generation": "draw",
    "editing": "edit",
    "speech recognition": "transcribe",
    "speech synthesis": "speak",
    "speech understanding": "spoken_quiz",
    "speech generation": "quiz_aloud",
    "speech to speech": "answer_aloud",
    "video captioning": "video_caption",
    "video understanding": "video_quiz",
    "video generation": "video_draw",
    "interleaved generation": "count_on",
    "chain of visual thought": "sum_pictures",
    "multimodal in-context learning": "in_context",
    "multimodal chain of thought": "reason",
    "chart understanding": "chart_quiz",
    "visual storytelling": "storytelling",
    "speech in the voice of a prompt": "clone",
}
"""The public checklist of MIO (github.com/MIO-Team/MIO), voice prompts as AnyGPT has them, and the task of each."""
SIXTEEN = (
    *("language_only", "multimodal_icl", "multimodal_cot", "chart_understanding", "instructional_image_generation"),
    *("asr", "tts", "speech_generation", "speech_understanding", "image_qa", "image_captioning"),
    *("descriptive_image_generation", "video_dialogue", "video_generation", "video_understanding"),
    "visual_storytelling",
)
"""Tasks of table 10, arXiv 2409.17692 v4."""


# ---- the recipe


def test_recipe_follows_the_schema_and_uses_every_corpus():
    checker = Checker()
    checker.check(DataConfig, DATA)
    assert not checker.problems
    assert set(DATA["groups"]) == {"image_text", "text", "interleaved", "speech_text", *SIXTEEN}
    assert list(RATIOS) == list(SIXTEEN)
    assert {source["dataset"] for source in SOURCES_IN_USE} == set(CORPORA)
    used = {source.get("templates", "") for source in SOURCES_IN_USE}
    assert used <= set(SETS) | {""}
    assert set(DATA["templates"]) <= used


@pytest.mark.parametrize("source", SOURCES_IN_USE, ids=lambda source: f"{source['dataset']}-{source.get('templates')}")
def test_every_template_renders_its_records(source):
    records = SOURCES[source["dataset"]](source.get("split", "train"), source.get("options", {}))
    for template in SETS[source["templates"]] if "templates" in source else [None]:
        compiled = template and CompiledTemplate(template)
        for index in range(20):
            for form in [source["form"]] if "form" in source else ["plain", "chat"]:
                document = to_document(records[index], compiled, form, DATA.get("system", {}))
                contents = [segment.content for segment in document.segments]
                if template is not None:
                    fields = re.findall(r"\{(\w+)(?::generate)?\}", template.prompt + template.response)
                    given = {media.key for field in fields for media in media_in(records[index][field])}
                    assert {content.key for content in contents if isinstance(content, Media)} == given
                assert not any("{" in content for content in contents if isinstance(content, str))


# ---- tasks


def test_every_ability_has_a_task_that_the_recipe_measures():
    beside = {"picture_to_speech", "speech_to_picture"}
    assert set(TASKS) == {*ABILITIES.values()} | beside
    assert set(RECIPE["stages"]["stage4"]["evaluate"]["tasks"]) == set(TASKS)
    without = {name for name, task in TASKS.items() if task.ceiling is None}
    assert without == {name for name, task in TASKS.items() if not any(media_in(task.records(1)[0]))}
    assert all(0 < task.decoding.media_temperature < 1 for task in TASKS.values())


@pytest.mark.parametrize("name", TASKS)
def test_task_items_are_many_different_held_out_and_always_the_same(name):
    records = TASKS[name].records(200)
    assert len(records) == 200
    keys = [tuple(media.key for media in media_in(record)) for record in records]
    assert len({repr(record) for record in records}) == 200
    assert len(set(keys)) == (200 if any(keys) else 1)
    assert list(map(repr, records[:50])) == list(map(repr, TASKS[name].records(50)))
    test_scans, test_voices = set(scans.indices("test")), {clip.voice for clip in voices.clips("test")}
    for key in (key for some in keys for key in some):
        kind, first = key.split("/")[:2]
        if kind != "chart":  # `test_digits_abilities.py` has which charts are held out
            assert first in test_voices if kind == "spoken" else int(first.split("+")[0]) in test_scans


@pytest.mark.parametrize("name", TASKS)
def test_task_templates_are_trained_by_the_sft_data(name):
    wanted = TASKS[name].template
    record = TASKS[name].records(1)[0]
    for source in (source for group in TUNING.values() for source in group["sources"].values()):
        fields = SOURCES[source["dataset"]]("train", {})[0].keys()
        for template in SETS.get(source.get("templates", ""), []):
            if (template.prompt, template.response) == (wanted.prompt, wanted.response) and fields == record.keys():
                return
    pytest.fail(f"no source of instruction tuning trains {wanted}")


def right_answer(template: Template, record: Mapping[str, Any]) -> Answer:
    """The template's response as a model would give it."""
    parts: list[tuple[str, Any]] = []
    for literal, field in re.findall(r"([^{]*)\{(\w+)\}", template.response):
        value = record[field]
        parts.append(("text", literal))
        for item in value if isinstance(value, list) else [value]:
            parts.append(("text", item) if isinstance(item, str) else (item.modality, item.data))
    return Answer(tuple(part for part in parts if part != ("text", "")))


def verdicts(task, answers, records):
    """What the judge says by the task's first measure."""
    judged = task.judge(answers, records)
    return judged if len(task.measures) == 1 else [one[task.measure.name] for one in judged]


@pytest.mark.parametrize("name", TASKS)
def test_judges_tell_right_answers_from_wrong_ones(name):
    task = TASKS[name]
    records = task.records(100)
    answers = [right_answer(task.template, record) for record in records]
    assert np.mean(verdicts(task, answers, records)) >= 0.95
    assert np.mean(verdicts(task, answers[1:] + answers[:1], records)) < 0.25
    assert not any(verdicts(task, [Answer(())] * 100, records))
    if task.output != "text":
        text_only = [Answer(tuple(part for part in answer.parts if part[0] == "text")) for answer in answers]
        assert not any(verdicts(task, text_only, records))


def test_judges_want_the_whole_answer():
    video_draw = TASKS["video_draw"]
    records = video_draw.records(40)
    frames = [record["video"].data for record in records]

    def accuracy(change) -> float:
        return float(np.mean(video_draw.judge([Answer((("video", change(some)),)) for some in frames], records)))

    assert accuracy(list) > 0.9
    assert accuracy(lambda some: some[::-1]) == accuracy(lambda some: some[:-1]) == 0
    loose = [Answer(tuple(("image", frame) for frame in some)) for some in frames]
    assert video_draw.judge(loose, records) == video_draw.judge(
        [Answer((("video", some),)) for some in frames], records
    )

    sums = [record for record in TASKS["sum_pictures"].records(200) if len(record["working"]) == 4]
    assert len(sums) > 40
    answers = [right_answer(TASKS["sum_pictures"].template, record) for record in sums]
    assert not any(TASKS["sum_pictures"].judge([Answer(answer.parts[2:]) for answer in answers], sums))


def test_judges_are_accurate_on_real_held_out_media():
    pixels, digits = scans.scans()
    test = list(scans.indices("test"))
    seen = np.asarray(judges.see(list(pixels[test])))
    assert np.mean(seen == digits[test]) >= 0.985  # scikit-learn's example of this classifier reports 0.97
    clips = [clip for clip in voices.clips("test") if clip.word in voices.DIGITS]
    heard = judges.hear([(clip.samples, clip.rate) for clip in clips])
    assert np.mean([voices.DIGITS[digit] == clip.word for digit, clip in zip(heard, clips, strict=True)]) >= 0.98


def test_pictures_of_any_size_and_colour_are_judged():
    test = scans.indices("test")[:50]
    small = [scans.scans()[0][index] for index in test]
    large = [np.repeat(np.repeat(picture, 16, 0), 16, 1)[..., None].repeat(3, 2) for picture in small]
    assert judges.see(large) == judges.see(small)


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """Media through the recipe's tokenizers, trained on the recipe's data."""
    codecs = {}
    fitted = {"image": ("digits/captions", "image", image), "speech": ("digits/speech", "speech", speech)}
    for name, (corpus, field, plugin) in fitted.items():
        options, folder = RECIPE["plugins"][name], tmp_path_factory.mktemp(name)
        source = SOURCES[corpus]("train", {})
        tokenizer, detokenizer = plugin.mio_tokenizer(name, options), plugin.mio_detokenizer(name, options)
        tokenizer.fit([source[index][field] for index in range(2000)], 0)
        tokenizer.save_weights(folder)
        detokenizer.load(folder)
        codecs[name] = (tokenizer, detokenizer)

    def through(items):
        return [codecs[m.modality][1].decode(codecs[m.modality][0].encode([m.data])[0]) for m in items]

    return through


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.ceiling])
def test_ceilings_leave_room(name, round_trip):
    records, measure = TASKS[name].records(200), TASKS[name].measure.name

    def ceiling(records, through):
        figure = TASKS[name].ceiling(records, through)
        return figure[measure] if isinstance(figure, Mapping) else figure

    # 0.945 (`clone`) to 1: tokenizers learn with the rounding of the processor, and 200 items have a deviation of 0.015
    assert 0.92 <= ceiling(records, round_trip) <= 1
    # a codec that loses everything has a ceiling near chance
    blank = {"image": np.zeros((8, 8), np.uint8), "speech": (np.zeros(3200, np.float32), 8000)}
    assert ceiling(records[:40], lambda items: [blank[item.modality] for item in items]) < 0.4


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8)), np.zeros((0, 0), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros(64, np.uint8),
     np.zeros((0, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)],
    ids=lambda picture: f"{picture.dtype} {list(picture.shape)}",
)  # fmt: skip
def test_the_picture_judge_says_no_digit_of_what_is_no_picture(picture):
    with pytest.raises(DataError, match="the picture judge takes uint8"):
        judges.see([picture])


@pytest.mark.parametrize("samples", [np.zeros(0), np.full(400, np.nan), np.array([0, np.inf]), np.zeros((2, 3, 4))])
def test_the_speech_judge_says_no_digit_of_what_is_no_sound(samples):
    with pytest.raises(DataError, match="the speech judge takes samples"):
        judges.hear([(samples, 16000)])


def test_text_is_said_in_the_voice_of_the_answers(tmp_path):
    """The judge of spoken words hears what was to be said."""
    import soundfile

    voice = digits.mio_synthesiser("speech", {})
    assert digits.mio_synthesiser("image", {}) is None
    assert voice.say(" ...") is None
    said = [voice.say(f"{word.capitalize()}.") for word in DIGITS]
    assert judges.shows([Answer((("speech", one),)) for one in said], list(DIGITS), "speech") == [True] * 10
    both, rate = voice.say("Three, four!")
    assert len(both) == len(said[3][0]) + len(said[4][0])
    samples, read = soundfile.read(voice.save((both, rate), tmp_path / "a"))
    assert (read, len(samples)) == (rate, len(both))
    with pytest.raises(DataError, match="no clip of the word `eleven`"):
        voice.say("one eleven")
