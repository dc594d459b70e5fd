"""Conversations on an engine that answers others as well, beside each of them alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from chimes import Chimes
from parley import ASIDE, TYPED
from scripted_model import World, shown
from test_session import ANSWERS

import mio
from mio import Decoding, Media
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.streams import joined
from mio.core.generation.requests import Request
from mio.core.generation.sampling import item_seed
from mio.core.live.clock import SimulatedClock
from mio.core.live.events import SessionEvent
from mio.core.model.transformer import Transformer
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import plain_document


def trained(**parley):
    """A model with random weights."""
    plugins = {"text": {"tokenizer": "bytes"}, "melody": {}, "parley": parley}
    made = World({}, plugins=plugins).model()
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.6)
    transformer = Transformer(config, made.vocabulary.rows, made.codecs.networks).eval()
    return replace(made, copy=lambda: (transformer, made.replicas))


def together(engine, sessions):
    """Events of each, while the engine is stepped for all of them."""
    happened = [[] for _ in sessions]
    while any(one.unfinished for one in sessions) or engine.busy:
        for own, one in zip(happened, sessions, strict=True):
            own.extend(one.attend())
            if not one.busy and one.next is not None:
                one.clock.go_to(one.next)
        if engine.busy:
            engine.step()
    for own, one in zip(happened, sessions, strict=True):
        own.extend(one.attend())
    return happened


def talk(one, number):
    """What happens in conversation `number`: each is another one."""
    chance = random.Random(number)
    for _ in range(4):
        moment = chance.uniform(0, 4)
        asked = chance.choice(["hello", "wait", "sing", (0, 1), (2, 3), (7, 7)])
        one.say(asked if isinstance(asked, str) else one.media("melody", asked), time=moment)
    return one


def test_conversations_on_one_engine_are_those_of_each_alone():
    model = World(ANSWERS).model()
    alone = [talk(mio.Session(model, clock=SimulatedClock(0.1)), number).finish() for number in range(8)]
    engine = model.engine(2 * 8 + 1)
    beside = chat_document([{"role": "user", "content": "hello"}, {"role": "assistant", "content": []}], {}, "")
    for _ in range(5):
        engine.submit(Request(model.renderer.prompt(beside), Decoding(), model.need("", True, Decoding()), 0, 40))
    sessions = [talk(mio.Session(model, clock=SimulatedClock(0.1), engine=engine), n) for n in range(8)]
    assert together(engine, sessions) == alone
    assert any(event.kind == "interrupted" for events in alone for event in events)


def test_conversations_that_wait_for_rows_are_answered_all_the_same():
    model = World(ANSWERS).model()
    engine = model.engine(3)
    sessions = [mio.Session(model, clock=SimulatedClock(0.1), engine=engine) for _ in range(5)]
    for one in sessions:
        one.say("wait")
        one.say("hello")
        one.say("wait")
    whole = {0: "later", 1: "you too", 2: "later"}
    for events in together(engine, sessions):
        ends = {event.query: event.kind for event in events if event.kind in ("interrupted", "done")}
        assert ends in ({0: "done", 1: "done", 2: "done"}, {0: "interrupted", 1: "done", 2: "done"})
        texts = {query: "".join(one.text for one in events if one.query == query) for query in whole}
        assert all(texts[query] == whole[query] for query, end in ends.items() if end == "done")


def test_what_is_sampled_is_the_same_beside_others():
    model = trained()
    options = {"answers": "all", "decoding": Decoding(temperature=1.2, media_temperature=1.2, max_tokens=40)}

    def session(number, engine=None):
        one = mio.Session(model, options=options, clock=SimulatedClock(0.1), engine=engine, seed=number)
        one.say(f"tell me {number}", time=number / 7)
        one.say("go on", time=3.0 + number)
        return one

    engine = model.engine(6)
    assert together(engine, [session(n, engine) for n in range(4)]) == [session(n).finish() for n in range(4)]


def test_spans_of_an_answer_are_guided_as_everywhere():
    model = trained()
    given = {}
    for guidance in (1.0, 4.0):
        decoding = Decoding(temperature=0.0, media_temperature=1.0, guidance=guidance, max_tokens=30)
        one = mio.Session(model, options={"answers": "all", "output": "melody", "decoding": decoding, "history": 0})
        need = model.need("melody", only=True, decoding=decoding)
        codes = model.vocabulary.code_ids("melody", 0)
        for number in range(6):
            one.say(f"song {number}")
            [event] = [event for event in one.finish() if event.kind == "media"]
            asked = [{"role": "user", "content": f"song {number}"}, {"role": "assistant", "content": []}]
            prompt = model.renderer.prompt(chat_document(asked, {}, "melody"))
            [answer] = model.answers([prompt], decoding, need, [item_seed(0, "session", number)])
            assert list(event.content) == [token - codes.start for token in answer.tokens if token in codes]
            given.setdefault(guidance, []).append(event.content)
    assert given[1.0] != given[4.0]


def test_media_come_in_pieces_and_then_whole():
    codes = np.array([[1, 4, 0, 2, 3], [3, 2, 1, 0, 1], [0, 1, 2, 1, 0]])
    plugins = {"text": {"tokenizer": "bytes"}, "melody": {}, "parley": {}, "chimes": {"layout": "frame_major"}}
    model = World({"ring": [TYPED, "so:", codes, "done"]}, plugins=plugins).model()
    one = mio.Session(model, options={"seconds_per_note": 0.1}, clock=SimulatedClock(0.1))
    one.say("ring")
    events = one.finish()
    assert [event.kind for event in events] == [
        "control", *["text"] * 3, *["chunk"] * 5, "media", *["text"] * 4, "done"
    ]  # fmt: skip
    *pieces, whole = [event for event in events if event.modality]
    first = 3 + 3 + 1
    assert [event.step for event in pieces] == [first + 6, first + 9, first + 12, first + 15, first + 16], (
        "a frame of three codes each, given one frame behind"
    )
    assert np.array_equal(joined([event.content for event in pieces])[0], Chimes().decode(codes)[0])
    assert np.array_equal(whole.content[0], Chimes().decode(codes)[0])
    assert one.clock.now() == pytest.approx(events[-1].time), "what is counted as it comes is not counted again"
    stopped = mio.Session(model, clock=SimulatedClock(0.1))
    stopped.say("ring")
    stopped.say("ring", time=1.45)
    events = stopped.finish()
    assert [event.query for event in events if event.kind == "media"] == [1]
    assert {event.query for event in events if event.kind == "chunk"} == {0, 1}


def test_media_made_by_a_worker_come_in_the_same_order():
    codes = np.array([[1, 4, 0, 2, 3], [3, 2, 1, 0, 1], [0, 1, 2, 1, 0]])
    plugins = {"text": {"tokenizer": "bytes"}, "melody": {}, "parley": {}, "chimes": {"layout": "frame_major"}}
    script = {"ring": [TYPED, "so, so:", codes, "done? no."], "wait": f"{ASIDE}later", "hello": f"{TYPED}you"}
    model = World(script, plugins=plugins).model()
    options = {"speaks": "melody", "seconds_per_note": 0.1}

    def happened(workers, **asked):
        one = mio.Session(model, options=options, clock=SimulatedClock(0.1), workers=workers)
        for text, moment in asked.items():
            one.say(text, time=moment)
        return one.finish()

    with ThreadPoolExecutor(1) as workers:
        for asked in ({"ring": 0.0}, {"ring": 0.0, "wait": 0.5}):
            apart, here = happened(workers, **asked), happened(None, **asked)
            for query in range(len(asked)):
                own = [[one for one in events if one.query == query] for events in (apart, here)]
                order = [[(one.kind, str(one.content or one.text or one.reason)) for one in events] for events in own]
                assert order[0] == order[1]
            kinds = [event.kind for event in apart if event.query == 0]
            assert {"chunk", "media", "ignored"} <= set(kinds)
            assert kinds[-1] == "done"
        stopped = happened(workers, ring=0.0, hello=1.5)
        kinds = [(event.kind, event.query) for event in stopped]
        assert not [kind for kind, query in kinds[kinds.index(("interrupted", 0)) + 1 :] if query == 0]
        assert kinds[-1] == ("done", 1)


def test_media_that_an_encoder_reads_are_part_of_what_a_row_holds():
    model = trained(encoder=True)
    decoding, need = Decoding(temperature=1.3, max_tokens=20), model.need("", True, Decoding())
    engine = model.engine(2)

    def asked(notes, end, seed):
        values = ["a", Media("melody", notes, f"notes/{notes}"), end]
        return Request(model.renderer.prompt(plain_document(values, [])), decoding, need, seed, 20)

    def alone(request):
        return model.answers([request.prompt], decoding, need, [request.seed])[0].tokens

    first, second, third = asked((1, 2, 3), "b", 1), asked((1, 2, 3), "bc", 2), asked((1, 2, 4), "bc", 2)
    tickets = [engine.submit(first)]
    engine.run()
    tickets.append(engine.submit(second))
    engine.run()
    assert engine.rows.reused_tokens == len(first.prompt.tokens)
    tickets.append(engine.submit(third))
    engine.run()
    same = third.prompt.items[0].first
    assert engine.rows.reused_tokens == len(first.prompt.tokens) + same, "another item at the same place"
    assert [one.answer.tokens for one in tickets] == [alone(one) for one in (first, second, third)]
    assert alone(second) != alone(third), "the network tells them apart"
    with pytest.raises(mio.DataError, match="nobody can read a 7"):
        engine.submit(asked((1, 7), "bc", 4))


def test_an_answer_that_is_called_off_ends_and_the_next_one_comes():
    one = mio.Session(World(ANSWERS).model(), clock=SimulatedClock(0.1))
    first = one.ask(["hello"])
    second = one.ask(["wait"])
    third = one.ask(["hello"])
    events = one.step()
    while one.given is None:
        events += one.step()
    assert one.given is first
    events += one.step()
    one.cancel(first)
    one.cancel(third)
    one.cancel(first)
    assert one.given is None
    assert shown([*events, *one.finish()]) == [
        ("control", 0, "state3"), ("text", 0, "y"), ("interrupted", 0, -1), ("interrupted", 2, -1),
        ("control", 1, "state4"), ("text", 1, "later"), ("done", 1),
    ]  # fmt: skip
    assert second.ticket.finished.reason == "stop"


def test_an_answer_that_is_played_can_be_called_off():
    one = mio.Session(World({"sing": ["<3>", (1, 2, 3)]}).model(), options={"seconds_per_note": 1.0})
    exchange = one.ask(["sing"])
    events = []
    while not any(event.kind == "done" for event in events):
        events += one.step()
    assert one.next == pytest.approx(3.0, abs=0.3)
    assert one.given is exchange
    one.cancel(exchange)
    assert (one.given, one.next) == (None, None)
    assert shown(one.finish())[-1] == ("interrupted", 0, -1)


def test_settings_and_past_of_a_query_may_be_its_own():
    answers = {"hello": "<1>not for me", "wait": "<1>over", "sing": "<2>silent"}
    one = mio.Session(World(answers).model(), clock=SimulatedClock(0.1))
    waits = replace(one.settings, answers="all", interrupts=False)
    past = [({"role": "user", "content": ["sing"]}, {"role": "assistant", "content": ["la"]})]
    one.ask(["hello"], settings=waits)
    one.ask(["wait"], settings=replace(waits, system={"default": "Be brief."}), past=lambda: past)
    assert [event[:2] for event in shown(one.finish()) if event[0] == "done"] == [("done", 0), ("done", 1)]
    assert one.model.transformer.prompts[1] == (
        "<im_start>system\nBe brief.<im_end>\n<im_start>user\nsing<im_end>\n<im_start>assistant\nla<im_end>\n"
        "<im_start>user\nwait<im_end>\n"
    )


def test_an_answer_that_fails_is_told_and_the_conversation_goes_on():
    one = mio.Session(World(ANSWERS).model(), clock=SimulatedClock(0.1))
    one.say("hello")
    events = one.advance(0.45)
    logits = one.model.transformer.logits
    one.model.transformer.logits = lambda *_: logits(*_) * float("nan")
    events += one.step()
    one.model.transformer.logits = logits
    one.say("wait")
    events += one.finish()
    assert [event[:2] for event in shown(events)] == [
        ("control", 0), ("text", 0), ("failed", 0), ("control", 1), ("text", 1), ("done", 1),
    ]  # fmt: skip
    assert "not finite" in next(event.reason for event in events if event.kind == "failed")
    assert one.model.transformer.prompts[1] == "<im_start>user\nwait<im_end>\n", "it left nothing behind"


def test_strings_that_end_an_answer_are_no_part_of_it():
    one = mio.Session(World(ANSWERS).model(), options={"decoding": Decoding(stop=(" too", "other"), max_tokens=60)})
    one.say("hello")
    assert shown(one.finish()) == [("control", 0, "state3"), ("text", 0, "you"), ("done", 0)]
    one.say("wait")
    one.finish()
    assert one.model.transformer.prompts[-1].split("assistant\n")[1].startswith("<3>you<im_end>")
    with pytest.raises(mio.UserError, match="conversations have no `beams`"):
        mio.Session(World(ANSWERS).model(), options={"decoding": Decoding(beams=2)})


def test_conversations_share_what_says_their_text():
    model = World(ANSWERS).model()
    first, second = (mio.Session(model, options={"speaks": "melody"}) for _ in range(2))
    event = SessionEvent("media", 0.0, 0, 0, modality="melody")
    assert first.saver(event) is second.saver(event)


def test_an_engine_must_be_of_the_model():
    with pytest.raises(mio.UserError, match="the engine of this conversation is that of another model"):
        mio.Session(World(ANSWERS).model(), engine=World(ANSWERS).model().engine(2))
