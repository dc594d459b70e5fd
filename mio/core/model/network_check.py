"""Before training: whether the networks of plugins do what the plugins say of them.

Networks are run on the meta device, on tensors of the shapes of items that were prepared for this, so that nothing is
computed. One that cannot be, since it looks at values, runs for real on its dummy and the first few items.
"""

from __future__ import annotations

import torch

from mio.core.model.adapter_check import check_adapter
from mio.core.model.encoder_check import check_encoder
from mio.core.model.head_check import check_head
from mio.core.tokens.codecs import Codecs


@torch.no_grad()
def check_networks_run(codecs: Codecs, width: int) -> None:
    """Runs every network once. Raises `PluginError`, naming plugin and record, for the first that is not in order."""
    maps = {name: reader.maps for name, reader in codecs.readers.items() if reader.maps is not None}
    for reader in codecs.readers.values():
        check_encoder(reader, width)
    for plugin, adapter in codecs.networks.adapters.items():
        check_adapter(plugin, adapter, width, maps[adapter.reads])
    for maker in codecs.makers.values():
        check_head(maker, width, maps)
