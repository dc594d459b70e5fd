"""What one plugin supplies, in words: for people who look for the names that recipes and data use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mio.core.contract.controls import ControlToken
from mio.core.contract.discovery import unnamed
from mio.core.contract.encoders import Encoder
from mio.core.contract.heads import Head
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.requires import completed
from mio.core.contract.values import Modality
from mio.core.errors import PluginError, UserError

Line = tuple[str, str, str]
"""Kind, name, detail."""


def overview(
    manager: PluginManager,
    name: str,
    options: Mapping[str, Any],
    beside: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Iterator[Line]:
    """Everything that the plugin `name` supplies with these options, with the plugins `beside` and theirs, and those
    that they need.

    Other working plugins stand beside it as far as they go with it without options: their modalities are those that it
    may read or judge answers in. Raises `PluginError` where the plugin's answers break the contract.
    """
    own = manager.enable(completed(manager, {**beside, name: options}))
    own.modalities(), own.control_tokens()
    plugins = _with_others(own)
    for owner, needed in own.requires():
        if owner == name:
            yield "requires", needed, ""
    for owner, modality in plugins.modalities():
        if owner == name:
            yield "modality", modality.name, _modality(modality, plugins)
    yield from _networks(plugins, name)
    for owner, token in plugins.control_tokens():
        if owner == name:
            yield "control token", token.name, _control(token)
    if any(owner == name for owner, _ in plugins.label_rules()):
        yield "rule", "labels answers with control tokens", ""
    if "mio_session" in manager.candidate(name).hooks:
        yield "policy", "of live conversations", ""
    for what, supplied in (("corpus", plugins.sources()), ("task", plugins.tasks())):
        for one, (owner, _) in supplied.items():
            if owner == name:
                yield what, one, ""
    for one, reason in plugins.resting_tasks().items():
        if reason.endswith(f"(plugin `{name}`)"):
            yield "task", one, f"rests: {reason.removesuffix(f' (plugin `{name}`)')}"
    yield from _of_all_recipes(PluginManager(unnamed([manager.candidate(name)])))


def _of_all_recipes(alone: PluginManager) -> Iterator[Line]:
    """What a plugin supplies to recipes that do not list it. Raises `PluginError` where that breaks the contract."""
    kinds: tuple[tuple[str, Iterable[str]], ...] = (
        ("preset", alone.backbones()),
        ("recipe", alone.recipes()),
        ("layout", alone.layouts()),
        ("logger", alone.loggers()),
    )
    commands = [f"mio {name} {one}" for name, own in alone.commands().items() for one in own]
    for problem in alone.unanswered.values():
        raise PluginError(problem)
    for what, supplied in (*kinds, ("command", commands)):
        yield from ((what, one, "") for one in supplied)


def _with_others(plugins: EnabledPlugins) -> EnabledPlugins:
    """With all other plugins that declare modalities and go with these."""
    for other in plugins.manager.candidates.values():
        if other.problem or other.name in plugins.names or "mio_modalities" not in other.hooks:
            continue
        try:
            more = plugins.manager.enable(completed(plugins.manager, {**plugins.options, other.name: {}}))
            more.modalities(), more.control_tokens()
        except UserError:
            continue  # it needs options, or does not go with the others
        plugins = more
    return plugins


def _modality(declared: Modality, plugins: EnabledPlugins) -> str:
    if declared.text:
        return "text"
    if isinstance(declared.parts, tuple) and declared.parts:
        return f"one of each of {', '.join(f'`{name}`' for name in declared.parts)}"
    if declared.parts:
        return f"{declared.frames} of `{declared.parts}`"
    if declared.codebooks:
        sizes = ", ".join(map(str, declared.codebooks))
        layout = f"; {declared.layout}" if len(declared.codebooks) > 1 else ""
        tokens = " ".join((declared.begin, declared.code_token, declared.end))
        told = f"codebooks {sizes}; {declared.frames} frames{layout}; {tokens}"
        if (automaton := declared.automaton) is None:
            return told
        return f"{told}; automaton of {len(automaton.states)} states, {automaton.fingerprint[:12]}"
    with contextlib.suppress(UserError):  # of one that is not at hand, or not with these options
        if plugins.head(declared.name) is not None:
            read = plugins.encoder(declared.name) is not None
            return "read by an encoder, made by a head" if read else "made by a head"
    return "read by an encoder"


def _control(token: ControlToken) -> str:
    written = "plain text" if token.plain_text else "an id of its own"
    place = ", anywhere in an answer" if token.anywhere else ""
    inserted = f" {token.insert!r}" if token.insert else ""
    return f"{token.token}, {written}{place}; {token.action}{inserted}"


def _networks(plugins: EnabledPlugins, name: str) -> Iterator[Line]:
    """The plugin's encoders and heads, whoever declares their modalities, and its adapters."""
    for kind, ask in (("encoder", plugins.encoder), ("head", plugins.head)):
        for _, declared in plugins.modalities():
            if declared.text or declared.parts:
                continue
            try:
                found = ask(declared.name)
            except UserError as error:
                if f"plugin `{name}`" in str(error):
                    yield kind, declared.name, f"not with these options: {error}"
                continue
            if found is not None and found[0] == name:
                yield kind, declared.name, f"{found[1].fingerprint}{_of_network(found[1])}"
    try:
        adapter = plugins.adapters().get(name)
    except UserError as error:
        if f"plugin `{name}`" in str(error):
            yield "adapters", name, f"not with these options: {error}"
        return
    if adapter is not None:
        yield "adapters", name, f"{adapter.fingerprint}; read the maps of `{adapter.reads}`"


def _of_network(network: Encoder | Head) -> str:
    """The maps that an encoder makes, and those that a head reads."""
    maps = getattr(network, "maps", None)
    if isinstance(maps, tuple):
        return f"; maps of {maps[0]} cells with {maps[1]} channels"
    return f"; reads the maps of {', '.join(f'`{one}`' for one in maps)}" if maps else ""
