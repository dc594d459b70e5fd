"""What checks of the networks of one modality have in common: its items in the plugin's corpora."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Media
from mio.testing.outcomes import RECORDS


class ItemChecks:
    """Checks of what a plugin supplies for one modality."""

    def __init__(self, plugins: EnabledPlugins, modality: str, media: Callable[[], list[Media]]) -> None:
        self._plugins = plugins
        self._modality = modality
        self._find_media = media

    @cached_property
    def _data(self) -> list[Any]:
        return [item.data for item in self._find_media()[:RECORDS]]
