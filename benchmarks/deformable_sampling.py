"""What does it cost to read maps at places that queries choose?

    python benchmarks/deformable_sampling.py [--device cuda] [--queries 512] [--repeats 3]

Two ways to the same sums, of the same places and weights, with the heads, places and maps of MM-Interleaved: in the
language model 16 heads of 64 read 8 places in each of three levels, for the finest residual of the U-Net in each of
four. One takes the four cells around each place as rows of a table, which `embedding_bag` sums, as the plugin does; the
other is `grid_sample` level by level, as the published code has it in torch. Prints for each the seconds forward and
backward (of the processor, or of the clock on a GPU) and the bytes that are kept for the backward pass, per query and
image that it sees; ratios; and the largest difference of results, and of gradients relative to their largest element.
In the first case a query sees only the images before it: `grid_sample` reads the others too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mio.plugins.mm_interleaved.synchroniser import FeatureSynchroniser, sight


def by_grid(sync: FeatureSynchroniser, query: Tensor, places: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
    """As `FeatureSynchroniser.forward`, for one row of queries `[Q, D]` that see some of the images `[N, S, C]`."""
    images, heads, points = len(maps), sync.heads, sync.points
    numbers = (visible.sum(1, keepdim=True) + 1 - visible.cumsum(1)) * visible
    changed = sync.dynamic_offset_mask(query)[:, None] + sync.query_relpos(numbers)  # [Q, N, D]
    offsets = sync.sampling_offsets(changed).view(-1, images, heads, points, 2)
    logits = sync.attention_weights(changed).view(-1, images, heads, len(sync.sides), points + 1)[..., :-1]
    logits = logits.masked_fill(~visible[..., None, None, None], -1e4).transpose(1, 2).flatten(2)
    weights = functional.pad(logits, (0, 1)).softmax(-1)[..., :-1].view(-1, heads, images, len(sync.sides), points)
    values = sync.value_proj(maps).view(images, -1, heads, sync.width)
    read: Any = 0
    cell = 0
    for level, side in enumerate(sync.sides):
        square = values[:, cell : cell + side * side].permute(0, 2, 3, 1).reshape(images * heads, -1, side, side)
        at = places[:, None, None, None] + offsets / sync.base  # [Q, N, H, P, 2]
        grid = (2 * at - 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        found = functional.grid_sample(square, grid, align_corners=False)  # [N H, d, Q, P]
        share = weights[:, :, :, level].permute(2, 1, 0, 3).flatten(0, 1)
        read = read + (found * share[:, None]).sum(-1).view(images, heads, sync.width, -1).sum(0)
        cell += side * side
    return sync.output_proj(read.permute(2, 0, 1).flatten(1))


def by_table(sync: FeatureSynchroniser, query: Tensor, places: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
    sees = sight(visible[None])
    return sync(query[sees.queries[1]], places[sees.queries[1]], maps[sees.images[1]], sees.seen, sees.there)


def kept_bytes(run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """The result, and the bytes of everything that autograd keeps for it, parameters left out."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return result, sum(storages.values())


def measured(run: Callable[[], Tensor], repeats: int, device: torch.device) -> dict[str, float]:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    result, kept = kept_bytes(run)
    result.sum().backward()
    times = []
    for _ in range(repeats):
        start = now()
        result = run()
        middle = now()
        result.square().sum().backward()
        times.append((middle - start, now() - middle))
    forward, backward = (min(part) for part in zip(*times, strict=True))
    return {"forward": forward, "backward": backward, "kept": kept}


def case(sync: FeatureSynchroniser, queries: int, channels: int, visible: Tensor, repeats: int) -> dict[str, Any]:
    device = visible.device
    sync.to(device)
    torch.manual_seed(0)
    query = torch.randn(queries, sync.dynamic_offset_mask.in_features, device=device)
    places = torch.rand(queries, 2, device=device)
    maps = torch.randn(visible.shape[1], sum(side * side for side in sync.sides), channels, device=device)
    pairs = int(visible.sum())
    found, results = {}, []
    for name, way in (("table", by_table), ("grid", by_grid)):
        run = lambda way=way: way(sync, query, places, maps, visible)  # noqa: E731
        sync.zero_grad()
        result = run()
        result.square().sum().backward()
        results.append([result.detach(), *(one.grad.clone() for one in sync.parameters())])
        found[name] = measured(run, repeats, device)
        found[name]["kept"] /= pairs
    result, *gradients = zip(*results, strict=True)
    return {
        **found,
        "grid_over_table": {name: found["grid"][name] / found["table"][name] for name in found["grid"]},
        "difference": float((result[0] - result[1]).abs().max()),
        "gradients": max(float((one - other).abs().max() / other.abs().max()) for one, other in gradients),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    count, images = arguments.queries, 4
    # a query sees what came before it
    visible = torch.arange(count, device=device)[:, None] * images // count >= torch.arange(images, device=device)
    language = FeatureSynchroniser(1280, 1024, 1024, 16, 8, (32, 16, 8), base=16, magnitude=3.0, images=50)
    unet = FeatureSynchroniser(320, 1024, 1024, 16, 8, (64, 32, 16, 8), base=64, magnitude=1.0, images=10)
    cells = torch.ones(min(64 * 64, 8 * count), 1, dtype=torch.bool, device=device)
    found = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "language": case(language, count, 1024, visible, arguments.repeats),
        "unet": case(unet, len(cells), 1024, cells, arguments.repeats),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
