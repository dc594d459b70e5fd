"""Answers with media that a head makes, beside a loop of whole forward passes without a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiles
import torch

from mio import Decoding, Media, PluginError, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.discovery import discover, local
from mio.core.contract.heads import Condition, Sampling
from mio.core.contract.plugins import PluginManager
from mio.core.data.document_mask import DocumentMask, Together
from mio.core.data.items import pack_items
from mio.core.data.made import Placed, seen_maps
from mio.core.distributed.ranks import Ranks
from mio.core.generation.answer import read_answer
from mio.core.generation.choosing import choose
from mio.core.generation.grammar import AnswerGrammar, Grammar, HeadSpan, Need, need_of
from mio.core.generation.growing import GrowingAnswer
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.generation.requests import MadeMedia, Request
from mio.core.generation.sampling import SEEDS
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import plain_document
from mio.core.tokens.rendered import Item, Rendered
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

DECODING = Decoding(temperature=1.0, max_tokens=40, steps=3, guidance=1.5)
NEED = Need("tile", 2, 3)


def made_model(context=200, **options):
    candidates = [*discover(), local(f"tiles={Path(tiles.__file__)}")]
    plugins = PluginManager(candidates).enable({"text": {"tokenizer": "bytes"}, "tiles": options})
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    config = TransformerConfig(width=32, layers=3, heads=2, kv_heads=1, init_std=0.3)
    transformer = Transformer(config, vocabulary.rows, codecs.networks).eval()
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(2.0)
    recipe = Recipe(name="made", data=DataConfig(form="plain", packing=PackingConfig(context=context)))
    renderer = Renderer(vocabulary, codecs, LossConfig())
    return Model(
        recipe, plugins, vocabulary, codecs, renderer, Path("runs/made"), lambda: (transformer, Replicas(Ranks()))
    )


@pytest.fixture(scope="module", params=["context", "own", "own, together"])
def model(request):
    return made_model(own="own" in request.param, together="together" in request.param)


def asked(model, *contents):
    """A prompt of text and of tiles, given as their digits."""
    values = [Media("tile", np.array([*map(int, one)], np.uint8), one) if one.isdigit() else one for one in contents]
    return model.renderer.prompt(plain_document(values, []))


def prompts(model):
    return [asked(model, *one) for one in (("ab", "1234", "c"), ("a",), ("0987", "b", "5555"), ("x" * 9, "1111"))]


def whole(model, tokens, items, own=None, dropped=False):
    """Hidden states `[L, D]` of one sequence, with a head's own positions `[n, D]` behind it, and its items' maps."""
    transformer, codecs = model.transformer, model.codecs
    size = len(tokens) + (0 if own is None else own.shape[1])
    document = Rendered(np.array(tokens), np.zeros(len(tokens)), np.zeros((0, 2)), tuple(items))
    packed = pack_items(((0, item) for item in items), codecs)
    if items:
        packed = {"tile": replace(packed["tile"], seen=seen_maps([Placed(0, 0, size, document)], "tile", 1))}
    together = [Together(0, item.first, item.end) for item in items if codecs.readers["tile"].together]
    if own is not None:
        together.append(Together(0, len(tokens), size, private=True, dropped=dropped))
    ids = torch.tensor([[*map(int, tokens)] + [0] * (size - len(tokens))])
    x = transformer.embed(ids)
    if own is not None:
        x[:, len(tokens) :] = own
    mask = DocumentMask.from_lengths([[size]], size, (), together)
    hidden = transformer(ids, torch.arange(size)[None], mask, embeddings=x, items=packed).hidden[0]
    maps = transformer.encoders["tile"](packed["tile"].input)[1] if items else torch.zeros(0, tiles.SIZE, 3)
    return hidden, maps


@torch.inference_mode()
def naive(model, prompt, seed, need=NEED, budget=40):
    """One answer, every pass over the whole sequence."""
    codecs, head = model.codecs, model.codecs.makers["tile"].head
    answer = GrowingAnswer(model.grammar, need, budget, seed, DECODING)
    tokens, items = prompt.tokens.tolist(), list(prompt.items)
    while True:
        hidden, maps = whole(model, tokens, items)
        if answer.grammar.opened:
            newest = maps.flip(0)[None, : head.maps["tile"]]
            states = hidden.flip(0)[None, : head.context]
            condition = Condition(
                states, torch.ones(states.shape[:2], dtype=torch.bool), hidden[:0],
                {"tile": (newest, torch.ones(newest.shape[:2], dtype=torch.bool))},
            )  # fmt: skip

            def run(embeddings, dropped, tokens=tuple(tokens), items=tuple(items)):
                return whole(model, tokens, items, embeddings, dropped)[0][None, len(tokens) :]

            sampling = Sampling([int(answer.random.integers(SEEDS))], 3, 1.5)
            [found] = model.transformer.heads["tile"].sample(condition, sampling, run)
            media = Media("tile", found, f"naive/{seed}/{len(tokens)}")
            item = Item("tile", len(tokens), codecs.positions(media), media)
            padding = [model.vocabulary.specials.pad] * item.positions
            answer.take(media, padding)
            tokens, items = [*tokens, *padding], [*items, item]
            continue
        [token] = choose(model.transformer, [answer], hidden[-1:])
        answer.advance(token)
        if answer.done:
            return answer.given
        tokens.append(token)


def may_come(grammar, answer):
    """bool `[V]`."""
    mask = np.zeros(grammar.vocabulary.rows, bool)
    mask[grammar.allowed(answer.state())] = True
    return mask


def plain(given):
    """Tokens and media, comparable."""
    return given.tokens, [media.data.tolist() for media in given.made]


def test_answers_are_those_of_whole_passes(model):
    given = model.answers(prompts(model), DECODING, NEED, range(4))
    assert [plain(one) for one in given] == [plain(naive(model, one, n)) for n, one in enumerate(prompts(model))]
    assert all(2 <= len(one.made) <= 3 for one in given)
    pictures = [tuple(media.data) for one in given for media in one.made]
    assert len(set(pictures)) > len(pictures) // 2, "they are not all one"


def test_what_is_made_follows_from_the_seed_alone(model):
    every = prompts(model)
    together = [plain(one) for one in model.answers(every, DECODING, NEED, range(4))]
    assert [plain(model.answers([one], DECODING, NEED, [n])[0]) for n, one in enumerate(every)] == together
    turned = model.answers(every[::-1], DECODING, NEED, [3, 2, 1, 0])
    assert [plain(one) for one in turned][::-1] == together
    first, other, again = model.answers(every[:1] * 3, DECODING, NEED, [0, 1, 0])
    assert plain(first) == plain(again) == together[0]
    assert plain(other) != together[0]


@torch.inference_mode()
def test_prompts_and_single_tokens_see_the_maps_of_whole_passes(model):
    """Hidden states of a ragged batch, of a prompt and then one token at a time, and of one sequence of it."""
    transformer, every = model.transformer, prompts(model)
    tail = [5, 6, 7, 8, 9]
    expected = [whole(model, [*one.tokens, *tail], one.items)[0][-len(tail) - 1 :] for one in every]
    blind = [whole(model, [*one.tokens, *tail], [])[0][-1] for one in every]
    assert not torch.allclose(blind[0], expected[0][-1], atol=1e-2)
    lengths = torch.tensor([len(one.tokens) for one in every])
    longest = int(lengths.max())
    tokens = torch.zeros(len(every), longest, dtype=torch.int64)
    for row, one in enumerate(every):
        tokens[row, : len(one.tokens)] = torch.from_numpy(one.tokens)
    items = pack_items(((row * longest, item) for row, one in enumerate(every) for item in one.items), model.codecs)
    cache = transformer.cache(len(every), longest + len(tail))
    hidden = transformer(tokens, cache.positions(longest), cache=cache, items=items).hidden
    cache.advance(lengths)
    found = [hidden[torch.arange(len(every)), lengths - 1]]
    cache.begin_with(1, 0, int(lengths[0]))  # another prompt's past, read once
    expected[1] = expected[0]
    for place, token in enumerate(tail):
        if place == 2:
            one = cache.sequence(3)
            single = transformer(torch.tensor([[token]]), one.positions(1), cache=one).hidden[0, 0]
            assert torch.allclose(single, expected[3][place + 1], atol=1e-5)
        found.append(transformer(torch.full((len(every), 1), token), cache.positions(1), cache=cache).hidden[:, 0])
        cache.advance(1)
    for row, due in enumerate(expected):
        for place, states in enumerate(found):
            if (row, place) != (1, 0):
                assert torch.allclose(states[row], due[place], atol=1e-5), (row, place)


def test_an_answer_reads_as_text_and_media_in_order(model):
    [given] = model.answers(prompts(model)[:1], DECODING, NEED, [0])
    answer = read_answer(given, model.vocabulary, model.codecs)
    assert [part.tolist() for part in answer.media("tile")] == plain(given)[1]
    begin = model.vocabulary.begin("tile")
    kinds = [name for name, _ in answer.parts]
    assert kinds.count("tile") == given.tokens.count(begin)
    positions = [place for place, token in enumerate(given.tokens) if token == begin]
    for place in positions:
        pad, end = model.vocabulary.specials.pad, model.vocabulary.end("tile")
        assert given.tokens[place + 1 : place + 4] == [pad, pad, end]
    assert (kinds[0] == "tile") == (positions[0] == 0)


@pytest.mark.parametrize("budget", [9, 10, 11, 14, 15, 25])
@pytest.mark.parametrize("own", [0, 1, 4, 7])
def test_no_span_opens_that_does_not_fit(budget, own):
    """Random walks: what is needed is there in the end, and nothing takes more room than there is."""
    made = made_model()
    heads = {"tile": HeadSpan(own, 2)}
    grammar = Grammar(made.vocabulary, made.codecs.modalities, made.vocabulary.specials.eos, heads=heads)
    least = max(9, 4 + 2 + own)  # two spans and the stop token; or one and a second while it is made
    need = Need("tile", 2, 0)
    if budget < least:
        with pytest.raises(UserError, match=f"2 span.s. of `tile` take {least}"):
            AnswerGrammar(grammar, need, budget)
        return
    begin = made.vocabulary.begin("tile")
    for seed in range(30):
        random = np.random.default_rng(seed)
        answer, used, spans = AnswerGrammar(grammar, need, budget), 0, 0
        while not answer.done:
            ids = np.flatnonzero(may_come(grammar, answer))
            token = begin if begin in ids and random.random() < 0.3 else int(random.choice(ids))
            answer.advance(token)
            used += 1
            if answer.opened:
                assert used + own <= budget - 1
                spans += 1
                count = int(random.integers(1, 3))  # an encoder may read fewer
                answer.made(count)
                used += count
        assert used <= budget
        assert spans >= 2


def test_as_many_media_as_are_asked_for():
    made = made_model()
    assert made.need("tile", True, Decoding()) == Need("tile", 1, 1, True)
    assert made.need("tile", True, Decoding(most=3)) == Need("tile", 1, 3, True, others=3)
    assert made.need("", True, Decoding(most=2)) == Need(others=2)
    with pytest.raises(UserError, match="`tile` is only read"):
        need_of("tile", made.codecs.modalities, only=True)
    begin, grammar = made.vocabulary.begin("tile"), made.grammar
    answer = AnswerGrammar(grammar, Need(others=2), 40)
    for _ in range(2):
        assert may_come(grammar, answer)[begin]
        answer.advance(begin)
        answer.made(2)
        answer.advance(made.vocabulary.end("tile"))
    assert not may_come(grammar, answer)[begin]
    for most, least in ((1, 1), (3, 1)):
        given = made.answers(prompts(made), DECODING, made.need("tile", True, Decoding(most=most)), range(4))
        assert all(least <= len(one.made) <= most for one in given)


def test_heads_are_told_how_to_sample_and_named_where_they_give_something_else(monkeypatch):
    made = made_model()
    network = made.transformer.heads["tile"]
    told = []
    plain = network.sample
    monkeypatch.setattr(network, "sample", lambda *given: told.append(given) or plain(*given))
    made.answers(prompts(made), replace(DECODING, steps=2, guidance=0), NEED, range(4))
    assert {(sampling.steps, sampling.guidance, run) for _, sampling, run in told} == {(2, 0, None)}
    assert any(len(sampling.seeds) > 1 for _, sampling, _ in told), "what opens in one step is made together"
    monkeypatch.setattr(network, "sample", lambda *_: [])
    with pytest.raises(PluginError, match="the head of `tile`: its `sample` gave 0 items, where 1 items were asked"):
        made.answers(prompts(made)[:1], DECODING, NEED, [0])


def test_a_prompt_begins_with_what_heads_have_made_on_a_row(model):
    """A second turn behind the first answer gives what it gives alone, and computes nothing of the first again."""
    engine = model.engine(2)

    def run(prompt, seed):
        media = []

        def tell(_, event):
            media.extend([event.media] if isinstance(event, MadeMedia) else [])

        ticket = engine.submit(Request(prompt, DECODING, NEED, seed, 40), tell)
        engine.run()
        return ticket.answer, media

    first = prompts(model)[0]
    answer, media = run(first, 0)
    assert plain(answer) == plain(model.answers([first], DECODING, NEED, [0])[0])
    assert [one.data.tolist() for one in media] == plain(answer)[1]
    begin, items, number = model.vocabulary.begin("tile"), list(first.items), 0
    for place, token in enumerate(answer.tokens):
        if token == begin:
            items.append(Item("tile", len(first.tokens) + place + 1, 2, answer.made[number]))
            number += 1
    longer = first._replace(tokens=np.array([*first.tokens, *answer.tokens, 65, 66]), items=tuple(items))
    reused = engine.rows.reused_tokens
    second, _ = run(longer, 1)
    assert engine.rows.reused_tokens - reused == len(first.tokens) + len(answer.tokens)
    assert plain(second) == plain(naive(model, longer, 1))
