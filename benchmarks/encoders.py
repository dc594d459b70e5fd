"""Encoders inside the model: two processes against one, documents that never see each other's media, and their cost.

    python benchmarks/encoders.py [--steps 30] [--rounds 12]

Cases train a small transformer with an encoder in float32, in one process and in two (gloo), on the same rows cut into
the same forward passes: with media on both ranks, on one of them, on none; by AdamW and by Muon; frozen, partly frozen,
with two encoders, with copies instead of shards, recomputed, with split experts. Tensor parallelism, which adds up in
another order, is shown and not part of `max_loss_difference`. `isolation` perturbs one document's media, which small
encoders read, and the vision and audio towers of the built-in plugins: the losses of all other documents, and the
gradients of all parameters from those, must be the same bit by bit.
`speed` is the time of a training step whose items fill a quarter of the positions, over that of a step without items
and of the encoder by itself, forward and backward, together; rounds are interleaved and medians compared.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from small_encoder import PatchEncoder
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.encoders import Encoder
from mio.core.contract.networks import Networks
from mio.core.contract.values import Modality
from mio.core.data.batch import Batch, assemble
from mio.core.data.plan import Changes
from mio.core.model.parallel import data_parallel, device_mesh, parallelise
from mio.core.recipe.schema import OptimizerConfig, RuleConfig, RuntimeConfig, TrainConfig
from mio.core.tokens.item_encoders import ItemEncoder
from mio.core.tokens.item_heads import ItemHead
from mio.core.tokens.rendered import Item, Made, Rendered
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

VOCABULARY = Vocabulary.build(SizedText(256), [("text", Modality(name="text", text=True))])
MODEL = TransformerConfig(width=64, layers=2, heads=4, kv_heads=2, qk_norm=True)
CONTEXT = 96
PASSES = 2
HEAD_WEIGHT = 0.5
ROWS = 2
"""Of a forward pass. A step has two passes: those of one process, or one of each of two."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how it is spread."""

    name: str
    media: tuple[bool, ...] = (True, True)
    """Whether the passes have media."""
    kind: str = "adamw"
    networks: Networks = field(default_factory=lambda: Networks(encoders(1)))
    rules: Mapping[str, RuleConfig] = field(default_factory=dict)
    experts: int = 0
    runtime: RuntimeConfig = field(default_factory=lambda: RuntimeConfig(compile="none"))


def cases() -> list[Case]:
    """All of them."""
    where = {"both": (True, True), "one": (True, False), "none": (False, False)}
    found = [
        Case(f"{kind}/media-on-{name}", media, kind) for kind in ("adamw", "muon") for name, media in where.items()
    ]
    frozen = {"encoders": RuleConfig(pattern="encoders.*", trainable=False)}
    partly = frozen | {"projector": RuleConfig(pattern="encoders.image.projector.*")}

    def spread(**changes: Any) -> RuntimeConfig:
        return RuntimeConfig(compile="none", **changes)

    return [
        *found,
        Case("muon/frozen", (True, False), "muon", rules=frozen),
        Case("muon/partly-frozen", (False, True), "muon", rules=partly),
        Case("muon/two-encoders", (True, False), "muon", Networks(encoders(2))),
        Case("adamw/copies", (True, False), runtime=spread(sharding="none")),
        Case("adamw/not-resharded", (False, True), "muon", runtime=spread(reshard=False)),
        Case("adamw/recomputed", (True, False), runtime=spread(activation_checkpointing="full")),
        Case("muon/recomputed-in-part", (True, True), "muon", runtime=spread(activation_checkpointing="selective")),
        Case("muon/split-experts", (True, False), "muon", experts=4, runtime=spread(expert_parallel=2)),
        Case("adamw/tensor-parallel", (True, False), runtime=spread(tensor_parallel=2)),
    ]


def encoders(count: int, **options: int) -> dict[str, Encoder]:
    """So many encoders."""
    return {name: PatchEncoder(**options) for name in ("image", "sketch")[:count]}


class Prepared:
    """Of `Codecs`, what packing items asks for."""

    def __init__(self, networks: Networks) -> None:
        self.readers = {name: ItemEncoder(name, "benchmark", one) for name, one in networks.encoders.items()}
        self.makers = {name: ItemHead(name, "benchmark", one) for name, one in networks.heads.items()}
        self.kept = (*self.readers, *self.makers)

    def dummy(self, modality: str) -> Any:
        return self.readers[modality].dummy


def document(random: np.random.Generator, networks: Networks, length: int, media: bool) -> Rendered:
    """Random tokens, with a picture for each encoder in their midst, and one more for each head, which is read back."""
    tokens, weights = random.integers(8, 256, length + 1), np.ones(length + 1, np.float32)
    items, made, first = [], [], 2
    for name in (*networks.encoders, *networks.heads) if media else ():
        picture, reader, start = draw(random, name), networks.encoders[name], first
        if any(item.modality == name for item in items):
            own, target = networks.heads[name].positions(picture), networks.heads[name].target(picture)
            made.append(Made(name, first - 1, own, HEAD_WEIGHT * (own or 1), None, target))
            first += own
        positions = reader.positions(picture)
        items.append(Item(name, first, positions, None, reader.prepare(picture)))
        first += positions
        tokens[start:first], weights[start:first] = 0, 0
        first += 1
    spans = np.zeros((0, 2), np.int32)
    return Rendered(tokens.astype(np.int32), weights, spans, items=tuple(items), made=tuple(made))


def rows_of(step: int, media: bool, networks: Networks, documents: int = 2) -> list[list[tuple[int, Rendered]]]:
    """Rows of a forward pass."""
    random = np.random.default_rng((step, media))
    length = CONTEXT // documents
    return [[(0, document(random, networks, length, media)) for _ in range(documents)] for _ in range(ROWS)]


def packed(rows: list[list[tuple[int, Rendered]]], networks: Networks, digests: list[int]) -> Batch:
    """A forward pass on these rows."""
    batch = assemble(rows, CONTEXT, 0, codecs=Prepared(networks), digests=digests)
    batch.documents = [[(0, 0)] * len(row) for row in rows]
    return batch


def passes(step: int, case: Case) -> list[Batch]:
    """The forward passes of a step."""
    return [
        packed(rows_of(2 * step + number, media, case.networks), case.networks, [4 * step + 2 * number, 4 * step + 3])
        for number, media in enumerate(case.media)
    ]


def losses(case: Case, steps: int, ranks: int = 1) -> list[float]:
    """Loss of each step."""
    optimizer_config = OptimizerConfig(kind=case.kind, lr=3e-3, muon_lr=0.01, rules=dict(case.rules))
    train = TrainConfig(steps=steps, rows=PASSES * ROWS, precision="fp32", optimizer=optimizer_config)
    with torch.device("meta"):
        module = MioModule(replace(MODEL, experts=case.experts), VOCABULARY, train, ("",), networks=case.networks)
    mine = list(range(PASSES))
    if ranks > 1:
        mesh = device_mesh(case.runtime, ranks, ranks, "cpu")
        parallelise(module.transformer, mesh, case.runtime, "fp32")
        place, module.replicas = data_parallel(mesh)
        module.statistics.counts = module.loss_metrics.counts = mesh["tensor"].get_local_rank() == 0
        mine = mine[place :: module.replicas]
    module.transformer.to_empty(device="cpu")
    module.transformer.reset_parameters(1)
    module._trainer = SimpleNamespace(accumulate_grad_batches=len(mine))  # type: ignore[assignment]
    module.train()
    optimizer = module.configure_optimizers()["optimizer"]
    found = []
    for step in range(steps):
        batches = passes(step, case)
        optimizer.zero_grad()
        for index in mine:
            batches[index].changes = Changes() if index == mine[-1] else None
            (module.training_step(batches[index], index) / len(mine)).backward()
        module.on_before_optimizer_step(optimizer)
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        assert module.totals is not None
        found.append(module.totals.loss)
    return found


def on_rank(rank: int, steps: int, folder: str, tried: Sequence[Case]) -> None:
    """One of two processes: all cases."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = {case.name: losses(case, steps, 2) for case in tried}
    torch.distributed.barrier()
    if rank == 0:
        Path(folder, "losses.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


def differences(steps: int, tried: Sequence[Case]) -> dict[str, float]:
    """Largest difference of the loss between one process and two, by case."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(on_rank, (steps, folder, tried), nprocs=2)
        two = json.loads(Path(folder, "losses.json").read_text(encoding="utf-8"))
    found = {}
    for case in tried:
        one = losses(case, steps)
        found[case.name] = max(abs(a - b) for a, b in zip(one, two[case.name], strict=True))
        print(f"{case.name:28} {found[case.name]:.1e}  (loss {one[0]:.4f} to {one[-1]:.4f})", flush=True)
    return found


def draw(random: np.random.Generator, name: str) -> Any:
    """Media of one size out of several: a picture, one for the tower of images, or a recording."""
    if name == "image-tower":
        return random.integers(0, 256, (28 * int(random.integers(1, 3)), 28, 3), dtype=np.uint8)
    if name == "speech-tower":
        return random.normal(size=int(random.integers(8000, 16_000))).astype(np.float32), 16_000
    return random.integers(0, 256, (8, 4 * int(random.integers(1, 4))), dtype=np.uint8)


def towers() -> dict[str, Encoder]:
    """Small ones of the kind that the built-in plugins have."""
    from mio.plugins.audio_tower.encoder import SpeechEncoder
    from mio.plugins.audio_tower.options import AudioTowerOptions
    from mio.plugins.vision_tower.encoder import ImageEncoder
    from mio.plugins.vision_tower.options import VisionTowerOptions

    small = {"width": 32, "layers": 2, "heads": 2, "ffn_width": 64}
    return {
        "image-tower": ImageEncoder(VisionTowerOptions(image_size=28, patch=7, max_tiles=4, **small)),
        "speech-tower": SpeechEncoder(AudioTowerOptions(**small)),
    }


def fresh(networks: Networks) -> MioModule:
    """A small model, of which also the networks count that begin with 0."""
    module = MioModule(MODEL, VOCABULARY, TrainConfig(precision="fp32"), ("",), networks=networks).train()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.1, generator=generator)
    return module


def isolated(networks: Networks) -> bool:
    """Whether documents, and what is made in them, are the same bit by bit when another one's media change."""
    module = fresh(networks)
    seen = []
    for perturbed in (False, True):
        rows = rows_of(3, True, networks, 3)
        _, chosen = rows[0][1]
        for one in (*chosen.items, *chosen.made) if perturbed else ():
            for name, array in one.arrays.items():
                one.arrays[name] = 255 - array if array.dtype == np.uint8 else -array
        batch = packed(rows, networks, [5, 6])
        others = torch.ones_like(batch.weights)
        others[0, CONTEXT // 3 : 2 * (CONTEXT // 3)] = 0
        batch.weights.mul_(others)
        for one in batch.made.values():
            one.weights[1] = 0  # the second of all documents
        module.zero_grad()
        output = module.transformer(batch.tokens, batch.positions, batch.mask, items=batch.items, made=batch.made)
        total, nll, heads = module.loss_sum(batch)
        total.backward()
        made = [torch.cat((loss[:1], loss[2:])) for loss in heads.values()]
        gradients = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
        seen.append((output.hidden, [nll * others, *made, *gradients]))
    (own, rest), (changed, other_rest) = seen
    assert not torch.equal(own, changed), "nothing was perturbed"
    assert all(bool(tensor.any()) for tensor in rest[: 1 + len(networks.heads)])
    return all(map(torch.equal, rest, other_rest))


def speed(rounds: int) -> dict[str, float]:
    """Seconds of a step with items, without, and of the encoder alone; medians of interleaved rounds."""
    context, rows = 512, 4
    model = TransformerConfig(width=256, layers=4, heads=8, kv_heads=4, qk_norm=True)
    readers: dict[str, Encoder] = {"image": PatchEncoder(width=256, layers=4)}
    module = MioModule(model, VOCABULARY, TrainConfig(precision="fp32"), ("",), networks=Networks(readers)).train()
    random = np.random.default_rng(5)
    reader = readers["image"]

    def batch(media: bool) -> Batch:
        made = []
        for _ in range(rows):
            tokens, items = random.integers(8, 256, context + 1).astype(np.int32), []
            for first in (16, 272) if media else ():  # two of 64 positions: a quarter of the row
                picture = random.integers(0, 256, (32, 32), dtype=np.uint8)
                items.append(Item("image", first, 64, None, reader.prepare(picture)))
            weights = np.ones(context + 1, np.float32)
            made.append([(0, Rendered(tokens, weights, np.zeros((0, 2), np.int32), items=tuple(items)))])
        return assemble(made, context, 0, codecs=Prepared(Networks(readers)) if media else None)

    both, plain = batch(True), batch(False)
    network, given = module.transformer.encoders["image"], both.items["image"].input
    upstream = torch.randn(len(both.items["image"].places), model.width)

    def whole() -> Tensor:
        return module.loss_sum(both)[0]

    def without() -> Tensor:
        return module.loss_sum(plain)[0]

    def alone() -> Tensor:
        return (network(given) * upstream).sum()

    taken: dict[str, list[float]] = {"together": [], "transformer": [], "encoder": []}
    for number in range(rounds + 2):
        for name, work in zip(taken, (whole, without, alone), strict=True):
            module.zero_grad()
            start = time.process_time()
            work().backward()
            if number >= 2:
                taken[name].append(time.process_time() - start)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ratios = [t / (a + b) for t, a, b in zip(*taken.values(), strict=True)]
    for name, seconds in medians.items():
        print(f"{name:12} {seconds * 1000:7.1f} ms of CPU")
    return {"ratio": statistics.median(ratios), **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    found = differences(options.steps, cases())
    isolations = {"small": isolated(Networks(encoders(2))), "towers": isolated(Networks(towers()))}
    isolation = all(isolations.values())
    for name, same in isolations.items():
        print(f"isolation, {name}: {'the same bit by bit' if same else 'NOT the same'}", flush=True)
    measured = speed(options.rounds)
    result = {
        "max_loss_difference": max(value for name, value in found.items() if "tensor-parallel" not in name),
        "cases": len(found),
        "steps": options.steps,
        "isolation": isolation,
        "speed_ratio": round(measured["ratio"], 4),
        "differences": found,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
