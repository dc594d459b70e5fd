"""The same conversation in the world's time as under a simulated clock."""

from __future__ import annotations

import threading

import pytest
from scripted_model import World, shown
from test_session import ANSWERS

import mio
from mio.core.live.clock import RealClock
from mio.core.live.realtime import converse


def talk(feed, tell=lambda _: None):
    one = mio.Session(World(ANSWERS).model(), clock=RealClock())
    happened = []

    def told(event):
        happened.append(event)
        tell(event)

    converse(one, feed, told)
    return happened


def test_inputs_of_another_thread_are_answered_as_they_come():
    over = threading.Event()

    def feed(put):
        for chunk in ([0], [1], []):
            put(lambda session, chunk=chunk: session.push(chunk))
        assert over.wait(60)
        put(lambda session: session.say("hello"))

    events = talk(feed, lambda event: over.set() if event.kind == "done" else None)
    assert shown(events) == [
        ("heard", 0), ("control", 0, "state1"), ("text", 0, "first, second, third"), ("done", 0),
        ("control", 1, "state3"), ("text", 1, "you too"), ("done", 1),
    ]  # fmt: skip
    times = [event.time for event in events]
    assert times == sorted(times)


def test_an_answer_is_interrupted_while_it_is_given():
    begun, asked = threading.Event(), threading.Event()

    def feed(put):
        put(lambda session: session.say("hello"))
        assert begun.wait(60)
        put(lambda session: session.say("hello"))
        asked.set()

    def tell(event):
        if event.kind == "text" and event.query == 0:
            begun.set()
            assert asked.wait(60)

    assert [event[:2] for event in shown(talk(feed, tell)) if event[0] in ("interrupted", "done")] == [
        ("interrupted", 0), ("done", 1),
    ]  # fmt: skip


def test_what_the_source_of_inputs_raises_ends_the_conversation():
    def feed(put):
        put(lambda session: session.say("hello"))
        raise mio.DataError("the source is broken")

    with pytest.raises(mio.DataError, match="the source is broken"):
        talk(feed)


def test_what_an_input_raises_ends_it_too():
    with pytest.raises(mio.UserError, match="a query is empty"):
        talk(lambda put: put(lambda session: session.say()))
