"""The networks that plugins put into one model, and whether they fit together. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral

from mio.core.contract.adapters import Adapter
from mio.core.contract.encoders import Encoder
from mio.core.contract.heads import Head
from mio.core.errors import PluginError, nearest

KINDS = {"encoders": "the encoder of", "adapters": "the adapters of plugin", "heads": "the head of"}
"""What stands before the name of a network in messages."""


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

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Of all networks, by kind (see `KINDS`) and name."""
        return {kind: {name: str(one.fingerprint) for name, one in getattr(self, kind).items()} for kind in KINDS}

    def adapted_layers(self, layers: int) -> dict[str, tuple[int, ...]]:
        """Layers that have a network of a plugin, of a transformer with so many, by plugin. Raises `PluginError` for
        layers that are not there."""
        found = {}
        for name, adapter in self.adapters.items():
            answer = adapter.layers(layers)
            if not _are_layers(answer, layers):
                told = list(answer) if isinstance(answer, list | tuple | range) else answer
                raise PluginError(
                    f"plugin `{name}`: its `layers` gave {told!r:.100} of {layers} layers; they must be layers that "
                    "are there, ascending, and at least one"
                )
            found[name] = tuple(map(int, answer))
        return found

    def problems(self) -> Iterator[str]:
        """Adapters and heads that read maps which nothing makes; one sentence each."""
        mapped = {name for name, encoder in self.encoders.items() if getattr(encoder, "maps", None) is not None}
        readers = [(f"plugin `{name}`", adapter.reads) for name, adapter in self.adapters.items()]
        readers += [(f"the head of `{name}`", read) for name, head in self.heads.items() for read in head.maps]
        for who, read in readers:
            if read in mapped:
                continue
            if read in self.encoders:
                why = f"the encoder of `{read}` makes none: give its plugin the option that has it make maps"
            else:
                why = f"no encoder of the recipe reads `{read}`{nearest(read, mapped)}; add its plugin under `plugins:`"
            yield f"{who} reads the maps of `{read}`, but {why}"


def _are_layers(answer: object, layers: int) -> bool:
    if not isinstance(answer, list | tuple | range) or not answer:
        return False
    if any(isinstance(layer, bool) or not isinstance(layer, Integral) for layer in answer):
        return False
    return list(answer) == sorted(set(answer)) and 0 <= answer[0] <= answer[-1] < layers
