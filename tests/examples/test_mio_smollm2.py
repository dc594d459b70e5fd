"""`examples/mio-smollm2`: its own tests, in this process, on a random model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples/mio-smollm2"
sys.path[:0] = [str(PACKAGE), str(PACKAGE / "tests")]

pytest.importorskip("gguf")

from test_smollm2 import *  # noqa: E402, F403
