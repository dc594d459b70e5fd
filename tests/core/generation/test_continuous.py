"""Answers that come and go in one engine against each of them alone."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_engine import GRAMMAR, MODALITIES, VOCABULARY, generated

from mio import DataError, Decoding
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation import requests
from mio.core.generation.engine import Engine
from mio.core.generation.grammar import need_of
from mio.core.generation.requests import Finished, Request, Token
from mio.core.model.transformer import Transformer
from mio.core.tokens.rendered import Prompt


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6), VOCABULARY.rows).eval()


KINDS = [
    Decoding(temperature=1.3, media_temperature=1.3, top_p=0.9, max_tokens=30),
    Decoding(temperature=0.0, media_temperature=0.0, max_tokens=20),
    Decoding(temperature=1.0, media_temperature=0.5, guidance=3.0, max_tokens=40),
    Decoding(temperature=1.5, media_temperature=1.0, top_k=30, min_p=0.01, repetition_penalty=1.3, max_tokens=35),
    Decoding(max_tokens=30, by={"tones": {"temperature": 1.2, "top_p": 0.8}, "text": {"repetition_penalty": 2.0}}),
]


def asked(number):
    """A request that is different in everything."""
    chance = random.Random(number)
    decoding, output = KINDS[number % 5], ("", "tones", "reel", "text")[number % 4]
    common = [1, 120, 121, 122] if number % 2 else [1]
    tokens = [*common, *(chance.randrange(100, 300) for _ in range(chance.randrange(20)))]
    need = need_of(output, MODALITIES, only=True)
    return Request(Prompt(np.array(tokens, np.int32)), decoding, need, number, decoding.max_tokens)


def alone(transformer, request):
    given = [request.prompt.tokens], request.decoding, request.need, [request.seed]
    return generated(transformer, GRAMMAR, *given)[0]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_answers_that_come_at_any_time_are_those_of_each_alone(transformer, rows):
    engine, wanted, tickets = Engine(transformer, GRAMMAR, rows, 80), list(map(asked, range(24))), []
    chance = random.Random(rows)
    while len(tickets) < len(wanted) or engine.busy:
        for request in wanted[len(tickets) :][: chance.randrange(4)]:
            tickets.append(engine.submit(request))
        engine.step()
        assert len(engine.running) <= rows
    assert [ticket.answer.tokens for ticket in tickets] == [alone(transformer, request) for request in wanted]
    assert {ticket.finished.reason for ticket in tickets} == {requests.STOP, requests.LENGTH}


def test_what_is_told_is_the_answer_as_it_grows(transformer):
    engine, told = Engine(transformer, GRAMMAR, 2, 80), []
    tickets = [engine.submit(asked(n), lambda ticket, event: told.append((ticket, event))) for n in range(4)]
    engine.run()
    for ticket in tickets:
        events = [event for one, event in told if one is ticket]
        assert isinstance(events[-1], Finished)
        ids = [event.id for event in events if isinstance(event, Token)]
        assert ids == [*ticket.answer.tokens, GRAMMAR.stop]


def test_an_answer_that_is_called_off_or_paused_changes_no_other(transformer):
    wanted = list(map(asked, range(6)))
    engine = Engine(transformer, GRAMMAR, 3, 80)
    tickets = [engine.submit(request) for request in wanted]
    engine.step()
    engine.cancel(tickets[1])
    engine.cancel(tickets[5])
    tickets[2].paused = True
    for _ in range(5):
        engine.step()
    assert tickets[1].finished == tickets[5].finished == Finished(requests.CANCELLED)
    assert len(tickets[2].answer.tokens) == 1
    tickets[2].paused = False
    engine.run()
    for number in (0, 2, 3, 4):
        assert tickets[number].answer.tokens == alone(transformer, wanted[number])


def test_an_answer_that_is_paused_as_it_is_told_its_token_goes_on_behind_it(transformer):
    engine = Engine(transformer, GRAMMAR, 2, 80)

    def pause(ticket, event):
        ticket.paused = isinstance(event, Token) and len(ticket.answer.tokens) == 3

    tickets = [engine.submit(asked(0), pause), engine.submit(asked(1))]
    engine.run()
    assert (len(tickets[0].answer.tokens), tickets[0].finished) == (3, None)
    tickets[0].paused = False
    engine.run()
    assert [one.answer.tokens for one in tickets] == [alone(transformer, asked(n)) for n in range(2)]


def test_an_answer_may_call_off_one_that_is_told_after_it(transformer):
    """Before the other's token is computed or told."""
    engine = Engine(transformer, GRAMMAR, 2, 80)
    later = engine.submit(asked(0), order=1)
    engine.step()
    tokens = len(later.answer.tokens)
    engine.submit(asked(1), lambda *_: engine.cancel(later))
    engine.step()
    assert len(later.answer.tokens) == tokens + 1, "told in the same step"
    assert later.finished == Finished(requests.CANCELLED)
    held = [one.tokens for one in engine.rows.held]
    assert [*later.request.prompt.tokens, *later.answer.tokens[:-1]] in held, "its last token was not computed"


def test_a_request_may_be_called_off_in_the_step_that_it_comes_in(transformer):
    engine, late, told = Engine(transformer, GRAMMAR, 2, 80), [], []

    def leave_at_once(*_):
        if not late:
            late.append(engine.submit(asked(4), lambda *_: told.append(_)))
            engine.cancel(late[0])

    first = engine.submit(asked(0), leave_at_once)
    for _ in range(100):
        engine.step()
    assert (engine.busy, engine.running, engine.waiting) == (False, [], 0)
    assert late[0].finished == Finished(requests.CANCELLED)
    assert told == [(late[0], late[0].finished)]
    assert first.answer.tokens == alone(transformer, asked(0))


def test_a_prompt_begins_with_what_a_row_holds(transformer):
    engine, first = Engine(transformer, GRAMMAR, 3, 200), asked(5)
    ticket = engine.submit(first)
    engine.run()
    said = np.array([*first.prompt.tokens, *ticket.answer.tokens, 130, 131], np.int32)
    further = replace(first, prompt=Prompt(said), seed=9)
    read = engine.rows.read_tokens
    tickets = [engine.submit(replace(further, seed=seed)) for seed in (9, 10)]
    engine.run()
    assert engine.rows.read_tokens - read < 2 * 5, "what was answered is not computed again, for neither of two"
    assert [one.answer.tokens for one in tickets] == [
        alone(transformer, replace(further, seed=seed)) for seed in (9, 10)
    ]


def test_prompts_are_read_together_only_where_what_rows_hold_leaves_room_for_the_longest(transformer):
    engine, first = Engine(transformer, GRAMMAR, 3, 80), replace(asked(1), budget=8)
    long = replace(first, prompt=Prompt(np.arange(100, 170, dtype=np.int32)))
    engine.submit(long)
    engine.run()
    wanted = [replace(long, seed=2), replace(long, prompt=Prompt(np.arange(200, 260, dtype=np.int32)))]
    tickets = [engine.submit(request) for request in wanted]
    engine.run()
    assert [one.answer.tokens for one in tickets] == [
        alone(transformer, replace(one, decoding=replace(one.decoding, max_tokens=8))) for one in wanted
    ]


def test_another_rank_follows_what_one_is_asked(transformer):
    sent = []

    class Line:
        def send(self, message):
            sent.append(json.dumps(message))

    engine = Engine(transformer, GRAMMAR, 2, 80, followers=Line())
    other, answers = Engine(transformer, GRAMMAR, 2, 80), []
    tickets = [engine.submit(asked(n)) for n in range(5)]
    for step in range(1000):
        if not engine.busy:
            break
        if step == 4:
            engine.cancel(tickets[0])
        engine.step()
    submit = other.submit
    other.submit = lambda request: answers.append(submit(request))
    for message in sent:
        other.follow(json.loads(message))
    assert [one.answer for one in answers] == [one.answer for one in tickets]
    assert [one.finished for one in answers] == [one.finished for one in tickets]
    assert torch.equal(engine.rows.cache.keys, other.rows.cache.keys)


def test_scores_that_are_not_finite_end_that_answer_alone(transformer):
    engine, wanted = Engine(transformer, GRAMMAR, 2, 80), list(map(asked, range(3)))
    tickets = [engine.submit(request) for request in wanted]
    engine.step()
    row = engine._tickets.index(tickets[0])
    with torch.inference_mode():
        engine.rows.hidden[row] = engine.rows.cache.values[:, row, :, 20:] = torch.nan
    engine.run()
    assert tickets[0].finished.reason == requests.FAILED
    assert "not finite" in str(tickets[0].finished.error)
    assert [one.answer.tokens for one in tickets[1:]] == [alone(transformer, one) for one in wanted[1:]]


def test_what_does_not_fit_is_refused(transformer):
    engine = Engine(transformer, GRAMMAR, 2, 30)
    with pytest.raises(DataError, match=r"the prompt has \d+ tokens and its answer up to 35; .* 30 positions"):
        engine.submit(asked(3))
