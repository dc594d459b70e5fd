"""Extra memory and time of the chunked linear cross-entropy beside the naive one, forward and backward.

    python benchmarks/loss_memory.py [--tokens 4096] [--width 512] [--vocabulary 76294] [--dtype float32]

Each runs in its own process; the extra memory is the growth of the peak resident set (`ru_maxrss`) over that before the
loss, with inputs allocated and the matrix kernels warm. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Extra peak MiB of the first pass, and the seconds of the fastest, within this process."""
    import torch
    import torch.nn.functional as F

    from mio.core.model.loss import linear_cross_entropy

    def step() -> None:
        hidden.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
            if options.kind == "naive":
                loss = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
            else:
                loss, _ = linear_cross_entropy(hidden, weight, targets, weights)
        torch.autograd.backward(loss)

    torch.manual_seed(0)
    tokens, width, vocabulary = options.tokens, options.width, options.vocabulary
    # Loads the kernels, whose own memory is not the loss's.
    hidden, weight = torch.randn(8, width, requires_grad=True), torch.randn(128, width, requires_grad=True)
    targets, weights = torch.zeros(8, dtype=torch.int64), torch.ones(8)
    step()
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.empty(vocabulary, width).normal_(0, width**-0.5).requires_grad_()
    targets, weights = torch.randint(vocabulary, (tokens,)), torch.ones(tokens)
    before = peak_mib()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            extra = peak_mib() - before
    return {"extra_mib": round(extra, 1), "seconds": round(min(seconds), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=76294)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--kind", choices=("naive", "chunked"), help="measure one of the two, in this process")
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options)))
        return
    results = {}
    for kind in ("naive", "chunked"):
        command = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[kind] = json.loads(output.splitlines()[-1])
        print(f"{kind:8} {results[kind]['extra_mib']:8.1f} MiB extra {results[kind]['seconds']:8.3f} s")
    shape = {name: vars(options)[name] for name in ("tokens", "width", "vocabulary", "dtype")}
    ratio = results["chunked"]["seconds"] / results["naive"]["seconds"]
    print(json.dumps({**shape, **results, "time_ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
