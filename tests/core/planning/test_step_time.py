"""Rings against their formulas, and the clock against schedules worked out by hand."""

from __future__ import annotations

import pytest

from mio.core.planning.hardware import GPUS, LAUNCH, MEMORY_ACHIEVED, NETWORKS, NVLINK_ACHIEVED, NVLINK_LATENCY
from mio.core.planning.step_time import Sent, Speed, seconds, sent, step_time
from mio.core.planning.trace import Collective, Compute, Wait

GPU, NETWORK = GPUS["h100"], NETWORKS["infiniband-400"]
SPEED = Speed(100e12, GPU, NETWORK, 8)
ALL = tuple(range(16))
NODE = tuple(range(8))
ACROSS = (0, 8)


@pytest.mark.parametrize(("kind", "factor"), [("all-gather", 1), ("reduce-scatter", 1), ("all-reduce", 2)])
def test_a_ring_sends_n_minus_1_of_n_and_one_gpu_of_a_node_sends_to_another(kind, factor):
    within = sent(Collective(kind, 8000, NODE, "gather"), 8)
    assert (within.within, within.between) == (factor * 7000, 0)
    both = sent(Collective(kind, 16000, ALL, "gather"), 8)
    assert both.within + both.between == factor * 15000
    assert both.between == factor * 15000 / 8
    across = sent(Collective(kind, 1000, ACROSS, "gather"), 8)
    assert (across.within, across.between) == (0, factor * 500)
    assert sent(Collective(kind, 1000, (3,), "gather"), 8).within == 0


def test_of_an_all_to_all_what_is_for_other_nodes_goes_there():
    across = Collective("all-to-all", 16000, ALL, "exchange")
    assert sent(across, 8) == Sent(7000, 8000)
    wire = 8000e9 / 1000 / (NETWORK.bandwidth * NETWORK.achieved)
    large = Collective("all-to-all", 16 * 10**9, ALL, "exchange")
    assert seconds(large, SPEED) == pytest.approx(LAUNCH + NETWORK.latency + wire)


def test_large_collectives_take_the_time_of_their_bytes():
    size = 8 * 10**9
    took = seconds(Collective("all-gather", size, NODE, "gather"), SPEED)
    assert took == pytest.approx(LAUNCH + 7 * NVLINK_LATENCY + 7e9 / (GPU.nvlink * NVLINK_ACHIEVED))
    took = seconds(Collective("all-reduce", size, ACROSS, "reduce"), SPEED)
    assert took == pytest.approx(LAUNCH + 4 * NETWORK.latency + 8e9 / (NETWORK.bandwidth * NETWORK.achieved))
    assert seconds(Collective("all-reduce", size, (5,), "reduce"), SPEED) == 0


def gather(size=10**9):
    return Collective("all-gather", size, NODE, "gather")


def reduce(size=10**9):
    return Collective("reduce-scatter", size, NODE, "reduce")


SENDING = seconds(gather(), SPEED)


def took(*events):
    return step_time([(1, events)], SPEED)


def test_the_first_gather_is_waited_for_and_the_next_hides_behind_a_longer_layer():
    layer = Compute(flops=3 * SENDING * SPEED.flops)
    time = took(gather(), Wait(), layer, gather(), Wait(), layer, gather(), Wait(), layer)
    assert time.total == pytest.approx(SENDING + 9 * SENDING)
    assert time.compute == pytest.approx(9 * SENDING)
    assert time.communication == pytest.approx(3 * SENDING)
    assert (time.fastest, time.slowest) == pytest.approx((9 * SENDING, 12 * SENDING))


def test_short_layers_wait_for_the_wire():
    layer = Compute(flops=0.25 * SENDING * SPEED.flops)
    time = took(gather(), Wait(), layer, gather(), Wait(), layer, gather(), Wait(), layer)
    assert time.total == pytest.approx(3 * SENDING + 0.25 * SENDING)


def test_gradients_are_reduced_beside_the_next_layer_and_the_last_of_them_is_waited_for():
    layer = Compute(flops=2 * SENDING * SPEED.flops)
    assert took(layer, reduce(), layer, reduce()).total == pytest.approx(4 * SENDING + SENDING)
    short = Compute(flops=0.5 * SENDING * SPEED.flops)
    # the second buffer is filled when the first one is sent
    assert took(short, reduce(), short, reduce()).total == pytest.approx(0.5 * SENDING + 2 * SENDING)


def test_copies_are_summed_on_the_other_wire():
    layer = Compute(flops=2 * SENDING * SPEED.flops)
    across = Collective("all-reduce", 10**6, ACROSS, "reduce")
    time = took(layer, reduce(), across, layer)
    assert time.total == pytest.approx(4 * SENDING)


def test_what_is_exchanged_stops_the_computation():
    exchange = Collective("all-reduce", 10**9, NODE, "exchange")
    layer = Compute(flops=SENDING * SPEED.flops)
    assert took(layer, exchange, layer).total == pytest.approx(2 * SENDING + seconds(exchange, SPEED))


def test_copies_run_at_the_memorys_speed_and_sections_repeat():
    time = step_time([(3, [Compute(copied=1e9)])], SPEED)
    assert time.total == pytest.approx(3e9 / (GPU.bandwidth * MEMORY_ACHIEVED))
