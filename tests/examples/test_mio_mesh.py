"""The package `examples/mio-mesh`: its own tests, without an installation, and its recipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/mio-mesh"
sys.path[:0] = [str(EXAMPLE), str(EXAMPLE / "tests")]
pytest.register_assert_rewrite("test_mesh_package")
from test_mesh_package import *  # noqa: E402, F403


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """By the plugin manager, as if it was installed."""
    monkeypatch.setenv("MIO_PLUGINS", f"mesh={EXAMPLE / 'mio_mesh'}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")]))


def test_its_python_is_short():
    assert sum(len(path.read_text().splitlines()) for path in (EXAMPLE / "mio_mesh").glob("*.py")) < 300
