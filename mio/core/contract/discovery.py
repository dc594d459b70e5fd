"""Finding and importing plugins, one failure at a time: a plugin that is broken is reported, the others work.

pluggy's own loader aborts the host program on the first entry point that fails to import, hence this one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import tomllib
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from mio.core.contract import hookspecs
from mio.core.errors import PluginError, UserError, nearest

GROUP = "mio"
"""Entry-point group of plugins."""
ENVIRONMENT = "MIO_PLUGINS"
"""Environment variable that lists local plugins, separated like `PATH`."""

HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if hasattr(function, "mio_spec")
}
"""Hook specifications by name."""


@dataclass(frozen=True)
class Candidate:
    """A plugin at hand, imported when first needed."""

    name: str
    origin: str
    """Distribution and version, or where the local module lies."""
    target: str
    """What is imported: `package.module`, `package.module:object`, or the path of a file or package folder."""
    load: Callable[[], object]
    given: bool = False
    """Whether a person named it, by `--plugin` or in `MIO_PLUGINS`: it is then an error that it does not work."""

    @cached_property
    def _loaded(self) -> tuple[object | None, str]:
        try:
            plugin = self.load()
        except UserError as error:
            return None, str(error)
        except (Exception, SystemExit) as error:
            return None, f"import failed: {_one_line(error)}"
        problems = hook_problems(plugin)
        return (None, "; ".join(problems)) if problems else (plugin, "")

    @property
    def problem(self) -> str:
        """One-line reason why the plugin cannot be used; empty if it can. Imports the plugin."""
        return self._loaded[1]

    @property
    def plugin(self) -> object:
        """The plugin's module or object. Raises `PluginError` if it is broken."""
        plugin, problem = self._loaded
        if plugin is None:
            raise PluginError(f"plugin `{self.name}` ({self.origin}) does not work: {problem}")
        return plugin

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that the plugin implements."""
        return [name for name in HOOKS if hasattr(getattr(self.plugin, name, None), "mio_impl")]

    @property
    def takes_options(self) -> bool:
        """Whether any of its hooks has the argument `options`: otherwise nothing could refuse an unknown one."""
        every: Iterator[Any] = (getattr(self.plugin, name, None) for name in dir(self.plugin))
        implemented = (function for function in every if hasattr(function, "mio_impl"))
        return any("options" in inspect.signature(function).parameters for function in implemented)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def hook_problems(plugin: object) -> list[str]:
    """What is wrong with a plugin's hook functions: unknown names, missing markers, unknown arguments."""
    if inspect.isclass(plugin):
        return [f"it is the class `{plugin.__name__}`; register a module or an instance"]
    problems, implemented = [], 0
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        if not inspect.isroutine(function) or hasattr(function, "mio_spec"):
            continue
        options = getattr(function, "mio_impl", None)
        if options is None and not name.startswith("mio_"):
            continue
        hook = (options or {}).get("specname") or name
        if hook not in HOOKS:
            problems.append(f"`{hook}` is not a hook{nearest(hook, HOOKS)}")
            continue
        if options is None:
            problems.append(f"`{hook}` lacks the marker `@mio.hookimpl`")
            continue
        implemented += 1
        if options.get("wrapper") or options.get("hookwrapper"):
            problems.append(f"`{hook}` is a hook wrapper, which mio does not call")
        known = list(inspect.signature(HOOKS[hook]).parameters)
        for argument in inspect.signature(function).parameters.values():
            if argument.default is argument.empty and argument.name not in known:
                takes = ", ".join(known) or "none"
                problems.append(
                    f"`{hook}` has no argument `{argument.name}`{nearest(argument.name, known)} (it has: {takes})"
                )
    if not problems and not implemented:
        problems.append("it implements no hook; mark at least one function with `@mio.hookimpl`")
    return problems


def installed() -> list[Candidate]:
    """Plugins of installed packages, in order of their names. Two packages with one name make it unusable."""
    claims: dict[str, dict[str, metadata.EntryPoint]] = defaultdict(dict)
    for entry in metadata.entry_points(group=GROUP):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown package"
        claims[entry.name][f"{origin}:{entry.value}"] = entry
    candidates = []
    for name, entries in sorted(claims.items()):
        origins = [key.split(":", 1)[0] for key in entries]
        target = next(iter(entries.values())).value
        load = importer(target) if len(entries) == 1 else _contested(name, list(entries))
        candidates.append(Candidate(name, ", ".join(origins), target, load))
    return candidates


def _contested(name: str, claims: Sequence[str]) -> Callable[[], object]:
    def load() -> object:
        raise PluginError(f"the name `{name}` is claimed by {' and by '.join(claims)}; uninstall or rename one of them")

    return load


def local(target: str) -> Candidate:
    """A plugin that is not installed: `[NAME=]FILE.py`, `[NAME=]FOLDER` of a package or of a project, or
    `[NAME=]MODULE`.

    Without `NAME=` the name is that of the entry point of the project around it which leads there, else the file's or
    the last part of the module's. Only a person at the command line or in the environment can name one: recipes cannot.
    """
    name, place = _named(target)
    if not _is_path(place):
        last = place.rsplit(".", 1)[-1]
        return Candidate(name or last, f"local module {place}", place, importer(place), given=True)
    try:
        declared = _declared(name, Path(place))
    except PluginError as error:
        return Candidate(name or Path(place).stem, place, place, _failing(str(error)), given=True)
    own, found, load = declared or (Path(place).stem, place, importer(place))
    return Candidate(name or own, place, found, load, given=True)


def _named(target: str) -> tuple[str, str]:
    """Name, which may be empty, and place of `[NAME=]PLACE`. A place may hold a `=` too."""
    name, equals, place = target.partition("=")
    if not equals or os.sep in name or Path(target).exists():
        return "", target
    return name, place


def _failing(problem: str) -> Callable[[], object]:
    def load() -> object:
        raise PluginError(problem)

    return load


def _declared(name: str, place: Path) -> tuple[str, str, Callable[[], object]] | None:
    """Name, target and import of the plugin that a project declares as an entry point: of the project's folder that of
    this name, or its only one; of a file or package in it the one that leads there. None where nothing is declared.

    Raises `PluginError` for a folder that is neither a package nor a project that declares the plugin.
    """
    if place.is_dir() and not (place / "__init__.py").is_file():
        entries = _entry_points(place)
        if not entries:
            raise PluginError(
                f"{place}: has neither `__init__.py` nor a `pyproject.toml` with an entry point of the group "
                f"`{GROUP}`; name the folder or file of the plugin's module"
            )
        if name not in entries and len(entries) > 1:
            raise PluginError(f"{place}: declares {', '.join(sorted(entries))}; say which: `NAME={place}`")
        own = name if name in entries else next(iter(entries))
        found = _module_in(place, entries[own])
        if found is None:
            raise PluginError(
                f"{place}: its `pyproject.toml` declares `{entries[own]}`, which is not in it nor in `src`"
            )
        return own, *_imports(entries[own], *found)
    whole = place.resolve()
    project = next((one for one in whole.parents if (one / "pyproject.toml").is_file()), None)
    if project is None:
        return None
    for own, value in _entry_points(project).items():
        found = _module_in(project, value)
        if found is not None and whole in (found[1], found[1] / "__init__.py"):
            return own, *_imports(value, found[0], place)
    return None


def _entry_points(project: Path) -> dict[str, str]:
    """Plugins that a project's `pyproject.toml` declares: name -> `module` or `module:object`."""
    try:
        declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        entries = declared["project"]["entry-points"][GROUP]
        return {name: value for name, value in entries.items() if isinstance(value, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _module_in(project: Path, value: str) -> tuple[Path, Path] | None:
    """Folder that the module of an entry point is imported from, and its file or package folder; None if it is
    elsewhere."""
    parts = value.partition(":")[0].strip().split(".")
    for root in (project.resolve(), project.resolve() / "src"):
        path = root.joinpath(*parts)
        if (path / "__init__.py").is_file():
            return root, path
        if path.with_name(f"{path.name}.py").is_file():
            return root, path.with_name(f"{path.name}.py")
    return None


def _imports(value: str, root: Path, place: Path) -> tuple[str, Callable[[], object]]:
    """Target and import of the entry point `value`, whose module is `place`, imported from `root`."""
    module = value.partition(":")[0].strip()
    if value.strip() == module and "." not in module:
        return str(place), importer(str(place))

    def load() -> object:
        source = place / "__init__.py" if place.is_dir() else place
        _check_own(module, source.resolve(), root)
        return importer(value)()

    return value, load


def _is_path(target: str) -> bool:
    return target.endswith(".py") or os.sep in target or Path(target).is_dir()


def importer(target: str) -> Callable[[], object]:
    """Function that imports `package.module`, `package.module:object`, or the path of a file or package folder."""
    if _is_path(target):
        return lambda: _import_path(Path(target))
    return metadata.EntryPoint(name="", value=target, group=GROUP).load


def _import_path(path: Path) -> ModuleType:
    """Imports a file or package folder under its own name, so that data workers can unpickle what it defines."""
    path = path.resolve()
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        raise PluginError(f"{source}: no such file")
    module = path.stem
    if not module.isidentifier():
        raise PluginError(f"{path}: `{module}` is no module name; rename it to letters, digits and `_`")
    _check_own(module, source, path.parent)
    return importlib.import_module(module)


def _check_own(module: str, source: Path, root: Path) -> None:
    """Makes `module` of the file `source` importable from the folder `root`. Raises `PluginError` if another module has
    the name."""
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    spec = sys.modules[module].__spec__ if module in sys.modules else importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != source:
        path = source.parent if source.name == "__init__.py" else source
        raise PluginError(f"{path}: another module is called `{module}`; rename the file")


def discover(targets: Sequence[str] = ()) -> list[Candidate]:
    """Installed plugins, then those of `MIO_PLUGINS`, then `targets` (see `local`)."""
    listed = [target for target in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if target]
    candidates = {candidate.name: candidate for candidate in installed()}
    for target in dict.fromkeys([*listed, *targets]):
        candidate = local(target)
        if candidate.name in candidates:
            if candidates[candidate.name].given and _same(candidate, candidates[candidate.name]):
                continue
            claims = [candidates[candidate.name].origin, candidate.origin]
            candidate = replace(candidate, origin=", ".join(claims), load=_contested(candidate.name, claims))
        candidates[candidate.name] = candidate
    return list(candidates.values())


def refuse_broken(candidates: Iterable[Candidate], but: str = "") -> None:
    """Raises `PluginError` if plugins that a person named, `but` for one, do not work, with the reasons."""
    broken = [one for one in candidates if one.given and one.name != but and one.problem]
    if broken:
        told = "; ".join(f"plugin `{one.name}` ({one.origin}) does not work: {one.problem}" for one in broken)
        raise PluginError(f"{told}; mend it, or leave it out of `--plugin` and MIO_PLUGINS")


def unnamed(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The plugins as if nobody had named them: one that does not work is passed over."""
    return [replace(one, given=False) for one in candidates]


def _same(one: Candidate, other: Candidate) -> bool:
    """Whether two local plugins are one, in other words."""
    return one.target == other.target or (
        _is_path(one.target) and _is_path(other.target) and Path(one.target).resolve() == Path(other.target).resolve()
    )
