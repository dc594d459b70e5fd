"""Documents that were padding: counted by step, added up over ranks, kept by checkpoints."""

from __future__ import annotations

from mio.core.data.unreadable import Unreadable


def made():
    told = []
    one = Unreadable(["a/b", "a/c"])
    one.tell = told.append
    return one, told


def test_a_step_counts_when_it_is_committed():
    one, told = made()
    one.take([(0, 3, "x: damaged")])
    assert (one.own, one.report(), told) == ({}, {}, [])
    one.take([(1, 4, "y: damaged")])
    one.commit()
    assert one.own == {"documents": {"a/b": 1, "a/c": 1}, "examples": ["x: damaged", "y: damaged"]}
    assert told == ["x: damaged: trained on as padding", "y: damaged: trained on as padding"]
    one.commit()
    assert one.own["documents"] == {"a/b": 1, "a/c": 1}


def test_all_ranks_report_what_all_have_found_and_go_on_from_it():
    first, _ = made()
    second, _ = made()
    first.take([(0, 1, "one")])
    second.take([(0, 2, "two"), (1, 2, "three")])
    for rank in (first, second):
        rank.commit()
    found = [first.own, second.own, {}]
    for rank in (first, second):
        rank.add(found)
    due = {"unreadable": {"documents": {"a/b": 2, "a/c": 1}, "examples": ["one", "two", "three"]}}
    assert first.report() == second.report() == due
    assert first.own == {}
    resumed, _ = made()
    resumed.restore({"step": 3, **due})
    resumed.take([(1, 9, "four")])
    resumed.commit()
    resumed.add([resumed.own])
    assert resumed.report()["unreadable"]["documents"] == {"a/b": 2, "a/c": 2}
    assert resumed.report()["unreadable"]["examples"] == ["one", "two", "three", "four"]
    resumed.restore({})
    assert resumed.report() == {}


def test_few_are_told_and_all_are_counted():
    one, told = made()
    one.take([(0, n, f"{n}") for n in range(100)])
    one.commit()
    assert len(told) == len(one.own["examples"]) == 20
    assert one.own["documents"] == {"a/b": 100}
