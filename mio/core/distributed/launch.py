"""Starts a run's processes on one machine, as `torchrun` would, and starts them again when one dies. Free of torch.

Unlike `torchrun` it knows what an exit code of mio's means: a mistake of the user's is not tried again, and a run that
was interrupted gets the time to save its state.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

MISTAKE, INTERRUPTED = 2, 130
_POLL = 0.1
_GRACE = 30.0
"""Seconds that the others have to end after one process died."""


GO_ON = "the same command goes on from the last checkpoint"

_PIPE = "MIO_LAUNCHER_PIPE"
"""Environment variable: number of the pipe whose end tells a process that its launcher is gone."""


def follow_launcher() -> None:
    """Ends this process, and those that it has started, as soon as the launcher that started it is gone, however it
    ended. Does nothing in a process that `launch` did not start."""
    number = os.environ.pop(_PIPE, "")
    if not number:
        return

    def wait() -> None:
        while True:
            try:
                if not os.read(int(number), 1):  # the launcher never writes: its end is the pipe's
                    break
            except InterruptedError:
                continue
            except OSError:
                return
        os.killpg(0, signal.SIGKILL)  # a launched process leads a group of its own

    threading.Thread(target=wait, name="launcher", daemon=True).start()


def launch(command: Sequence[str], processes: int, restarts: int, advice: str = GO_ON) -> int:
    """Runs a command that calls `follow_launcher` in so many processes, again up to `restarts` times if one dies.
    `advice` says what to do when one died for the last time.

    Returns the exit code.
    """
    stopping: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stopping.append(number)
        for process in running:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for attempt in range(restarts + 1):
            running[:] = _start(command, processes, attempt)
            code = _watch(running, stopping)
            if stopping and code < 0:  # the signal came before anything could be saved, or a second one after it
                print("interrupted: give the same command again to go on", file=sys.stderr)
                return INTERRUPTED
            if code in (0, MISTAKE, INTERRUPTED) or stopping:
                return code
            ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            if attempt < restarts:
                left = restarts - attempt
                print(f"a process {ended}: starting again from the last checkpoint ({left} left)", flush=True)
        if code < 0:  # one that ended by itself has printed why
            print(f"error: a process {ended}; {advice}", file=sys.stderr)
        return 1 if code < 0 else code
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], processes: int, attempt: int) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch warns of a lost peer with a stack of C++; mio says who was lost
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "mio",
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        _PIPE: str(_pipe()),
    }
    return [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            pass_fds=[_pipe()],
            start_new_session=True,  # signals reach them once, through this process
        )
        for rank in range(processes)
    ]


@functools.cache
def _pipe() -> int:
    """The end to read of a pipe whose other end this process keeps until it ends."""
    reading, _ = os.pipe()
    return reading


def _watch(running: Sequence[subprocess.Popen[bytes]], stopping: Sequence[int]) -> int:
    """Waits for all processes; ends those that are left a while after one failed. The first failure's exit code."""
    failed, deadline, killed = 0, 0.0, False
    while any(process.poll() is None for process in running):
        for process in running:
            code = process.poll()
            if code and not failed:
                failed, deadline = code, time.monotonic() + _GRACE
                if code not in (MISTAKE, INTERRUPTED) and not stopping:
                    for other in running:
                        other.terminate()
        if failed and time.monotonic() > deadline and not killed:
            killed = True
            for process in running:
                process.kill()
        time.sleep(_POLL)
    codes = [process.returncode for process in running]
    return failed or next((code for code in codes if code), 0)
