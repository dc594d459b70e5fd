"""Versions of what trains a run: mio, Python, packages, plugins. No torch."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import mio
from mio.core.checksums import file_sum, json_sum
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager

LOCKED_PACKAGES = ("torch", "lightning", "numpy", "datasets", "tokenizers", "safetensors")


def versions(manager: PluginManager, plugins: Iterable[str]) -> dict[str, Any]:
    """What is installed. A plugin without a version of its own, a file or folder, goes by a checksum."""
    return {
        "mio": mio.__version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in LOCKED_PACKAGES},
        "plugins": {name: _plugin_version(manager.candidate(name)) for name in plugins},
    }


def _plugin_version(candidate: Candidate) -> str:
    place = Path(candidate.target)
    if not place.exists():
        if not candidate.origin.startswith("local module "):
            return candidate.origin
        try:
            spec = importlib.util.find_spec(candidate.target.partition(":")[0])
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            return candidate.origin
        place = Path(spec.origin)
        place = place.parent if place.name == "__init__.py" else place
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return f"{place.name} {json_sum({str(file.relative_to(place.parent)): file_sum(file) for file in files})[:12]}"
