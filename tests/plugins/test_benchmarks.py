"""Public benchmarks on small data sets in their own layouts: read, asked, judged and told what is wrong with them."""

from __future__ import annotations

import json
import shutil

import benchmark_folders
import numpy as np
import pytest

from mio import Answer, DataError, PluginError, UserError
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.plugins.benchmarks import mio_tasks
from mio.plugins.benchmarks.folders import sample

ITEMS = benchmark_folders.ITEMS
NAMES = [
    *("coco_captions", "flickr30k_captions", "coco_generation", "flickr30k_generation", "vqav2", "ok_vqa", "vizwiz"),
    *("msvd_qa", "msrvtt_qa", "librispeech_asr", "vctk_tts", "seed_bench", "mmlu"),
]

RECIPE = """
name: tiny
plugins:
  text: {tokenizer: bytes}
  image: {tokenizer: patch_vq, size: 8, patch: 4, codebook_size: 8}
  speech: {tokenizer: mel_rvq, max_seconds: 1, codebook_size: 8, codebooks: 2}
  video: {min_frames: 1, max_frames: 2}
model: {width: 32, layers: 1, heads: 2}
data:
  groups:
    pictures:
      sources: {pictures: {dataset: folder, options: {path: coco/val2014}, templates: named}}
    speech: {sources: {speech: {dataset: jsonl, options: {path: speech.jsonl}, templates: speech_text}}}
  templates: {named: [{direction: name, prompt: "{image}", response: " {name}"}]}
  packing: {context: 768, window: 16}
mixture: {ratios: {pictures: 1, speech: 1}}
train: {steps: 1, rows: 1, micro_rows: 1}
runtime: {threads: 1, accelerator: cpu, log_every: 1, checkpoint_every: 1}
"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folder with all data sets, and the options that name them."""
    folder = tmp_path_factory.mktemp("sets")
    return folder, benchmark_folders.make(folder)


def tasks(options):
    return {task.name: task for task in mio_tasks(options)}


def test_tasks_rest_until_their_data_set_is_named(sets):
    every = tasks({})
    assert list(every) == NAMES
    assert all(task.missing for task in every.values())
    assert every["mmlu"].missing.startswith("set `plugins.benchmarks.mmlu` to a folder with SUBJECT_test.csv")
    named = tasks(sets[1])
    assert [name for name, task in named.items() if task.missing] == ["vctk_tts"]
    assert named["vctk_tts"].missing.startswith("set `plugins.benchmarks.recogniser` to a folder with")
    assert not tasks({**sets[1], "recogniser": str(sets[0])})["vctk_tts"].missing
    gone = tasks({**sets[1], "coco": "nowhere", "clip": "gone"})
    assert gone["coco_captions"].missing.startswith("`plugins.benchmarks.coco`: nowhere is no folder; name one with da")
    assert gone["flickr30k_generation"].missing.startswith("`plugins.benchmarks.clip`: gone is not there; name a folde")


def test_records_hold_what_their_templates_ask_for(sets):
    for task in tasks(sets[1]).values():
        records = task.records(100)
        assert len(records) == ITEMS, task.name
        assert task.records(2) == records[:2]
        for record in records:
            [shown] = [field for field in ("image", "speech", "video") if field in record] or [None]
            if shown:
                assert record[shown].data.is_file()
                assert record[shown].key.startswith(f"{task.name.split('_')[0]}")
                assert "/tmp" not in record[shown].key
    first = tasks(sets[1])["coco_captions"].records(1)[0]
    number = int(first["image"].data.stem[-12:])
    assert first["captions"] == benchmark_folders.captions(number)
    asked = tasks(sets[1])["vizwiz"].records(1)[0]
    assert (asked["question"], asked["answer"]) == ("What is this?", "squares")
    assert {record["answer"] for record in tasks(sets[1])["seed_bench"].records(9)} == set("ABCD")
    assert {record["subject"] for record in tasks(sets[1])["mmlu"].records(9)} == {
        "abstract algebra",
        "us foreign policy",
    }


def test_a_sample_is_spread_over_the_data_set_and_grows_at_its_end():
    names = [str(number) for number in range(1000)]
    few = sample(names, 100, str)
    assert few == sample(reversed(names), 300, str)[:100]
    assert 400 < np.mean([int(name) for name in few]) < 600


def test_templates_and_decoding_are_those_of_the_paper(sets):
    named = tasks(sets[1])
    assert named["coco_captions"].template.prompt == ("Provide a one-sentence caption for the provided image. {image}")
    assert named["librispeech_asr"].template.prompt == "Please transcribe this speech.{speech}"
    assert named["vqav2"].template.prompt == ("{image}\n{question}\nAnswer the question using a single word or phrase.")
    assert {named[name].decoding.beams for name in ("coco_captions", "vqav2", "librispeech_asr")} == {5}
    assert named["coco_generation"].decoding.by == {"image": {"temperature": 1.0, "top_p": 0.7}}
    assert named["vctk_tts"].decoding.by["speech"]["repetition_penalty"] == 1.15


def said(*texts):
    return [Answer((("text", text),)) for text in texts]


def test_judges_know_right_answers(sets):
    named = tasks(sets[1])
    records = named["vqav2"].records(4)
    assert named["vqav2"].judge(said("4", "Four!", "many", "no"), records) == pytest.approx([1, 1, 0.3, 0])
    assert named["vqav2"].ceiling(records, list) == 1
    assert named["msvd_qa"].judge(said(" A square.", "squares"), named["msvd_qa"].records(2)) == [True, False]
    records = named["librispeech_asr"].records(2)
    heard = [records[0]["transcription"].lower(), "he began"]
    assert named["librispeech_asr"].judge(said(*heard), records) == [(0, 5), (3, 5)]
    assert named["librispeech_asr"].measure.worst(records[0]) == (5, 5)
    records = named["mmlu"].records(4)
    right = ["ABCD".index(record["answer"]) for record in records]
    chosen = [Answer((("text", "ABCD"[number]),), chosen=number) for number in right]
    assert named["mmlu"].judge(chosen, records) == [True] * 4
    assert named["mmlu"].judge([Answer((), chosen=(number + 1) % 4) for number in right], records) == [False] * 4
    assert named["mmlu"].choices.of(records[0]) == ("A", "B", "C", "D")
    records = named["coco_captions"].records(4)
    verdicts = named["coco_captions"].judge(said(*(record["captions"][1] for record in records)), records)
    cider, bleu, _ = named["coco_captions"].measures
    assert np.mean(cider.overall([one["cider"] for one in verdicts], records)) > 1
    assert bleu.overall([one["bleu_4"] for one in verdicts], records) == pytest.approx(1)
    assert [one["rouge_l"] for one in verdicts] == [1] * 4


def test_what_is_said_is_heard_by_the_recogniser(sets, monkeypatch):
    from mio.plugins.benchmarks.metrics import recognition

    class Heard:
        def heard(self, sound):
            return {3: "Please call Stella!", 5: "please stella"}[len(sound[0])]

    monkeypatch.setattr(recognition.Recogniser, "of", lambda _: Heard())
    task = tasks({**sets[1], "recogniser": str(sets[0])})["vctk_tts"]
    records = task.records(2)
    answers = [Answer((("speech", (np.zeros(length), 16_000)),)) for length in (3, 5)]
    assert task.judge(answers, records) == [(0, 3), (1, 3)]
    assert task.ceiling(records, lambda media: [(np.zeros(5), 16_000)] * len(media)) == pytest.approx(2 / 6)
    with pytest.raises(DataError, match="the answer has no speech"):
        task.judge(said("none"), records[:1])


def test_pictures_are_compared_with_the_captioned_ones(sets):
    task = tasks(sets[1])["coco_generation"]
    assert [measure.name for measure in task.measures] == ["ssim"]
    records = task.records(2)
    from mio.plugins.benchmarks.metrics.pictures import read

    same = [Answer((("image", read(record["image"].data)),)) for record in records]
    assert task.judge(same, records) == pytest.approx([1, 1])
    assert max(task.judge(same[::-1], records)) < 0.9
    with pytest.raises(DataError, match=r"the answer has no image"):
        task.judge(said("none"), records[:1])
    every = tasks({**sets[1], "clip": "clip", "inception": "weights.pth"})["coco_generation"]
    assert [measure.name for measure in every.measures] == ["clip_i", "clip_t", "ssim", "fid"]
    with pytest.raises(UserError, match=r"`clip`: clip: .*; name a folder with a CLIP checkpoint"):
        every.judge(same, records)


@pytest.mark.parametrize(
    ("task", "file", "change", "told"),
    [
        ("coco_captions", "dataset_coco.json", None, "dataset_coco.json: is missing"),
        ("coco_captions", "dataset_coco.json", "{", "dataset_coco.json: is not JSON"),
        ("coco_captions", "dataset_coco.json", '{"image": []}', "the field `images` is missing"),
        ("coco_captions", "dataset_coco.json", '{"images": {}}', "images: {} is not a list"),
        ("coco_captions", "dataset_coco.json", '{"images": [{"split": 3}]}', "images[0].split: 3 is not text"),
        ("vqav2", "v2_mscoco_val2014_annotations.json", '{"annotations": []}', "has no answers to question"),
        ("ok_vqa", "OpenEnded_mscoco_val2014_questions.json", '{"questions": []}', "it has no held-out records"),
        ("vizwiz", "Annotations/val.json", '[{"image": "../x.jpg"}]', "'../x.jpg' is not the name of a file"),
        ("seed_bench", "SEED-Bench.json", '{"questions": [{"data_type": "image", "question_id": "1"}]}', "`data_id`"),
        ("msvd_qa", "youtube_mapping.txt", "vid1\n", "line 1: 'vid1' is not the name of a video and its number"),
        ("msvd_qa", "youtube_mapping.txt", "a vid9\n", "youtube_mapping.txt has no video vid"),
        ("librispeech_asr", "test-clean/61/70968/61-70968.trans.txt", "61-70968-0000\n", "is not the name of a rec"),
        ("mmlu", "data/test/us_foreign_policy_test.csv", "q,a,b,c,A\n", "record 1: has 5 columns"),
        ("mmlu", "data/test/us_foreign_policy_test.csv", "q,a,b,c,d,E\n", "the answer 'E' is not one of A, B, C, D"),
    ],
)  # fmt: skip
def test_damage_is_one_line_that_says_where(sets, tmp_path, task, file, change, told):
    data_set = task.removesuffix("_captions").removesuffix("_asr")
    folder = tmp_path / data_set
    shutil.copytree(sets[0] / data_set, folder)
    if change is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(change)
    from mio.core.evaluation.judging import OwnedTask

    owned = OwnedTask("benchmarks", tasks({data_set: str(folder)})[task])
    with pytest.raises(PluginError) as caught:
        owned.records(10)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    if "held-out" not in told:
        assert f"plugins.benchmarks.{data_set} is a folder with" in message


def test_a_file_that_is_gone_is_named_with_what_names_it(sets, tmp_path):
    folder = tmp_path / "librispeech"
    shutil.copytree(sets[0] / "librispeech", folder)
    (folder / "test-clean/61/70968/61-70968-0001.flac").unlink()
    with pytest.raises(DataError, match=r"0001\.flac: No such file.*; .*61-70968\.trans\.txt, line 2 names it"):
        tasks({"librispeech": str(folder)})["librispeech_asr"].records(10)
    with pytest.raises(DataError, match=r"nowhere: no such folder; plugins\.benchmarks\.coco is a folder with"):
        tasks({"coco": "nowhere"})["coco_captions"].records(10)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cocoa": "x"}, "did you mean `coco`"),
        ({"splits": {"coco": "tset"}}, "`splits.coco`: 'tset' is not one of test, val, restval, train"),
        ({"splits": {"vctk": "test"}}, "`splits.vctk`: no data set with splits"),
        ({"coco": 3}, "coco"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(UserError, match=r"plugins\.benchmarks") as caught:
        mio_tasks(options)
    assert told in str(caught.value)


def test_splits_are_chosen_by_option(sets):
    task = tasks({**sets[1], "splits": {"coco": "restval"}})["coco_captions"]
    assert [record["image"].data.name for record in task.records(9)] == [f"COCO_val2014_{ITEMS:012d}.jpg"]


# ---- asking a model


@pytest.fixture(scope="module")
def run(sets):
    """A tiny model of all modalities that has learnt nothing and knows no benchmarks."""
    folder, _ = sets
    (folder / "tiny.yaml").write_text(RECIPE)
    sounds = sorted(folder.glob("librispeech/*/*/*/*.flac"))
    lines = [json.dumps({"speech": str(path), "transcription": "a tone"}) for path in sounds]
    (folder / "speech.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert app.run(("fit", "tiny.yaml")) == 0
    return folder / "runs/tiny"


def test_every_task_is_asked_of_a_finished_run(run, sets, capsys):
    asked = [name for name in NAMES if name not in ("vctk_tts", "flickr30k_captions", "flickr30k_generation")]
    named = [f"plugins.benchmarks.{name}={folder}" for name, folder in sets[1].items()]
    out = run.parent / "figures.json"
    code = app.run(("evaluate", str(run), *asked, *named, "--items", "2", "--json", str(out)))
    assert code == 0, capsys.readouterr().err
    figures = json.loads(out.read_text())["tasks"]
    assert list(figures) == asked
    for name, those in figures.items():
        assert those["n"] == 2
        assert "failed" not in those, (name, those)
    assert {"cider", "bleu_4", "rouge_l"} <= set(figures["coco_captions"])
    assert figures["vqav2"]["ceiling"] == 1
    assert figures["coco_generation"]["judge"] == pytest.approx(1)
    assert figures["coco_generation"]["ceiling"] < 1
    assert figures["librispeech_asr"]["wer"] > 0

    capsys.readouterr()
    assert app.run(("evaluate", str(run), "vctk_tts", f"plugins.benchmarks.vctk={sets[1]['vctk']}")) == 2
    assert capsys.readouterr().err.startswith(
        "error: task `vctk_tts`: set `plugins.benchmarks.recogniser` to a folder with a checkpoint"
    )


def test_a_recipe_without_the_modality_or_the_plugin_says_so():
    beside = PluginManager.discover().enable({"text": {"tokenizer": "bytes"}, "benchmarks": {}})
    assert beside.no_task("coco_captions").startswith("task `coco_captions`: it asks about `image`, which the recipe")
    assert beside.no_task("coco_generation").startswith("task `coco_generation`: its answers are of `image`, which th")
    assert not beside.tasks()
    alone = PluginManager.discover().enable({"text": {"tokenizer": "bytes"}})
    assert alone.no_task("mmlu").startswith(
        "no task `mmlu` without the plugin `benchmarks`, which is not in use: set `plugins.benchmarks.mmlu` to a folder"
    )
    assert alone.no_task("mmlo") == "no task `mmlo`; there are none"
