"""A command in several processes, whose devices hold one model together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mio.core.distributed.launch import follow_launcher, launch

if TYPE_CHECKING:
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
