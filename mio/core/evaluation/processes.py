"""How many processes an evaluation on a CPU pays for."""

from __future__ import annotations

from mio.core.distributed.forked import can_fork, cores
from mio.core.generation.model import Model
from mio.core.recipe.places import BASE, WEIGHTS, is_file

_WORK = 400
"""Items of a small model's that are worth a process: what it loads and learns for judging takes as long as some
hundreds of them (12 tasks of the digits world; see docs/architecture.md)."""
_SMALL = 4 << 20
"""Bytes of the weights of a small model, of which an item takes as long as its judging. Of larger ones, decoding takes
longer in proportion."""


def worthwhile(model: Model, items: int) -> int:
    """Processes that are to share so many items: one core each, one alone where the model is not on this machine's
    cores or its ranks share the work already."""
    device = model.transformer.head_weight.device
    if device.type != "cpu" or model.replicas.ranks.size > 1 or not can_fork():
        return 1
    files = (model.folder / name for name in (WEIGHTS, BASE))
    size = sum(path.stat().st_size for path in files if is_file(path))
    return max(1, min(cores(), int(items * max(1.0, size / _SMALL)) // _WORK))
