"""Evaluation of a small run: tasks by name, answers in order, figures by hand, samples on disk."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MELODY

from mio import Codes, DataError, Decoding, Media, Task, Template, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.evaluation.answering import answer_records
from mio.core.evaluation.copies import copied_spans, digest
from mio.core.evaluation.evaluation import Options, evaluate
from mio.core.evaluation.table import notes, results_table
from mio.core.generation.model import Model
from mio.core.runs.run import Run
from mio.core.tokens.templates import CompiledTemplate, to_document


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    folder = tmp_path / "tunes"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(finished.parents[1])
    return Run.open(folder, PluginManager.discover([f"melody={MELODY / 'mio_melody.py'}"]))


@pytest.fixture
def play(run):
    return run.plugins.tasks()["play"][1]


def test_a_task_of_a_modality_that_the_run_does_not_have_rests(run, play, monkeypatch):
    both = [play, replace(play, name="look", output="picture")]
    answers = {"mio_tasks": [("melody", both)]}
    each = type(run.plugins)._each
    monkeypatch.setattr(type(run.plugins), "_each", lambda own, hook: answers.get(hook) or each(own, hook))
    assert [*evaluate(Model.of(run), Options(items=2))] == ["play"]
    with pytest.raises(UserError, match=r"^task `look`: its answers are of `picture`, which the recipe does not have"):
        evaluate(Model.of(run), Options(items=2, tasks=["look"]))


def test_answers_come_in_the_order_of_the_records_whatever_the_batches(run, play):
    with torch.no_grad():
        for parameter in run.transformer.parameters():
            parameter.mul_(4)  # from a model that has learnt nothing to one that answers differently each time
    records = play.records(30)
    together = answer_records(Model.of(run, precision="fp32"), play, records)
    assert len({answer.media("melody")[0] for answer in together}) > 1  # they are told apart
    run.recipe.evaluate.batch = 7
    assert [answer.parts for answer in answer_records(Model.of(run, precision="fp32"), play, records)] == [
        answer.parts for answer in together
    ]
    backwards = answer_records(Model.of(run, precision="fp32"), play, records[::-1])
    assert [answer.parts for answer in backwards] == [answer.parts for answer in together][::-1]


def test_every_answer_holds_the_output_of_the_task(run, play):
    assert all(
        answer.media("melody") for answer in answer_records(Model.of(run, precision="fp32"), play, play.records(20))
    )


def test_figures_are_the_shares_that_the_judge_and_the_ceiling_say(run, play, monkeypatch):
    seen = {}

    def judge(answers, records):
        seen["records"] = records
        seen["spans"] = [tuple(codes.codes[0]) for answer in answers for codes in answer.codes]
        return [index % 4 == 0 for index in range(len(answers))]

    def ceiling(records, round_trip):
        [first] = round_trip([records[0]["melody"]])
        assert first == records[0]["melody"].data  # this codec loses nothing
        return 0.75

    # answers of few notes, and a training that showed two of these
    short = Decoding(media_temperature=1.0, max_tokens=5)
    shown = [{"melody": Codes("melody", np.array([[note]])), "notes": "any"} for note in (4, 6)]
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: shown)})
    task = replace(play, judge=judge, ceiling=ceiling, copies=True, decoding=short)
    monkeypatch.setattr(type(run.plugins), "tasks", lambda _: {"play": ("melody", task)})
    lines: list[str] = []
    report = evaluate(Model.of(run), Options(items=12), lines.append)
    assert report["play"].items() >= {"accuracy": 0.25, "n": 12, "ceiling": 0.75}.items()
    copies = [span in {(4,), (6,)} for span in seen["spans"]]
    assert 0 < sum(copies) < len(copies)
    assert report["play"]["copied"] == pytest.approx(sum(copies) / len(copies), abs=1e-4)
    assert seen["records"] == play.records(12)
    assert lines == ["play: 0.250 of 12"]
    samples = sorted(path.name for path in (run.folder / "samples").glob("*.txt"))
    assert [name.split("-")[:2] for name in samples] == [["play", "0"], ["play", "1"]]
    for record, sample in zip(play.records(2), json.loads((run.folder / "samples/play.json").read_text()), strict=True):
        assert "".join(part["text"] for part in sample["asked"]) == sample["prompt"]
        [expected] = [part["path"] for part in sample["expected"] if "path" in part]
        assert (run.folder / "samples" / expected).read_text().split() == record["notes"].split()


def tunes_of(run, split):
    """Melodies of a split as its source says them, which are their own codes."""
    source = run.plugins.sources()["melody/tunes"][1](split, {})
    return [source[index]["melody"].data for index in range(len(source))]


def copies(run, spans):
    """Of each span, whether it is one."""
    digests = [digest(run.codecs, span) for span in spans]
    copied = copied_spans(Model.of(run), {"melody": digests}).found["melody"]
    return [value in copied for value in digests]


def test_copies_are_spans_that_equal_a_training_item_code_by_code(run):
    every = [notes for size in (2, 3) for notes in itertools.product(range(8), repeat=size)]
    trained, held_out = tunes_of(run, "train"), tunes_of(run, "test")
    assert sorted(trained + held_out) == sorted(every)
    beyond = [(*tune, 0) for tune in trained if len(tune) == 3]  # what begins like one is none
    spans = [Codes("melody", np.array([tune], dtype=np.int64)) for tune in every + beyond]
    assert copies(run, spans) == [tune in trained for tune in every + beyond]
    assert copies(run, []) == []


def test_evaluation_does_not_depend_on_the_folder_it_is_called_from(run, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(Model.of(run), Options(tasks=["play"], items=4))["play"]["n"] == 4
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_template_of_a_task_is_filled_from_its_records(run, play):
    """A task whose prompt is the whole answer: the prompt's tokens are what training would show before it."""
    task = Task(
        name="echo", template=Template(direction="echo", prompt="{notes}", response="{melody}"), records=play.records,
        output="melody", judge=play.judge,
    )  # fmt: skip
    record = play.records(1)[0]
    document = to_document(record, CompiledTemplate(task.template, "echo"), "plain", {})
    prompt, whole = run.renderer.prompt(document).tokens, run.renderer.render(document).tokens
    assert whole[: len(prompt)].tolist() == prompt.tolist()
    assert whole[len(prompt)] == run.vocabulary.begin("melody")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, ">i4", np.uint16, np.int64])
def test_copies_do_not_depend_on_the_integers_that_a_tokenizer_gives(run, dtype):
    module = run.plugins.sources()["melody/tunes"][1]("train", {})
    given = type(run.codecs.tokenizer("melody")).encode
    run.codecs.tokenizer("melody").encode = lambda media: [
        np.asfortranarray(codes).astype(dtype) for codes in given(None, media)
    ]
    spans = [Codes("melody", np.array([module[index]["melody"].data])) for index in (0, 5)]
    assert copies(run, spans) == [True, True]


def test_every_item_of_a_record_of_codes_is_looked_at(run, monkeypatch):
    tunes = [[[1, 2, 3]], [[4, 4]], [[7, 0, 7, 0]]]
    records = [{"melody": [Codes("melody", np.array(tune)) for tune in tunes], "notes": "any"}]
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: records)})
    spans = [Codes("melody", np.array(tune, dtype=np.int32)) for tune in (*tunes, [[1, 2, 4]])]
    assert copies(run, spans) == [True, True, True, False]


def test_a_training_record_that_cannot_be_read_does_not_end_the_evaluation(run, monkeypatch):
    class Broken(list):
        def __getitem__(self, index):
            if index == 1:
                raise DataError("a.png: is damaged")
            return super().__getitem__(index)

    records = Broken([{"melody": Codes("melody", np.array([[note]])), "notes": "any"} for note in range(3)])
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: records)})
    assert copies(run, [Codes("melody", np.array([[note]])) for note in range(3)]) == [True, False, True]


def copies_of(run, folder, notes):
    span = Codes("melody", np.array([notes]))
    return copied_spans(Model.of(run), {"melody": [digest(run.codecs, span)]}, folder=folder)


class Tunes(list):
    """Records that count how often they are read."""

    def __init__(self, *tunes, fingerprint=""):
        super().__init__({"melody": Media("melody", tuple(tune), key=str(tune)), "notes": "any"} for tune in tunes)
        self.fingerprint, self.read = fingerprint, 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def test_the_training_data_are_read_once_for_copies(run, monkeypatch, tmp_path):
    tunes = Tunes(*([note] for note in range(5) for _ in range(20)))
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: tunes)})
    encoded = []
    given = type(run.codecs.tokenizer("melody")).encode
    run.codecs.tokenizer("melody").encode = lambda media: encoded.append(len(media)) or given(None, media)
    first = copies_of(run, tmp_path, [4])
    assert first.found == {"melody": {digest(run.codecs, Codes("melody", np.array([[4]])))}}
    assert (first.searched, first.records) == (101, 101)  # with the line of text
    assert encoded == [5], "what is new is encoded together, and once"
    tunes.read = 0
    assert copies_of(run, tmp_path, [4]).found == first.found
    assert copies_of(run, tmp_path, [6]).found == {"melody": frozenset()}
    assert tunes.read <= 2 * 20, "but for what a source is known by"
    assert encoded == [5]


@pytest.mark.parametrize("change", ["records", "fingerprint", "tokenizer", "held_out", "damage", "none"])
def test_an_index_of_other_data_is_made_again(run, monkeypatch, tmp_path, change):
    tunes = Tunes([1], [2], fingerprint="then")
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: tunes)})
    assert not copies_of(run, tmp_path, [3]).found["melody"]
    index = tmp_path / "training-codes/melody.index"
    before = index.read_bytes()
    if change == "records":
        tunes = Tunes([1], [3], fingerprint="then")
    elif change == "fingerprint":
        tunes = Tunes([1], [2], fingerprint="now")
    elif change == "tokenizer":
        run.codecs.tokenizer("melody").fingerprint = "another"
    elif change == "held_out":
        run.recipe.data.held_out = 0.5
    elif change == "damage":
        index.write_bytes(before[:-1] + b"?")
    assert bool(copies_of(run, tmp_path, [3]).found["melody"]) is (change == "records")
    assert (index.read_bytes() == before) is (change in ("none", "damage"))


def test_of_much_data_the_first_records_are_searched_and_it_is_said(run, play, monkeypatch):
    monkeypatch.setattr("mio.core.evaluation.copies.RECORDS", 2)
    tunes = Tunes([1], [2], [3])
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: tunes)})
    copies = [copies_of(run, None, [note]) for note in (1, 2, 3)]
    assert [len(one.found["melody"]) for one in copies] == [1, 1, 0]
    assert [(one.searched, one.records) for one in copies] == [(3, 4)] * 3
    figures, _ = one_task(run, monkeypatch, replace(play, copies=True))
    assert figures["searched"] == [3, 4]
    assert [*notes({"play": figures})] == [
        "copied: looked for among 3 of 4 training records, the first of each source"
    ]  # fmt: skip


def test_the_same_source_in_two_groups_is_searched_once(run, monkeypatch):
    tunes = Tunes([1], [2])
    monkeypatch.setattr(type(run.plugins), "sources", lambda _: {"melody/tunes": ("melody", lambda *_: tunes)})
    run.recipe.data.groups["again"] = run.recipe.data.groups["melody"]
    assert copies_of(run, None, [1]).searched == 2 + 1


def one_task(run, monkeypatch, task):
    monkeypatch.setattr(type(run.plugins), "tasks", lambda _: {task.name: ("melody", task)})
    lines: list[str] = []
    return evaluate(Model.of(run), Options(items=6), lines.append)[task.name], lines


def test_items_that_cannot_be_asked_decoded_or_judged_are_wrong_and_named(run, play, monkeypatch):
    """One of six each; the judge would have called all of them right."""
    records = [*play.records(6)]
    records[1] = {**records[1], "notes": "do " * 60}  # longer than the context of 96 bytes
    codec = run.codecs.detokenizer("melody")
    decode, decoded = codec.decode, []

    def broken(codes):
        decoded.append(codes)
        if len(decoded) == 1:
            raise ValueError("no such note")
        return decode(codes)

    codec.decode = broken

    def judge(answers, records):
        if any(record is kept for record in records):
            raise DataError("too quiet")
        return [True] * len(answers)

    kept = records[5]
    figures, lines = one_task(run, monkeypatch, replace(play, judge=judge, records=lambda _: records))
    assert figures.items() >= {"accuracy": 0.5, "n": 6, "failed": 3}.items()
    assert len(figures["failures"]) == 3
    assert all(line.startswith("task `play` of plugin `melody`, item ") for line in figures["failures"])
    assert "item 1: the prompt has " in figures["failures"][0] or "item 1: the prompt has " in figures["failures"][1]
    assert any("the answer cannot be decoded: ValueError: no such note" in line for line in figures["failures"])
    assert figures["failures"][-1].endswith("item 5: the judge cannot tell: too quiet")
    assert lines[0] == "play: 0.500 of 6, 3 failed"
    json.dumps({"tasks": figures}, allow_nan=False)
    results_table({"play": figures})


def test_an_evaluation_of_nothing_but_failures_has_a_figure(run, play, monkeypatch):
    def decode(_):
        raise DataError("no weights")

    run.codecs.detokenizer("melody").decode = decode
    figures, _ = one_task(run, monkeypatch, replace(play, ceiling=lambda records, through: len(through(records[:0]))))
    assert figures.items() >= {"accuracy": 0.0, "n": 6, "failed": 6}.items()


def test_a_ceiling_that_cannot_be_told_is_left_out_and_said(run, play, monkeypatch):
    def ceiling(*_):
        raise DataError("item 3 is gone")

    figures, _ = one_task(run, monkeypatch, replace(play, ceiling=ceiling))
    assert "ceiling" not in figures
    assert figures["failures"] == ["task `play` of plugin `melody`, no `ceiling`: item 3 is gone"]


def test_a_task_with_a_slash_in_its_name_has_samples(run, play, monkeypatch):
    one_task(run, monkeypatch, replace(play, name="more/play"))
    assert len(json.loads((run.folder / "samples" / "more" / "play.json").read_text())) == 2


def test_a_task_with_dots_in_its_name_keeps_all_its_samples(run, play, monkeypatch):
    """Also where what saves takes the last dot for the beginning of a suffix."""
    saver = type(run.codecs.saver("melody"))

    def save(_, media, stem):
        path = stem.with_suffix(".txt")
        path.write_text(" ".join(map(str, media)))
        return path

    monkeypatch.setattr(saver, "save", save)
    one_task(run, monkeypatch, replace(play, name="more.play"))
    samples = json.loads((run.folder / "samples/more.play.json").read_text())
    names = [part["path"] for sample in samples for part in sample["answer"] + sample["expected"] if "path" in part]
    assert len(names) == len(set(names)) == 4
    assert all((run.folder / "samples" / name).is_file() for name in names)


def test_weights_that_are_not_finite_are_told(run):
    with torch.no_grad():
        run.transformer.layers[0].attention.output.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="task `play`: the model's scores for the next token are not finite"):
        evaluate(Model.of(run), Options(tasks=["play"], items=2))
