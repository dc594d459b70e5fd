"""What a composed recipe says, checked against the plugins that it names, before anything is loaded or trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mio.core.data.checks import check_data, check_source
from mio.core.data.readers import READERS
from mio.core.data.steps import StepShape
from mio.core.declarations import VIEWS, template_problems
from mio.core.errors import RecipeError
from mio.core.modality import Template
from mio.core.plugins import EnabledPlugins
from mio.core.recipe import transformer_config
from mio.core.schema import EvaluateConfig, GuardConfig, OptimizerConfig, Recipe, RuntimeConfig, TrainConfig
from mio.core.suggest import nearest
from mio.core.transformer.config import TransformerConfig


def check(recipe: Recipe, plugins: EnabledPlugins, devices: int | None = None) -> None:
    """Raises `RecipeError` with everything that is wrong with a recipe, and `PluginError` for what a plugin returns.

    `devices` are those of all nodes, where a launcher decides and not the recipe.
    """
    _refuse(
        recipe,
        [
            *check_data(recipe.data, recipe.mixture),
            *_names(recipe, plugins),
            *_spans(recipe, plugins),
            *_system(recipe, plugins),
            *_training(recipe, plugins, devices),
            *_evaluate(recipe.evaluate, plugins),
        ],
    )


def check_training(recipe: Recipe, plugins: EnabledPlugins, devices: int) -> None:
    """`check` of what concerns the model and its training, for a recipe that needs no data. Raises `RecipeError`."""
    _refuse(recipe, list(_training(recipe, plugins, devices)))


def _refuse(recipe: Recipe, problems: list[str]) -> None:
    if problems:
        raise RecipeError([f"recipe `{recipe.name}`: {problem}" for problem in problems])


def _training(recipe: Recipe, plugins: EnabledPlugins, devices: int | None) -> Iterator[str]:
    yield from _train(recipe.train)
    yield from _optimizer(recipe.train.optimizer)
    yield from _rows(recipe.train, recipe.runtime, devices)
    yield from _runtime(recipe.runtime)
    yield from _guards(recipe.train.guards)
    try:
        yield from split_problems(transformer_config(recipe, plugins), recipe.runtime.tensor_parallel)
    except RecipeError as error:
        yield from error.problems


def _names(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """Datasets, template sets, directions and filters of the sources, and the recipe's own templates."""
    templates = {name: [template.direction for template in made] for name, (_, made) in plugins.templates().items()}
    for name, own in recipe.data.templates.items():
        templates[name] = [template.direction for template in own]
        if not own:
            yield f"`data.templates.{name}` is empty; give it a template, or remove it"
        for index, given in enumerate(own):
            template = Template(direction=given.direction, prompt=given.prompt, response=given.response)
            yield from (f"`data.templates.{name}[{index}]`: {problem}" for problem in template_problems(template))
    datasets = [*READERS, *plugins.sources()]
    filters = list(plugins.filters())
    for group, config in recipe.data.groups.items():
        for name, source in config.sources.items():
            where = f"data.groups.{group}.sources.{name}"
            yield from check_source(where, source, datasets, templates, filters)


def _spans(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """A span is never cut, so the context must hold the shortest span of each modality with its two border tokens."""
    if not any(declared.text for _, declared in plugins.modalities()):
        yield "no plugin under `plugins:` declares text; add the plugin `text`"
    context = recipe.data.packing.context
    for _, declared in plugins.modalities():
        if not declared.codebooks:
            continue
        books = max(len(declared.view(view)) for view in VIEWS)
        shortest = books * declared.frames.minimum + 2
        if shortest > context:
            yield (
                f"`data.packing.context` is {context}, but the shortest span of `{declared.name}` takes {shortest} "
                f"positions ({books} x {declared.frames.minimum} codes and 2 borders); give it at least {shortest}"
            )


def _system(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    known = ["default", *(declared.name for _, declared in plugins.modalities())]
    for name in recipe.data.system:
        if name not in known:
            yield f"`data.system.{name}` is neither `default` nor a modality in use{nearest(name, known)}"


def _evaluate(evaluate: EvaluateConfig, plugins: EnabledPlugins) -> Iterator[str]:
    known = plugins.tasks()
    for name in evaluate.tasks:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            yield f"`evaluate.tasks` names an unknown task `{name}`{nearest(name, known)} (known: {listed})"
    yield from _at_least("evaluate", evaluate, items=1, batch=1)


def _at_least(where: str, section: object, **minimum: float) -> Iterator[str]:
    for name, least in minimum.items():
        value = getattr(section, name)
        if not value >= least or not math.isfinite(value):
            yield f"`{where}.{name}` is {value}; it must be at least {least}"


def _one_of(key: str, value: str, known: tuple[str, ...]) -> Iterator[str]:
    if value not in known:
        yield f"`{key}` is `{value}`, not one of {', '.join(known)}{nearest(value, known)}"


def _train(train: TrainConfig) -> Iterator[str]:
    yield from _at_least("train", train, steps=1, rows=1, micro_rows=0)
    yield from _one_of("train.precision", train.precision, ("bf16", "fp32"))
    weights = ("prompt_text", "prompt_media", "response_text", "response_media")
    yield from _at_least("train.loss", train.loss, **dict.fromkeys(weights, 0))
    if not any(getattr(train.loss, name) > 0 for name in weights):
        yield "`train.loss` has no weight above 0; nothing would be learnt"


def _runtime(runtime: RuntimeConfig) -> Iterator[str]:
    yield from _one_of("runtime.sharding", runtime.sharding, ("full", "hybrid", "none"))
    kinds = ("none", "selective", "full")
    yield from _one_of("runtime.activation_checkpointing", runtime.activation_checkpointing, kinds)
    yield from _one_of("runtime.compile", runtime.compile, ("auto", "blocks", "none"))
    yield from _at_least("runtime", runtime, keep_last=1, keep_best=0, restarts=0, stalled_after=0, abort_after=0)


def _guards(guards: GuardConfig) -> Iterator[str]:
    yield from _at_least("train.guards", guards, max_skipped=1, spike=0, spike_window=2)
    yield from _one_of("train.guards.on_spike", guards.on_spike, ("skip", "warn", "stop"))


def split_problems(config: TransformerConfig, devices: int) -> Iterator[str]:
    """Tensor parallelism splits heads and hidden units evenly."""
    sizes = {"heads": config.heads, "kv_heads": config.kv_heads or config.heads, "ffn_width": config.ffn_size}
    for name, size in sizes.items():
        if devices > 0 and size % devices:
            yield f"`runtime.tensor_parallel` is {devices}, which does not divide `model.{name}` {size}"


def _rows(train: TrainConfig, runtime: RuntimeConfig, devices: int | None) -> Iterator[str]:
    """The rows of a step go evenly over the devices, and a device's share evenly over its forward passes."""
    least = ("devices", "nodes", "tensor_parallel", "log_every", "checkpoint_every")
    problems = list(_at_least("runtime", runtime, workers=0, threads=0, **dict.fromkeys(least, 1)))
    yield from problems
    if not problems and train.rows >= 1 and train.micro_rows >= 0:
        devices = devices or runtime.devices * runtime.nodes
        if devices % runtime.tensor_parallel:
            yield f"`runtime.tensor_parallel` is {runtime.tensor_parallel}, which does not divide {devices} devices"
            return
        try:
            StepShape.of(train, devices // runtime.tensor_parallel)
        except RecipeError as error:
            yield from error.problems


def _optimizer(optimizer: OptimizerConfig) -> Iterator[str]:
    where = "train.optimizer"
    yield from _one_of(f"{where}.kind", optimizer.kind, ("adamw", "muon"))
    yield from _at_least(where, optimizer, lr=0, muon_lr=0, eps=0, weight_decay=0, warmup=0, final=0, clip=0)
    for name in ("warmup", "final"):
        if getattr(optimizer, name) > 1:
            yield f"`{where}.{name}` is {getattr(optimizer, name)}; it is a share, at most 1"
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield f"`{where}.betas` is {optimizer.betas}; it must be two numbers from 0 to below 1"
    for index, rule in enumerate(optimizer.rules):
        if not rule.pattern:
            yield f"`{where}.rules[{index}].pattern` is empty; `*` matches every parameter"
        if rule.rows and not rule.trainable:
            yield f"`{where}.rules[{index}].rows` names rows to train, but `trainable` is false"
        yield from _at_least(f"{where}.rules[{index}]", rule, lr_scale=0)
        if rule.weight_decay is not None:
            yield from _at_least(f"{where}.rules[{index}]", rule, weight_decay=0)
