"""Copies of a process share its work, fail together and end with it."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from mio import UserError
from mio.core.distributed.forked import cores, forked
from mio.core.distributed.ranks import Ranks


def learnt(number):
    """What a small network has learnt after some steps: the same wherever it does."""
    torch.manual_seed(number)
    layer = torch.nn.Linear(8, 1)
    for _ in range(3):
        layer(torch.ones(4, 8)).square().mean().backward()
        with torch.no_grad():
            layer.weight -= 0.01 * layer.weight.grad
            layer.weight.grad = None
    return layer.weight.sum().item()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_piece_is_done_once_by_somebody(count):
    """Learning too, in a process that has learnt something itself before: judges do."""
    expected = {number: learnt(number) for number in range(12)}
    ended = []
    with forked(count) as ranks:
        given = ranks.broadcast({"twice": 2} if ranks.first else None)
        work = ranks.share_out(12)
        for number in work.pieces():
            ranks.check()
            work.finish(number, [os.getpid(), given["twice"] * learnt(number)])
            time.sleep(0.02)
        ranks.barrier()
        if ranks.first:
            ended = list(work.results())
    assert {number: value for number, (_, value) in ended} == {one: 2 * value for one, value in expected.items()}
    assert len({process for _, (process, _) in ended}) == count
    assert list(work.results()) == []


def test_a_single_process_makes_no_copies():
    with forked(1) as ranks:
        assert ranks == Ranks()


def in_copies(what):
    """Has something done in each of two copies."""
    with forked(3) as ranks:
        if not ranks.first:
            what()
        for _ in range(2000):
            ranks.check()
            time.sleep(0.01)


def refuse():
    raise UserError("the item is flat")


def fail():
    raise ZeroDivisionError("a defect")


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (refuse, UserError, "^the item is flat$"),
        (fail, RuntimeError, "ZeroDivisionError: a defect"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), UserError, "was ended by SIGKILL, as the system does where mem"),
        (lambda: os._exit(3), UserError, "a process that shared the work ended with 3; give the same command again"),
    ],
)
def test_what_ends_a_copy_is_raised(what, error, message):
    with pytest.raises(error, match=message):
        in_copies(what)


def test_copies_end_with_the_process_that_they_are_of(tmp_path):
    """However that ends."""
    parent = os.fork()
    if not parent:
        with forked(2) as ranks:
            if not ranks.first:
                (tmp_path / "copy").write_text(str(os.getpid()))
            time.sleep(60)
        os._exit(0)
    until = time.monotonic() + 60
    while not (tmp_path / "copy").exists() or not (tmp_path / "copy").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    copy = int((tmp_path / "copy").read_text())
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while os.path.exists(f"/proc/{copy}") and "Z" not in open(f"/proc/{copy}/stat").read().split(")")[1]:  # noqa: PTH110, PTH123, SIM115
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_error_of_the_first_ends_the_copies():
    children = []

    def interrupted():
        with forked(3) as ranks:
            if ranks.first:
                children.extend(ranks._children)
                raise KeyboardInterrupt
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(children) == 2
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_cores_are_those_that_the_process_is_bound_to():
    every = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(every)])
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, every)
    assert 1 <= cores() <= len(every)
