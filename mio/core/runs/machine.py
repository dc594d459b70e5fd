"""What of a machine decides the bits of a training."""

from __future__ import annotations

from typing import Any

import torch

from mio.core.distributed.devices import device_type
from mio.core.recipe.schema import RuntimeConfig

BITS = (
    "sharding",
    "tensor_parallel",
    "expert_parallel",
    "activation_checkpointing",
    "compile",
)
"""Keys of `runtime` by which sums are taken in another order."""


def machine(runtime: RuntimeConfig, devices: int = 0) -> dict[str, Any]:
    """What a recipe would be trained on here: kind and model of the device, how many there are over all nodes, CPU
    threads, and where there are several devices, how they share the work.

    Args:
        devices: those of a launcher; 0: the recipe's.

    Raises:
        UserError: the recipe asks for a device that is not here.
    """
    kind = device_type(runtime.accelerator, trains=True)
    processor = torch.cuda.get_device_name() if kind == "cuda" else torch.backends.cpu.get_cpu_capability()
    devices = devices or runtime.devices * runtime.nodes
    found = {
        "accelerator": kind,
        "processor": processor,
        "devices": devices,
        "threads": runtime.threads or torch.get_num_threads(),
    }
    alone = ("activation_checkpointing", "compile")
    return found | {name: getattr(runtime, name) for name in (BITS if devices > 1 else alone)}
