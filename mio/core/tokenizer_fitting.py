"""What trainable tokenizers learn from: texts and media of the recipe's own training data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from mio.core.codecs import Codecs
from mio.core.data.sources import OpenSource, open_sources, template_sets
from mio.core.documents import Document
from mio.core.errors import DataError
from mio.core.modality import TEXT, Media
from mio.core.plugins import EnabledPlugins
from mio.core.schema import Recipe
from mio.core.templates import CompiledTemplate, to_document

RECORDS = 2000
"""Records of each source that are looked at."""


def fitting_items(
    recipe: Recipe, plugins: EnabledPlugins, codecs: Codecs, names: Sequence[str]
) -> dict[str, list[Any]]:
    """Texts and distinct media, by modality, of documents from every group that the recipe declares.

    Groups that this stage leaves out count too: the stages of a chain share their tokenizers, and later ones must find
    their texts and media covered. Records that cannot be read are passed over here; the checks before training report
    them.
    """
    every = replace(recipe, mixture=replace(recipe.mixture, ratios=dict.fromkeys(recipe.data.groups, 1.0)))
    texts: list[str] = []
    media: dict[str, dict[str, Media]] = {name: {} for name in names if name != TEXT}
    sets = template_sets(recipe, plugins)
    for source in open_sources(every, plugins):
        templates = [
            CompiledTemplate(template, source.config.templates) for template in sets.get(source.config.templates, ())
        ]
        for document in _documents(recipe, source, templates):
            for segment in document.segments:
                if isinstance(segment.content, str):
                    texts.append(segment.content)
                elif isinstance(segment.content, Media):
                    with contextlib.suppress(DataError):
                        for item in codecs.items(segment.content):
                            if isinstance(item, Media) and item.modality in media:
                                media[item.modality][item.key] = item
    return {name: texts if name == TEXT else list(media[name].values()) for name in names}


def _documents(recipe: Recipe, source: OpenSource, templates: Sequence[CompiledTemplate]) -> Iterator[Document]:
    form = source.config.form or recipe.data.form
    count = len(source.records)
    # evenly spaced, so that sorted corpora are seen whole
    for place, index in enumerate(islice(range(0, count, max(1, count // RECORDS)), RECORDS)):
        try:
            record = source.records[index]
            if templates:
                yield to_document(record, templates[place % len(templates)], form, recipe.data.system)
            else:
                yield to_document(record, None, "chat" if "messages" in record else "plain", recipe.data.system)
        except (DataError, OSError, ValueError):
            continue
