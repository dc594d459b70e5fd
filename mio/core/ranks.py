"""Which of several processes this one is, under `torchrun`, `srun`, or alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_PATIENCE = timedelta(days=7)
"""Ranks may wait for each other for as long as the work of the slowest takes."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls) -> Ranks:
        """Finds out who this process is, and joins the others if there are any."""
        import torch.distributed
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                place = kind()
                found = cls(place.global_rank(), place.world_size(), place.local_rank())
                if found.size > 1 and not torch.distributed.is_initialized():
                    address = f"tcp://{place.main_address}:{place.main_port}"
                    torch.distributed.init_process_group(
                        "gloo", init_method=address, rank=found.rank, world_size=found.size, timeout=_PATIENCE
                    )
                return found
        return cls()

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()

    def leave(self) -> None:
        """Ends the connection with the others."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()
