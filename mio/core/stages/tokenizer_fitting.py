"""Trainable tokenizers: where they come from, and what they learn from where they have to be trained."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lightning import seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, Media, Record, Source
from mio.core.data.hashing import FileHashes
from mio.core.data.held_out import HeldOut
from mio.core.data.readers.tables import Stream
from mio.core.data.reasons import reason_of
from mio.core.data.shards.store import HASHES
from mio.core.data.sources import OpenSource, holding_out, open_sources, template_sets
from mio.core.errors import DataError
from mio.core.recipe.data_schema import GroupConfig
from mio.core.recipe.schema import Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import UNDERSTAND, Document
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.tokenizer_files import tokenizer_record
from mio.core.tokens.tokenizer_training import train_tokenizers
from mio.core.tokens.visitor import Visitor

RECORDS = 2000
"""Records of each source that are looked at."""


def shared_tokenizers(recipe: Recipe, inherited: Path | None) -> Path:
    """Where `mio tokenize` keeps the tokenizers of a recipe, for the runs that train on their codes.

    The folder's name is a function of what they are trained on and, for those of an earlier stage, `inherited`.
    """
    record = tokenizer_record(inherited) if inherited else {}
    content = {
        "plugins": recipe.plugins,
        "seed": recipe.seed,
        "groups": {name: _read_of(recipe, group) for name, group in recipe.data.groups.items()},
        "templates": {name: [asdict(one) for one in own] for name, own in recipe.data.templates.items()},
        "form": recipe.data.form,
        "system": recipe.data.system,
        # as the record was written when it had nothing but fingerprints: folders keep their names
        "inherited": json.dumps(record, indent=1) if record else "",
    }
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    return Path(recipe.runtime.tokens) / "tokenizers" / digest


def _read_of(recipe: Recipe, group: GroupConfig) -> dict[str, Any]:
    """What tokenizers are trained on of a group: keys of validation count where they hold records out."""
    content = asdict(group)
    for name, source in group.sources.items():
        keys = content["sources"][name]
        for key in ("held_out", "held_out_by", "validation_split"):
            del keys[key]
        if share := recipe.data.held_out_of(source):
            keys["held_out"] = [share, source.held_out_by]
    return content


def prepare_tokenizers(
    recipe: Recipe,
    weights: Path,
    starts: Sequence[Path],
    plugins: EnabledPlugins,
    codecs: Codecs,
    console: Console,
) -> dict[str, Any]:
    """Loads the tokenizers of the folder `weights`. What it lacks is trained on the recipe's data.

    A folder that does not exist yet begins as a copy of the first of `starts` that does. Returns the metrics of those
    that were trained.
    """
    start = next((folder for folder in starts if folder.is_dir()), None)
    if start is not None and not weights.exists():
        partial = weights.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(start, partial, ignore=shutil.ignore_patterns("*.partial"))
        partial.rename(weights)
    known = tokenizer_record(weights)
    missing = [name for name in codecs.trainable() if name not in known]  # without a record: its maker was ended
    if not missing:
        codecs.load(weights)
        return {}
    clock = time.perf_counter()
    console.print(f"training tokenizers: {', '.join(missing)}")
    with isolate_rng():  # training them or finding them trained leaves the same random state
        seed_everything(recipe.seed, verbose=False)
        metrics = train_tokenizers(
            codecs, missing, fitting_items(recipe, plugins, codecs, missing), weights, recipe.seed
        )
    for name, reported in metrics.items():
        values = ", ".join(f"{key} {value:.4g}" for key, value in reported.items())
        console.print(f"  {name}: {values}")
    console.print(f"  {time.perf_counter() - clock:.1f} s")
    return {name: dict(reported) for name, reported in metrics.items()}


def fitting_items(
    recipe: Recipe, plugins: EnabledPlugins, codecs: Codecs, names: Sequence[str]
) -> dict[str, list[Any]]:
    """Texts and distinct media, by modality, of documents from every group that the recipe declares.

    Groups that this stage leaves out count too: the stages of a chain share their tokenizers, and later ones must find
    their texts and media covered. Media are read one by one, so that of those that come as bytes one at a time is a
    file. Records that cannot be read are passed over: the checks before training report them.

    Raises:
        DataError: there is nothing for one of `names`; with what was wrong with the records.
    """
    every = replace(recipe, mixture=replace(recipe.mixture, ratios=dict.fromkeys(recipe.data.groups, 1.0)))
    problems: list[str] = []
    found = _Examples(codecs, names)
    sets = template_sets(recipe, plugins)
    hashes = FileHashes(Path(recipe.runtime.tokens) / HASHES)
    open_sources(recipe, plugins, streamed=True, validates=True)  # what is wrong with them is told before, not after
    for source in open_sources(every, plugins, streamed=True):
        held_out = holding_out(recipe, source, hashes)
        templates = [
            CompiledTemplate(template, source.config.templates) for template in sets.get(source.config.templates, ())
        ]
        failures = Failures(source.label)
        for where, document in _documents(recipe, source, templates, failures, held_out):
            for segment in document.segments:
                with failures.noted(where):
                    found.view = segment.view
                    found.visit(segment.content)
        if failures.count:
            problems.append(str(failures))
    items: dict[str, list[Any]] = {
        name: found.texts if name == TEXT else list(found.distinct[name].values()) for name in names
    }
    for name in names:
        if not items[name]:
            why = f": {'; '.join(problems)}" if problems else "; add a source of it, or leave its plugin out"
            raise DataError(
                f"the tokenizer of `{name}` has to be trained, but the recipe's sources hold no `{name}` that can be "
                f"read{why}"
            )
    return items


class _Examples(Visitor[None]):
    """Texts, and distinct media of some modalities, of documents."""

    def __init__(self, codecs: Codecs, names: Sequence[str]) -> None:
        self._codecs = codecs
        self.view = UNDERSTAND
        self.texts: list[str] = []
        self.distinct: dict[str, dict[str, Media]] = {name: {} for name in names if name != TEXT}

    def text(self, text: str) -> None:
        self.texts.append(text)

    def media(self, media: Media) -> None:
        if self._codecs.modalities[media.modality].parts:
            for part in self._codecs.split(media):
                self.visit(part)
        elif self._codecs.by_network(media.modality, self.view):
            pass  # an encoder's, never codes
        elif (kept := self.distinct.get(media.modality)) is not None and media.key not in kept:
            kept[media.key] = self._codecs.opened(media)

    def other(self, value: object) -> None:
        """Special and control tokens, and codes, teach no tokenizer."""


class Failures:
    """What could not be read of one source."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.count = 0
        self._first = ""

    @contextlib.contextmanager
    def noted(self, where: str) -> Iterator[None]:
        """Notes an error that costs a record; a mistake in the recipe or a plugin is raised on."""
        try:
            yield
        except Exception as error:
            reason = reason_of(error, where)
            self.count += 1
            self._first = self._first or reason

    def __str__(self) -> str:
        return f"{self.label}: {self.count} records or media cannot be used, the first: {self._first}"


def _documents(
    recipe: Recipe,
    source: OpenSource,
    templates: Sequence[CompiledTemplate],
    failures: Failures,
    held_out: HeldOut | None,
) -> Iterator[tuple[str, Document]]:
    """The documents that can be made of records that are not held out, each after the place of its record."""
    form = source.config.form or recipe.data.form
    locate = getattr(source.records, "locate", lambda index: f"record {index}")
    for place, (index, read) in enumerate(_looked_at(source.records)):
        document = None
        with failures.noted(locate(index)):
            record = read()
            if held_out is not None and held_out(index, record):
                continue
            template = templates[place % len(templates)] if templates else None
            own = "chat" if "messages" in record else "plain"
            document = to_document(record, template, form if template else own, recipe.data.system, asked=True)
        if document is not None:
            yield locate(index), document


def _looked_at(records: Source) -> Iterator[tuple[int, Callable[[], Record]]]:
    """Indices of records, with calls that read one each: evenly spaced, so that sorted corpora are seen whole; a
    stream's first ones."""
    if isinstance(records, Stream):
        return enumerate(islice(records, RECORDS))
    count = min(len(records), RECORDS)
    chosen = (number * len(records) // count for number in range(count))
    return ((index, partial(records.__getitem__, index)) for index in chosen)
