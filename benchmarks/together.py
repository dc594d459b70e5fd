"""Attention on a CPU among documents with groups of positions that see each other, beside causal attention.

    python benchmarks/together.py [--rounds 15] [--positions 4096]

Rows of documents of one length, a quarter of whose positions lie in groups (`--group`, or half of a shorter document).
CPU time of one layer's attention, forward, and forward and backward, over that of the same documents without groups:

- `together`: `mio.core.model.attention.attend`;
- `kernel`: torch's `scaled_dot_product_attention` with a boolean mask for each document, without gathering documents.

Variants take turns, and the best times of each are compared. The last line is one JSON object: `worst`, the highest
ratio of `together` forward and backward, and `kernel_worst`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.core.data.document_mask import DocumentMask, Together
from mio.core.model.attention import attend, prepare
from mio.core.training.heap import keep_freed_memory

HEADS, KV_HEADS, WIDTH = 8, 4, 64


def groups(rows: Sequence[Sequence[int]], size: int) -> list[Together]:
    """A quarter of each document's positions, evenly spread."""
    found = []
    for row, lengths in enumerate(rows):
        for document, length in enumerate(lengths):
            part = min(size, length // 2)
            count = max(1, length // (4 * part))
            for number in range(count):
                first = document * length + (2 * number + 1) * length // (2 * count) - part // 2
                found.append(Together(row, first, first + part))
    return found


def dense(mask: DocumentMask, length: int) -> Tensor:
    """bool [documents, 1, M, M]: what a position of a document sees."""
    assert mask.together is not None
    group = mask.together.view(-1, length)
    index = torch.arange(length)
    same = (group[:, :, None] == group[:, None]) & (group > 0)[:, :, None]
    return (same | (index[None] <= index[:, None]))[:, None]


def timed(run: Callable[[], Tensor], backward: bool, inputs: Sequence[Tensor]) -> float:
    start = time.process_time()
    out = run()
    if backward:
        torch.autograd.grad(out, inputs, torch.ones_like(out))
    return time.process_time() - start


def compare(length: int, dtype: torch.dtype, options: argparse.Namespace) -> dict[str, float]:
    """Ratios to causal attention by name."""
    rows = [[length] * (max(length, 1024) // length)] * (options.positions // max(length, 1024))
    context = sum(rows[0])
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(rows), context, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    q, k, v = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    causal, together = (
        DocumentMask.from_lengths(rows, context, together=some) for some in ([], groups(rows, options.group))
    )
    for mask in (causal, together):
        prepare(mask, HEADS, KV_HEADS, [0])
    visible = dense(together, length)

    def kernel() -> Tensor:
        swapped = (x.view(-1, length, x.shape[2], WIDTH).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(*swapped, attn_mask=visible, enable_gqa=True)
        return out.transpose(1, 2).reshape(q.shape)

    ways = {"causal": lambda: attend(q, k, v, causal), "together": lambda: attend(q, k, v, together), "kernel": kernel}
    torch.testing.assert_close(ways["together"](), kernel(), atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=2e-2)
    found = {}
    for backward in (False, True):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, run in ways.items():
                times[name].append(timed(run, backward, (q, k, v)))
        medians = {name: min(values) for name, values in times.items()}
        suffix = "_both" if backward else "_forward"
        found["causal_ms" + suffix] = 1000 * medians["causal"]
        found |= {name + suffix: medians[name] / medians["causal"] for name in ("together", "kernel")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--positions", type=int, default=4096, help="of all rows")
    parser.add_argument("--group", type=int, default=64, help="positions of a group")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048, 4096])
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{'dtype':9}{'document':>9}{'causal ms':>18}{'together':>16}{'kernel':>16}   forward, both")
    worst, kernel_worst = 0.0, 0.0
    for dtype in (torch.float32, torch.bfloat16):
        for length in options.lengths:
            found = compare(length, dtype, options)
            columns = (
                f"{found[f'{name}_forward']:{size}.2f}{found[f'{name}_both']:8.2f}"
                for name, size in (("causal_ms", 10), ("together", 8), ("kernel", 8))
            )
            print(f"{str(dtype)[6:]:9}{length:9}{''.join(columns)}", flush=True)
            worst, kernel_worst = max(worst, found["together_both"]), max(kernel_worst, found["kernel_both"])
    print(json.dumps({"worst": round(worst, 3), "kernel_worst": round(kernel_worst, 3)}))


if __name__ == "__main__":
    main()
