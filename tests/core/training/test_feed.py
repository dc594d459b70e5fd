"""A logger that fails, hangs or is not there: the training goes on, it is told once, and nothing is lost or doubled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mio import LoggedRun, LoggedStep
from mio.core.training import feed as feeds
from mio.core.training.feed import Feed

RUN = LoggedRun(name="a", id="0" * 32, group="a", folder=Path(), step=0, recipe={}, tags={})


class Store:
    """A logger with a store that may be out of order."""

    def __init__(self, remote=False):
        self.remote = remote
        self.steps, self.summary = [], "open"
        self.broken = False
        self.hangs = threading.Event()
        self.hangs.set()

    def check(self):
        pass

    def _reached(self):
        self.hangs.wait()
        if self.broken:
            raise ConnectionError("no route to host")

    def begin(self, _run, earlier):
        self._reached()
        self.steps += [step.step for step in earlier if step.step not in self.steps]
        return "begun"

    def log(self, step):
        self._reached()
        self.steps.append(step.step)

    def end(self, summary):
        self._reached()
        self.summary = summary


class Folder:
    """What the run folder has, and the feed of a logger."""

    def __init__(self, store):
        self.there, self.told = [], []
        self.feed = Feed("store", store, self.told.append)

    def begin(self):
        self.feed.begin(RUN, lambda: [LoggedStep(step=step, metrics={}) for step in self.there])

    def log(self, *steps):
        for step in steps:
            self.there.append(step)
            self.feed.log(LoggedStep(step=step, metrics={}))


@pytest.fixture(params=[False, True], ids=["local", "remote"])
def store(request):
    return Store(request.param)


def test_steps_arrive_once_and_in_order(store):
    folder = Folder(store)
    folder.there = [10, 20]
    folder.begin()
    folder.log(30, 40)
    folder.feed.end({"steps": 40})
    assert (store.steps, store.summary) == ([10, 20, 30, 40], {"steps": 40})
    assert folder.told == ["store: begun"]
    assert folder.feed.failures == 0


def test_a_failure_is_told_once_and_made_up_for(store, monkeypatch):
    monkeypatch.setattr(feeds, "_AGAIN", 0.0)
    folder = Folder(store)
    folder.begin()
    folder.log(10)
    while 10 not in store.steps:
        time.sleep(0.001)
    store.broken = True
    for step in (20, 30):
        failures = folder.feed.failures
        folder.log(step)
        while folder.feed.failures == failures:
            time.sleep(0.001)
    store.broken = False
    folder.log(40)
    folder.feed.end(None)
    assert (store.steps, store.summary) == ([10, 20, 30, 40], None)
    [failed] = [line for line in folder.told if "failed" in line]
    assert failed.startswith("`store` failed: ConnectionError: no route to host; the training goes on")


def test_what_a_logger_lacks_in_the_end_is_told(store):
    store.broken = True
    folder = Folder(store)
    folder.begin()
    folder.log(10, 20)
    folder.feed.end({})
    assert store.steps == []
    assert folder.told[-1] == (
        "`store` did not take its last figures. It lacks 2 logged steps, from step 10 on; the run folder has them"
    )
    assert folder.feed.failures == 2  # at the start and at the end: steps between are not tried at once


def test_a_logger_that_hangs_delays_nothing_but_start_and_end(monkeypatch):
    monkeypatch.setattr(feeds, "_BEGINNING", 0.02)
    monkeypatch.setattr(feeds, "_LEAVING", 0.02)
    store = Store(remote=True)
    store.hangs.clear()
    folder = Folder(store)
    start = time.monotonic()
    folder.begin()
    folder.log(*range(10, 1000, 10))
    folder.feed.end(None)
    assert time.monotonic() - start < 5
    assert folder.told[-1].startswith("`store` does not take its last figures; the run ends without it. It lacks 99")
    store.hangs.set()


def test_a_logger_that_never_began_is_not_ended(store):
    folder = Folder(store)
    folder.feed.end({})
    assert store.summary == "open"
