"""Optimizers and their parameter groups.

Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, in torch's own implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mio.core.distributed.regions import gathered, is_elsewhere, local, zeros_like
from mio.core.errors import RecipeError
from mio.core.model.lora import LORA_A, LORA_B, ROWS
from mio.core.model.networks import exact_parameters
from mio.core.model.transformer import Transformer
from mio.core.model.untrained_rows import untrained_rows
from mio.core.model.vocabulary_rows import block_ranges
from mio.core.recipe.model import HEAD_BIAS, ROW_PARAMETERS
from mio.core.recipe.rules import UNTRAINED, rule_of, rule_problems
from mio.core.recipe.schema import OptimizerConfig, RuleConfig
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.gradients import RowMask
from mio.core.training.muon import SplitMuon
from mio.core.training.schedule import Schedule


@dataclass(frozen=True)
class ParameterPlan:
    """What the rules say about one parameter."""

    name: str
    schedule: Schedule
    trainable: bool = True
    lr_scale: float = 1.0
    weight_decay: float = 0.0
    pull: float = 0.0
    muon: bool = False
    rows: tuple[str, ...] = ()


def plan_parameters(
    shapes: Mapping[str, torch.Size], config: OptimizerConfig, vocabulary: Vocabulary, tables: Container[str] = ()
) -> list[ParameterPlan]:
    """Applies the recipe's rules to parameters by name.

    Matrices inside the layers decay and, with `kind: muon`, are Muon's; norms, biases, embedding and head do not decay
    and are AdamW's. The matrices of adapters decay and are AdamW's. Of encoders, weights of linear layers are such
    matrices, those of convolutions decay and are AdamW's, and `tables`, all others, do not decay. A rule may change
    that. Raises `RecipeError` with every rule that matches no parameter, or no vocabulary block.
    """
    blocks = [block.name for block in vocabulary.blocks]
    found = rule_problems(config.rules, list(shapes), blocks)
    if problems := [f"train.optimizer.rules.{name}: {text}" for name, text in found]:
        raise RecipeError(problems)
    return [_plan(name, shape, config, name in tables) for name, shape in shapes.items()]


def _plan(name: str, shape: torch.Size, config: OptimizerConfig, table: bool) -> ParameterPlan:
    matrix = len(shape) >= 2 and name not in (*ROW_PARAMETERS, *ROWS) and not table
    rule = rule_of(name, config.rules) or RuleConfig()
    decay = config.weight_decay if matrix else 0.0
    if rule.weight_decay is not None:
        decay = rule.weight_decay
    if rule.rows:
        decay = 0.0  # decay would move the rows that are to stay
    return ParameterPlan(
        name=name,
        schedule=Schedule.of(config, rule),
        trainable=rule.trainable,
        lr_scale=rule.lr_scale,
        weight_decay=decay,
        pull=config.pull if rule.pull is None else rule.pull,
        # the factors of a low-rank product: to make each of them orthogonal is not what Muon does to a matrix
        muon=config.kind == "muon" and matrix and len(shape) == 2 and not name.endswith((LORA_A, LORA_B)),
        rows=tuple(rule.rows),
    )


def _planned(
    module: nn.Module, config: OptimizerConfig, vocabulary: Vocabulary
) -> Iterator[tuple[ParameterPlan, nn.Parameter]]:
    frozen = getattr(module, "frozen", ())  # by adapters
    parameters = {name: parameter for name, parameter in module.named_parameters() if name not in frozen}
    tables = exact_parameters(module) if isinstance(module, Transformer) else {}
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    plans = plan_parameters(shapes, config, vocabulary, tables)
    if _masked_bias(module):
        plans = [replace(plan, weight_decay=0.0) if plan.name == HEAD_BIAS else plan for plan in plans]
    return ((plan, parameters[plan.name]) for plan in plans)


def _masked_bias(module: nn.Module) -> bool:
    """Whether a head's bias is trained in the rows that adapters train, and in no others."""
    return isinstance(module, Transformer) and module.rows is not None and module.rows.bias


def freeze(module: nn.Module, config: OptimizerConfig, vocabulary: Vocabulary) -> None:
    """Marks the parameters that the rules leave out as not trainable: they get no gradient and no optimizer state."""
    for plan, parameter in _planned(module, config, vocabulary):
        parameter.requires_grad_(plan.trainable)


def row_masks(module: nn.Module, config: OptimizerConfig, vocabulary: Vocabulary, known: int) -> list[RowMask]:
    """Masks of the parameters of which the rules train some rows only, in a stage that starts with `known` ids and, at
    this time, with the weights of the module. A collective call where these are split."""
    plans = [(plan, parameter) for plan, parameter in _planned(module, config, vocabulary) if plan.trainable]
    untrained: Tensor | None = None
    if any(UNTRAINED in plan.rows for plan, _ in plans):
        assert isinstance(module, Transformer)
        untrained = untrained_rows(gathered(module.head_weight), known)
    masks = [
        RowMask(parameter, block_ranges(vocabulary, plan.rows, known), untrained if UNTRAINED in plan.rows else None)
        for plan, parameter in plans
        if plan.rows
    ]
    if isinstance(module, Transformer) and module.rows is not None and _masked_bias(module):
        masks.append(RowMask(module.get_parameter(HEAD_BIAS), module.rows.ranges))
    return masks


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, vocabulary: Vocabulary
) -> tuple[Optimizer, list[Schedule]]:
    """Groups the trainable parameters of `module` by the recipe's rules; returns their optimizer and the schedule of
    each of its groups."""
    groups: dict[tuple[bool, float, float, float, Schedule], list[nn.Parameter]] = {}
    for plan, parameter in _planned(module, config, vocabulary):
        if plan.trainable:
            key = plan.muon, plan.lr_scale, plan.weight_decay, plan.pull, plan.schedule
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise RecipeError(["train.optimizer.rules: every parameter is frozen; there is nothing to train"])
    adamw: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    for (is_muon, lr_scale, decay, pull, _), chosen in groups.items():
        lr = lr_scale * (config.muon_lr if is_muon else config.lr)
        (muon if is_muon else adamw).append({"params": chosen, "lr": lr, "weight_decay": decay, "pull": pull})
    members: list[Optimizer] = []
    if muon:  # its `match_rms_adamw` would tie the rate to AdamW's; published rates belong to the original rule
        members.append(SplitMuon(muon, lr=config.muon_lr, momentum=0.95))
    if adamw:
        betas = cast("tuple[float, float]", tuple(config.betas))
        members.append(SplitAdamW(adamw, lr=config.lr, betas=betas, eps=config.eps, fused=True))
    optimizer = members[0] if len(members) == 1 else Together(*members)
    return optimizer, [schedule for *_, schedule in sorted(groups, key=lambda key: not key[0])]  # Muon's first


class SplitAdamW(AdamW):
    """torch's `AdamW` on this device's parts of parameters: what it does to an element depends on no other one."""

    def _init_group(self, group: Any, params: Any, grads: Any, averages: Any, squares: Any, *others: Any) -> Any:
        for parameter in group["params"]:
            if parameter.grad is not None and is_elsewhere(parameter) and not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": zeros_like(parameter),
                    "exp_avg_sq": zeros_like(parameter),
                }
        has_complex = super()._init_group(group, params, grads, averages, squares, *others)
        for tensors in (params, grads, averages, squares):
            tensors[:] = [local(tensor) for tensor in tensors]
        return has_complex


class Together(Optimizer):
    """Several optimizers over disjoint parameters behind the interface of one.

    They share this object's `state` and groups, so schedules, state dicts and checkpoints see a single optimizer.
    """

    def __init__(self, *members: Optimizer) -> None:
        self.members = members
        self._sizes = [len(member.param_groups) for member in members]
        super().__init__([group for member in members for group in member.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Makes the members look at this object's groups and state, which loading replaces."""
        start = 0
        for member, size in zip(self.members, self._sizes, strict=True):
            member.param_groups = self.param_groups[start : start + size]
            member.state = self.state
            start += size

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss
