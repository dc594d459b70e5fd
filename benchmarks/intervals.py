"""How often 95 % intervals hold the truth, and how often paired tests at 5 % see a difference that is not there.

    python benchmarks/intervals.py [--models 1000]

Each figure is of so many simulated models of which the truth is known: right or wrong, marks (as VQA's votes), counts,
error rates (errors and words of items that are not equally hard), and one figure of all items together. For right or
wrong the same is also summed exactly, by accuracy and number of items. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import binom

from mio.core.evaluation.paired import numbers, overall, ratios, right_or_wrong
from mio.core.evaluation.statistics import interval_of, jackknife, replicates, wilson

Generator = np.random.Generator
Draw = Callable[[Generator, int, int], np.ndarray]
"""Numbers [models, n] or pairs [models, n, 2] of equally good models, some of which are equal for being of one item."""
VOTES = np.array([0, 0.3, 0.6, 0.9, 1])
UNBOUNDED = (-math.inf, math.inf)


def alike(rng: Generator, draw: Callable[[tuple[int, ...]], np.ndarray], models: int, n: int) -> np.ndarray:
    """Models that agree at 30 % of the items."""
    return np.where(rng.random(n) < 0.3, draw((1, n)), draw((models, n)))


def votes(*shares: float) -> Draw:
    return lambda rng, n, models: alike(rng, lambda shape: rng.choice(VOTES, shape, p=shares), models, n)


def errors(rate: float) -> Draw:
    """Errors and words: of 3 to 12 words an item's own share (gamma, shape 1/2) is wrong."""

    def draw(rng: Generator, n: int, models: int) -> np.ndarray:
        words, own = rng.integers(3, 13, n), np.minimum(1, rng.gamma(0.5, rate / 0.5, n))
        return np.stack([np.stack([rng.binomial(words, own), words], 1) for _ in range(models)]).astype(float)

    return draw


KINDS: dict[str, tuple[Draw, tuple[float, float]]] = {
    "marks, beta 9 1": (lambda r, n, m: alike(r, lambda shape: r.beta(9, 1, shape), m, n), (0, 1)),
    "marks, beta 0.9 0.1": (lambda r, n, m: alike(r, lambda shape: r.beta(0.9, 0.1, shape), m, n), (0, 1)),
    "votes, mean 0.85": (votes(0.1, 0.05, 0.05, 0.1, 0.7), (0, 1)),
    "votes, mean 0.967": (votes(0.02, 0.01, 0.01, 0.02, 0.94), (0, 1)),
    "counts, mean 0.2": (lambda r, n, m: alike(r, lambda shape: 1.0 * r.poisson(0.2, shape), m, n), (0, math.inf)),
    "word errors, 2 %": (errors(0.02), (0, math.inf)),
    "word errors, 20 %": (errors(0.2), (0, math.inf)),
    "normal": (lambda r, n, m: alike(r, lambda shape: r.normal(0, 1, shape), m, n), UNBOUNDED),
}  # fmt: skip


@cache
def truth(name: str) -> float:
    values = KINDS[name][0](np.random.default_rng(1), 2_000_000, 1)[0]
    return float(values[:, 0].sum() / values[:, 1].sum() if values.ndim == 2 else values.mean())


def held(interval: tuple[float, float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def right(rng: Generator, count: int, first: float, second: float, shared: float) -> list[np.ndarray]:
    """Right or wrong of two models, to which this share of items is hard for the same reason."""
    hard, same = rng.random(count), rng.random(count) < shared
    return [(np.where(same, hard, rng.random(count)) < one).astype(float) for one in (first, second)]


def right_or_wrong_models(rng: Generator, models: int, count: int) -> dict[str, float]:
    """Models of accuracies between 0.7 and 0.99."""
    found = []
    for _ in range(models):
        accuracy, shared = rng.uniform(0.7, 0.99), rng.uniform(0, 0.5)
        better = min(0.995, accuracy + rng.uniform(0, 0.1))
        equal, apart = (right(rng, count, accuracy, other, shared) for other in (accuracy, better))
        found.append((
            held(interval_of(equal[0]), accuracy),
            numbers(*equal).p <= 0.05,
            held(numbers(*apart).interval, better - accuracy),
        ))  # fmt: skip
    return dict(zip(("interval", "alarms", "difference"), np.mean(found, 0).tolist(), strict=True))


def kind_models(rng: Generator, models: int, count: int, name: str) -> dict[str, float]:
    draw, bounds = KINDS[name]
    found = []
    for _ in range(models):
        first, second = draw(rng, count, 2)
        compared = ratios(first, second) if first.ndim == 2 else numbers(first, second, *bounds)
        found.append((held(interval_of(first, *bounds), truth(name)), compared.p <= 0.05))
    return dict(zip(("interval", "alarms"), np.mean(found, 0).tolist(), strict=True))


def overall_models(rng: Generator, models: int, count: int) -> dict[str, float]:
    """The standard deviation of all items' numbers, by the jackknife."""
    found = []
    for _ in range(models):
        two = alike(rng, lambda shape: rng.normal(0, 1, shape), 2, count)
        without = [replicates(count, lambda items, one=one: float(one[items].std())) for one in two]
        compared = overall(float(two[0].std()), float(two[1].std()), *without, math.inf)
        found.append((held(jackknife(float(two[0].std()), without[0]), 1.0), compared.p <= 0.05))
    return dict(zip(("interval", "alarms"), np.mean(found, 0).tolist(), strict=True))


def wilson_exactly(accuracy: float, count: int) -> float:
    counts = np.arange(count + 1)
    holds = [held(wilson(int(one), count), accuracy) for one in counts]
    return float(binom.pmf(counts, count, accuracy)[holds].sum())


def alarms_exactly(accuracy: float, correlation: float, count: int) -> tuple[float, float]:
    """How many items differ on average, and the false alarms of two models of one accuracy."""
    differing = 2 * accuracy * (1 - accuracy) * (1 - correlation)
    alarms = 0.0
    for differ in range(count + 1):
        chance = binom.pmf(differ, count, differing)
        if chance > 1e-7:
            gained = np.arange(differ + 1)
            refused = [right_or_wrong(int(one), int(differ - one), count).p <= 0.05 for one in gained]
            alarms += float(chance * binom.pmf(gained, differ, 0.5)[refused].sum())
    return count * differing, alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    models = parser.parse_args().models
    rng, start = np.random.default_rng(0), time.perf_counter()
    found: dict[str, dict[str, float]] = {}
    print(f"{models} models each: {'':29} interval holds  false alarms  difference held")
    for count in (50, 200, 500):
        rows = {"right or wrong": right_or_wrong_models(rng, models, count)}
        rows |= {name: kind_models(rng, models, count, name) for name in KINDS}
        rows["deviation of all"] = overall_models(rng, models, count)
        for name, row in rows.items():
            found[f"{name}, n {count}"] = row
            print(f"  {name + f', n {count}':40}" + "".join(f"{value:16.3f}" for value in row.values()))
    accuracies = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    print("Wilson's interval holds, exactly, by accuracy:", *accuracies)
    exact: dict[str, list[float]] = {}
    for count in (50, 200, 500, 1000):
        grid = np.linspace(0.7, 0.99, 581)
        mean = float(np.mean([wilson_exactly(float(one), count) for one in grid[:: max(1, count // 100)]]))
        exact[str(count)] = [wilson_exactly(one, count) for one in accuracies]
        print(
            f"  n {count:4}",
            *(f"{value:.3f}" for value in exact[str(count)]),
            f"; on average of 0.70 ... 0.99: {mean:.4f}",
        )
    print("False alarms of right or wrong, exactly (items that differ on average), by accuracy:", *accuracies[1:])
    for count in (200, 500):
        for correlation in (0.0, 0.3, 0.6):
            row = [alarms_exactly(accuracy, correlation, count) for accuracy in accuracies[1:]]
            exact[f"alarms, n {count}, correlation {correlation}"] = [alarms for _, alarms in row]
            print(
                f"  n {count}, correlation {correlation}:", *(f"{alarms:.4f} ({differ:.1f})" for differ, alarms in row)
            )
    print(f"{time.perf_counter() - start:.0f} s")
    print(json.dumps({"models": models, "simulated": found, "exact": exact}))


if __name__ == "__main__":
    main()
