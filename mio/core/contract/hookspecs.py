"""THE CONTRACT between mio and its plugins: read this file, and `values.py`, to write a plugin.

A plugin is a module or object whose functions carry `@mio.hookimpl` and one of the names below. It is found through the
entry-point group `mio` (`[project.entry-points.mio]`, `NAME = "package.module"`), and `NAME` is its name everywhere: in
`mio plugins list`, under `plugins:` in a recipe, in the owners of vocabulary blocks. An implementation may leave out
arguments that it does not need. `options` is the mapping that the recipe gives this plugin under
`plugins: {NAME: {...}}`; unknown keys in it are the plugin's to refuse, with `mio.UserError`. `mio_tokenizer`,
`mio_detokenizer` and `mio_datamodule` are given those of the plugin that declares the modality, whoever answers.

Modules are imported at discovery: import torch and other heavy packages inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mio.core.contract.adapters import Adapter
    from mio.core.contract.controls import ControlTokens
    from mio.core.contract.encoders import Encoder
    from mio.core.contract.heads import Head
    from mio.core.contract.layouts import ModelLayout
    from mio.core.contract.loggers import LoggerFactory
    from mio.core.contract.sessions import SessionPolicy, Synthesiser
    from mio.core.contract.tasks import Task
    from mio.core.contract.values import (
        DataModule,
        Detokenizer,
        Modality,
        SourceFactory,
        Splitter,
        TextTokenizer,
        Tokenizer,
    )

hookspec = pluggy.HookspecMarker("mio")
hookimpl = pluggy.HookimplMarker("mio")


@hookspec
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    """Declares the plugin's modalities. Called when a recipe is resolved, before anything is loaded.

    Must depend on `options` alone: the vocabulary is built from the answer.
    """
    raise NotImplementedError


@hookspec
def mio_requires(options: Mapping[str, Any]) -> Sequence[str]:
    """Names of plugins that a recipe has to list beside this one; another that declares a modality of that name will do
    as well. Called when a recipe is resolved: it is refused where one is missing, with the line to add."""
    raise NotImplementedError


@hookspec(firstresult=True)
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Tokenizer | TextTokenizer | Splitter | None:
    """Tokenizer of a modality: media -> codes `[Q, F]`; text -> ids; a modality of parts -> its parts.

    The first plugin that does not answer `None` wins; `options` are those of the plugin that declares the modality.
    Called once per process. A tokenizer that has weights to learn also follows `Trainable`: mio fits it before the
    first stage, keeps its weights in the run folder and calls `load` from then on.
    """


@hookspec(firstresult=True)
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    """Detokenizer of a modality: codes `[Q, F]` -> media, and media -> file. The first that is not `None` wins, so a
    plugin may replace another's (`tryfirst=True`); `options` are those of the plugin that declares the modality. Called
    once per process, when something is generated."""


@hookspec(firstresult=True)
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    """The modality's own data module: how its files are read, its templates in both directions, its filters.

    The first plugin that does not answer `None` wins; `options` are those of the plugin that declares the modality.
    """


@hookspec(firstresult=True)
def mio_encoder(modality: str, options: Mapping[str, Any]) -> Encoder | None:
    """A network inside the model that reads media of a modality: where a plugin supplies one, spans that are read are
    positions whose embeddings it computes, and codebooks, if the modality has any, are for spans that are written.

    The first plugin of the recipe that does not answer `None` wins; `options` are its own, not those of the plugin that
    declares the modality.
    """


@hookspec
def mio_adapters(options: Mapping[str, Any]) -> Adapter | None:
    """Networks inside chosen layers of the transformer that read the maps which an encoder of the recipe makes."""
    raise NotImplementedError


@hookspec(firstresult=True)
def mio_head(modality: str, options: Mapping[str, Any]) -> Head | None:
    """A network on top of the model that learns to make media of a modality, and makes them: where a plugin supplies
    one, spans that are written are its work, and codebooks, if the modality has any, are not used for them.

    The first plugin of the recipe that does not answer `None` wins; `options` are its own, not those of the plugin that
    declares the modality, which has to declare a token `begin`.
    """


@hookspec
def mio_control_tokens(options: Mapping[str, Any]) -> ControlTokens:
    """Control tokens: what the model says about a conversation itself (this was not meant for me; I answer aloud)."""
    raise NotImplementedError


@hookspec(firstresult=True)
def mio_session(options: Mapping[str, Any]) -> SessionPolicy | None:
    """How a live conversation goes: what is listened to, what is asked, what is said aloud.

    Called when a session begins. The first plugin of the recipe that does not answer `None` wins; `options` are its
    own. What a person changes for one conversation (`mio talk --set`) are keys under `session` in them.
    """


@hookspec(firstresult=True)
def mio_synthesiser(modality: str, options: Mapping[str, Any]) -> Synthesiser | None:
    """Something that says text in a modality, for answers of a live conversation (`SessionPolicy.speaks`). The first
    plugin of the recipe that does not answer `None` wins; `options` are its own."""


@hookspec
def mio_sources(options: Mapping[str, Any]) -> Mapping[str, SourceFactory]:
    """Corpora that the package ships, by name (`digits/captions`); a recipe uses one as `dataset: NAME`."""
    raise NotImplementedError


@hookspec
def mio_backbones() -> Mapping[str, Mapping[str, Any]]:
    """Presets of the transformer, by name: fields of `TransformerConfig`, for `model: {preset: NAME}` in a recipe."""
    raise NotImplementedError


@hookspec
def mio_tasks(options: Mapping[str, Any]) -> Sequence[Task]:
    """Evaluation tasks on held-out data. Called by evaluation; nothing is loaded before `Task.records` is called."""
    raise NotImplementedError


@hookspec
def mio_paths(options: Mapping[str, Any]) -> Sequence[str]:
    """Names of options that are paths of files or folders: the plugin's own, dotted where they are inside of others
    (`checkpoint`, `vae.checkpoint`), and those of its corpora (`motion/clips.folder`).

    Called when a recipe is composed, with the plugin's options as they are written. A relative path begins beside the
    recipe file that gives it or, if nothing is there, in the working folder; hooks are given the path that was found.
    """
    raise NotImplementedError


@hookspec
def mio_recipes() -> Mapping[str, str]:
    """Recipes that the package ships: name -> path of the YAML file, usable wherever a recipe path is."""
    raise NotImplementedError


@hookspec
def mio_loggers() -> Mapping[str, LoggerFactory]:
    """Loggers, by name: where figures and samples of a training go beside `metrics.csv`, for `runtime.loggers` in a
    recipe. Any installed plugin's can be named there, whether the recipe lists the plugin or not."""
    raise NotImplementedError


@hookspec
def mio_layouts() -> Mapping[str, ModelLayout]:
    """Layouts of published models that are more than a language model, by the `model_type` of their `config.json`, for
    `mio import`. Any installed plugin's is read, whether the recipe lists the plugin or not."""
    raise NotImplementedError


@hookspec
def mio_commands() -> Mapping[str, Callable[..., Any]]:
    """Commands of the plugin's own, by name: `mio PLUGIN NAME`. A function's parameters are its arguments and options,
    and its docstring is its help, as `typer` reads them; `mio.UserError` ends it with one line. Any working plugin's
    are there. Plugins that are called like a command of mio have none."""
    raise NotImplementedError
