"""The networks that plugins put into one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mio.core.contract.adapters import Adapter
from mio.core.contract.encoders import Encoder
from mio.core.contract.heads import Head


@dataclass(frozen=True)
class Networks:
    """What plugins supply. Their parameters are the model's, by name: `encoders.MODALITY.`, `heads.MODALITY.`, and
    `layers.LAYER.adapters.PLUGIN.`."""

    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    """What reads media, by modality."""
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    """What reads maps inside layers, by plugin."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """What makes media, by modality."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.encoders or self.adapters or self.heads)
