"""Which of several processes this one is, under `torchrun`, `srun`, or alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_PATIENCE = timedelta(days=7)
"""Ranks may wait for each other for as long as the work of the slowest takes; a rank that dies is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _group: Any = None

    @classmethod
    def join(cls) -> Ranks:
        """Finds out who this process is, and joins the others if there are any.

        The group stays out of `torch.distributed`'s global state: codecs look there, and would take the ranks, which
        do different work, for the ranks of one training.
        """
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                place = kind()
                rank, size = place.global_rank(), place.world_size()
                group = _group(f"tcp://{place.main_address}:{place.main_port}", rank, size) if size > 1 else None
                return cls(rank, size, place.local_rank(), group)
        return cls()

    def wait(self) -> None:
        """Returns when every rank has come here. Raises `RuntimeError` when one is gone."""
        if self._group is not None:
            self._group.barrier().wait()


def _group(address: str, rank: int, size: int) -> Any:
    from torch.distributed import ProcessGroupGloo
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous(address, rank, size))
    return ProcessGroupGloo(store, rank, size, _PATIENCE)
