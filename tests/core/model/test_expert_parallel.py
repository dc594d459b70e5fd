"""Experts split over processes against one process that has them all: losses, gradient norms and weights."""

from __future__ import annotations

import itertools
import os
import socket
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from mio_world import TEXT, FakeText

from mio.core.contract.backbone import TransformerConfig
from mio.core.data.batch import assemble
from mio.core.data.plan import Changes
from mio.core.distributed.regions import gathered, local
from mio.core.errors import RecipeError
from mio.core.model.expert_parallel import mixtures
from mio.core.model.experts import SparseExperts, group_by_expert
from mio.core.model.parallel import data_parallel, device_mesh, mesh_shape, parallelise, recompute, reshard
from mio.core.recipe.schema import AverageConfig, LoraConfig, OptimizerConfig, RuleConfig, RuntimeConfig, TrainConfig
from mio.core.tokens.rendering import Rendered
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

MODEL = TransformerConfig(
    width=32, layers=2, heads=4, ffn_width=48, experts=4, experts_per_token=2, router_aux_weight=0.02
)
VOCABULARY = Vocabulary.build(FakeText(size=150), [("made", TEXT)])
STEPS = 3
CONTEXT = 24


@dataclass(frozen=True)
class Case:
    """One training: on how many processes, how it is spread, what is trained, and what the rows are made of."""

    ranks: int = 2
    runtime: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    rows: str = "mixed"
    """`mixed`; `one`: those of the last rank are one token repeated, which two experts of a layer take, so that others
    get nothing from there; `same`: all rows are, so that other experts get no token at all."""
    exact: bool = True
    """Whether the bits are those of one process, not only the numbers."""


MUON = OptimizerConfig(kind="muon", lr=3e-3, warmup=0)
ADAMW = replace(MUON, kind="adamw")
NUMBERED = replace(
    MUON,
    rules={name: RuleConfig(pattern=f"layers.{name}.*", trainable=False) for name in ("0.ffn.experts.[01]", "1.*.3")},
)
FIRST = replace(
    ADAMW,
    rules={
        name: RuleConfig(pattern=name, trainable=False)
        for name in ("embedding.*", "layers.0.attention*", "layers.0.ffn_norm*", "layers.0.ffn.router*", "*.0.*.[01].*")
    },
)
CASES = {
    "adamw": Case(train={"optimizer": ADAMW}),
    "muon": Case(train={"optimizer": MUON}),
    "one rank without tokens for an expert": Case(train={"optimizer": MUON}, rows="one"),
    "experts without tokens": Case(train={"optimizer": ADAMW}, rows="same"),
    "experts frozen by number": Case(train={"optimizer": NUMBERED}),
    "nothing before an expert is trained": Case(train={"optimizer": FIRST}),
    "recomputed": Case(runtime={"activation_checkpointing": "full"}, train={"optimizer": ADAMW}),
    "recomputed in part": Case(runtime={"activation_checkpointing": "selective"}, train={"optimizer": ADAMW}),
    "kept gathered, averaged": Case(
        runtime={"reshard": False}, train={"optimizer": ADAMW, "average": AverageConfig(kind="ema")}
    ),
    "adapters": Case(train={"optimizer": ADAMW, "lora": LoraConfig(rank=2, dora=True)}),
    "four, over two": Case(4, {"expert_parallel": 2}, {"optimizer": ADAMW}, "one", exact=False),
    "four, over four": Case(4, {"expert_parallel": 4}, {"optimizer": ADAMW}, "one", exact=False),
    "four, hybrid": Case(4, {"expert_parallel": 2, "sharding": "hybrid"}, {"optimizer": ADAMW}, "one", exact=False),
    "four, tensor parallel": Case(
        4, {"expert_parallel": 2, "tensor_parallel": 2}, {"optimizer": ADAMW}, "same", exact=False
    ),
    "four, Muon over two": Case(4, {"expert_parallel": 2}, {"optimizer": NUMBERED}, "one", exact=False),
    "four, Muon over four": Case(4, {"expert_parallel": 4}, {"optimizer": MUON}, "same", exact=False),
}


def batches(case, step):
    """Of each rank that sees other rows, in order."""
    parts = case.ranks // case.runtime.get("tensor_parallel", 1)
    draw = torch.Generator().manual_seed(step)
    for part in range(parts):
        tokens = torch.randint(150, (CONTEXT + 1,), generator=draw)
        if case.rows == "same" or (case.rows == "one" and part == parts - 1):
            tokens = torch.full_like(tokens, 5)
        document = Rendered(tokens.int().numpy(), torch.ones(CONTEXT + 1).numpy(), torch.zeros(0, 2).int().numpy())
        batch = assemble([[(0, document)]], CONTEXT, pad=0)
        batch.changes = Changes()
        yield batch


def orthogonal(update, coefficients, steps, eps):
    """torch's in float64. In bfloat16 the last bit of a sum decides how a number is rounded, and sums of more than two
    are taken in another order on another number of processes, with FSDP2 alone too."""
    a, b, c = coefficients
    x = update.double().T if update.shape[0] > update.shape[1] else update.double()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if update.shape[0] > update.shape[1] else x).float()


def train(case, split):
    if case.exact:
        return trained(case, split)
    with (
        patch("mio.core.training.muon._zeropower_via_newtonschulz", orthogonal),
        patch("mio.core.training.muon._DTYPE", torch.float32),
    ):
        return trained(case, split)


def trained(case, split):
    """Losses, norms, weights and their average; on one process of `case.ranks` where they are `split`, else alone."""
    settings = TrainConfig(steps=STEPS, precision="fp32", **case.train)
    runtime = RuntimeConfig(compile="none", **({"expert_parallel": case.ranks} | case.runtime))
    with torch.device("meta"):
        module = MioModule(MODEL, VOCABULARY, settings, ("",))
    part, parts = 0, case.ranks // runtime.tensor_parallel
    if split:
        mesh = device_mesh(runtime, case.ranks, 2 if runtime.sharding == "hybrid" else case.ranks, "cpu")
        part, module.replicas = data_parallel(mesh)
        module.statistics.counts = module.loss_metrics.counts = mesh["tensor"].get_local_rank() == 0
        parallelise(module.transformer, mesh, runtime, "fp32")
    else:
        recompute(module.transformer, runtime.activation_checkpointing)
    module.transformer.to_empty(device="cpu")
    module.transformer.reset_parameters(2)
    module._trainer = SimpleNamespace(accumulate_grad_batches=1 if split else parts)
    optimizer = module.configure_optimizers()["optimizer"]
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        for index, batch in enumerate(batches(case, step)):
            if split and index != part:
                continue
            batch.changes = Changes() if split or index == parts - 1 else None
            (module.training_step(batch, index) / module._trainer.accumulate_grad_batches).backward()
        module.on_before_optimizer_step(optimizer)
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        if module.average is not None:
            module.average.update(step)
        losses.append(module.totals.loss)
        norms.append(module.grad_norm)
    reshard(module.transformer)
    tensors = dict(module.transformer.named_parameters())
    tensors |= {f"average.{name}": one for name, one in (module.average.tensors if module.average else {}).items()}
    weights = {name: gathered(one.detach()) for name, one in tensors.items()}
    assert optimizer.state.keys() == {one for one in module.parameters() if one.requires_grad}
    held = [layer.experts.held for layer in mixtures(module.transformer)]
    sizes = {name: local(one).numel() for name, one in module.transformer.named_parameters()}
    return losses, norms, weights, held, sizes


def on_rank(rank, ranks, port, out):
    store = dist.TCPStore("127.0.0.1", port, ranks, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    found = {name: train(case, split=True) for name, case in CASES.items() if case.ranks == ranks}
    torch.save(found, f"{out}/{ranks}-{rank}")
    dist.barrier()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two and of four processes found, by their number."""
    folder = tmp_path_factory.mktemp("ranks")
    for ranks in (2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.start_processes(on_rank, (ranks, port, folder), nprocs=ranks, start_method="fork")
    return {n: [torch.load(folder / f"{n}-{rank}", weights_only=False) for rank in range(n)] for n in (2, 4)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_split_experts_learn_what_experts_on_one_process_learn(found, name):
    case = CASES[name]
    losses, norms, weights, *_ = train(case, split=False)
    assert losses[0] != losses[-1]
    for rank in found[case.ranks]:
        if case.exact:
            assert (rank[name][0], rank[name][1]) == (losses, norms)
            assert rank[name][2].keys() == weights.keys()
            assert all(torch.equal(rank[name][2][one], weight) for one, weight in weights.items())
        else:
            # tensor parallelism takes sums of its own
            close = 1e-5 if "tensor_parallel" in case.runtime else 1e-6
            assert rank[name][0] == pytest.approx(losses, abs=5e-6)  # ten units in the last place
            assert rank[name][1] == pytest.approx(norms, rel=1e-5)
            for one, weight in weights.items():
                torch.testing.assert_close(rank[name][2][one], weight, rtol=0, atol=close, msg=one)


def test_each_process_has_its_share_of_the_experts_and_of_their_parameters(found):
    for name, (experts, parts) in {"adamw": (2, 1), "four, over two": (2, 2), "four, over four": (1, 1)}.items():
        ranks = found[CASES[name].ranks]
        for number, rank in enumerate(ranks):
            place = number % (4 // experts)
            assert rank[name][3] == [range(place * experts, (place + 1) * experts)] * 2
            for expert in range(4):
                here = expert in rank[name][3][0]
                assert rank[name][4][f"layers.0.ffn.experts.{expert}.up.weight"] == (32 * 48 // parts if here else 0)
            assert rank[name][4]["layers.0.ffn.router.weight"] == 32 * 4 // len(ranks)


def test_routing_is_as_unbalanced_as_the_cases_say():
    """One token repeated goes to the same two of four experts at every position of the first layer."""
    torch.manual_seed(0)
    layer = SparseExperts(MODEL)
    row = torch.randn(1, 1, 32).expand(1, CONTEXT, 32)
    counts = []
    layer.experts.register_forward_pre_hook(lambda _, given: counts.append(given[1]))
    layer(row)
    assert sorted(counts[0]) == [0, 0, 32, 32]  # of 24 tokens each, padded


@pytest.mark.parametrize("multiple", [1, 16])
def test_groups_of_any_multiple_are_the_tokens_in_the_order_of_experts(multiple):
    chosen = torch.tensor([[2, 0], [2, 3], [0, 2]])
    sizes, selection = group_by_expert(chosen, 4, multiple)
    assert sizes == ([2, 0, 3, 1] if multiple == 1 else [16, 0, 16, 16])
    starts = [0, *itertools.accumulate(sizes)]
    rows = [selection.rows[start + i].item() for start, n in zip(starts, (2, 0, 3, 1), strict=False) for i in range(n)]
    assert rows == [1, 4, 0, 2, 5, 3]


def test_devices_that_do_not_divide_are_refused():
    for runtime, world, per_node in (
        (RuntimeConfig(expert_parallel=4), 6, 6),
        (RuntimeConfig(expert_parallel=4, tensor_parallel=2), 4, 4),
        (RuntimeConfig(expert_parallel=4, sharding="hybrid"), 8, 2),
        (RuntimeConfig(expert_parallel=2, sharding="none"), 4, 4),
    ):
        with pytest.raises(
            RecipeError, match=r"expert_parallel.*does not divide the devices that parameters are split"
        ):
            mesh_shape(runtime, world, per_node)
