"""Heads and adapters in plans: what a pass gives them, the work of it by closed forms, and the memory of each part."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mio_world import TEXT

import mio
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.networks import Networks
from mio.core.errors import PluginError
from mio.core.planning.simulate import StepLayout, network_loads, simulate
from mio.core.planning.trace import GRADIENTS, OPTIMIZER, PARAMETERS
from mio.core.recipe.schema import OptimizerConfig, RuleConfig, RuntimeConfig, TrainConfig
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.module import MioModule

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from dense_networks import CELLS, CHANNELS, DenseAdapter, DenseEncoder, DenseHead

WIDTH, LAYERS = 64, 3
MODEL = TransformerConfig(width=WIDTH, layers=LAYERS, heads=4)
PICTURE = mio.Modality(name="picture", begin="<picture>")
VOCABULARY = Vocabulary.build(SizedText(1000), [("text", TEXT), ("pictures", PICTURE)])
LAYOUT = StepLayout(world=2, per_node=2, context=256, micro_rows=3, micro_batches=1, media={"picture": 0.25})
ITEMS = 3 * 256 // 4 // CELLS


def networks(own):
    return Networks(
        {"picture": DenseEncoder(width=32, layers=1)}, {"dense": DenseAdapter()}, {"picture": DenseHead(own)}
    )


def frozen(*patterns):
    rules = {one: RuleConfig(pattern=one, trainable=False) for one in patterns}
    return TrainConfig(optimizer=OptimizerConfig(rules=rules))


def loads(networks, train=TrainConfig(), layout=LAYOUT):  # noqa: B008
    with torch.device("meta"):
        module = MioModule(MODEL, VOCABULARY, train, ("",), networks=networks)
    return network_loads(module.transformer, layout)


def product(*sizes):
    """FLOPs of a matrix product."""
    total = 2
    for size in sizes:
        total *= size
    return total


def head_flops(own, layers, maps):
    """FLOPs of learning `ITEMS`. A product is done once more for the gradient of each factor that has one: `layers`
    times those of the layers, `maps` times that of the maps; those of the noisy picture twice. Of attention there are
    two products, and five in the backward pass."""
    given = CELLS if own else 64 + CELLS
    total = 2 * product(CELLS, 17, WIDTH) + 3 * product(CELLS, WIDTH, 16)
    for keys in (CELLS, given):
        total += 4 * layers * (2 * product(CELLS, WIDTH, WIDTH) + product(keys, WIDTH, 2 * WIDTH))
        total += 4 * 7 * product(CELLS, keys, WIDTH)
    total += 4 * layers * product(CELLS, WIDTH, 8 * WIDTH)
    return ITEMS * (total + (0 if own else maps * product(CELLS, CHANNELS, WIDTH)))


@pytest.mark.parametrize("own", [False, True])
def test_a_head_learns_what_its_encoder_reads_and_works_as_a_closed_form_says(own):
    [head] = loads(networks(own)).heads
    assert (head.name, head.items, head.positions) == ("heads.picture", ITEMS, CELLS * own)
    assert head.trained == head.parameters
    assert head.flops == head_flops(own, layers=3, maps=3)
    assert head.batch(torch.device("meta")).places.shape == (ITEMS * CELLS * own,)


def test_what_is_frozen_has_no_gradients_to_compute():
    [head] = loads(networks(False), frozen("heads.picture.layers.*", "encoders.*")).heads
    rest = 17 * WIDTH + WIDTH + WIDTH + CHANNELS * WIDTH + WIDTH + WIDTH * 16 + 16
    assert head.trained == rest < head.parameters
    assert head.flops == head_flops(False, layers=2, maps=2)


@pytest.mark.parametrize(
    ("kept", "own", "maps"), [((), 3, 3), (("encoders.*",), 3, 3), (("encoders.*", "layers.*.adapters.*"), 2, 1)]
)
def test_adapters_work_as_a_closed_form_says(kept, own, maps):
    """`own` and `maps`: how often products of the hidden states and of the maps are done. Beside the maps there is a
    parameter, so that a frozen encoder alone spares nothing."""
    [adapters] = loads(networks(False), frozen(*kept)).adapters
    keys = 1 + ITEMS // 3 * CELLS
    one = own * 2 * product(256, WIDTH, WIDTH) + maps * product(keys, CHANNELS, 2 * WIDTH)
    assert adapters.name == "adapters.dense"
    assert adapters.flops == 2 * 3 * (one + 7 * product(256, keys, WIDTH))  # two layers, three rows


def test_without_an_encoder_a_head_learns_its_share_of_the_positions():
    [head] = loads(Networks(heads={"picture": DenseHead(True)})).heads
    assert head.items == ITEMS
    [head] = loads(Networks(heads={"picture": DenseHead(True)}), layout=replace(LAYOUT, media={})).heads
    assert head.items == 1


@pytest.mark.parametrize("own", [False, True])
def test_the_parts_of_a_device_are_its_whole(own):
    train = frozen("heads.picture.layers.*", "layers.*.adapters.*")
    found = simulate(MODEL, VOCABULARY, train, RuntimeConfig(compile="none"), LAYOUT, networks=networks(own))
    assert list(found.parts) == ["transformer", "adapters.dense", "encoders.picture", "heads.picture"]
    for kind in (PARAMETERS, GRADIENTS, OPTIMIZER):
        # the allocator rounds each of a few hundred tensors up
        assert sum(sizes[kind] for sizes in found.parts.values()) == pytest.approx(found.held[kind], abs=300 * 512)
    for load in (*found.heads, *found.adapters):
        sizes = found.parts[load.name]
        assert sizes[PARAMETERS] == pytest.approx(4 * load.parameters / 2, rel=0.01)
        assert sizes[GRADIENTS] == pytest.approx(4 * load.trained / 2, rel=0.02)
    assert found.parts["adapters.dense"][OPTIMIZER] == 0


class Looking(DenseAdapter):
    """Looks whether there is anything to be seen."""

    def module(self, width):
        network = super().module(width)
        forward = network.forward
        network.forward = lambda hidden, maps, visible: forward(hidden, maps, visible) if visible.any() else hidden
        return network


def test_an_adapter_that_looks_at_values_is_refused_by_name():
    given = replace(networks(False), adapters={"dense": Looking()})
    with pytest.raises(PluginError, match=r"`adapters\.dense` does not run on tensors without values"):
        loads(given)
