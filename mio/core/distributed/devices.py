"""The devices of this machine: which kind a run takes, and how much memory is left on one."""

from __future__ import annotations

from pathlib import Path

import torch

from mio.core.errors import UserError


def device_type(accelerator: str, asked: str = "", trains: bool = False) -> str:
    """`cuda`, `mps` or `cpu`: what `accelerator` (also `auto`, `gpu`) means on this machine; to train, never `mps`,
    which has no float64 for the sums of losses. Raises `UserError` where it is not here; `asked` says how it was asked
    for, by default in a recipe's `runtime`."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if not trains and accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "cpu"):
        return "cpu"
    asked = asked or f"`runtime` does not fit this machine: `accelerator: {accelerator}`"
    if trains and accelerator in ("gpu", "mps") and torch.backends.mps.is_available():
        raise UserError(f"{asked}: training needs float64, which Apple's GPUs lack; `cpu` trains here")
    raise UserError(f"{asked} is not here; `auto` takes what is")


def free_memory(device: torch.device, processes: int) -> int:
    """Bytes that one of `processes` of this machine may take on its device; of main memory its share. A large number
    where the system does not say."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 62)
    return available // processes
