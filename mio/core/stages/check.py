"""A composed recipe checked against the plugins that it names, before anything is loaded or trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.span_table import span_table
from mio.core.contract.validation import VIEWS, control_name_problems, template_problems
from mio.core.contract.values import TEXT, Modality, Template
from mio.core.data.readers import READERS, reader_problems
from mio.core.data.sources import known_kinds, template_sets
from mio.core.errors import DataError, PluginError, RecipeError, UserError, nearest
from mio.core.generation.defaults import generate_problems
from mio.core.recipe.adapters import lora_problems
from mio.core.recipe.data_schema import DataConfig, MixtureConfig
from mio.core.recipe.distillation import distillation_problems
from mio.core.recipe.model import ROW_PARAMETERS, network_names, transformer_config
from mio.core.recipe.rules import UNTRAINED, applied, names_untrained, pulls
from mio.core.recipe.schema import AverageConfig, EvaluateConfig, OptimizerConfig, Recipe, RuntimeConfig, TrainConfig
from mio.core.recipe.steps import StepShape
from mio.core.stages.check_reading import networks_at_hand, reading_problems
from mio.core.stages.check_validation import validation_problems
from mio.core.tokens.chat import GIVEN
from mio.core.training.run_log import make_loggers
from mio.core.training.schedule import Schedule

MOST_POSITIONS = 2**32
"""Of one step over all devices."""


def check(recipe: Recipe, plugins: EnabledPlugins, devices: int | None = None) -> None:
    """Raises `RecipeError` with everything that is wrong with a recipe, and `PluginError` for what a plugin returns.

    Keys, types and ranges were checked when the recipe was read. `devices` are those of all nodes, where a launcher
    decides and not the recipe.
    """
    _refuse(
        recipe,
        [
            *_mixture(recipe.data, recipe.mixture),
            *_templates(recipe.data),
            *_controls(recipe, plugins),
            *_groups(recipe.data, plugins),
            *_spans(recipe, plugins),
            *_system(recipe, plugins),
            *_training(recipe, plugins, devices),
            *_evaluate(recipe.evaluate, plugins),
            *validation_problems(recipe, plugins),
            *reading_problems(recipe, plugins),
            *_loggers(recipe.runtime, plugins),
            *_generate(recipe, plugins),
        ],
    )


def check_training(recipe: Recipe, plugins: EnabledPlugins, devices: int) -> None:
    """`check` of what concerns the model and its training, for a recipe that needs no data. Raises `RecipeError`."""
    _refuse(recipe, list(_training(recipe, plugins, devices)))


def _refuse(recipe: Recipe, problems: list[str]) -> None:
    if problems:
        raise RecipeError([f"recipe `{recipe.name}`: {problem}" for problem in problems])


def _training(recipe: Recipe, plugins: EnabledPlugins, devices: int | None) -> Iterator[str]:
    yield from _train(recipe, plugins)
    yield from _average(recipe)
    yield from distillation_problems(recipe)
    yield from _optimizer(recipe.train.optimizer)
    if pulls(recipe.train.optimizer) and not recipe.start_from:
        yield "`pull` is toward what the stage starts from, and it starts from nothing; give `start_from`"
    if names_untrained(recipe.train.optimizer) and not recipe.start_from:
        yield (
            f"`rows: [{UNTRAINED}]` are those that what the stage starts from has not learnt, and it starts from "
            "nothing; give `start_from`"
        )
    yield from _rows(recipe.train, recipe.runtime, devices)
    try:
        config = transformer_config(recipe, plugins.manager)
        yield from split_problems(config, recipe.runtime.tensor_parallel)
        yield from expert_problems(config, recipe.runtime)
        yield from _networks(recipe, config, plugins)
    except RecipeError as error:
        yield from error.problems


def _networks(recipe: Recipe, config: TransformerConfig, plugins: EnabledPlugins) -> Iterator[str]:
    """Those that plugins put into the transformer: whether they fit together, and what the recipe says of them."""
    networks, problems = networks_at_hand(plugins)
    yield from problems
    yield from networks.problems()
    names: list[str] = []
    try:
        names = list(network_names(networks, config.layers))
    except PluginError as error:
        yield str(error)
    yield from lora_problems(recipe, config, names)
    made = list(networks.heads)
    for name in recipe.train.loss.heads:
        if name not in made:
            listed = (
                f"heads make {', '.join(f'`{one}`' for one in made)}" if made else "no plugin of the recipe has one"
            )
            yield f"`train.loss.heads` names `{name}`, which no head makes{nearest(name, made)} ({listed})"


def _mixture(data: DataConfig, mixture: MixtureConfig) -> Iterator[str]:
    first, *later = mixture.points()
    places = {"mixture.ratios": (mixture.ratios, first)}
    places |= {
        f"mixture.ramp[{index}].ratios": (point.ratios, whole)
        for index, (point, whole) in enumerate(zip(mixture.ramp, later, strict=True))
    }
    for where, (ratios, whole) in places.items():
        for group, ratio in ratios.items():
            if group not in data.groups:
                yield f"`{where}` names an unknown group `{group}`{nearest(group, data.groups)}"
            elif ratio > 0 and not data.groups[group].sources:
                yield f"`{where}.{group}` is {ratio:g}, but `data.groups.{group}` has no sources; add one, or set 0"
        if not any(ratio > 0 for ratio in whole.ratios.values()):
            yield f"`{where}` has no ratio above 0; give at least one group a share"
    moments = [0.0, *(point.at for point in mixture.ramp)]
    for index, (last, now) in enumerate(pairwise(moments)):
        where = f"mixture.ramp[{index}].at"
        if now < last:
            yield f"`{where}` is {now:g}, before the {last:g} of the point before; put the points in order"
        elif now == last and (now == 1 or now == moments[index - 1]):
            why = (
                "the stage is over there" if now == 1 else "two points of one moment are a jump, a third has no effect"
            )
            yield f"`{where}` is {now:g} again: {why}; take one of them away"


def _templates(data: DataConfig) -> Iterator[str]:
    """The recipe's own template sets."""
    for name, templates in data.templates.items():
        if not templates:
            yield f"`data.templates.{name}` is empty; give it a template, or remove it"
        for index, config in enumerate(templates):
            problems = template_problems(Template(**asdict(config)))
            yield from (f"`data.templates.{name}[{index}]`: {problem}" for problem in problems)


def _controls(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """Control tokens that the templates of sources name."""
    sources = (source for group in recipe.data.groups.values() for source in group.sources.values())
    sets, known = template_sets(recipe, plugins), [token.name for _, token in plugins.control_tokens()]
    for name in dict.fromkeys(source.templates for source in sources if source.templates in sets):
        for template in sets[name]:
            if problems := control_name_problems(template, known):
                yield f"template `{name}/{template.direction}`: {'; '.join(problems)}"


def _groups(data: DataConfig, plugins: EnabledPlugins) -> Iterator[str]:
    """Shares of sources and directions; datasets, template sets, directions and filters by name; options."""
    sets = {name: templates for name, (_, templates) in plugins.templates().items()} | data.templates
    directions = {name: [template.direction for template in templates] for name, templates in sets.items()}
    shipped, kinds = plugins.sources(), known_kinds(plugins)
    filters = {name: function for name, (_, function) in plugins.filters().items()}
    yield from _slashes(data, directions)
    for group, config in data.groups.items():
        if config.sources and not any(source.weight > 0 for source in config.sources.values()):
            yield f"`data.groups.{group}` has no source with a weight above 0; give at least one a weight"
        for name, source in config.sources.items():
            where = f"data.groups.{group}.sources.{name}"
            if source.directions and not any(share > 0 for share in source.directions.values()):
                yield f"`{where}.directions` has no share above 0; give at least one direction a share"
            yield from source.problems(where, [*READERS, *shipped], directions, filters)
            if source.dataset in READERS and source.dataset not in shipped:
                for problem in reader_problems(source.dataset, source.options, kinds, whole=False):
                    yield f"`{where}.options`: {problem}"
            for key, options in source.filters.items():
                right = key in filters and isinstance(options, Mapping | None)
                if right and (problem := _filter_problem(filters[key], options or {})):
                    yield f"`{where}.filters.{key}`: {problem}"


def _slashes(data: DataConfig, directions: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Streams are named GROUP/SOURCE/DIRECTION: of other names with a slash, two could have one name."""
    for group, config in data.groups.items():
        names = {f"`data.groups.{group}`": group}
        for name, source in config.sources.items():
            names[f"`data.groups.{group}.sources.{name}`"] = name
            for direction in directions.get(source.templates, ()):
                names[f"direction `{direction}` of the template set `{source.templates}`"] = direction
        for where, name in names.items():
            if "/" in name:
                yield f"{where}: the name of a group, a source or a direction has no `/`; take `-` or `_`"


def _filter_problem(function: Callable[[Any, Mapping[str, Any]], str], options: Mapping[str, Any]) -> str:
    """Why a filter refuses its options, which it reads before it looks at a record; empty if it does not."""
    try:
        function({}, options)
    except DataError:
        return ""
    except UserError as error:
        return str(error)
    except Exception:
        return ""  # it cannot do without a record
    return ""


def _spans(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    """A span is never cut, so the context must hold the shortest span of each modality with its two border tokens."""
    if not any(declared.text for _, declared in plugins.modalities()):
        options = ", which then has the options of what the stage starts from" if recipe.start_from else ""
        yield f"no plugin under `plugins:` declares text; add the plugin `text`{options}"
    context = recipe.data.packing.context
    known = {declared.name: declared for _, declared in plugins.modalities()}
    for name, declared in known.items():
        if declared.codebooks and (shortest := _shortest(declared)) > context:
            books = max(len(declared.view(view)) for view in VIEWS)
            yield (
                f"`data.packing.context` is {context}, but the shortest span of `{name}` takes {shortest} "
                f"positions ({books} x {(shortest - 2) // books} codes and 2 borders); give it at least {shortest}"
            )
        parts = (
            [known[declared.next_part(count)] for count in range(declared.part_counts.minimum)]
            if declared.parts
            else []
        )
        if all(part.codebooks for part in parts) and (shortest := sum(map(_shortest, parts))) > context:
            yield (
                f"`data.packing.context` is {context}, but the shortest item of `{name}` takes {shortest} positions "
                f"in its {len(parts)} spans; give it at least {shortest}"
            )


def _shortest(declared: Modality) -> int:
    """Positions of the shortest span of codes, with its borders."""
    books = max(len(declared.view(view)) for view in VIEWS)
    table = span_table(declared)
    return 2 + (books * declared.frames.minimum if table is None else table.least(0, table.shortest))


def _system(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    modalities = [declared.name for _, declared in plugins.modalities()]
    known = ["default", *modalities, *(f"{GIVEN}{name}" for name in modalities if name != TEXT)]
    for name in recipe.data.system:
        if name not in known:
            yield (
                f"`data.system.{name}` is neither `default` nor a modality in use, nor `{GIVEN}` and one"
                f"{nearest(name, known)}"
            )


def _generate(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    modalities = {declared.name: declared for _, declared in plugins.modalities()}
    yield from generate_problems(recipe, modalities, networks_at_hand(plugins)[0])


def _evaluate(evaluate: EvaluateConfig, plugins: EnabledPlugins) -> Iterator[str]:
    known = plugins.tasks()
    for name in evaluate.tasks:
        if name not in known:
            yield f"`evaluate.tasks`: {plugins.no_task(name)}"


def _average(recipe: Recipe) -> Iterator[str]:
    if recipe.train.average.kind == "none":
        if recipe.train.average != AverageConfig():
            yield (
                "`train.average` says how weights are averaged, but `train.average.kind` is none; set `ema` or `mean`, "
                "or turn it off with `train.average={_replace_: true}`"
            )
        for where, wanted in (("evaluate", recipe.evaluate.average), ("validate", recipe.validate.average)):
            if wanted:
                yield f"`{where}.average` asks for an average of the weights, which `train.average.kind: ema` keeps"


def _loggers(runtime: RuntimeConfig, plugins: EnabledPlugins) -> Iterator[str]:
    try:
        make_loggers(runtime, plugins.manager)
    except UserError as error:
        yield str(error)


def _train(recipe: Recipe, plugins: EnabledPlugins) -> Iterator[str]:
    train, context = recipe.train, recipe.data.packing.context
    weights = asdict(train.loss) | ({} if plugins.control_tokens() else {"control": 0})
    del weights["heads"]  # factors on the weight of media
    if not any(value > 0 for value in weights.values()):
        yield "`train.loss` has no weight above 0; nothing would be learnt"
    if train.rows * context > MOST_POSITIONS:
        yield (
            f"`train.rows` {train.rows:,} of `data.packing.context` {context:,} are {train.rows * context:.2g} "
            f"positions of one step, more than {MOST_POSITIONS:,}; lower one of them"
        )


def split_problems(config: TransformerConfig, devices: int) -> Iterator[str]:
    """Tensor parallelism splits heads and hidden units evenly."""
    sizes = {"heads": config.heads, "kv_heads": config.kv_heads or config.heads, "ffn_width": config.ffn_size}
    for name, size in sizes.items():
        if devices > 0 and size % devices:
            yield f"`runtime.tensor_parallel` is {devices}, which does not divide `model.{name}` {size}"


def expert_problems(config: TransformerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Expert parallelism gives each device the same number of experts, of a layer's parameters that are split."""
    devices = runtime.expert_parallel
    if devices == 1:
        return
    where = f"`runtime.expert_parallel` is {devices}"
    if not config.experts:
        yield f"{where}, but the model has no experts; leave it out, or give `model.experts`"
    elif config.experts % devices:
        yield f"{where}, which does not divide `model.experts` {config.experts}"
    if runtime.sharding == "none":
        yield f"{where}, but `runtime.sharding: none` copies all parameters to every device; set `full` or `hybrid`"


def _rows(train: TrainConfig, runtime: RuntimeConfig, devices: int | None) -> Iterator[str]:
    """The rows of a step go evenly over the devices, and a device's share evenly over its forward passes."""
    devices = devices or runtime.devices * runtime.nodes
    if devices % runtime.tensor_parallel:
        yield f"`runtime.tensor_parallel` is {runtime.tensor_parallel}, which does not divide {devices} devices"
        return
    data = devices // runtime.tensor_parallel
    if runtime.sharding != "none" and data % runtime.expert_parallel:
        yield (
            f"`runtime.expert_parallel` is {runtime.expert_parallel}, which does not divide the devices that "
            f"parameters are split over ({data})"
        )
    try:
        StepShape.of(train, devices // runtime.tensor_parallel)
    except RecipeError as error:
        yield from error.problems


def _optimizer(optimizer: OptimizerConfig) -> Iterator[str]:
    where, rules = "train.optimizer", applied(optimizer.rules)
    if len(optimizer.betas) != 2:
        yield f"`{where}.betas` is {optimizer.betas}; it must be two numbers from 0 to below 1"
    for name, rule in [(where, None), *((f"{where}.rules.{own}", rule) for own, rule in rules.items())]:
        schedule = Schedule.of(optimizer, rule)
        if schedule.kind == "wsd" and schedule.warmup + schedule.decay > 1:
            yield (
                f"`{name}`: `warmup` {schedule.warmup:g} and `decay` {schedule.decay:g} are more than all steps; lower "
                "one of them"
            )
    lr = max(optimizer.lr, optimizer.muon_lr if optimizer.kind == "muon" else 0)
    decays = [(f"{where}.weight_decay", lr, optimizer.weight_decay, "weight decay", "zero")]
    decays.append((f"{where}.pull", lr, optimizer.pull, "pull", "the start"))
    for own, rule in rules.items():
        if not rule.pattern:
            yield f"`{where}.rules.{own}.pattern` is empty; `*` matches every parameter"
        if rule.rows and not rule.trainable:
            yield f"`{where}.rules.{own}.rows` names rows to train, but `trainable` is false"
        if rule.rows and rule.weight_decay:
            yield (
                f"`{where}.rules.{own}` has `rows` and `weight_decay`, which would move the rows that are to stay; "
                "leave one of them out"
            )
        decay = optimizer.weight_decay if rule.weight_decay is None else rule.weight_decay
        pull = optimizer.pull if rule.pull is None else rule.pull
        peak = optimizer.lr if rule.rows or rule.pattern in ROW_PARAMETERS else lr  # which are never Muon's
        for value, what, aim in ((decay, "weight decay", "zero"), (pull, "pull", "the start")):
            decays.append((f"{where}.rules.{own}", peak * rule.lr_scale, value, what, aim))
    for name, rate, decay, what, aim in decays:
        if rate * decay > 1:
            yield (
                f"`{name}`: learning rate {rate:g} times {what} {decay:g} is {rate * decay:g}; above 1 every "
                f"step would overshoot {aim}; lower one of them"
            )
