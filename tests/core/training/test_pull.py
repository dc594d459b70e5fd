"""The pull toward the start beside recurrences in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_optimizer import FakeVocabulary, Model

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.lora import adapt
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import LoraConfig, OptimizerConfig, RuleConfig, TrainConfig
from mio.core.training import pull as module
from mio.core.training.optimizer import build_optimizer
from mio.core.training.pull import Pull

KNOWN = 4
"""Ids of `FakeVocabulary` that are no new ones."""


def weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: one.detach().double().numpy().copy() for name, one in model.named_parameters()}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_weight_loses_its_rate_times_the_pull_of_its_distance(kind: str) -> None:
    """The optimizer's own step is found by running it from the same weights with the same state."""
    rules = {"norm": RuleConfig("norm.*", lr_scale=0.5, pull=3.0), "bias": RuleConfig("layer.bias", pull=0.0)}
    config = OptimizerConfig(kind=kind, lr=0.01, muon_lr=0.02, weight_decay=0.1, pull=2.0, rules=rules)
    model = Model()
    optimizer, _ = build_optimizer(model, config, FakeVocabulary())
    pull = Pull(model, optimizer.param_groups, KNOWN)
    start = weights(model)
    matrix = 0.02 if kind == "muon" else 0.01
    factors = {"embedding.weight": 0.02, "layer.weight": matrix * 2, "layer.bias": 0, "norm.weight": 0.015}
    for step in range(4):
        optimizer.zero_grad()
        model(torch.tensor([step, 5])).backward()
        optimizer.step()
        stepped = weights(model)
        pull.apply(optimizer.param_groups)
        for name, now in weights(model).items():
            factor = factors.get(name, 0.015)  # norm.bias
            expected = stepped[name] - factor * (stepped[name] - start[name])
            if name == "embedding.weight":
                expected[KNOWN:] = stepped[name][KNOWN:]
            np.testing.assert_allclose(now, expected, rtol=0, atol=1e-6, err_msg=name)
            if name in ("embedding.weight", "layer.weight"):
                assert np.abs(now - stepped[name]).max() > 1e-6 or step == 0


def test_without_gradients_a_weight_goes_back_as_the_rates_say() -> None:
    """The distance after steps with rates r_1, r_2, ... is the product of 1 - r_i * pull of the one before."""
    model = torch.nn.Linear(3, 2, bias=False)
    optimizer, _ = build_optimizer(model, OptimizerConfig(lr=0.1, pull=0.5, weight_decay=0.0), FakeVocabulary())
    pull, start = Pull(model, optimizer.param_groups, 0), model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    distance = 1.0
    for rate in (0.1, 0.4, 0.0, 2.0):
        optimizer.param_groups[0]["lr"] = rate
        pull.apply(optimizer.param_groups)
        distance *= 1 - rate * 0.5
        torch.testing.assert_close(model.weight, start + distance, rtol=0, atol=1e-6)
    assert torch.equal(model.weight, start), "a rate that undoes the whole distance gives the very weights"


def test_weights_that_are_where_they_were_stay_there_bit_by_bit() -> None:
    model = Model()
    optimizer, _ = build_optimizer(model, OptimizerConfig(lr=0.03, pull=0.7), FakeVocabulary())
    pull, start = Pull(model, optimizer.param_groups, KNOWN), weights(model)
    pull.apply(optimizer.param_groups)
    for name, one in weights(model).items():
        assert np.array_equal(one, start[name]), name


def test_networks_that_the_stage_adds_are_left_alone() -> None:
    model = torch.nn.ModuleDict({"encoders": torch.nn.ModuleDict({n: torch.nn.Linear(2, 2) for n in ("old", "new")})})
    optimizer, _ = build_optimizer(model, OptimizerConfig(lr=0.1, pull=1.0), FakeVocabulary())
    pull, start = Pull(model, optimizer.param_groups, 0, {"encoders.new"}), weights(model)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(1)
    pull.apply(optimizer.param_groups)
    for name, now in weights(model).items():
        np.testing.assert_allclose(now - start[name], 1.0 if ".new." in name else 0.9, atol=1e-6)


def test_of_rows_beside_adapters_the_known_ones_are_pulled() -> None:
    config = TransformerConfig(width=8, layers=1, heads=2, ffn_width=16)
    model = Transformer(config, 8)
    model.reset_parameters(0)
    train = TrainConfig(lora=LoraConfig(rank=2, rows=["*"]))
    train.optimizer = OptimizerConfig(lr=0.1, pull=1.0)
    adapt(model, train, FakeVocabulary(), KNOWN)  # type: ignore[arg-type]
    with torch.no_grad():
        for one in model.parameters():
            one.zero_()
    optimizer, _ = build_optimizer(model, train.optimizer, FakeVocabulary())
    pull = Pull(model, optimizer.param_groups, KNOWN)
    with torch.no_grad():
        for one in model.parameters():
            one.fill_(1)
    pull.apply(optimizer.param_groups)
    rows = model.get_parameter("rows.embedding")
    torch.testing.assert_close(rows[:KNOWN], torch.full((KNOWN, 8), 0.9))
    torch.testing.assert_close(rows[KNOWN:], torch.ones(4, 8))
    torch.testing.assert_close(model.get_parameter("layers.0.ffn.up.lora_b"), torch.full((16, 2), 0.9))


@pytest.mark.parametrize("name", ["rows.embedding", "rows.head"])
def test_a_device_that_holds_some_rows_beside_adapters_pulls_the_known_ones_among_them(name, monkeypatch):
    """Of 8 rows, 4 of them known, on devices with 3 rows each: 3 of the first, 1 of the second, none of the last."""
    model = Transformer(TransformerConfig(width=8, layers=1, heads=2, ffn_width=16), 8)
    train = TrainConfig(lora=LoraConfig(rank=2, rows=["*"]), optimizer=OptimizerConfig(lr=0.1, pull=1.0))
    adapt(model, train, FakeVocabulary(), KNOWN)  # type: ignore[arg-type]
    optimizer, _ = build_optimizer(model, train.optimizer, FakeVocabulary())
    parameter = model.get_parameter(name)
    for rows, first, known in ((3, 0, 3), (3, 3, 1), (2, 6, 0)):
        part = parameter[first : first + rows].detach()
        monkeypatch.setattr(module, "local", lambda one, part=part: part if len(one) == 8 else one)
        monkeypatch.setattr(module, "local_region", lambda _, rows=rows, first=first: ((rows, 8), (first, 0)))
        starts = Pull(model, optimizer.param_groups, KNOWN).starts
        assert torch.equal(starts[parameter], parameter[first : first + known])
