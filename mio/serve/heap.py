"""How the C library keeps the memory of requests."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Of glibc's `malloc.h`."""
_LARGE = 8 << 20


def give_large_blocks_back() -> None:
    """Makes the allocator of this process give blocks of 8 MiB and more back to the system when they are freed.

    glibc raises that limit to 32 MiB once such a block was freed, and keeps blocks by thread: what large requests and
    their media took then stays, in pieces. 2,000 wrong requests left a server of 790 MB 57 MB larger, and leave
    it 17 to 35 MB larger (`benchmarks/serve_malformed.py`). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_ARENA_MAX, 2)
