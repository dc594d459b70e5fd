"""Threads of numerical libraries, settled before the libraries are loaded, which read these variables only then."""

from __future__ import annotations

import os

_SPINS = 1000
"""Turns that a thread of libgomp waits for its next piece of work before it sleeps: about 20 us."""


def settle_threads() -> None:
    """Sets what suits training, where the user has not set it.

    NumPy's products here are small: its thread pool would only take the cores from torch's.

    A thread of torch's pool that waits keeps its core, by default for milliseconds. Where other work wants the core,
    the thread that it waits for may be what does not run: on two cores beside two busy threads, a training step of 13 M
    parameters takes 3.8 times as long as alone, and 2.3 times with this (two is a fair share). Without any waiting it
    takes 1.3 times as long alone, as each of some thousand operations then wakes a sleeping thread.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
