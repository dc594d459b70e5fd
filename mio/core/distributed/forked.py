"""Copies of this process that share its work on the cores of one machine.

A copy starts in milliseconds and has all that was loaded before: weights are in memory once. It computes in one thread,
as the threads of a copied process are not there, and what it prints or keeps elsewhere than in its `Ranks` is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError

_PATIENCE = timedelta(days=7)
_POLL = 0.005
_FAILED = "failed"
"""Key of the store under which a copy tells why it ends."""


def cores() -> int:
    """Cores that this process may use: those that it is bound to, and no more than its control group pays for."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        available = min(available, max(1, int(quota) // int(period)))
    return available


def can_fork() -> bool:
    """Whether copies of this process can compute: not where a GPU's driver or its threads would be copied too."""
    import torch

    return sys.platform == "linux" and torch.accelerator.device_count() == 0


@dataclass
class ForkedRanks(Ranks):
    """This process among its copies."""

    _children: dict[int, int] = field(default_factory=dict)
    """Rank by process, of those that run; in the first of them."""

    def barrier(self) -> None:
        """Returns when every rank has called it. Raises as `check`."""
        key = self._key("barrier")
        self._store.add(key, 1)
        while self._store.add(key, 0) < self.size:
            self.check()
            time.sleep(_POLL)

    def check(self) -> None:
        """Raises what ended another rank, on the first; `UserError` where the system ended it."""
        for process in list(self._children):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del self._children[process]
                if status and not self._store.check([_FAILED]):
                    raise UserError(
                        f"a process that shared the work {_ending(status)}; give the same command again to go on"
                    )
        if self.first and self._store.check([_FAILED]):
            told = json.loads(self._store.get(_FAILED))
            raise UserError(told["text"]) if told["user"] else RuntimeError(told["text"])

    def _end(self) -> None:
        """Ends the copies that are left."""
        for process in self._children:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        self._children.clear()


def _ending(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    memory = ", as the system does where memory runs out" if number == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(number).name}{memory}"


@contextlib.contextmanager
def forked(count: int) -> Iterator[Ranks]:
    """This process and `count - 1` copies of it, each of which does what is inside of the `with` and then ends.

    Raises on the first rank what a `UserError` of another one says, and `RuntimeError` for a defect there.
    """
    if count == 1:
        yield Ranks()
        return
    import torch
    from torch._C._distributed_c10d import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    threads, children = torch.get_num_threads(), {}
    for rank in range(1, count):
        process = os.fork()
        if not process:
            os.close(writing)
            yield from _copied(rank, count, store.port, reading)
        children[process] = rank
    os.close(reading)
    ranks = ForkedRanks(0, count, _store=store, _children=children)
    try:
        torch.set_num_threads(max(1, cores() // count))
        yield ranks
    finally:
        ranks._end()
        os.close(writing)
        torch.set_num_threads(threads)


def _copied(rank: int, count: int, port: int, reading: int) -> Iterator[Ranks]:
    """What a copy does; the process ends with it."""
    import torch
    from torch._C._distributed_c10d import TCPStore

    code, store = 1, None
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first rank is told, and ends the others
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_follow, args=(reading,), daemon=True).start()
        torch.set_num_threads(1)
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=_PATIENCE)
        yield ForkedRanks(rank, count, _store=store)
        code = 0
    except BaseException as error:
        _tell(store, error)
    finally:
        os._exit(code)


def _tell(store: Any, error: BaseException) -> None:
    """Tells the first rank why this one ends."""
    user = isinstance(error, UserError)
    text = str(error) if user else "".join(traceback.format_exception(error))
    with contextlib.suppress(Exception):  # it is gone
        store.set(_FAILED, json.dumps({"user": user, "text": text}))


def _follow(reading: int) -> None:
    """Ends this process when the first rank is gone, however it ended."""
    with contextlib.suppress(OSError):
        os.read(reading, 1)  # nobody writes: its end is the pipe's
        os._exit(1)
