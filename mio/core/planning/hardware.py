"""GPUs and networks by name: figures of their data sheets, and what is assumed on top of them. Free of torch.

Data sheets give peaks. What a training reaches of them depends on its kernels, clocks and cabling, which no sheet
knows: those shares are assumptions, stated here one by one, and `efficiency=` and `price=` replace them.

Sources: NVIDIA H100 (2023), H200 (2024) and A100 80GB (2021) Tensor Core GPU data sheets; NVIDIA HGX B200 page (2025).
Tensor-core figures are without sparsity. NVLink sheets count both directions; here is one. Networks: NVIDIA ConnectX-7
and ConnectX-6 data sheets; Amazon EC2 P5 and P4 instance pages (network bandwidth of an instance with eight GPUs).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mio.core.errors import UserError, nearest

GIB = 2**30

CONTEXT = 600 * 2**20
"""Bytes of a GPU that are gone before the first tensor: CUDA context and loaded kernels. Assumed; 0.4 to 0.7 GiB are
usual on these GPUs."""
MATRIX_WORKSPACE = 64 * 2**20
"""Bytes that the matrix library holds for its split sums, allocated once. Assumed, from cuBLAS's documented 32 MiB of
Hopper, for the two streams that call it."""
COMMUNICATOR = 200 * 2**20
"""Bytes of buffers of one NCCL communicator with more than one rank. Assumed: some tens of channels of a few MiB."""
RESERVE = 0.04
"""Share of the peak that torch's caching allocator holds beyond it: rounding, fragments, and blocks that wait for
another stream. Assumed."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    label: str
    memory: float
    """GiB that a program sees, rounded down; the sheet's figure is larger."""
    bf16: float
    """FLOP/s of dense bfloat16 products."""
    fp32: float
    """FLOP/s in float32 without tensor cores, which is what torch takes by default."""
    bandwidth: float
    """Bytes per second of its memory."""
    nvlink: float
    """Bytes per second to the other GPUs of a node, in one direction."""
    price: float
    """US dollars per hour. Assumed, a round figure for rent; `price=` replaces it."""
    efficiency: float
    """Share of the peak that forward and backward passes reach while nothing waits for a network. Assumed."""
    network: str
    """Name of the network that its clusters usually have."""


GPUS = {
    "h100": Gpu("H100 SXM 80 GB", 79, 989e12, 67e12, 3.35e12, 450e9, 3.0, 0.5, "infiniband-400"),
    "h200": Gpu("H200 SXM 141 GB", 139, 989e12, 67e12, 4.8e12, 450e9, 3.5, 0.5, "infiniband-400"),
    "a100": Gpu("A100 SXM 80 GB", 79, 312e12, 19.5e12, 2.039e12, 300e9, 1.8, 0.58, "infiniband-200"),
    "b200": Gpu("B200 SXM 180 GB", 178, 2250e12, 75e12, 7.7e12, 900e9, 5.5, 0.45, "infiniband-400"),
}


@dataclass(frozen=True)
class Network:
    """What joins the nodes."""

    label: str
    bandwidth: float
    """Bytes per second of each GPU of a node of eight, in one direction."""
    achieved: float
    """Share of it that large collectives reach. Assumed."""
    latency: float
    """Seconds of one hop from node to node. Assumed."""


NETWORKS = {
    "infiniband-400": Network("InfiniBand NDR, 400 Gbit/s per GPU", 50e9, 0.9, 4e-6),
    "infiniband-200": Network("InfiniBand HDR, 200 Gbit/s per GPU", 25e9, 0.9, 4e-6),
    "roce-400": Network("RoCE, 400 Gbit/s per GPU", 50e9, 0.8, 6e-6),
    "roce-200": Network("RoCE, 200 Gbit/s per GPU", 25e9, 0.8, 6e-6),
    "efa-3200": Network("EFA, 3,200 Gbit/s per node (P5)", 50e9, 0.75, 15e-6),
    "efa-400": Network("EFA, 400 Gbit/s per node (P4d)", 6.25e9, 0.75, 15e-6),
    "ethernet-100": Network("Ethernet, 100 Gbit/s per node", 1.5625e9, 0.7, 30e-6),
}

NVLINK_ACHIEVED = 0.8
"""Share of NVLink's bandwidth that large collectives reach. Assumed."""
NVLINK_LATENCY = 1e-6
"""Seconds of one hop inside a node. Assumed."""
LAUNCH = 15e-6
"""Seconds before a collective begins to move bytes. Assumed."""
MEMORY_ACHIEVED = 0.8
"""Share of the memory's bandwidth that copies and the optimizer reach. Assumed."""


def find_gpu(name: str) -> Gpu:
    """Raises `UserError` with the names that there are."""
    if name not in GPUS:
        raise UserError(f"`gpu={name}` is not known{_hint(name, GPUS)}")
    return GPUS[name]


def find_network(name: str) -> Network:
    """Raises `UserError` with the names that there are."""
    if name not in NETWORKS:
        raise UserError(f"`network={name}` is not known{_hint(name, NETWORKS)}")
    return NETWORKS[name]


def _hint(name: str, known: Iterable[str]) -> str:
    return f"{nearest(name, list(known))} (known: {', '.join(known)})"
