"""`examples/mio-music`: its own tests, in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples/mio-music"
sys.path[:0] = [str(PACKAGE), str(PACKAGE / "tests")]

pytest.importorskip("music21")


@pytest.fixture(autouse=True, scope="module")
def plugin():
    """Found by its path, as by `--plugin`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIO_PLUGINS", f"score={PACKAGE / 'mio_music'}")
        yield


from test_score_package import *  # noqa: E402, F403
