"""Simulated steps against closed forms, torch's own counters, and what real tensors take."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mio_world import TEXT
from torch.utils.flop_counter import FlopCounterMode

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.loss import linear_cross_entropy
from mio.core.model.parallel import mesh_shape
from mio.core.model.transformer import Transformer
from mio.core.planning.simulate import StepLayout, simulate
from mio.core.planning.trace import GRADIENTS, OPTIMIZER, PARAMETERS, Collective, Compute
from mio.core.recipe.schema import AverageConfig, LoraConfig, OptimizerConfig, RuleConfig, RuntimeConfig, TrainConfig
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from simulated_cpu import simulate_cpu

MODEL = TransformerConfig(width=256, layers=3, heads=4, kv_heads=2, ffn_width=704)
VOCABULARY = Vocabulary.build(SizedText(1000), [("text", TEXT)])
ROWS = 1024  # of embedding and head
LAYOUT = StepLayout(world=16, per_node=8, context=128, micro_rows=2, micro_batches=1)
EAGER = RuntimeConfig(compile="none")
ADAMW = TrainConfig(optimizer=OptimizerConfig(kind="adamw"))

BLOCK = 256 * 256 * 2 + 256 * 128 * 2 + 3 * 256 * 704 + 2 * 256
EMBEDDING = ROWS * 256
PARAMETERS_IN_ALL = 3 * BLOCK + 2 * EMBEDDING + 256


def run(model=MODEL, train=ADAMW, runtime=EAGER, layout=LAYOUT):
    return simulate(model, VOCABULARY, train, runtime, layout)


def collectives(simulated, purpose):
    found = {}
    for times, events in simulated.passes:
        for event in events:
            if isinstance(event, Collective) and event.purpose == purpose:
                found[event.kind, len(event.ranks)] = found.get((event.kind, len(event.ranks)), 0) + times * event.size
    return found


def flops(simulated):
    return sum(t * e.flops for t, events in simulated.passes for e in events if isinstance(e, Compute))


# --- what stays from step to step


def test_a_teacher_is_held_once_more_in_half_the_bytes_and_runs_forward():
    """Of three layers' matrices in bfloat16; half of the documents are taught."""
    runtime = RuntimeConfig(compile="none", sharding="none")
    own, taught = (run(runtime=runtime, layout=replace(LAYOUT, taught=share)) for share in (0.0, 0.5))
    more = taught.held[PARAMETERS] - own.held[PARAMETERS]
    norms = 3 * 2 * 256 + 256
    wanted = 2 * (3 * BLOCK - (norms - 256)) + 4 * (2 * EMBEDDING + norms)
    assert more == pytest.approx(wanted, abs=64 * 512)  # each tensor is rounded up
    assert [taught.held[kind] for kind in (GRADIENTS, OPTIMIZER)] == [own.held[kind] for kind in (GRADIENTS, OPTIMIZER)]
    forward = 2 * 128 * 3 * (BLOCK - 2 * 256)  # one of the two documents
    assert flops(taught) - flops(own) > forward


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_pull_holds_the_start_once_more_split_like_the_weights(sharding):
    runtime = RuntimeConfig(compile="none", sharding=sharding)
    pulled = replace(ADAMW, optimizer=replace(ADAMW.optimizer, pull=0.1))
    own, more = run(runtime=runtime), run(train=pulled, runtime=runtime)
    assert more.held[PARAMETERS] == own.held[PARAMETERS]
    start = more.held[OPTIMIZER] - own.held[OPTIMIZER]
    assert start == pytest.approx(own.held[OPTIMIZER] / 2, rel=0.02)  # AdamW keeps two averages of each weight


@pytest.mark.parametrize("runtime", [EAGER, RuntimeConfig(), RuntimeConfig(tensor_parallel=2)])
def test_adapters_alone_have_gradients_and_optimizer_state(runtime):
    lora = LoraConfig(rank=8, dora=runtime is not EAGER)
    simulated = run(train=TrainConfig(lora=lora), runtime=runtime, layout=replace(LAYOUT, world=2, per_node=2))
    ends = 256 + 256 + 2 * (256 + 128) + 256 + 256 + 3 * (256 + 704)  # inputs and outputs of a layer's matrices
    outputs = 256 + 128 + 128 + 256 + 704 + 704 + 256
    trained = 3 * (8 * ends + outputs * lora.dora)
    assert simulated.trainable == trained
    matrices = 3 * (BLOCK - 2 * 256)
    if runtime is EAGER:  # split in two; small tensors are rounded up
        frozen = 2 * matrices + 4 * (PARAMETERS_IN_ALL - matrices)
        assert simulated.held[PARAMETERS] == pytest.approx((frozen + 4 * trained) / 2, rel=0.01)
        assert simulated.held[GRADIENTS] == pytest.approx(4 * trained / 2, rel=0.02)
        assert simulated.held[OPTIMIZER] == pytest.approx(8 * trained / 2, rel=0.2)  # and a counter each


@pytest.mark.parametrize(
    ("runtime", "mesh"),
    [
        (EAGER, (1, 16, 1)),
        (replace(EAGER, sharding="hybrid"), (2, 8, 1)),
        (replace(EAGER, sharding="none"), (16, 1, 1)),
        (replace(EAGER, tensor_parallel=2), (1, 8, 2)),
    ],
)
def test_parameters_gradients_and_optimizer_state_are_those_of_the_largest_shard(runtime, mesh):
    simulated = run(runtime=runtime)
    assert mesh_shape(runtime, LAYOUT.world, LAYOUT.per_node) == mesh
    assert simulated.parameters == simulated.trainable == PARAMETERS_IN_ALL
    _, shard, tensor = mesh
    matrices = PARAMETERS_IN_ALL - 7 * 256
    expected = 4 * (matrices // (shard * tensor) + 7 * 256 // shard)
    held = simulated.held
    # every tensor is rounded up to 512 bytes
    assert held[PARAMETERS] == pytest.approx(expected, abs=29 * 512)
    assert held[GRADIENTS] == pytest.approx(expected, abs=29 * 512)
    assert held[OPTIMIZER] == pytest.approx(2 * expected, abs=3 * 29 * 512)


def test_rows_that_do_not_divide_leave_the_first_rank_the_most():
    """1,024 rows over 24 ranks: 43 for the first; 256 over 24: 11."""
    simulated = run(layout=replace(LAYOUT, world=24))
    rows = 2 * 43 * 256  # embedding and head
    rows += 3 * (
        11 * 256 + 2 * 6 * 256 + 11 * 256 + 2 * 30 * 256 + 11 * 704
    )  # query, key and value, output, gate, up, down
    vectors = 7 * 11
    assert simulated.held[PARAMETERS] == pytest.approx(4 * (rows + vectors), abs=29 * 512)


def test_frozen_parameters_have_no_gradient_and_no_state():
    frozen = OptimizerConfig(kind="adamw", rules={"layers": RuleConfig(pattern="layers.*", trainable=False)})
    simulated = run(train=TrainConfig(optimizer=frozen))
    assert simulated.trainable == PARAMETERS_IN_ALL - 3 * BLOCK
    assert simulated.held[PARAMETERS] == run().held[PARAMETERS]
    trained = 4 * (2 * EMBEDDING + 256) // 16
    assert simulated.held[GRADIENTS] == pytest.approx(trained, abs=3 * 512)
    assert simulated.held[OPTIMIZER] == pytest.approx(2 * trained, abs=9 * 512)


def test_an_average_of_the_weights_takes_what_the_trainable_ones_take():
    rules = {"first": RuleConfig(pattern="layers.0.*", trainable=False)}
    train = TrainConfig(optimizer=OptimizerConfig(rules=rules), average=AverageConfig(kind="ema"))
    kept, without = run(train=train), run(train=replace(train, average=AverageConfig()))
    more = kept.held[OPTIMIZER] - without.held[OPTIMIZER]
    assert more == pytest.approx(without.held[GRADIENTS], abs=29 * 512)
    assert kept.peak > without.peak


def test_muon_keeps_one_momentum_of_the_matrices_inside_the_layers():
    muon = run(train=TrainConfig(optimizer=OptimizerConfig(kind="muon")))
    matrices = 4 * 3 * (BLOCK - 512) // 16
    assert run().held[OPTIMIZER] - muon.held[OPTIMIZER] == pytest.approx(matrices, abs=60 * 512)
    parts, owned = 3 * (BLOCK - 512) // 16, 256 * 704  # of every matrix a sixteenth; of 21 one is this rank's
    exchanged = 2 * (parts + owned)  # there and back in bfloat16
    assert collectives(muon, "exchange")["all-to-all", 16] == exchanged
    muon = simulate_cpu(MODEL, VOCABULARY, TrainConfig(optimizer=OptimizerConfig(kind="muon")), EAGER, LAYOUT)
    assert collectives(muon, "exchange")["all-to-all", 16] == exchanged


# --- activations


def kept_by_a_block(tokens, heads=4, kv=2, width=256, ffn=704):
    """Bytes of an eager block in bfloat16: two norms' input, scale and result; q, k, v; attention's result and
    normaliser; gate, up, silu(gate) and their product. The rotation keeps q and k once more each, before it."""
    head = width // heads
    per_token = 2 * (2 * width + 2 * width)  # norms: the stream, and what the products read
    per_token += 2 * 4  # scales
    per_token += 2 * (heads + 2 * kv) * head  # q, k, v as attention reads them
    per_token += 2 * heads * head + 4 * heads  # result, normaliser
    per_token += 2 * 4 * ffn
    return tokens * per_token


def test_activations_grow_with_layers_as_counted_by_hand():
    two, three = (run(replace(MODEL, layers=n)).activations for n in (2, 3))
    assert three - two == pytest.approx(kept_by_a_block(2 * 128), rel=1e-3)


def test_full_recomputation_keeps_the_input_of_each_block_alone():
    runtime = replace(EAGER, activation_checkpointing="full")
    two, three = (run(replace(MODEL, layers=n), runtime=runtime).activations for n in (2, 3))
    assert three - two == 2 * 128 * 256 * 2


def test_each_kind_of_recomputation_keeps_less_and_a_compiled_block_less_than_an_eager_one():
    sizes = [
        run(runtime=runtime).activations
        for runtime in (
            EAGER,
            replace(EAGER, compile="blocks"),
            replace(EAGER, activation_checkpointing="selective"),
            replace(EAGER, activation_checkpointing="full"),
        )
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    # silu(gate) is not kept by a compiled block
    assert sizes[0] - sizes[1] >= 3 * 2 * 128 * 704 * 2


def test_activations_are_proportional_to_the_rows_of_a_pass():
    assert run(layout=replace(LAYOUT, micro_rows=4)).activations == pytest.approx(2 * run().activations, rel=1e-3)


def test_a_simulated_cpu_step_takes_what_its_tensors_take():
    """The peak of a real forward and backward pass, from torch's allocator, beside the simulated one."""
    from torch.profiler import ProfilerActivity, profile

    from mio.core.training.module import MioModule

    layout = replace(LAYOUT, world=1, per_node=1)
    train = replace(ADAMW, precision="fp32")
    simulated = simulate_cpu(MODEL, VOCABULARY, train, EAGER, layout)

    from mio.core.planning.simulate import _batch

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module = MioModule(MODEL, VOCABULARY, train)
        for _ in range(2):
            batch = _batch(layout, torch.device("cpu"), last=True)
            total, *_ = module.loss_sum(batch)
            for parameter in module.parameters():
                parameter.grad = None
            total.backward()
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    state = simulated.held[OPTIMIZER]
    assert simulated.peak - state == pytest.approx(peak, rel=0.02)


# --- what is sent


def test_full_sharding_gathers_blocks_twice_and_reduces_everything_once():
    simulated = run()
    # bfloat16; the embedding is gathered again for its backward pass, the head and the last norm stay
    assert collectives(simulated, "gather") == {
        ("all-gather", 16): 2 * (2 * 3 * BLOCK + 2 * EMBEDDING + EMBEDDING + 256)
    }
    assert collectives(simulated, "reduce") == {("reduce-scatter", 16): 4 * PARAMETERS_IN_ALL}


def test_parameters_that_stay_gathered_are_sent_once():
    simulated = run(runtime=replace(EAGER, reshard=False))
    assert collectives(simulated, "gather") == {("all-gather", 16): 2 * PARAMETERS_IN_ALL}


def test_hybrid_sharding_gathers_within_nodes_and_sums_shards_between_them():
    simulated = run(runtime=replace(EAGER, sharding="hybrid"), layout=replace(LAYOUT, micro_batches=5))
    gathered = 2 * (2 * 3 * BLOCK + 2 * EMBEDDING + EMBEDDING + 256)
    assert collectives(simulated, "gather") == {("all-gather", 8): 5 * gathered}
    assert collectives(simulated, "reduce") == {
        ("reduce-scatter", 8): 5 * 4 * PARAMETERS_IN_ALL,
        ("all-reduce", 2): 4 * PARAMETERS_IN_ALL // 8,  # once a step
    }


def test_copies_sum_gradients_in_float32():
    simulated = run(runtime=replace(EAGER, sharding="none"))
    assert collectives(simulated, "reduce") == {("all-reduce", 16): 4 * PARAMETERS_IN_ALL}
    assert collectives(simulated, "gather") == {}


def test_tensor_parallelism_sums_activations_twice_a_block_and_direction():
    simulated = run(runtime=replace(EAGER, tensor_parallel=2), layout=replace(LAYOUT, world=2, per_node=2))
    sent = collectives(simulated, "exchange")["all-reduce", 2]
    stream = 2 * 128 * 256 * 2  # bytes of a bfloat16 [B, L, D]
    # forward: both halves of a block, and the embedding; backward: the input of q, k, v and of gate, up, each apart
    assert sent == pytest.approx((2 * 3 + 1 + 5 * 3 + 1) * stream, rel=0.15)


# --- what is computed


def test_work_is_what_torch_counts_on_real_tensors():
    simulated = run(layout=replace(LAYOUT, world=1, per_node=1))
    model = Transformer(MODEL, ROWS)
    tokens = torch.randint(1000, (2, 128))
    # in bfloat16, since torch does not count products that are added up in place, as the loss does in float32
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        hidden = model(tokens, torch.arange(128).expand(2, 128)).hidden
        weights = torch.ones(256)
        total, _ = linear_cross_entropy(hidden.flatten(0, 1), model.head_weight, tokens.flatten(), weights, size=1000)
        total.backward()
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for operation, n in counts.items() if "bmm" not in str(operation))
    pairs = 2 * 128 * 129 / 2
    attention = 3 * (2 + 5) * 2 * 256 * pairs
    assert flops(simulated) == pytest.approx(products + attention, rel=1e-6)


def test_full_recomputation_does_the_blocks_forward_pass_again():
    once, twice = run(), run(runtime=replace(EAGER, activation_checkpointing="full"))
    tokens = 2 * 128
    # it stops when all that was kept is there again, which is before the last product
    block = 2 * tokens * (BLOCK - 512 - 256 * 704) + 4 * 256 * (2 * 128 * 129 / 2)
    assert flops(twice) - flops(once) == pytest.approx(3 * block)


def test_documents_and_windows_bound_what_attention_costs():
    whole, halves = run(), run(layout=replace(LAYOUT, document=64))
    pairs = 2 * (128 * 129 - 2 * 64 * 65) / 2
    assert flops(whole) - flops(halves) == pytest.approx(3 * 14 * 256 * pairs)
    windowed = run(replace(MODEL, sliding_window=16))
    seen = 2 * sum(min(16, position + 1) for position in range(128))
    assert flops(whole) - flops(windowed) == pytest.approx(3 * 14 * 256 * (2 * 128 * 129 / 2 - seen))
    mixed = run(replace(MODEL, sliding_window=16, full_attention_layers=[1]))
    assert flops(mixed) - flops(windowed) == pytest.approx(14 * 256 * (2 * 128 * 129 / 2 - seen))


def test_passes_in_the_middle_are_simulated_once():
    five, two = (run(layout=replace(LAYOUT, micro_batches=n)) for n in (5, 2))
    assert flops(five) == pytest.approx(2.5 * flops(two), rel=1e-3)
    assert five.peak == pytest.approx(two.peak, rel=1e-3)


def test_experts_are_planned_with_an_even_load():
    sparse = replace(MODEL, experts=4, experts_per_token=2)
    simulated = run(sparse)
    dense = run()
    more = 2 * 128 * 3 * 256 * 704 * 2 * 3  # FLOPs of one more expert per token, forward and backward
    assert flops(simulated) - flops(dense) == pytest.approx(3 * more, rel=0.01)


SPARSE = replace(MODEL, experts=8, experts_per_token=2)
NETWORK = 3 * 256 * 704


@pytest.mark.parametrize("devices", [2, 8])
def test_split_experts_are_held_and_gathered_by_those_that_have_them_and_tokens_travel(devices):
    runtime = replace(EAGER, expert_parallel=devices)
    split, whole = run(SPARSE, runtime=runtime), run(SPARSE)
    for kind in (PARAMETERS, GRADIENTS, OPTIMIZER):
        assert split.held[kind] == pytest.approx(whole.held[kind], rel=0.01)
    assert split.parameters == whole.parameters == PARAMETERS_IN_ALL + 3 * (7 * NETWORK + 8 * 256)
    share, owners = 3 * 8 // devices * NETWORK, 16 // devices
    rest = 3 * (BLOCK - NETWORK + 16 * 256)  # the router has 8 rows for 16 devices, which are filled up
    gathered = collectives(split, "gather")
    assert gathered["all-gather", 16] == 2 * (2 * rest + 2 * EMBEDDING + EMBEDDING + 256)
    assert gathered["all-gather", owners] == 2 * 2 * share
    assert collectives(split, "reduce")["reduce-scatter", owners] == 4 * share
    # there and back, forth and back: copies of tokens in bfloat16, in a group of `devices`
    assert collectives(split, "exchange")["all-to-all", devices] == 3 * 4 * (2 * 128 * 2) * 256 * 2
    assert flops(split) == pytest.approx(flops(whole))


def test_split_experts_are_recomputed_with_what_they_exchange():
    runtime = replace(EAGER, expert_parallel=4, activation_checkpointing="full")
    assert collectives(run(SPARSE, runtime=runtime), "exchange")["all-to-all", 4] == 3 * 6 * (2 * 128 * 2) * 256 * 2


def test_nothing_of_the_stand_in_is_left_behind():
    run()
    assert not torch.distributed.is_initialized()
    with pytest.raises(RuntimeError):
        torch.is_autocast_enabled("meta")
    tokens = torch.ones(1, 4, dtype=torch.int64)
    assert Transformer(MODEL, ROWS)(tokens, torch.arange(4)[None]).hidden.isfinite().all()
