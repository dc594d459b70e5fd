"""Choices by log-likelihood, against the scores of whole documents."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import MELODY
from scripted_model import World

import mio
from mio import Choices, Codes, Control, DataError, Media, PluginError, Task, Template
from mio.cli import app
from mio.core.contract.controls import ControlToken
from mio.core.evaluation import choices as module
from mio.core.evaluation.answering import answer_batch, answer_records
from mio.core.generation.scoring import score_documents
from mio.core.tokens.controls import Labels
from mio.core.tokens.templates import CompiledTemplate, to_document

NOTES = Template(direction="name", prompt="{melody} The notes are:", response=" {notes}!")
PLAY = Template(direction="play", prompt="Please play {notes}:", response="Here: {melody} and that is all")


@pytest.fixture(scope="module")
def model(finished):
    return mio.load(finished, "cpu", "fp32", plugins=[f"melody={MELODY / 'mio_melody.py'}"]).model


def asking(of, template=NOTES, field="notes", by="sum"):
    return Task(
        name="ask", template=template, records=lambda _: [], output="text", judge=lambda *_: [],
        choices=Choices(field=field, of=of, by=by),
    )  # fmt: skip


def melody(*notes):
    return Media("melody", notes, key=" ".join(map(str, notes)))


RECORDS = {
    3: {"melody": melody(0, 1), "notes": "do re", "of": ["do re", "do", "re do mi fa sol la ti", " do re"]},
    5: {"melody": melody(*range(8)), "notes": "all", "of": ["high", "low"]},
}


def reference(model, record, template, field, candidate):
    """Log-likelihoods of a candidate's tokens, of the scores of the whole document."""
    data = model.recipe.data
    document = to_document({**record, field: candidate}, CompiledTemplate(template), data.form, data.system)
    [scores] = score_documents(model, [document])
    values = [*candidate] if isinstance(candidate, list) else [candidate]
    wanted = [place for place, one in enumerate(document.segments[document.answer :], document.answer)
              if any(one.content in (value, f" {value}") for value in values)]  # fmt: skip
    assert len(wanted) == len(values)
    return scores.log_likelihoods[np.isin(scores.segments, wanted)]


@pytest.mark.parametrize("by", ["sum", "token", "character"])
def test_scores_are_log_likelihoods_of_the_candidates_alone(model, by):
    task, failed = asking(lambda record: record["of"], by=by), {}
    answers = answer_batch(model, task, RECORDS, failed)
    assert not failed
    for number, answer in answers.items():
        expected = []
        for candidate in RECORDS[number]["of"]:
            own = reference(model, RECORDS[number], NOTES, "notes", candidate).astype(np.float64)
            size = {"sum": 1, "token": len(own), "character": len(candidate)}[by]
            expected.append(own.sum() / size)
        assert answer.scores == pytest.approx(expected, abs=1e-4)
        assert answer.chosen == int(np.argmax(expected))
        assert answer.parts == (("text", RECORDS[number]["of"][answer.chosen]),)
    as_a_whole = answer_batch(model, asking(lambda record: record["of"]), RECORDS, {})[3]
    assert by == "sum" or answers[3].chosen != as_a_whole.chosen  # a short one is likelier as a whole


def test_media_are_chosen_as_if_the_model_had_written_them(model):
    of = [melody(0, 3), [melody(1), "or", Codes("melody", np.array([[2, 4]]))], melody(7, 7, 7)]
    task, record = asking(lambda _: of, PLAY, "melody"), {"notes": "do fa", "melody": melody(0, 3)}
    found = answer_batch(model, task, {0: record}, {})[0]
    expected = [reference(model, record, PLAY, "melody", one).sum() for one in of]
    assert found.scores == pytest.approx(expected, abs=1e-4)
    parts = [
        (("melody", (0, 3)),), (("melody", (1,)), ("text", "or"), ("melody", (2, 4))), (("melody", (7, 7, 7)),),
    ]  # fmt: skip
    assert found.parts == parts[found.chosen]
    notes = [list(content) for name, content in found.parts if name != "text"]
    assert [one.codes[0].tolist() for one in found.codes] == notes


def test_answers_do_not_depend_on_how_many_are_asked_together(model, monkeypatch):
    records = [{**RECORDS[3], "melody": melody(*(n % 8 for n in range(k, k + 1 + k % 7)))} for k in range(20)]
    task = asking(lambda record: record["of"])
    together = answer_records(model, task, records)
    monkeypatch.setattr(model.recipe.evaluate, "batch", 3)
    assert answer_records(model, task, records) == together
    assert len({one.scores for one in together}) == 20


def test_a_tie_is_the_first(model):
    answer = answer_batch(model, asking(lambda _: ["la", "la"]), {0: RECORDS[3]}, {})[0]
    assert answer.chosen == 0
    assert answer.scores[0] == answer.scores[1]


def test_records_that_cannot_be_asked_fail_alone(model):
    def of(record):
        if "of" not in record:
            raise DataError("no candidates")
        return record["of"]

    bad = {
        6: {"melody": melody(0), "notes": "", "of": ["x", ""]},
        7: {"melody": melody(0), "notes": "", "of": ["x" * 200, "y"]},
        8: {"notes": "do"},
        9: {"notes": "do", "of": ["do"]},
        10: {"melody": melody(0), "notes": "", "of": ["x", [melody(99)]]},
    }
    failed = {}
    assert list(answer_batch(model, asking(of), RECORDS | bad, failed)) == [3, 5]
    assert failed[6] == "candidate 1: template `ask/name`: field `notes` is empty; give it content, or write " \
                        "`{notes?}` in the template where it may be empty"  # fmt: skip
    assert failed[7].startswith("candidate 0: it has ")
    assert "do not fit the 96 positions" in failed[7]
    assert failed[8] == "no candidates"
    assert failed[9].startswith("candidate 0: template `ask/name` needs field `melody`")
    assert failed[10].startswith("candidate 1: `melody`")
    assert answer_batch(model, asking(of, by="character"), {0: {**RECORDS[3], "of": [[melody(0)]]}}, failed) == {}
    assert failed[0] == "candidate 0: it has no text, whose characters its log-likelihood would be divided by"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("do", "gave str for record 4, not a list of candidates"),
        ([], "gave no candidate for record 4"),
        (None, "gave nothing for record 4, not a list of candidates"),
        (["a", 3], "gave int as candidate 1 of record 4, not text, media or a list of both"),
        (ZeroDivisionError, "ZeroDivisionError"),
    ],
)
def test_what_is_no_list_of_candidates_is_refused(model, given, message):
    def of(_):
        if isinstance(given, type):
            raise given
        return given

    with pytest.raises(PluginError, match=f"task `ask`: its `choices.of` .*{message}"):
        answer_batch(model, asking(of), {4: RECORDS[3]}, {})


def test_a_candidate_follows_the_control_token_that_answers_begin_with(monkeypatch):
    model = World({}, form="chat").model()
    label = Labels([("parley", ControlToken(name="own", token="<own>"))], [("parley", lambda _: "own")])
    found = []
    for labels in (label, None):
        monkeypatch.setattr(module, "labels_of", lambda _, labels=labels: labels)
        asked = module._Asking(model, asking(lambda _: ["do", "re"])).asked(0, RECORDS[3])
        found.append(asked.branches.continuations)
    own = model.renderer.control(Control("own")).tolist()
    said = model.codecs.text.encode(" do")
    for labelled, plain in zip(*found, strict=True):
        assert labelled.tokens.tolist() == [*plain.tokens[: plain.first], *own, *plain.tokens[plain.first :]]
        assert labelled.first == plain.first + len(own)
    assert found[1][0].tokens[found[1][0].first :].tolist() == said  # not what comes behind it


@pytest.mark.usefixtures("tiles_world")
def test_media_that_an_encoder_reads_are_read_once_and_what_a_head_makes_is_refused():
    assert app.run(["fit", "tiles.yaml", "train.steps=2", "model.layers=2"]) == 0
    model = mio.load("runs/tiles", "cpu", "fp32").model
    tile = np.array([1, 2, 3, 4], np.uint8)
    template = Template(direction="tell", prompt="This {tile} and {other} is", response="{word} now")
    record = {"tile": Media("tile", tile, key="a"), "other": Media("tile", tile[::-1].copy(), key="b"), "word": "x"}
    task = asking(lambda _: ["one", "two words", "x"], template, "word")
    answer = answer_batch(model, task, {0: record}, {})[0]
    expected = [reference(model, record, template, "word", one).sum() for one in ("one", "two words", "x")]
    assert answer.scores == pytest.approx(expected, abs=1e-4)
    turned = answer_batch(model, task, {0: {**record, "tile": record["other"], "other": record["tile"]}}, {})[0]
    assert turned.scores != answer.scores
    # a picture that is asked about is a candidate's too, so that the beginning is not shared beyond it
    which = Template(direction="which", prompt="Is {tile} here", response="{tile?}{word}")
    two = asking(lambda _: ["yes", "no"], Template(direction="is", prompt="Is {tile} here", response="{word}"), "word")
    assert answer_batch(model, two, {0: record}, {})[0].chosen in (0, 1)
    failed = {}
    drawn = asking(lambda record: [record["tile"], record["other"]], which, "tile")
    assert answer_batch(model, drawn, {0: record}, failed) == {}
    assert failed == {0: "candidate 0: `tile` is made by a head, and has no log-likelihood"}
