"""Peak memory and time of import and export, of a made-up Llama of the given size: prints one line of JSON.

python tests/core/exchange/measure_memory.py FOLDER GIGABYTES
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def write_model(folder: Path, size: float) -> int:
    """A repository in float32 of about `size` bytes in four shards. Returns the bytes of its tensors."""
    import torch

    from mio.core.contract.backbone import TransformerConfig
    from mio.core.exchange.huggingface import huggingface_name
    from mio.core.exchange.huggingface_config import config_to_huggingface
    from mio.core.model.transformer import Transformer
    from mio.core.runs.tensor_files import Planned, write_shards
    from mio.plugins.text.byte_tokenizer import ByteTokenizer

    width, rows = (1024, 8000) if size < 2e9 else (4096, 64000)
    layer = 4 * (4 * width**2 + 3 * width * 4 * width)
    config = TransformerConfig(
        width=width, layers=round(size / layer) - 1, heads=8, ffn_width=4 * width, tied_embeddings=False
    )
    with torch.device("meta"):
        state = Transformer(config, rows).state_dict()
    planned = [Planned(huggingface_name(name), torch.float32, tuple(t.shape)) for name, t in state.items()]
    total = sum(tensor.bytes for tensor in planned)
    noise = torch.randn(max(tensor.bytes for tensor in planned) // 4)
    tensors = ((name, noise[: torch.Size(shape).numel()].view(shape)) for name, _, shape in planned)
    folder.mkdir(parents=True)
    write_shards(folder, planned, tensors, limit=total // 4)
    definition = ByteTokenizer().definition()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    definition["added_tokens"] += [{"id": i, "content": f"word{i}", **flags} for i in range(261, rows)]
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "config.json").write_text(json.dumps(config_to_huggingface(config, rows, 4096)))
    return total


def main(folder: Path, size: float) -> None:
    from mio.core.contract.plugins import PluginManager
    from mio.core.exchange.reading import import_folder
    from mio.core.exchange.writing import export_run
    from mio.core.runs.run import Run

    total = write_model(folder / "model", size)
    manager = PluginManager.discover()
    (folder / "runs.yaml").write_text(f"plugins: {{text: {{}}}}\nruntime: {{runs: {folder / 'runs'}}}")
    figures: dict[str, float] = {"bytes": total}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = status("VmRSS"), time.perf_counter()
    made = import_folder(folder / "model", [str(folder / "runs.yaml")], [], manager)
    figures["import_seconds"] = round(time.perf_counter() - start, 1)
    figures["import_growth"] = round((status("VmHWM") - before) / total, 3)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = status("VmRSS"), time.perf_counter()
    export_run(Run.open(made.folder, manager), folder / "out", shard_size=f"{total // 4}B")
    figures["export_seconds"] = round(time.perf_counter() - start, 1)
    figures["export_growth"] = round((status("VmHWM") - before) / total, 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) * 1e9)
