"""Defers the parts of `torchmetrics` that nobody uses.

Lightning imports the package for two base classes. Its `__init__` imports every metric there is, and with them scipy,
torchvision, matplotlib and transformers where these are installed: 2.5 of the 4 seconds of CPU that `import lightning`
takes, on every rank. The program `mio` leaves the `__init__` for the first use of any name beside these classes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"
_HOMES = {
    "__version__": "torchmetrics.__about__",
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
}
"""What Lightning needs, and the submodules that define it."""


class _Deferred(ModuleType):
    """The package before its `__init__` has run."""

    def __getattr__(self, name: str) -> Any:
        if name == "_logger":
            return logging.getLogger(PACKAGE)
        if name in _HOMES:
            with contextlib.suppress(ImportError):  # of a version that is made up otherwise
                importlib.import_module(f"{PACKAGE}.utilities")  # which `metric` has to come after
                return getattr(importlib.import_module(_HOMES[name]), name)
        elif name.startswith("__"):
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        loader = self.__loader__
        assert isinstance(loader, _Loader)
        self.__class__ = ModuleType  # type: ignore[assignment]
        loader.whole.exec_module(self)
        return getattr(self, name)


class _Loader(Loader):
    def __init__(self, whole: Loader) -> None:
        self.whole = whole

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leaves the module as it is, until `_Deferred` runs it."""


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name != PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def defer_metrics() -> None:
    """From here on `import torchmetrics` is quick. Does nothing where it is imported already."""
    if PACKAGE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
