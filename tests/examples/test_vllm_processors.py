"""The logits processors of `examples/vllm` under a runner that does what vLLM does, beside mio's grammar.

vLLM itself is run by `benchmarks/vllm_answers.py`.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "examples/vllm"), str(ROOT / "benchmarks"), str(Path(__file__).parent)]

from fake_vllm import FirstRunner, Request, SecondRunner, config, params, processor  # noqa: E402
from mio_vllm.grammar import GrammarError  # noqa: E402
from mio_vllm.masks import KEPT, Masks  # noqa: E402
from vllm_grammar import WORLDS, allowed_by_mio  # noqa: E402

from mio.core.exchange.grammar_file import grammar_content  # noqa: E402
from mio.core.generation.grammar import AnswerGrammar, need_of  # noqa: E402

WORLD = WORLDS["delayed"]
SIZE = WORLD.vocabulary.size
CONTEXT = 120


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """The grammar that the environment names."""
    path = tmp_path / "grammar.json"
    path.write_text(json.dumps(grammar_content(WORLD.vocabulary, WORLD.stop, CONTEXT)))
    monkeypatch.setenv("MIO_GRAMMAR", str(path))
    return path


class Both:
    """A request, and mio's grammar of its answer."""

    def __init__(self, draw):
        output = str(draw.choice(["", "tones", "scene", "text"]))
        most = int(draw.choice([0, 1])) if output == "scene" else int(draw.integers(0, 3))
        budget, prompt = int(draw.integers(40, 70)), draw.integers(0, SIZE, draw.integers(1, 40)).tolist()
        asked = params(max_tokens=budget, mio_output=output, mio_most=most)
        self.request = Request(asked, prompt)
        self.own = AnswerGrammar(WORLD.own, need_of(output, WORLD.declared, True, (), most), budget)

    def check(self, row):
        """Both allow the same; returns it."""
        ours = np.array([WORLD.stop]) if self.own.done else allowed_by_mio(WORLD, self.own)
        assert np.array_equal(ours, torch.isfinite(row).nonzero().flatten().numpy())
        return ours

    def advance(self, token):
        """Returns whether the answer is over."""
        if not self.own.done:
            self.own.advance(token)
        return token == WORLD.stop


def chosen(allowed, draw):
    kinds = WORLD.vocabulary.block_of[allowed]
    return int(draw.choice(allowed[kinds == draw.choice(np.unique(kinds))]))


@pytest.mark.parametrize("drafting", [False, True])
def test_the_second_interface_follows_through_chunks_preemption_and_drafts(monkeypatch, drafting):
    draw = np.random.default_rng(0)
    runner = SecondRunner(processor("v2", monkeypatch), SIZE, CONTEXT, draw)
    running, waiting, rows, again = [], [], 0, 0
    finished = 0
    while finished < 60:
        while runner.free:
            one = waiting.pop() if waiting else Both(draw)
            runner.add(one.request)
            running.append(one)
        drafts = {}
        if drafting:  # tokens that may be allowed or not, and are taken as far as they are what is sampled
            drafts = {number: draw.integers(0, SIZE, 3).tolist() for number in range(len(running))}
            for number, one in enumerate(running):
                likely = allowed_by_mio(WORLD, one.own)[0] if not one.own.done else WORLD.stop
                drafts[number][0] = int(likely) if draw.random() < 0.7 else drafts[number][0]
        asked = list(running)
        for number, logits in runner.step([one.request for one in running], drafts).items():
            one = asked[number]
            for place, row in enumerate(logits):
                rows += 1
                token = chosen(one.check(row), draw)
                drafted = drafts[number][place] if place < len(logits) - 1 else None
                if drafted is not None and torch.isfinite(row[drafted]) and draw.random() < 0.8:
                    token = drafted
                runner.commit(one.request, token)
                if place == 0:
                    one.request.computed = len(one.request.prompt) + len(one.request.output) - 1
                if one.advance(token):
                    running.remove(one)
                    runner.remove(one.request)
                    finished += 1
                    break
                if token != drafted:
                    break
            one.request.computed = len(one.request.prompt) + len(one.request.output) - 1
        if running and draw.random() < 0.05:
            one = running.pop(int(draw.integers(len(running))))
            runner.remove(one.request)
            waiting.append(one)
            again += 1
    assert rows > 500
    assert again > 5


def test_the_first_interface_follows_requests_that_come_go_and_move(monkeypatch):
    draw = np.random.default_rng(1)
    runner = FirstRunner(processor("v1", monkeypatch), SIZE, CONTEXT, draw)
    running, finished, rows, again = {}, 0, 0, 0
    paused = []
    while finished < 60:
        while len(runner.rows) < 5 and draw.random() < 0.7:
            one = paused.pop() if paused else Both(draw)
            running[id(one.request)] = one
            runner.rows.append(one.request)
        logits = runner.logits()
        for request, row in zip(list(runner.rows), logits, strict=True):
            one = running[id(request)]
            rows += 1
            token = chosen(one.check(row), draw)
            request.output.append(token)
            over = one.advance(token)
            if over or draw.random() < 0.02:
                runner.rows.remove(request)
                finished += over
                if not over:
                    paused.append(one)
                    again += 1
    assert rows > 500
    assert again > 5


def test_an_answer_that_the_context_has_no_room_for_is_left_empty(monkeypatch, caplog):
    """An error in a worker would end the server."""
    runner = FirstRunner(processor("v1", monkeypatch), SIZE, CONTEXT, np.random.default_rng(0))
    runner.rows.append(Request(params(mio_output="tones"), [1] * (CONTEXT - 3)))
    [row] = runner.logits()
    assert torch.isfinite(row).nonzero().flatten().tolist() == [WORLD.stop]
    assert "an answer is left empty: 3 tokens are too few" in caplog.text


def test_without_arguments_an_answer_may_be_anything(monkeypatch):
    runner = FirstRunner(processor("v1", monkeypatch), SIZE, CONTEXT, np.random.default_rng(0))
    runner.rows.append(Request(params(max_tokens=None), [1]))
    [row] = runner.logits()
    own = AnswerGrammar(WORLD.own, need_of("", WORLD.declared, False), CONTEXT - 1)
    assert np.array_equal(torch.isfinite(row).nonzero().flatten().numpy(), allowed_by_mio(WORLD, own))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"mio_output": "tone"}, "no modality `tone` in this model; an answer can be of scene, text, tones"),
        ({"mio_output": 3}, "is 3, not the name of a modality"),
        ({"mio_outptu": "tones"}, "no argument `mio_outptu`; did you mean `mio_output`?"),
        ({"mio_most": 1.5}, "`mio_most` is 1.5, not a whole number"),
        ({"mio_most": math.nan}, "`mio_most` is nan, not a whole number"),
        ({"mio_most": [2]}, r"`mio_most` is \[2\], not a whole number"),
        ({"mio_output": "scene", "mio_most": 2}, "is one item"),
        ({"mio_output": "scene", "max_tokens": 4}, "takes 6 tokens at least, and `max_tokens` is 4"),
        ({"max_tokens": 0, "mio_most": -1}, "not a whole number"),
        ({"mio_media_temperature": -1}, "not a temperature"),
        ({"mio_media_temperature": "hot"}, "not a temperature"),
        ({"mio_media_temperature": 0.7, "temperature": 0.0}, "is greedy whatever else is said"),
        ({"min_tokens": 3}, "`min_tokens` decides which token may come, and so does the grammar"),
        ({"ignore_eos": True}, "leave it out"),
    ],
)
def test_requests_that_no_answer_meets_are_refused_when_they_come(monkeypatch, version, asked, message):
    kind = processor(version, monkeypatch)
    with pytest.raises(ValueError, match=message):
        kind.validate_params(params(**asked))
    kind.validate_params(params(mio_output="tones", mio_most=2.0, mio_only=0))


def test_the_grammar_is_compared_with_the_model(monkeypatch):
    kind = processor("v1", monkeypatch)
    with pytest.raises(GrammarError, match="it belongs to another export"):
        kind(config(SIZE + 1, CONTEXT), None, False)
    monkeypatch.delenv("MIO_GRAMMAR")
    with pytest.raises(GrammarError, match="MIO_GRAMMAR is not set"):
        kind(config(SIZE, CONTEXT), None, False)


def test_temperatures_are_those_of_the_place(monkeypatch):
    """Greedy text and sampled media in one request: softmax of the logits over the place's temperature."""
    kind = processor("v1", monkeypatch)
    given = kind(config(SIZE, CONTEXT), None, False)
    asked = params(temperature=0.8, mio_output="tones", mio_temperature=0, mio_media_temperature=0.4)
    output: list[int] = []

    class Update:
        removed, moved, batch_size = (), (), 1
        added = ((0, asked, [1], output),)

    given.update_state(Update)
    logits = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0))
    text = given.apply(logits.clone())
    assert torch.isfinite(text).sum() == 1
    output.append(WORLD.vocabulary.begin("tones"))
    given.update_state(None)
    media = given.apply(logits.clone())
    open_ = torch.isfinite(media[0])
    assert open_.sum() == 4
    assert torch.allclose((media[0] / 0.8)[open_], (logits[0] / 0.4)[open_])


def test_masks_are_kept_in_a_bounded_table():
    masks = Masks(50)
    draw = np.random.default_rng(0)
    logits = torch.zeros(3, 60)
    for _ in range(3 * KEPT):
        allowed = [tuple((int(one), int(one) + 2) for one in draw.choice(range(0, 48, 4), 2, replace=False))
                   for _ in range(3)]  # fmt: skip
        forbidden = masks.forbidden([tuple(sorted(one)) for one in allowed], logits)
        expected = [sorted({*range(*one), *range(*two)}) for one, two in allowed]
        assert [(~row).nonzero().flatten().tolist() for row in forbidden] == expected
    assert len(masks._table) == KEPT
