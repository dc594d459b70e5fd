"""Optimizer: groups by rule, and several optimizers behind one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import RecipeError
from mio.core.model.lora import adapt
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import LoraConfig, OptimizerConfig, RuleConfig, TrainConfig
from mio.core.training.gradients import RowMask
from mio.core.training.optimizer import Together, build_optimizer, plan_parameters, row_masks
from mio.core.training.schedule import Rate, logged_rates


@dataclass
class Block:
    name: str
    start: int
    size: int


class FakeVocabulary:
    """The part of a vocabulary that rules look at."""

    blocks = (Block("text", 0, 4), Block("shape/codebook0", 4, 4))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(8, 6)
        self.layer = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(self.embedding(ids))).pow(2).sum()


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters()}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, masks: Sequence[RowMask] = ()) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        (model(torch.tensor([step % 8, 5])) + model(torch.tensor([2, 7])).sin()).backward()
        for mask in masks:
            mask.apply()
        optimizer.step()


def test_only_matrices_inside_layers_decay_or_go_to_muon() -> None:
    plans = {p.name: p for p in plan_parameters(shapes(Model()), OptimizerConfig(kind="muon"), FakeVocabulary())}
    assert {name for name, p in plans.items() if p.muon} == {"layer.weight"}
    assert {name for name, p in plans.items() if p.weight_decay} == {"layer.weight"}


def test_the_last_rule_that_matches_applies() -> None:
    rules = {
        "all": RuleConfig(pattern="layer.*", trainable=False),
        "bias": RuleConfig(pattern="layer.bias", lr_scale=2.0),
        "away": None,
    }
    plans = {p.name: p for p in plan_parameters(shapes(Model()), OptimizerConfig(rules=rules), FakeVocabulary())}
    assert plans["layer.bias"].trainable
    assert plans["layer.bias"].lr_scale == 2.0
    assert not plans["layer.weight"].trainable


def test_every_rule_that_matches_nothing_is_reported() -> None:
    rules = {"a": RuleConfig(pattern="layr.*"), "b": RuleConfig(pattern="embedding.weight", rows=["colour/*"])}
    with pytest.raises(RecipeError) as error:
        plan_parameters(shapes(Model()), OptimizerConfig(rules=rules), FakeVocabulary())
    assert len(error.value.problems) == 2
    assert "train.optimizer.rules.a: `layr.*`" in str(error.value)
    assert "colour/*" in str(error.value)


def test_rules_that_freeze_everything_are_an_error() -> None:
    with pytest.raises(RecipeError, match="nothing to train"):
        build_optimizer(Model(), OptimizerConfig(rules={"all": RuleConfig("*", trainable=False)}), FakeVocabulary())


def test_rows_rule_moves_those_rows_and_no_others() -> None:
    model = Model()
    before = model.embedding.weight.detach().clone()
    rules = {"shapes": RuleConfig(pattern="embedding.weight", rows=["shape/*"])}
    config = OptimizerConfig(lr=0.1, rules=rules)
    masks = row_masks(model, config, FakeVocabulary(), 8)
    train(model, build_optimizer(model, config, FakeVocabulary())[0], 8, masks)
    assert torch.equal(model.embedding.weight[:4], before[:4])
    assert not torch.equal(model.embedding.weight[5], before[5])


def test_a_rule_with_rows_is_about_what_has_rows_alone() -> None:
    """So one pattern serves beside networks of any name, and leaves them to the rules before it."""
    networks = {"encoders.a.head.weight": torch.Size([2, 2]), "heads.b.weight": torch.Size([2, 2])}
    rules = {
        "slow": RuleConfig(pattern="*", lr_scale=0.5),
        "rows": RuleConfig(pattern="[eh]*.weight", rows=["shape/*"]),
    }
    every = shapes(Model()) | networks
    plans = {p.name: p for p in plan_parameters(every, OptimizerConfig(rules=rules), FakeVocabulary())}
    assert plans["embedding.weight"].rows == ("shape/*",)
    assert plans["embedding.weight"].lr_scale == 1.0
    assert {plans[name].rows for name in plans if name != "embedding.weight"} == {()}
    assert {plans[name].lr_scale for name in plans if name != "embedding.weight"} == {0.5}
    for pattern in ("layer.*", "heads.*", "nothing"):
        wrong = OptimizerConfig(rules={"rows": RuleConfig(pattern=pattern, rows=["shape/*"])})
        with pytest.raises(RecipeError, match=r"matches nothing that has rows .*, `embedding.weight` has rows"):
            plan_parameters(every, wrong, FakeVocabulary())


def test_new_rows_are_those_behind_what_the_stage_starts_with() -> None:
    rules = {"rows": RuleConfig(pattern="embedding.weight", rows=["new"])}
    config = OptimizerConfig(lr=0.1, rules=rules)
    for known, moves in ((0, [True] * 8), (4, [False] * 4 + [True] * 4), (8, [False] * 8)):
        model = Model()
        before = model.embedding.weight.detach().clone()
        train(
            model,
            build_optimizer(model, config, FakeVocabulary())[0],
            8,
            row_masks(model, config, FakeVocabulary(), known),
        )
        assert (model.embedding.weight != before).any(1).tolist() == moves
    wrong = OptimizerConfig(rules={"rows": RuleConfig(pattern="embedding.weight", rows=["knew"])})
    with pytest.raises(RecipeError, match="`rows: knew`, which matches no vocabulary block; did you mean `new`"):
        plan_parameters(shapes(Model()), wrong, FakeVocabulary())
    wrong = OptimizerConfig(rules={"rows": RuleConfig(pattern="embedding.weight", rows=["new", "untraind"])})
    with pytest.raises(RecipeError, match=r"`rows: untraind`, .*; did you mean `untrained`"):
        plan_parameters(shapes(Model()), wrong, FakeVocabulary())


def test_rows_rule_holds_for_a_heads_bias_and_for_rows_beside_adapters() -> None:
    vocabulary = FakeVocabulary()
    config = TransformerConfig(width=8, layers=1, heads=2, ffn_width=8, head_bias=True)
    rules = {"head": RuleConfig(pattern="head.*", rows=["shape/*"], weight_decay=0.1)}
    optimizer = OptimizerConfig(lr=0.1, rules=rules)
    plain, adapted = Transformer(config, 8), Transformer(config, 8)
    adapt(adapted, TrainConfig(precision="fp32", lora=LoraConfig(rank=2, rows=["shape/*"])), vocabulary, 4)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.uniform_(-1, 1)
    for model, rule in (
        (plain, optimizer),
        (adapted, OptimizerConfig(lr=0.1, rules={"all": RuleConfig("*", weight_decay=0.1)})),
    ):
        before = model.head.bias.detach().clone()
        masks = row_masks(model, rule, vocabulary, 4)
        steps = build_optimizer(model, rule, vocabulary)[0]
        for _ in range(3):
            steps.zero_grad()
            hidden = model(torch.arange(6)[None], torch.arange(6)[None]).hidden
            logits = F.linear(hidden, model.head_weight, model.head_bias)
            (logits * torch.arange(8)).sum().backward()
            for mask in masks:
                mask.apply()
            steps.step()
        assert (model.head.bias != before).tolist() == [False] * 4 + [True] * 4


def test_parameters_of_another_schedule_are_a_group_of_their_own() -> None:
    norm = RuleConfig(pattern="norm.*", schedule="constant", warmup=0.5)
    rules = {"norm": norm, "bias": RuleConfig(pattern="layer.bias", final=0.0)}
    config = OptimizerConfig(kind="muon", rules=rules)
    model = Model()
    optimizer, schedules = build_optimizer(model, config, FakeVocabulary())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    assert grouped == [["layer.weight"], ["embedding.weight", "layer.bias"], ["norm.weight", "norm.bias"]]
    assert [schedule.kind for schedule in schedules] == ["cosine", "cosine", "constant"]
    assert logged_rates(schedules, config) == {"lr": Rate(3e-5, schedules[0]), "lr/norm": Rate(3e-5, schedules[2])}


def test_together_equals_its_members_alone() -> None:
    torch.manual_seed(0)
    one, two = Model(), Model()
    config = OptimizerConfig(kind="muon", lr=0.01, muon_lr=0.02)
    together, _ = build_optimizer(one, config, FakeVocabulary())
    assert isinstance(together, Together)
    decay, rest = [two.layer.weight], [p for n, p in two.named_parameters() if n != "layer.weight"]
    alone = [
        torch.optim.Muon(decay, lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    train(one, together, 5)
    for step in range(5):
        for optimizer in alone:
            optimizer.zero_grad()
        (two(torch.tensor([step % 8, 5])) + two(torch.tensor([2, 7])).sin()).backward()
        for optimizer in alone:
            optimizer.step()
    for (name, left), right in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(left, right, msg=name, rtol=0, atol=1e-6)


def test_together_continues_exactly_from_its_state_dict() -> None:
    config = OptimizerConfig(kind="muon", lr=0.01)
    straight, first = Model(), Model()
    optimizer, _ = build_optimizer(straight, config, FakeVocabulary())
    train(straight, optimizer, 3)
    first_optimizer, _ = build_optimizer(first, config, FakeVocabulary())
    train(first, first_optimizer, 3)
    state, weights = copy.deepcopy(first_optimizer.state_dict()), copy.deepcopy(first.state_dict())
    second = Model()
    second.load_state_dict(weights)
    second_optimizer, _ = build_optimizer(second, config, FakeVocabulary())
    second_optimizer.load_state_dict(state)
    train(straight, optimizer, 3)
    train(second, second_optimizer, 3)
    for left, right in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)
