"""Names that a new plugin cannot have, as its recipe, task or data group would meet others of the name."""

from __future__ import annotations

from collections.abc import Iterator

from mio.core.contract.plugins import PluginManager
from mio.core.contract.requires import completed
from mio.core.errors import UserError
from mio.core.recipe.layers import REPLACE, read_layer


def taken_names(manager: PluginManager) -> dict[str, str]:
    """What has each name, of everything that the plugins at hand supply."""
    taken: dict[str, str] = {}
    for name, holder in (*_of_plugins(manager), *_of_recipes(manager)):
        taken.setdefault(name, holder)
    return taken


def _of_plugins(manager: PluginManager) -> Iterator[tuple[str, str]]:
    yield from ((name, f"the plugin `{name}`") for name in manager.candidates)
    for owner in manager.candidates:
        try:
            plugins = manager.enable(completed(manager, {owner: {}}))
            tasks = {**plugins.tasks(), **plugins.resting_tasks()}
            templates, sources = list(plugins.templates()), list(plugins.sources())
            modalities = [declared.name for _, declared in plugins.modalities()]
        except UserError:
            continue  # it needs options, or is broken
        for name in tasks:  # those of a new package are called NAME, NAME_read and NAME_draw
            for one in (name, name.removesuffix("_read"), name.removesuffix("_draw")):
                yield one, f"the task `{name}`"
        yield from ((name, "a modality") for name in modalities)
        yield from ((name, "a template set") for name in templates)
        yield from ((name.partition("/")[0], f"the corpus `{name}`") for name in sources)


def _of_recipes(manager: PluginManager) -> Iterator[tuple[str, str]]:
    shipped = manager.recipes()
    for name in shipped:
        yield name.partition("/")[0], f"the recipe `{name}`"
    for name, (_, path) in shipped.items():
        try:
            content = read_layer(path).content
        except UserError:
            continue
        stages = content.get("stages")
        for section in (content, *(stages.values() if isinstance(stages, dict) else ())):
            data = section.get("data") if isinstance(section, dict) else None
            groups = data.get("groups") if isinstance(data, dict) else None
            for group in groups if isinstance(groups, dict) else ():
                if group != REPLACE:
                    yield str(group), f"a data group of the recipe `{name}`"
