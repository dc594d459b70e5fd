"""A process that serves a run, or a model with random weights."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mio.cli.addresses import listen
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.serve.limits import Limits
from mio.serve.server import Server, run
from mio.serve.service import Service, Settings

PLUGINS: dict[str, dict[str, Any]] = {
    "text": {"tokenizer": "bytes"},
    "image": {"tokenizer": "none"},
    "speech": {"tokenizer": "none"},
    "video": {"min_frames": 2, "max_frames": 5},
    "vision_tower": {"image_size": 8, "patch": 2, "max_tiles": 1, "width": 64, "layers": 2, "heads": 4,
                     "ffn_width": 256},
    "audio_tower": {"rate": 8000, "bands": 40, "width": 64, "layers": 2, "heads": 4, "ffn_width": 256},
}  # fmt: skip


def random_model(context: int = 256) -> Model:
    """Of the demo's size, width 128 and 4 layers. It reads pictures, sound and videos, and writes text."""
    plugins = PluginManager.discover().enable(PLUGINS)
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    recipe = Recipe(name="random", data=DataConfig(form="chat", packing=PackingConfig(context=context)))
    torch.manual_seed(0)
    config = TransformerConfig(width=128, layers=4, heads=4, tied_embeddings=True, init_std=0.1)
    transformer = Transformer(config, vocabulary.rows, codecs.networks).eval().requires_grad_(False)
    return Model(
        recipe, plugins, vocabulary, codecs, Renderer(vocabulary, codecs, LossConfig()), Path("runs/random"),
        lambda: (transformer, Replicas(Ranks())),
    )  # fmt: skip


@contextlib.contextmanager
def served(folder: str, rows: int, options: Sequence[str] = ()) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Port and process of a server, which takes requests."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mio", "serve", folder, "--rows", str(rows), "--port", str(port), *options]
    if not folder:
        command = [sys.executable, __file__, str(rows), str(port)]
    process = subprocess.Popen(command)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
                break
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}")
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    rows, port = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    service = Service(random_model(), Settings("random", rows, Limits(grace=1, body_timeout=2, header_timeout=2)))
    with listen("127.0.0.1", port) as sock:
        run(Server(service), sock)


if __name__ == "__main__":
    main()
