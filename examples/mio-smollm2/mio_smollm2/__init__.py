"""SmolLM2-135M-Instruct learns to see, hear, draw and speak.

The plugin ships recipes alone, `smollm2/chat` and `smollm2/senses`: modalities, sources and tasks are those of `image`,
`speech` and `digits`. `python -m mio_smollm2` converts the model and measures (see `mio_smollm2.__main__`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mio


@mio.hookimpl
def mio_recipes() -> Mapping[str, str]:
    folder = Path(__file__).parent / "recipes"
    return {f"smollm2/{path.stem}": str(path) for path in folder.glob("*.yaml")}
