"""A command in several processes, whose devices hold one model together."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mio.cli.addresses import listen
from mio.core.distributed.launch import follow_launcher, launch

if TYPE_CHECKING:
    from mio.api import Loaded
    from mio.core.distributed.ranks import Ranks
    from mio.core.generation.model import Model

T = TypeVar("T")
Devices = Annotated[int, typer.Option(min=1, max=1024, help="Devices that hold the model together, one process each.")]


def start_processes(devices: int) -> None:
    """Gives this command again in a process for each of several devices, and ends as they do. Does nothing in one of
    them. To be called once arguments are checked that need no model."""
    follow_launcher()
    from mio.core.distributed.ranks import launched

    if devices > 1 and not launched():
        command = [sys.executable, "-m", "mio", *sys.argv[1:]]
        raise typer.Exit(launch(command, devices, restarts=0, advice="give the same command again"))


@contextmanager
def held_together(
    devices: int, kind: str, open_model: Callable[[Ranks | None], T], model: Callable[[T], Model]
) -> Iterator[T | None]:
    """What `open_model` makes of these processes, in the one that is to go on with it. The others compute what that one
    asks, until it is done, and get None.

    Args:
        kind: of the devices.
        model: the model of what was made.
    """
    if devices == 1:
        yield open_model(None)
        return
    import torch

    from mio.core.distributed.ranks import Ranks

    ranks = Ranks.join()
    if kind == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))
    with ranks.process_group("answers", kind):
        made = ranks.all_or_none(lambda: open_model(ranks))
        with model(made).led() as leads:
            yield made if leads else None


@dataclass(frozen=True)
class Place:
    """A model, and the socket at which it is asked."""

    loaded: Loaded
    sock: socket.socket
    url: str
    """`http://HOST:PORT`."""


@contextmanager
def listening(
    devices: int, kind: str, open_model: Callable[[Ranks | None], Loaded], host: str, port: int
) -> Iterator[Place | None]:
    """As `held_together`, for the one process that listens at an address. One that cannot be had is told before the
    model is loaded, unless several processes load it: then only the one that leads them listens.

    Raises `UserError` as `listen`.
    """
    if devices > 1 and int(os.environ["RANK"]):  # it ends when the one that listens has done so
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    with ExitStack() as stack:
        sock = None if devices > 1 else stack.enter_context(listen(host, port))
        with held_together(devices, kind, open_model, lambda made: made.model) as loaded:
            if loaded is None:
                yield None
                return
            sock = sock or stack.enter_context(listen(host, port))
            address = f"[{host}]" if ":" in host else host
            yield Place(loaded, sock, f"http://{address}:{sock.getsockname()[1]}")
