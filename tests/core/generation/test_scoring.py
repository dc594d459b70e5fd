"""Log-likelihoods of documents against those of transformers, and against the losses of a validation."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import tiles
import torch
from conftest import MELODY, TINY, fit, tunes_in

import mio
from mio import UserError
from mio.cli import app

PLUGINS = [f"melody={MELODY / 'mio_melody.py'}"]


@pytest.fixture
def run(finished):
    return mio.load(finished, "cpu", "fp32", plugins=PLUGINS)


def test_log_likelihoods_are_those_of_transformers(run, finished, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert app.run(["export", str(finished), str(tmp_path / "out"), "--plugin", PLUGINS[0]]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    found = run.score(["Play do re: ", {"type": "melody", "melody": (0, 1, 5)}, " and sing."])
    with torch.no_grad():
        expected = model(torch.tensor(found.tokens[None], dtype=torch.int64)).logits[0].log_softmax(-1)
    expected = expected[:-1].gather(1, torch.tensor(found.tokens[1:, None], dtype=torch.int64))[:, 0]
    assert found.log_likelihoods.dtype == np.float32
    assert math.isnan(found.log_likelihoods[0])
    np.testing.assert_allclose(found.log_likelihoods[1:], expected.numpy(), atol=2e-5)
    assert expected.std() > 0.1
    assert found.strings[int(np.argmax(found.part == 1))] == "<melody>"


def test_parts_are_told_apart(run):
    found = run.score(["ab", {"type": "melody", "melody": (0, 1, 5)}, "c"])
    assert [(part.type, part.end - part.first, part.role) for part in found.parts] == [
        ("text", 2, ""), ("melody", 5, ""), ("text", 1, ""),
    ]  # fmt: skip
    assert [found.part.tolist().count(number) for number in (-1, 0, 1, 2)] == [2, 2, 5, 1]  # bos and eos are the form
    total = sum(part.log_likelihood for part in found.parts) + found.log_likelihoods[-1]
    assert found.log_likelihood == pytest.approx(total, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(-total / (len(found.tokens) - 1)), rel=1e-6)


def test_what_answers_a_prompt_counts_alone(run):
    whole = run.score(["Play do: ", {"type": "melody", "melody": (0, 1)}])
    answer = run.score([{"type": "melody", "melody": (0, 1)}], prompt="Play do: ")
    np.testing.assert_array_equal(answer.log_likelihoods, whole.log_likelihoods)
    assert [part.role for part in answer.parts] == ["user", "assistant"]
    end = whole.log_likelihoods[-1]
    assert answer.log_likelihood == pytest.approx(answer.parts[1].log_likelihood + end, rel=1e-6)
    assert answer.counted.sum() == answer.parts[1].tokens + 1


def test_the_mean_over_held_out_documents_is_the_loss_of_a_validation(tmp_path):
    sys.path.append(str(MELODY))
    from mio_melody import TEMPLATES, Tunes

    with tunes_in(tmp_path):
        options = ("train.precision=fp32", "validate.every=4", "validate.items=1000", "validate.tasks=[]")
        fit("runs", *TINY, *options, "data.groups.melody.sources.tunes.validation_split=test")
        figures = json.loads((tmp_path / "runs/tunes/summary.json").read_text())["validation"]["figures"]
        run = mio.load("runs/tunes", "cpu")
        sums, count = 0.0, 0
        for record in Tunes("test"):
            for template in TEMPLATES:
                pieces = f"{template.prompt}{template.response}".replace("{notes}", record["notes"]).split("{melody}")
                parts = [piece for pair in zip(pieces, [record["melody"], ""], strict=True) for piece in pair]
                found = run.score(parts)
                sums, count = sums + found.log_likelihood, count + int(found.counted.sum())
                if template is TEMPLATES[0]:
                    assert found.perplexity == pytest.approx(math.exp(-found.log_likelihood / found.counted.sum()))
        assert -sums / count == pytest.approx(figures["loss/melody/tunes"]["last"], rel=1e-5)
        run.model.dismiss()


def test_many_are_scored_as_each_is_alone(run):
    documents = ["do re", ["a", {"type": "melody", "melody": (0, 1, 5)}, "b" * 40], "x"]
    prompts = ["Say: ", "Play: ", [{"type": "melody", "melody": (3,)}]]
    for found, alone in (
        (run.score_many(documents), [run.score(one) for one in documents]),
        (run.score_many(documents, prompts), [run.score(*pair) for pair in zip(documents, prompts, strict=True)]),
    ):
        for mine, own in zip(found, alone, strict=True):
            np.testing.assert_array_equal(mine.log_likelihoods, own.log_likelihoods)
            assert mine.parts == own.parts
    assert run.score_many([]) == []
    with pytest.raises(UserError, match=r"document 1: the document has \d+ tokens; they do not fit"):
        run.score_many(["a", "x" * 200])
    with pytest.raises(UserError, match=r"document 1: .*melody"):
        run.score_many(["a", [{"type": "melody", "melodie": (0,)}]])
    with pytest.raises(UserError, match="there are 1 prompts for 2 documents"):
        run.score_many(["a", "b"], ["c"])


def test_documents_that_cannot_be_scored_are_refused(run):
    with pytest.raises(UserError, match=r"has \d+ tokens; they do not fit the 96 positions"):
        run.score("x" * 200)
    assert len(run.score("x" * 200, beyond_context=True).tokens) == 202
    with pytest.raises(UserError, match="trained without turns"):
        run.score([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(UserError, match="melody"):
        run.score([mio.Codes("melody", np.array([[99]]))])


@pytest.fixture(params=["", "own: true"], ids=["context", "own positions"])
def made(request, tmp_path, monkeypatch):
    """A run whose tiles are read by an encoder and made by a head."""
    tiles.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", tiles.plugins_path())
    own = f"plugins.tiles={{{request.param}}}"
    assert app.run(["fit", "tiles.yaml", "train.steps=2", own, "model.layers=1"]) == 0
    return mio.load("runs/tiles", "cpu", "fp32")


def test_what_networks_read_and_make_has_no_log_likelihood(made):
    tile = np.array([1, 2, 3, 4], np.uint8)
    parts = ["now a", {"type": "tile", "tile": tile}, "end"]
    found = made.score(parts)
    kinds = [part.type for part in found.parts]
    assert kinds == ["text", "tile", "text"]
    own, read = made.model.codecs.makers["tile"].head.writes, 2
    part = found.parts[1]
    assert part.end - part.first == own + read + 2  # between its brackets
    assert part.tokens == 2
    assert np.isnan(found.log_likelihoods[part.first + 1 : part.end - 1]).all()
    [loss] = part.losses
    assert loss > 0
    assert made.score(parts).parts[1].losses == part.losses
    assert made.score(parts, seed=1).parts[1].losses != part.losses
    shifted = made.score(["now a", {"type": "tile", "tile": tile[::-1].copy()}, "end"])
    before = slice(1, part.first + 1)
    np.testing.assert_array_equal(shifted.log_likelihoods[before], found.log_likelihoods[before])
    behind = slice(part.end - 1, None)
    assert (shifted.log_likelihoods[behind] != found.log_likelihoods[behind]).any()


def test_what_follows_a_made_item_is_scored_as_if_it_was_asked(made):
    """The head's own positions change nothing for what comes behind them."""
    tile = {"type": "tile", "tile": np.array([1, 2, 3, 4], np.uint8)}
    as_written = made.score([tile, "end"])
    as_read = made.score("end", prompt=[tile])
    assert not as_read.parts[0].losses  # in a prompt there is nothing to make
    np.testing.assert_allclose(as_read.log_likelihoods[-4:], as_written.log_likelihoods[-4:], atol=1e-5)
