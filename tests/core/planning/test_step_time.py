"""Collectives against bytes counted by hand and measured bandwidths, the clock against schedules worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mio.core.planning.hardware import GPUS, NETWORKS
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
    assert sent(Collective("all-to-all", 16000, ALL, "exchange"), 8) == Sent(7000, 8000)


def bus_bandwidth(kind, ranks, speed=SPEED):
    """Bytes per second as nccl-tests count them: what a ring would send per GPU, by the time of a large tensor."""
    size = 16 * 10**9
    passes = 2 if kind == "all-reduce" else 1
    return passes * (len(ranks) - 1) / len(ranks) * size / seconds(Collective(kind, size, ranks, "gather"), speed)


@pytest.mark.parametrize("kind", ["all-gather", "reduce-scatter", "all-reduce"])
def test_large_collectives_reach_what_nccl_was_measured_to_reach(kind):
    """Within a node: 370 GB/s for rings on eight H100 (the maintainer, github.com/NVIDIA/nccl-tests issue 212), 230 on
    eight A100. Between nodes a ring leaves each of them through all eight network cards, 400 or 200 Gbit/s each."""
    assert bus_bandwidth(kind, NODE) == pytest.approx(370e9, rel=0.05)
    a100 = replace(SPEED, gpu=GPUS["a100"], network=NETWORKS["infiniband-200"])
    assert bus_bandwidth(kind, NODE, a100) == pytest.approx(230e9, rel=0.05)
    assert 0.7 < bus_bandwidth(kind, ALL) / (8 * 400e9 / 8) < 1
    assert 0.7 < bus_bandwidth(kind, ALL, a100) / (8 * 200e9 / 8) < 1
    assert 0.7 < bus_bandwidth(kind, ACROSS) / (400e9 / 8) < 1


def test_an_exchange_between_nodes_goes_at_the_speed_of_one_network_card():
    large = Collective("all-to-all", 16 * 10**9, ALL, "exchange")
    assert 0.7 < 8e9 / seconds(large, SPEED) / (400e9 / 8) < 1


def test_small_collectives_take_the_time_of_their_hops():
    """Microseconds whatever their size; a ring has one hop for each further rank, an all-reduce goes round twice."""

    def small(kind, count, size=8):
        return seconds(Collective(kind, size, tuple(range(count)), "gather"), SPEED)

    assert small("all-gather", 8, 1024) == pytest.approx(small("all-gather", 8), rel=1e-2)
    assert 5e-6 < small("all-gather", 2) < small("all-reduce", 8) < 100e-6
    hop = small("all-gather", 3) - small("all-gather", 2)
    assert small("all-gather", 8) - small("all-gather", 2) == pytest.approx(6 * hop, rel=1e-4)
    assert small("all-reduce", 8) - small("all-reduce", 2) == pytest.approx(12 * hop, rel=1e-4)
    assert small("all-gather", 9) - small("all-gather", 8) > hop  # the ninth is in another node
    assert small("all-reduce", 1) == 0


def gather(size=10**9):
    return Collective("all-gather", size, NODE, "gather")


def reduce(size=10**9):
    return Collective("reduce-scatter", size, NODE, "reduce")


SENDING = seconds(gather(), SPEED)
WAIT = Wait(10**9)


def took(*events):
    return step_time([(1, events)], SPEED)


def test_the_first_gather_is_waited_for_and_the_next_hides_behind_a_longer_layer():
    layer = Compute(flops=3 * SENDING * SPEED.flops)
    time = took(gather(), WAIT, layer, gather(), WAIT, layer, gather(), WAIT, layer)
    assert time.total == pytest.approx(SENDING + 9 * SENDING)
    assert time.compute == pytest.approx(9 * SENDING)
    assert time.communication == pytest.approx(3 * SENDING)
    assert (time.fastest, time.slowest) == pytest.approx((9 * SENDING, 12 * SENDING))


def test_short_layers_wait_for_the_wire():
    layer = Compute(flops=0.25 * SENDING * SPEED.flops)
    time = took(gather(), WAIT, layer, gather(), WAIT, layer, gather(), WAIT, layer)
    assert time.total == pytest.approx(3 * SENDING + 0.25 * SENDING)


def test_what_is_waited_for_is_told_from_what_is_gathered_for_later():
    """The large one is sent first and needed last."""
    layer = Compute(flops=3 * SENDING * SPEED.flops)
    time = took(gather(2 * 10**9), gather(), WAIT, layer, Wait(2 * 10**9), layer)
    assert time.total == pytest.approx(seconds(gather(2 * 10**9), SPEED) + SENDING + 6 * SENDING)


def test_what_was_gathered_in_the_section_before_is_not_waited_for():
    layer = Compute(flops=SENDING * SPEED.flops)
    assert took(WAIT, layer).total == pytest.approx(SENDING)


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


@pytest.mark.parametrize(
    ("gpu", "bits", "rate"), [("a100", 5 * 1024, 3.186e9), ("h100", 5 * 1024, 5.23e9), ("h200", 6 * 1024, 6.25e9)]
)
def test_copies_take_the_time_of_the_memorys_wires_and_sections_repeat(gpu, bits, rate):
    """Stacks of 1,024 data pins at so many bits per second each; copies reach 70 to 100 % of that."""
    time = step_time([(3, [Compute(copied=1e9)])], replace(SPEED, gpu=GPUS[gpu]))
    assert 0.7 < 3e9 / time.total / (bits * rate / 8) < 1
