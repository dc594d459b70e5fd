"""Two sequences in one batch against each of them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted_model import World

from mio import DataError, Decoding, Media, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.generation.engine import generate_tokens
from mio.core.generation.grammar import Need
from mio.core.generation.growing import GrowingAnswer
from mio.core.live.duplex import Duplex
from mio.core.model.transformer import Transformer
from mio.core.tokens.documents import plain_document
from mio.core.tokens.rendered import Prompt

NEED = Need("melody", 1, 2)
DECODING = Decoding(temperature=1.3, media_temperature=1.3, top_p=0.95, max_tokens=30)


@pytest.fixture(scope="module")
def model():
    made = World({}).model()
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6)
    transformer = Transformer(config, made.vocabulary.rows).eval()
    return replace(made, copy=lambda: (transformer, made.replicas))


def engine(model):
    return Duplex(model.transformer, model.grammar, model.codecs, DECODING, 128)


def prompt(ids):
    return Prompt(np.array([257, *ids], np.int32), ())


def alone(model, asked, seed):
    [made] = generate_tokens(model.transformer, model.grammar, [asked], DECODING, NEED, [seed])
    return made.tokens


def run(duplex, answers, steps=1000):
    """Advances answers by their rows until they are done, or for some steps."""
    for _ in range(steps):
        answers = {row: answer for row, answer in answers.items() if not answer.done}
        if not answers:
            return
        chosen = duplex.choose(list(answers))
        for row, token in chosen.items():
            answers[row].advance(token)
            if answers[row].done:
                duplex.release(row)
        if left := {row: token for row, token in chosen.items() if not answers[row].done}:
            duplex.feed(left)


@pytest.mark.parametrize("before", [0, 1, 7, 29])
def test_each_sequence_gives_what_it_gives_alone(model, before):
    """The second begins `before` steps after the first, and a third on the row of whichever is over first."""
    duplex, prompts = engine(model), [prompt(range(40, 60)), prompt(range(70, 75)), prompt(range(30, 90))]
    answers = [GrowingAnswer(model.grammar, NEED, 30, seed, DECODING) for seed in (1, 2, 3)]
    rows = [duplex.read(prompts[0], answers[0])]
    run(duplex, {rows[0]: answers[0]}, before)
    rows.append(duplex.read(prompts[1], answers[1]))
    while duplex.free == []:
        run(duplex, dict(zip(rows, answers, strict=False)), 1)
    going = {row: answer for row, answer in zip(rows, answers, strict=False) if row not in duplex.free}
    row = duplex.read(prompts[2], answers[2])
    run(duplex, {**going, row: answers[2]})
    expected = [alone(model, asked, seed) for asked, seed in zip(prompts, (1, 2, 3), strict=True)]
    assert [answer.tokens for answer in answers] == expected


def test_what_a_row_holds_is_not_computed_again(model):
    duplex, first = engine(model), prompt(range(40, 60))
    answer = GrowingAnswer(model.grammar, NEED, 30, 1, DECODING)
    row = duplex.read(first, answer)
    run(duplex, {row: answer})
    assert (duplex.read_tokens, duplex.reused_tokens) == (21, 0)
    longer = prompt([*range(40, 60), *answer.tokens, 90, 91])
    second = GrowingAnswer(model.grammar, NEED, 30, 2, DECODING)
    assert duplex.read(longer, second) == row, "the row that holds it is free"
    assert (duplex.read_tokens, duplex.reused_tokens) == (21 + 2, 21 + len(answer.tokens))
    third = GrowingAnswer(model.grammar, NEED, 30, 3, DECODING)
    other = duplex.read(longer, third)
    assert other != row
    assert duplex.read_tokens == 21 + 2 + 1, "copied from the other row; the last token gives the first of the answer"
    run(duplex, {row: second, other: third})
    assert [second.tokens, third.tokens] == [alone(model, longer, 2), alone(model, longer, 3)]


def test_media_that_an_encoder_reads_are_part_of_what_a_row_holds():
    plugins = {"text": {"tokenizer": "bytes"}, "melody": {}, "parley": {"encoder": True}}
    made = World({}, plugins=plugins).model()
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6)
    transformer = Transformer(config, made.vocabulary.rows, made.codecs.networks).eval()
    read = replace(made, copy=lambda: (transformer, made.replicas))
    duplex = engine(read)

    def asked(*contents):
        values = [Media("melody", one, f"notes/{one}") if isinstance(one, tuple) else one for one in contents]
        return read.renderer.prompt(plain_document(values, []))

    def alone(prompt, seed):
        return read.answers([prompt], DECODING, NEED, [seed], beyond_context=True)[0].tokens

    first, second, third = asked("a", (1, 2, 3), "b"), asked("a", (1, 2, 3), "bc"), asked("a", (1, 2, 4), "bc")
    answers = [GrowingAnswer(read.grammar, NEED, 30, seed, DECODING) for seed in (1, 2, 3)]
    run(duplex, {duplex.read(first, answers[0]): answers[0]})
    assert [len(item.media.data) for item in first.items] == [3]
    rows = [duplex.read(second, answers[1])]
    assert duplex.reused_tokens == len(first.tokens)
    rows.append(duplex.read(third, answers[2]))
    assert duplex.reused_tokens == len(first.tokens) + third.items[0].first, "another item at the same place"
    run(duplex, dict(zip(rows, answers[1:], strict=True)))
    assert [answer.tokens for answer in answers] == [alone(first, 1), alone(second, 2), alone(third, 3)]
    assert alone(second, 3) != alone(third, 3), "the network tells them apart"

    with pytest.raises(DataError, match="nobody can read a 7"):
        duplex.read(asked("a", (1, 7), "bc"), GrowingAnswer(read.grammar, NEED, 30, 4, DECODING))
    again = GrowingAnswer(read.grammar, NEED, 30, 1, DECODING)
    run(duplex, {duplex.read(first, again): again})
    assert again.tokens == answers[0].tokens, "what cannot be read changes nothing"


def test_a_cache_that_does_not_fit_is_one_line(model):
    with pytest.raises(UserError, match="keys and values of 2 sequences of 1000000000000 positions do not fit"):
        Duplex(model.transformer, model.grammar, model.codecs, DECODING, 10**12)
