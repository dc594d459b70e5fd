"""Adapters and heads inside the model: two processes against one, and documents that never see each other's media.

    python benchmarks/adapters.py [--steps 30]

What `encoders.py` does, with an encoder that makes maps, adapters that read them in every second layer, and a head
that learns to make pictures (`small_networks.py`), in positions of its own (`own`) or of the positions before an item
(`context`). `isolation` also compares the losses of the items that heads learn. `moved` is the largest difference that
it makes to the loss of a token or an item in which order and in which forward pass the rows of a step come.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from encoders import ROWS, Case, differences, encoders, fresh, isolated, packed, rows_of
from small_networks import MapEncoder, PatchAdapter, PictureHead
from torch import Tensor

from mio.core.contract.networks import Networks
from mio.core.recipe.schema import RuleConfig, RuntimeConfig

KINDS = {"own": True, "context": False}


def networks(kind: str, encoder_count: int = 1, together: bool = False) -> Networks:
    """An encoder with maps, and more encoders without, adapters, and a head of a kind."""
    more = encoders(encoder_count)
    return Networks(
        {**more, "image": MapEncoder(together)}, {"reader": PatchAdapter()}, {"image": PictureHead(KINDS[kind])}
    )


def cases() -> list[Case]:
    """All of them."""
    return list(chain.from_iterable(map(_cases, KINDS)))


def _cases(kind: str) -> Iterator[Case]:
    where = {"both": (True, True), "one": (True, False), "none": (False, False)}
    given = networks(kind)

    def case(name: str, media: str, optimizer: str = "adamw", frozen: tuple[str, ...] = (), **more: Any) -> Case:
        rules = {pattern: RuleConfig(pattern=pattern, trainable=False) for pattern in frozen}
        return Case(f"{kind}/{name}", where[media], optimizer, **{"networks": given, "rules": rules, **more})

    def spread(**changes: Any) -> RuntimeConfig:
        return RuntimeConfig(compile="none", **changes)

    for optimizer in ("adamw", "muon"):
        for media in where:
            yield case(f"{optimizer}/media-on-{media}", media, optimizer)
    yield case("together/two-encoders", "one", networks=networks(kind, 2, together=True))
    yield case("frozen/all-networks", "one", "muon", ("encoders.*", "layers.*.adapters.*", "heads.*"))
    yield case("frozen/encoder", "one", "muon", ("encoders.*",))
    yield case(
        "frozen/transformer", "one", "adamw", ("embedding.*", "layers.*.[!a]*", "layers.*.attention*", "*norm.*")
    )
    yield case(
        "frozen/parts", "one", "muon", ("encoders.image.inner.*", "heads.image.layers.*", "*.adapters.*.gates.*")
    )
    yield case("copies", "one", runtime=spread(sharding="none"))
    yield case("not-resharded", "one", "muon", runtime=spread(reshard=False))
    yield case("recomputed", "one", runtime=spread(activation_checkpointing="full"))
    yield case("recomputed-in-part", "both", "muon", runtime=spread(activation_checkpointing="selective"))
    yield case("split-experts", "one", "muon", experts=4, runtime=spread(expert_parallel=2))
    yield case("tensor-parallel", "one", runtime=spread(tensor_parallel=2))


def moved(given: Networks) -> float:
    """Largest difference between the losses of rows in two forward passes, and of the same rows in another order."""
    module = fresh(given)
    rows = [*rows_of(7, True, given), *rows_of(8, True, given)]
    results: list[dict[int, list[Tensor]]] = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found: dict[int, list[Tensor]] = {}
        for first in range(0, len(order), ROWS):
            numbers = order[first : first + ROWS]
            batch = packed([rows[number] for number in numbers], given, numbers)
            with torch.no_grad():
                _, nll, heads = module.loss_sum(batch)
            of_rows = [loss.view(ROWS, -1) for loss in heads.values()]
            for place, number in enumerate(numbers):
                found[number] = [nll[place], *(loss[place] for loss in of_rows)]
        results.append(found)
    one, other = results
    return max(float((a - b).abs().max()) for number in one for a, b in zip(one[number], other[number], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    found = differences(options.steps, [case for case in cases() if options.only in case.name])
    isolations, moves = {}, {}
    for kind in KINDS:
        for together in (False, True):
            name, given = f"{kind}{', together' if together else ''}", networks(kind, 2, together)
            isolations[name], moves[name] = isolated(given), moved(given)
            print(f"{name}: others' losses and gradients {'the same bit by bit' if isolations[name] else 'DIFFER'}, "
                  f"moved rows' losses off by {moves[name]:.1e}", flush=True)  # fmt: skip
    result = {
        "max_loss_difference": max(value for name, value in found.items() if "tensor-parallel" not in name),
        "cases": len(found),
        "steps": options.steps,
        "isolation": all(isolations.values()),
        "moved": max(moves.values()),
        "differences": found,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
