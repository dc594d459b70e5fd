"""Conformance checks for plugins: for `mio plugins check NAME`, and for a plugin's own tests.

import mio.testing

def test_conformance():
    mio.testing.check_plugin("sketch", {"size": 8}, samples={"sketch": [...]})
"""

from __future__ import annotations

from mio.testing.checking import check_plugin, conformance
from mio.testing.outcomes import Result
from mio.testing.report import Report

__all__ = ["Report", "Result", "check_plugin", "conformance"]
