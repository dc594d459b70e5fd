"""Threads of numerical libraries, settled before the libraries are loaded, which read these variables only then."""

from __future__ import annotations

import os

_SPINS = 2000
"""Turns that a thread of libgomp waits for its next piece of work before it sleeps: about 40 us."""


def settle_threads() -> None:
    """Sets what suits training, where the user has not set it.

    NumPy's products here are small: its thread pool would only take the cores from torch's.

    A thread of torch's pool that waits keeps its core, by default for milliseconds. Where other work wants the core,
    the thread that it waits for may be what does not run: on two cores beside two busy threads, a training step of 13 M
    parameters took 3.3 to 19 times as long as alone, and takes 2.6 times with this, where two is a fair share
    (`benchmarks/beside_others.py`). Alone it is as fast as before; without any waiting it takes 1.3 times as long, as
    each of some thousand operations then wakes a sleeping thread.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
