"""From the recipe to streams of documents: opens sources, picks templates, applies filters. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from mio.core.contract.calling import naming_plugin
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import DataModule, EpochSource, Filter, Record, Source, SourceFactory, Template
from mio.core.data.hashing import FileHashes
from mio.core.data.held_out import HeldOut
from mio.core.data.mixture import read_sources, stream_shares
from mio.core.data.order import derive_seed
from mio.core.data.readers import READERS, at_hand, open_reader
from mio.core.data.readers.records import Kinds
from mio.core.data.readers.tables import Stream
from mio.core.data.sample import CheckedSample
from mio.core.data.shards.reader import TokenisedSource, dropped
from mio.core.data.shards.store import TokenStore
from mio.core.data.streams import Memory, RecordStream
from mio.core.errors import DataError, MioError, RecipeError, UserError
from mio.core.recipe.data_schema import SourceConfig
from mio.core.recipe.schema import Recipe
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import Document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document

_SCATTER = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class OpenSource:
    """A source of the recipe, opened."""

    group: str
    name: str
    config: SourceConfig
    records: Source
    shipped: bool
    """Whether a plugin ships it, as opposed to a file of the user's."""
    tokenised: bool = False
    """Whether `records` are read from shards, filters applied."""
    validates: bool = False
    """Whether it is the split that validates."""

    @property
    def label(self) -> str:
        """`group/source`."""
        return _label(self.group, self.name, self.validates)


def _label(group: str, name: str, validates: bool) -> str:
    return f"{group}/{name}{' (validation)' if validates else ''}"


def open_sources(
    recipe: Recipe,
    plugins: EnabledPlugins,
    tokens: TokenStore | None = None,
    streamed: bool = False,
    validates: bool = False,
) -> list[OpenSource]:
    """Every source that the recipe's mixture reads, in its order, from shards where `tokens` has them.

    `streamed` says that streams will do as well; `validates` asks for the splits that validate, of the sources that
    have one, in place of those that are trained on.

    Raises:
        RecipeError: unknown datasets or wrong options, all of them at once.
        DataError: a source is empty or its file is missing.
    """
    shipped = plugins.sources()
    kinds = known_kinds(plugins)
    directions = {name: [t.direction for t in templates] for name, templates in template_sets(recipe, plugins).items()}
    datasets, filters = [*shipped, *READERS], plugins.filters()
    opened, problems = [], []
    for group, name, config in read_sources(recipe.data, recipe.mixture):
        source = _validating(config) if validates else config
        if source is None:
            continue
        where = f"data.groups.{group}.sources.{name}"
        wrong = list(source.problems(where, datasets, directions, filters))
        problems += wrong
        if not wrong:
            raw: Source | None = None
            missing: DataError | None = None
            label = _label(group, name, validates)
            try:
                raw = tokens.opened.get(label) if tokens else None
                raw = _open(source, shipped, kinds) if raw is None else raw
            except RecipeError as error:
                key = f"{where}.validation_split" if validates else where
                problems += [f"`{key}`: {problem}" for problem in error.problems]
                continue
            except DataError as error:
                if tokens is None or at_hand(source.options):
                    raise  # shards would be of what the files were before they were damaged
                missing = error  # shards may be all that is at hand
            shards = tokens.find(label, source, raw) if tokens and not isinstance(raw, EpochSource) else None
            records = shards or raw
            if records is None:
                assert missing is not None
                raise missing
            ships = source.dataset in shipped
            opened.append(OpenSource(group, name, source, records, ships, shards is not None, validates))
    if problems:
        raise RecipeError(problems)
    for one in opened:
        if isinstance(one.records, Stream):
            if not streamed:
                raise DataError(f"{one.label}: is a stream, which only `mio tokenize` reads; give it before training")
        elif not len(one.records):
            raise DataError(f"{one.label}: dataset `{one.config.dataset}` has no records in split `{one.config.split}`")
    return opened


def _validating(config: SourceConfig) -> SourceConfig | None:
    """The source that validates in place of held-out records; None if there is none."""
    split = config.validation_split
    return replace(config, split=split, validation_split="", held_out=0.0) if split else None


def every_source(
    recipe: Recipe, plugins: EnabledPlugins, tokens: TokenStore | None = None, streamed: bool = False
) -> list[OpenSource]:
    """The sources that are trained on, then the splits that validate (see `open_sources`)."""
    return [
        source
        for validates in (False, True)
        for source in open_sources(recipe, plugins, tokens, streamed=streamed, validates=validates)
    ]


def _open(config: SourceConfig, shipped: Mapping[str, tuple[str, SourceFactory]], kinds: Kinds) -> Source:
    if config.dataset not in shipped:
        source: Source = open_reader(config.dataset, config.split, config.options, kinds)
        return source
    owner, factory = shipped[config.dataset]
    with naming_plugin(f"plugin `{owner}`, dataset `{config.dataset}`"):
        source = factory(config.split, config.options)
        if not all(hasattr(source, name) for name in ("__len__", "__getitem__")):
            kind = "None" if source is None else f"a {type(source).__name__}"
            raise UserError(f"its factory returned {kind}; a source with `__len__` and `__getitem__` is due")
        return source


def known_kinds(plugins: EnabledPlugins) -> Kinds:
    """What readers know of the modalities of the enabled plugins."""
    modalities = {declared.name: declared for _, declared in plugins.modalities()}

    @cache
    def modules() -> dict[str, DataModule]:
        return {name: plugins.datamodule(name) for name, declared in modalities.items() if not declared.text}

    return Kinds(
        modalities,
        lambda: {name: module.suffixes for name, module in modules().items()},
        lambda: {name: module.names for name, module in modules().items()},
        tuple(token.name for _, token in plugins.control_tokens()),
    )


def template_sets(recipe: Recipe, plugins: EnabledPlugins) -> dict[str, tuple[Template, ...]]:
    """Template sets by name: those of the plugins, with the recipe's own in their place where it has one."""
    sets = {name: templates for name, (_, templates) in plugins.templates().items()}
    for name, own in recipe.data.templates.items():
        sets[name] = tuple(Template(direction=t.direction, prompt=t.prompt, response=t.response) for t in own)
    return sets


def build_streams(
    recipe: Recipe, plugins: EnabledPlugins, renderer: Renderer, tokens: TokenStore | None = None
) -> tuple[list[RecordStream], list[OpenSource]]:
    """The streams of the recipe's mixture, and the sources behind them.

    Where a template set has several templates of one direction, each record takes one of them, always the same.

    Raises:
        RecipeError: unknown names or wrong options, all of them at once.
        DataError: a source is empty or its file is missing.
    """
    sources = open_sources(recipe, plugins, tokens)
    sets = template_sets(recipe, plugins)
    hashes = tokens.hashes if tokens else FileHashes(None)
    compiled: dict[tuple[str, str], dict[str, list[CompiledTemplate]]] = {}
    for source in sources:
        by_direction = compiled[source.group, source.name] = {}
        for template in sets[source.config.templates] if source.config.templates else ():
            one = CompiledTemplate(template, source.config.templates)
            by_direction.setdefault(template.direction, []).append(one)
    shares = stream_shares(recipe.data, recipe.mixture, {key: list(value) or [""] for key, value in compiled.items()})
    opened = {(source.group, source.name): source for source in sources}
    fingerprints = {
        source.label: tokens.fingerprint(source.label, source.records)
        if tokens
        else getattr(source.records, "fingerprint", "")
        for source in sources
    }
    memory, labels = Memory(), labels_of(plugins)
    streams = []
    for share in shares:
        source = opened[share.group, share.source]
        templates = compiled[share.group, share.source].get(share.direction, [])
        form = source.config.form or recipe.data.form
        reads_media = not source.tokenised or bool(renderer.codecs.kept)
        texts = [asdict(t) for t in sets.get(source.config.templates, ()) if t.direction == share.direction]
        streams.append(
            RecordStream(
                share=share,
                source=source.records,
                to_document=_documents(templates, form, recipe.data.system, labels),
                renderer=renderer,
                drop=dropped if source.tokenised else dropping(source.config, plugins),
                packing=recipe.data.packing,
                seed=derive_seed(recipe.seed, *share[:3]),
                content=_identity(recipe, source, fingerprints[source.label], texts, form, plugins),
                memory=memory,
                held_out=holding_out(recipe, source, hashes),
                sample=CheckedSample.of(len(source.records), source.shipped) if reads_media else CheckedSample(),
            )
        )
    return streams, sources


def _documents(
    templates: list[CompiledTemplate], form: str, system: Mapping[str, str], labels: Labels | None
) -> Callable[[Record, int], Document]:
    def document(record: Record, index: int) -> Document:
        # scattered over the records, so that no order among them decides who takes which template
        scattered = (index * _SCATTER & _WORD) >> 32
        template = templates[scattered % len(templates)] if templates else None
        return to_document(record, template, form, system, labels=labels)

    return document


def labels_of(plugins: EnabledPlugins) -> Labels | None:
    """What answers begin with in training; None where the plugins have no control tokens."""
    controls = plugins.control_tokens()
    return Labels(controls, plugins.label_rules()) if controls else None


def dropping(config: SourceConfig, plugins: EnabledPlugins) -> Callable[[Record], str]:
    """The filters of a source as one function: a reason to leave a record out, or the empty string.

    Raises `RecipeError` for options that a filter refuses.
    """
    known = plugins.filters()
    filters: list[tuple[str, Filter, Mapping[str, Any]]] = [
        (name, known[name][1], options or {}) for name, options in config.filters.items()
    ]

    problems = []
    for _, function, options in filters:
        try:  # options are looked at whatever the record holds
            function({}, options)
        except UserError as error:
            if not isinstance(error, DataError):
                problems.append(f"{error}")
        except Exception:
            continue  # it needs fields that an empty record lacks
    if problems:
        raise RecipeError(problems)

    def drop(record: Record) -> str:
        for name, function, options in filters:
            try:
                reason = function(record, options)
            except MioError:
                raise
            except Exception as error:
                raise DataError(f"filter `{name}`: {type(error).__name__}: {error}") from error
            if reason:
                return f"{name}: {reason}"
        return ""

    return drop


def holding_out(recipe: Recipe, source: OpenSource, hashes: FileHashes) -> HeldOut | None:
    """Tells which records of a source are held out; None if none is."""
    share = recipe.data.held_out_of(source.config)
    if not share:
        return None
    stored = source.records.key if isinstance(source.records, TokenisedSource) else None
    return HeldOut(share, tuple(source.config.held_out_by), hashes, stored)


def _identity(
    recipe: Recipe,
    source: OpenSource,
    content: str,
    templates: list[dict[str, Any]],
    form: str,
    plugins: EnabledPlugins,
) -> str:
    """Fingerprint of what the recipe says about a stream's content, and of the content where its reader has one."""
    config = source.config
    shaping: dict[str, Any] = {
        "dataset": config.dataset,
        "split": config.split,
        "options": {} if config.dataset in READERS else config.options,  # files may move, their content may not
        "fields": config.options.get("fields"),
        "records": content,
        "templates": templates,
        "filters": config.filters,
        "form": form,
        "system": dict(recipe.data.system),
    }
    if share := recipe.data.held_out_of(config):
        shaping["held_out"] = [share, config.held_out_by]
    if controls := plugins.control_tokens():
        rules = {owner: plugins.options[owner] for owner, _ in plugins.label_rules()}
        shaping["controls"] = [[[owner, token.name, token.token] for owner, token in controls], rules]
    text = json.dumps(shaping, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
