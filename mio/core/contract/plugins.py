"""The plugins at hand, and those that a recipe enables: typed calls whose every answer is validated.

`PluginManager` knows what is installed; `enable` gives the `EnabledPlugins` of one recipe. Hooks are called through
pluggy's registration (argument subsets, `tryfirst`, `trylast`), one plugin at a time, so that an answer has an owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from mio.core.contract.adapters import Adapter
from mio.core.contract.calling import (
    calls,
    check_name,
    check_parts,
    mapping,
    named_backbones,
    named_commands,
    named_layouts,
    named_loggers,
    named_recipes,
    refuse,
    registered,
    sequence,
)
from mio.core.contract.claims import check_tokens, special_controls, unique
from mio.core.contract.controls import ControlToken, ControlTokens, Turn
from mio.core.contract.discovery import Candidate, discover, refuse_broken
from mio.core.contract.encoders import Encoder
from mio.core.contract.heads import Head
from mio.core.contract.layouts import ModelLayout
from mio.core.contract.loggers import LoggerFactory
from mio.core.contract.network_validation import adapter_problems, encoder_problems, head_problems
from mio.core.contract.requires import check_requires, requires_problems
from mio.core.contract.sessions import SESSION, SessionPolicy, Synthesiser, changed_options
from mio.core.contract.task_validation import resting, task_problems
from mio.core.contract.tasks import Task
from mio.core.contract.validation import (
    control_problems,
    datamodule_problems,
    detokenizer_problems,
    kind,
    modality_problems,
    session_problems,
    synthesiser_problems,
    tokenizer_problems,
)
from mio.core.contract.values import (
    DataModule,
    Detokenizer,
    Filter,
    Modality,
    SourceFactory,
    Splitter,
    Template,
    TextTokenizer,
    Tokenizer,
)
from mio.core.errors import PluginError, UserError, nearest

T = TypeVar("T")


class PluginManager:
    """Every plugin at hand, working or not."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates: dict[str, Candidate] = {candidate.name: candidate for candidate in candidates}
        self.unanswered: dict[str, str] = {}
        """Plugins passed over by what is asked of all of them (`backbones`, `recipes` ...), with the reason."""

    @classmethod
    def discover(cls, local: Sequence[str] = ()) -> PluginManager:
        """Finds installed plugins, those of the environment variable `MIO_PLUGINS`, and `local` files or modules.
        Raises `PluginError` as `refuse_broken`."""
        found = discover(local)
        refuse_broken(found)
        return cls(found)

    def candidate(self, name: str) -> Candidate:
        """Raises `PluginError` with the nearest name if there is no plugin of that name."""
        if name not in self.candidates:
            listed = ", ".join(sorted(self.candidates)) or "none"
            raise PluginError(
                f"no plugin `{name}` is installed{nearest(name, self.candidates)} (installed: {listed}); "
                "install its package, or give a local file with `--plugin FILE`"
            )
        return self.candidates[name]

    def enable(self, options: Mapping[str, Mapping[str, Any]]) -> EnabledPlugins:
        """The named plugins, in order, with their options. Raises `PluginError` if one is missing or broken."""
        problems, plugins = [], {}
        for name, own in options.items():
            try:
                plugins[name] = self.candidate(name).plugin
            except PluginError as error:
                problems.append(str(error))
                continue
            if own and not self.candidate(name).takes_options:
                listed = ", ".join(f"`{option}`" for option in own)
                problems.append(f"plugin `{name}` takes no options; take {listed} away from `plugins.{name}`")
        if problems:
            raise PluginError("; ".join(problems))
        return EnabledPlugins(self, plugins, {name: dict(own or {}) for name, own in options.items()})

    def backbones(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Transformer presets of all working plugins: name -> (plugin, fields of `TransformerConfig`)."""
        return unique("backbone", self._answers("mio_backbones", named_backbones))

    def recipes(self) -> dict[str, tuple[str, Path]]:
        """Recipes that working plugins ship: name -> (plugin, path)."""
        return unique("recipe", self._answers("mio_recipes", named_recipes))

    def loggers(self) -> dict[str, tuple[str, LoggerFactory]]:
        """Loggers of all working plugins: name -> (plugin, factory)."""
        return unique("logger", self._answers("mio_loggers", named_loggers))

    def layouts(self) -> dict[str, tuple[str, ModelLayout]]:
        """Layouts of models of all working plugins: `model_type` -> (plugin, layout)."""
        return unique("layout", self._answers("mio_layouts", named_layouts))

    def commands(self) -> dict[str, Mapping[str, Callable[..., Any]]]:
        """Commands of all working plugins that have some: plugin -> command -> function."""
        found = unique("command", self._answers("mio_commands", named_commands))
        return {name: commands for name, (_, commands) in found.items()}

    def _answers(self, hook: str, read: Callable[[str, Any], Iterable[tuple[str, T]]]) -> Iterator[tuple[str, str, T]]:
        """Answers of every plugin that works; one that does not is passed over and noted in `unanswered`, unless a
        person named it: its error is raised."""
        for candidate in self.candidates.values():
            if candidate.problem:
                self.unanswered[candidate.name] = candidate.problem
                continue
            try:
                for owner, answer in calls(registered({candidate.name: candidate.plugin}), hook):
                    yield from ((owner, name, value) for name, value in read(owner, answer()))
            except Exception as error:
                if candidate.given:
                    raise
                self.unanswered[candidate.name] = str(error) or kind(error)


class EnabledPlugins:
    """The plugins that a recipe names, in its order, with their options."""

    def __init__(
        self, manager: PluginManager, plugins: Mapping[str, object], options: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.manager = manager
        self.options = options
        self._plugins = plugins
        self._registry = registered(plugins)
        self._synthesisers: dict[str, Synthesiser | None] = {}

    @property
    def names(self) -> list[str]:
        """Names of the plugins, in the recipe's order."""
        return list(self._plugins)

    @cached_property
    def _declared(self) -> list[tuple[str, Modality]]:
        declared: list[tuple[str, Modality]] = []
        for owner, answer in self._each("mio_modalities"):
            for index, modality in enumerate(sequence(owner, "mio_modalities", answer)):
                name = getattr(modality, "name", "") or f"number {index + 1}"
                refuse(owner, "mio_modalities", f"modality `{name}`", modality_problems(modality))
                declared.append((owner, modality))
        unique("modality", ((owner, modality.name, modality) for owner, modality in declared))
        check_tokens(declared)
        return declared

    def requires(self) -> list[tuple[str, str]]:
        """(plugin, name) of everything that a plugin needs beside it."""
        needed = []
        for owner, answer in self._each("mio_requires"):
            names = sequence(owner, "mio_requires", answer)
            refuse(owner, "mio_requires", "answer", requires_problems(owner, names))
            needed += [(owner, name) for name in names]
        return needed

    def lacking(self) -> list[tuple[str, str]]:
        """What of `requires` is neither a plugin nor a modality of the recipe."""
        there = {*self.names, *(declared.name for _, declared in self._declared)}
        return [(owner, name) for owner, name in self.requires() if name not in there]

    @cached_property
    def _modalities(self) -> list[tuple[str, Modality]]:
        check_requires(self.lacking(), self.manager.candidates)
        check_parts(self._declared)
        return self._declared

    def modalities(self) -> list[tuple[str, Modality]]:
        """(plugin, declaration) of every modality, in vocabulary order."""
        return list(self._modalities)

    def modality(self, name: str) -> tuple[str, Modality]:
        """(plugin, declaration) of one modality. Raises `PluginError` with the nearest name if nobody declares it."""
        for owner, declared in self._modalities:
            if declared.name == name:
                return owner, declared
        known = [declared.name for _, declared in self._modalities]
        raise PluginError(
            f"no plugin of the recipe declares the modality `{name}`{nearest(name, known)} "
            f"(declared: {', '.join(known) or 'none'}); add its plugin under `plugins:`"
        )

    @cached_property
    def _controls(self) -> list[tuple[str, ControlTokens]]:
        answers = list(self._each("mio_control_tokens"))
        for owner, answer in answers:
            refuse(owner, "mio_control_tokens", "answer", control_problems(answer))
        named = [(owner, token) for owner, answer in answers for token in answer.tokens]
        unique("control token", ((owner, token.name, token) for owner, token in named))
        check_tokens(self._modalities, named)
        return answers

    def control_tokens(self) -> list[tuple[str, ControlToken]]:
        """(plugin, declaration) of every control token, in vocabulary order: further special tokens of modalities with
        codes or networks, by their token string, then those that are declared as such."""
        return [
            *special_controls(self._modalities),
            *((owner, token) for owner, answer in self._controls for token in answer.tokens),
        ]

    def label_rules(self) -> list[tuple[str, Callable[[Turn], Any]]]:
        """(plugin, rule) of every plugin that labels answers with control tokens."""
        return [(owner, answer.label) for owner, answer in self._controls if answer.label is not None]

    def tokenizer(self, modality: str) -> Tokenizer | TextTokenizer | Splitter:
        """Tokenizer of a modality, newly made. Raises `PluginError` if no plugin supplies one."""
        declaring, declared = self.modality(modality)
        answer = self._first("mio_tokenizer", modality, declaring)
        if answer is None:
            raise PluginError(
                f"no plugin supplies a tokenizer for `{modality}`, which `{declaring}` declares, with the options "
                f"under `plugins.{declaring}`"
            )
        owner, tokenizer = answer
        refuse(owner, "mio_tokenizer", f"tokenizer of `{modality}`", tokenizer_problems(tokenizer, declared))
        return tokenizer

    def detokenizer(self, modality: str) -> Detokenizer | None:
        """Detokenizer of a modality, newly made; None if no plugin supplies one."""
        answer = self._first("mio_detokenizer", modality, self.modality(modality)[0])
        if answer is None:
            return None
        owner, detokenizer = answer
        refuse(owner, "mio_detokenizer", f"detokenizer of `{modality}`", detokenizer_problems(detokenizer))
        return detokenizer

    def encoder(self, modality: str) -> tuple[str, Encoder] | None:
        """(plugin, encoder) of a modality, newly made; None if no plugin has it read by a network."""
        self.modality(modality)
        answer = self._first_own("mio_encoder", self.names, modality=modality)
        if answer is not None:
            refuse(answer[0], "mio_encoder", f"encoder of `{modality}`", encoder_problems(answer[1]))
        return answer

    def adapters(self) -> dict[str, Adapter]:
        """Networks inside layers, newly made, by the plugin that supplies them."""
        found = {}
        for owner, answer in self._each("mio_adapters"):
            if answer is not None:
                refuse(owner, "mio_adapters", "answer", adapter_problems(answer))
                if "." in owner:
                    refuse(owner, "mio_adapters", "answer", ["names of parameters hold the plugin's, without a `.`"])
                found[owner] = answer
        return found

    def head(self, modality: str) -> tuple[str, Head] | None:
        """(plugin, head) of a modality, newly made; None if no plugin has it made by a network."""
        declared = self.modality(modality)[1]
        answer = self._first_own("mio_head", self.names, modality=modality)
        if answer is not None:
            refuse(answer[0], "mio_head", f"head of `{modality}`", head_problems(answer[1], declared))
        return answer

    def session(self, changed: Mapping[str, Any], only: str = "") -> tuple[str, SessionPolicy] | None:
        """(plugin, policy) of a live conversation, its options under `session` `changed`; None if no plugin has one,
        or not the `only` one that may. Raises `PluginError` for options that the plugin refuses."""
        answer = self._first_own("mio_session", [only] if only else self.names, changed)
        if answer is not None:
            known = [declared.name for _, declared in self._modalities]
            refuse(answer[0], "mio_session", "answer", session_problems(answer[1], known))
        return answer

    def synthesiser(self, modality: str) -> Synthesiser | None:
        """What says text in a modality, the same for all conversations; None if no plugin supplies it."""
        if modality in self._synthesisers:
            return self._synthesisers[modality]
        owner, synthesiser = self._first_own("mio_synthesiser", self.names, modality=modality) or ("", None)
        if synthesiser is not None:
            refuse(owner, "mio_synthesiser", f"synthesiser of `{modality}`", synthesiser_problems(synthesiser))
        self._synthesisers[modality] = synthesiser
        return synthesiser

    def datamodule(self, modality: str) -> DataModule:
        """Data module of a modality; an empty one if no plugin supplies it."""
        answer = self._first("mio_datamodule", modality, self.modality(modality)[0])
        if answer is None:
            return DataModule()
        owner, module = answer
        refuse(owner, "mio_datamodule", f"data module of `{modality}`", datamodule_problems(module))
        return module

    def templates(self) -> dict[str, tuple[str, tuple[Template, ...]]]:
        """Template sets of all data modules: name -> (modality, templates)."""
        return unique("template set", self._of_datamodules(lambda module: module.templates), "modalities")

    def filters(self) -> dict[str, tuple[str, Filter]]:
        """Record filters of all data modules: name -> (modality, filter)."""
        return unique("filter", self._of_datamodules(lambda module: module.filters), "modalities")

    def _of_datamodules(self, pick: Callable[[DataModule], Mapping[str, T]]) -> Iterator[tuple[str, str, T]]:
        for _, declared in self._modalities:
            for name, value in pick(self.datamodule(declared.name)).items():
                yield declared.name, name, value

    def sources(self) -> dict[str, tuple[str, SourceFactory]]:
        """Corpora that the plugins ship: name -> (plugin, factory)."""
        claims = []
        for owner, answer in self._each("mio_sources"):
            for name, factory in mapping(owner, "mio_sources", answer).items():
                check_name(owner, "mio_sources", name)
                if not callable(factory):
                    refuse(owner, "mio_sources", f"source `{name}`", [f"{factory!r} must be a function"])
                claims.append((owner, name, factory))
        return unique("source", claims)

    def tasks(self) -> dict[str, tuple[str, Task]]:
        """Evaluation tasks: name -> (plugin, task). Those that rest are left out (see `resting_tasks`)."""
        return {name: (owner, task) for name, (owner, task, reason) in self._tasks().items() if not reason}

    def resting_tasks(self) -> dict[str, str]:
        """Tasks of modalities or control tokens that the recipe does not have, or that lack something to be given: why,
        by name."""
        return {name: f"{reason} (plugin `{owner}`)" for name, (owner, _, reason) in self._tasks().items() if reason}

    def no_task(self, name: str) -> str:
        """Why there is no task of this name among `tasks`, and what to do."""
        resting, known = self.resting_tasks(), self.tasks()
        if name in resting:
            return f"task `{name}`: {resting[name]}"
        for other in self.manager.candidates.values():
            if other.problem or other.name in self.names or "mio_modalities" in other.hooks:
                continue
            try:
                more = self.manager.enable({**self.options, other.name: {}})
                resting, theirs = more.resting_tasks(), more.tasks()
            except UserError:
                continue  # it needs options, or does not go with the others
            if name in theirs or name in resting:
                advice = f": {resting[name]}" if name in resting else f"; add `plugins.{other.name}={{}}`"
                return f"no task `{name}` without the plugin `{other.name}`, which is not in use{advice}"
        return f"no task `{name}`{nearest(name, known)}; there are {', '.join(sorted(known)) or 'none'}"

    def _tasks(self) -> dict[str, tuple[str, Task, str]]:
        known = [declared.name for _, declared in self._modalities]
        controls = [token.name for _, token in self.control_tokens()]
        claims = []
        for owner, answer in self._each("mio_tasks"):
            for task in sequence(owner, "mio_tasks", answer):
                reason = resting(task, known, controls)
                there, said = ([*known, task.output], [*controls, *task.controls]) if reason else (known, controls)
                refuse(owner, "mio_tasks", f"task `{getattr(task, 'name', '?')}`", task_problems(task, there, said))
                claims.append((owner, task.name, (task, reason)))
        return {name: (owner, *task) for name, (owner, task) in unique("task", claims).items()}

    def _each(self, hook: str) -> Iterator[tuple[str, Any]]:
        """(plugin, answer) of every plugin that has the hook, in the recipe's order."""
        for owner in self._plugins:
            for name, answer in calls(self._registry, hook, options=self.options[owner]):
                if name == owner:
                    yield owner, answer()

    def _first_own(
        self, hook: str, owners: Sequence[str], session: Mapping[str, Any] = MappingProxyType({}), **arguments: Any
    ) -> tuple[str, Any] | None:
        """(plugin, answer) of the first of `owners` that does not answer None to its own options, of which those under
        `session` are changed."""
        for owner in owners:
            options = self.options[owner]
            if session:
                options = {**options, SESSION: changed_options(options.get(SESSION) or {}, session)}
            for name, answer in calls(self._registry, hook, options=options, **arguments):
                if name == owner and (value := answer()) is not None:
                    return owner, value
        return None

    def _first(self, hook: str, modality: str, declaring: str) -> tuple[str, Any] | None:
        """(plugin, answer) of the first plugin that does not answer None."""
        for owner, answer in calls(self._registry, hook, modality=modality, options=self.options[declaring]):
            value = answer()
            if value is not None:
                return owner, value
        return None
