"""How MKL multiplies, settled when mio is imported, since MKL reads it at its first product.

On Intel's processors MKL makes kernels for small matrices, which sum in an order that depends on how many rows and
columns are computed: what a token sees of its past would then differ, in the last bit, with what is in the batch (see
`mio.core.model.cache`). Its strict mode of reproducible results has one order. Products of training take about as long
in it; those of shares and values in decoding, up to 1.7 times.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_MODE = "AUTO,STRICT"
_PROCESSORS = Path("/proc/cpuinfo")


def settle_products() -> None:
    """Sets `MKL_CBWR`, unless the user has, on processors that have the mode."""
    if "MKL_CBWR" not in os.environ and _is_intels():
        os.environ["MKL_CBWR"] = _MODE


def _is_intels() -> bool:
    try:
        with _PROCESSORS.open("rb") as file:
            return b"GenuineIntel" in file.read(256)
    except OSError:  # another system than Linux
        return "GenuineIntel" in platform.processor()
