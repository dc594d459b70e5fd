"""How the C library keeps memory during training on a CPU."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's `malloc.h`."""


def keep_freed_memory() -> None:
    """Makes the allocator of this process keep what is freed, for good.

    glibc gives blocks of some MiB back to the system when they are freed and gets them again page by page, zeroed: a
    third of a small model's training step. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
