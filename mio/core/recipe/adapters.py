"""Which linear layers of the transformer get a low-rank adapter, and of which size. Free of torch.

LoRA: Hu et al. 2021, arXiv 2106.09685. DoRA: Liu et al. 2024, arXiv 2402.09353. rsLoRA: Kalajdzievski 2023, arXiv
2312.03732.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mio.core.contract.backbone import TransformerConfig
from mio.core.errors import RecipeError, nearest
from mio.core.recipe.model import EMBEDDING, ENCODERS, HEAD, HEAD_BIAS, HEADS, parameter_names
from mio.core.recipe.rules import NEW, UNTRAINED, applied, may_be_of_network, rule_of
from mio.core.recipe.schema import LoraConfig, LoraRuleConfig, Recipe

MOST_LAYERS = 200_000
"""Linear layers of a model that can have adapters."""


@dataclass(frozen=True)
class Adapter:
    """The adapter of one linear layer."""

    rank: int
    alpha: float
    scale: float
    """Its output is multiplied by this."""
    dora: bool


def linear_layers(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer that can have an adapter, by name. The experts' router has none."""
    width, ffn, head = config.width, config.ffn_size, config.head_size
    heads, kv_heads = config.heads * head, (config.kv_heads or config.heads) * head
    attention = {
        "query": (heads, width),
        "key": (kv_heads, width),
        "value": (kv_heads, width),
        "output": (width, heads),
    }
    network = {"gate": (ffn, width), "up": (ffn, width), "down": (width, ffn)}
    experts = [f"ffn.experts.{expert}" for expert in range(config.experts)] or ["ffn"]
    block = {f"attention.{name}": shape for name, shape in attention.items()}
    block |= {f"{expert}.{name}": shape for expert in experts for name, shape in network.items()}
    return {f"layers.{layer}.{name}": shape for layer in range(config.layers) for name, shape in block.items()}


def plan_adapters(config: TransformerConfig, lora: LoraConfig) -> dict[str, Adapter]:
    """The adapter of each linear layer that has one, by its name; none with a rank of 0.

    Raises `RecipeError` with every pattern that matches nothing, and every rank that is larger than its matrix.
    """
    if not lora.rank:
        return {}
    if 7 * config.layers * max(1, config.experts) > MOST_LAYERS:
        raise RecipeError([f"`train.lora`: the model has more than {MOST_LAYERS:,} linear layers"])
    layers = linear_layers(config)
    targets = [name for name in layers if any(fnmatch.fnmatchcase(name, pattern) for pattern in lora.targets)]
    adapters = {name: _adapter(name, lora) for name in targets}
    if problems := [*_unmatched(lora, layers, targets), *_too_large(adapters, layers)]:
        raise RecipeError(problems)
    return adapters


def _adapter(name: str, lora: LoraConfig) -> Adapter:
    rule = rule_of(name, lora.rules) or LoraRuleConfig()
    rank = lora.rank if rule.rank is None else rule.rank
    alpha = lora.alpha if rule.alpha is None else rule.alpha
    return Adapter(rank, alpha, alpha / (math.sqrt(rank) if lora.rslora else rank), lora.dora)


def _unmatched(lora: LoraConfig, layers: Mapping[str, tuple[int, int]], targets: list[str]) -> Iterator[str]:
    if not lora.targets:
        yield "`train.lora.targets` is empty; `layers.*` is every linear layer"
    for pattern in lora.targets:
        if pattern.startswith((ENCODERS, HEADS)):
            yield (
                f"`train.lora.targets`: `{pattern}`: {pattern.partition('.')[0]} have no adapters; they are frozen, "
                f"and `train.lora.train: [{pattern}]` trains them as a whole"
            )
        elif not fnmatch.filter(layers, pattern):
            yield (
                f"`train.lora.targets`: `{pattern}` matches no linear layer{_near(pattern, layers)}; names look like "
                f"`{next(iter(layers))}`"
            )
    for own, rule in applied(lora.rules).items():
        if not rule.pattern:
            yield f"`train.lora.rules.{own}.pattern` is empty; `*` matches every adapter"
        elif not fnmatch.filter(targets, rule.pattern):
            where = "is not among `train.lora.targets`" if fnmatch.filter(layers, rule.pattern) else "matches no layer"
            yield f"`train.lora.rules.{own}`: `{rule.pattern}` {where}{_near(rule.pattern, layers)}"


def _near(pattern: str, layers: Mapping[str, tuple[int, int]]) -> str:
    """The nearest pattern that would match: names with their numbers left open."""
    known = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name in layers}
    return nearest(pattern, sorted(known - {pattern}))


def _too_large(adapters: Mapping[str, Adapter], layers: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    told = set()
    for name, adapter in adapters.items():
        outputs, inputs = layers[name]
        if adapter.rank > min(outputs, inputs) and (adapter.rank, outputs, inputs) not in told:
            told.add((adapter.rank, outputs, inputs))
            yield (
                f"`train.lora`: rank {adapter.rank} is larger than the matrix of `{name}`, {outputs} x {inputs}; give "
                f"at most {min(outputs, inputs)}, or a rule for it"
            )


def whole_parameters(
    names: Sequence[str], lora: LoraConfig, adapters: Mapping[str, Adapter], networks: Sequence[str] = ()
) -> frozenset[str]:
    """Which of the model's parameters `train.lora.train` names.

    Raises `RecipeError` with every pattern that matches none, and for a weight that has an adapter. A pattern that may
    name parameters of plugins' `networks`, whose own names are not among `names`, is let pass (see `network_names`).
    """
    problems = [
        f"`train.lora.train`: `{pattern}` matches no parameter"
        + (nearest(pattern, names) or f"; names look like `{names[0]}`")
        for pattern in lora.train
        if not fnmatch.filter(names, pattern) and not may_be_of_network(pattern, networks)
    ]
    whole = {name for pattern in lora.train for name in fnmatch.filter(names, pattern)}
    both = sorted(name for name in whole if name.rpartition(".")[0] in adapters and name.endswith(".weight"))
    if both:
        more = f", and so have {len(both) - 1} more" if len(both) > 1 else ""
        problems.append(f"`train.lora.train` names `{both[0]}`, which has an adapter{more}; take it out of one of them")
    if problems:
        raise RecipeError(problems)
    return frozenset(whole)


def row_problems(patterns: Sequence[str], blocks: Sequence[str]) -> list[str]:
    """Which patterns of `train.lora.rows` match none of a vocabulary's blocks."""
    return [
        f"`train.lora.rows`: `{pattern}` matches no vocabulary block"
        + (
            "; rows that no stage has trained are found for rules of the optimizer, without adapters"
            if pattern == UNTRAINED
            else nearest(pattern, [NEW, *blocks])
        )
        for pattern in patterns
        if pattern != NEW and not fnmatch.filter(blocks, pattern)
    ]


def trained_parameters(config: TransformerConfig, lora: LoraConfig, networks: Sequence[str] = ()) -> Iterator[str]:
    """Names of what a stage trains, those of plugins' `networks` left out: of all parameters without adapters, else of
    what is trained beside the frozen ones. Rows count if any are asked for. Raises `RecipeError` as `plan_adapters`."""
    if not lora.rank:
        yield from parameter_names(config)
        return
    adapters = plan_adapters(config, lora)
    whole = whole_parameters(list(parameter_names(config)), lora, adapters, networks)
    yield from sorted(whole)
    for name, adapter in adapters.items():
        yield from (f"{name}.{kind}" for kind in ("lora_a", "lora_b", *(["magnitude"] if adapter.dora else [])))
    rows = {EMBEDDING: "rows.embedding"} | ({} if config.tied_embeddings else {HEAD: "rows.head"})
    frozen = [own for matrix, own in rows.items() if matrix not in whole]
    if lora.rows and frozen:
        yield from frozen
        yield from {HEAD_BIAS} - whole if config.head_bias else ()


def lora_problems(recipe: Recipe, config: TransformerConfig, networks: Sequence[str] = ()) -> Iterator[str]:
    """What is wrong with the adapters of a recipe, as far as that is seen without its vocabulary and the parameters
    of plugins' `networks` (see `network_names`)."""
    lora = recipe.train.lora
    if not lora.rank:
        if lora != LoraConfig():
            yield (
                "`train.lora` says how adapters are, but `train.lora.rank` is 0, and the whole model would be trained; "
                "give it a rank, or turn it off with `train.lora={_replace_: true}`"
            )
        return
    if not recipe.start_from:
        yield "`train.lora` adapts a trained model, and `start_from` names none; give a run, or a recipe to train first"
    try:
        adapters = plan_adapters(config, lora)
        whole_parameters(list(parameter_names(config)), lora, adapters, networks)
    except RecipeError as error:
        yield from error.problems
