"""Learning-rate schedules: a factor on the peak rate, step by step. Free of torch.

Cosine with linear warm-up: Loshchilov and Hutter 2017, arXiv 1608.03983. Warm-up, stable, decay: Hu et al. 2024
(MiniCPM), arXiv 2404.06395. Its decay as one minus a square root: Hägele et al. 2024, arXiv 2405.18392.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mio.core.recipe.rules import applied
from mio.core.recipe.schema import OptimizerConfig, RuleConfig


@dataclass(frozen=True)
class Schedule:
    """The keys of a schedule in `train.optimizer` or in one of its rules, as they apply."""

    kind: str
    warmup: float
    final: float
    decay: float
    decay_shape: str

    @classmethod
    def of(cls, config: OptimizerConfig, rule: RuleConfig | None = None) -> Schedule:
        """That of a recipe's optimizer, or of the parameters of a rule, which may replace single keys of it."""
        rule = rule or RuleConfig()
        return cls(
            rule.schedule or config.schedule,
            config.warmup if rule.warmup is None else rule.warmup,
            config.final if rule.final is None else rule.final,
            config.decay if rule.decay is None else rule.decay,
            rule.decay_shape or config.decay_shape,
        )

    def factor(self, step: int, steps: int) -> float:
        """Factor on the peak learning rate at `step`, counted from 0, of `steps`.

        It rises in a straight line over the first steps and falls to `final`, which step number `steps` would have,
        the first after the end.
        """
        warmup = max(1, round(self.warmup * steps))
        if step < warmup:
            return (step + 1) / warmup
        if self.kind == "constant":
            return 1.0
        shape = self.kind
        first, length = warmup, steps - warmup  # the steps with a falling rate
        if self.kind == "wsd":
            shape, length = self.decay_shape, round(self.decay * steps)
            first = steps - length
        if step < first:
            return 1.0
        progress = min(1.0, (step - first) / max(1, length))
        return self.final + (1.0 - self.final) * _falling(shape, progress)


def _falling(shape: str, progress: float) -> float:
    """From 1 to 0 while `progress` goes from 0 to 1."""
    if shape == "linear":
        return 1.0 - progress
    if shape == "1-sqrt":
        return 1.0 - math.sqrt(progress)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Rate:
    """A learning rate over a stage."""

    peak: float
    schedule: Schedule

    def at(self, step: int, steps: int) -> float:
        """That of a step, counted from 1, of `steps`."""
        return self.peak * self.schedule.factor(step - 1, steps)


def logged_rates(schedules: Sequence[Schedule], config: OptimizerConfig) -> dict[str, Rate]:
    """The learning rates that are logged, by the metric's name: `lr`, AdamW's where no rule says otherwise, and
    `lr/RULE` for each further schedule, that of the first rule that has it.

    Args:
        schedules: that of each group of the optimizer.
    """
    left = set(schedules) - {Schedule.of(config)}
    rates = {"lr": Rate(config.lr, Schedule.of(config))}
    for name, rule in applied(config.rules).items():
        schedule = Schedule.of(config, rule)
        if schedule in left:
            left.remove(schedule)
            figure = "lr/" + re.sub(r"[^\w.\-]+", "_", name)  # what loggers allow in a name
            while figure in rates:
                figure += "_"
            rates[figure] = Rate(config.lr * rule.lr_scale, schedule)
    return rates
