"""Which generated spans are copies: equal to a training item, code by code."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mio.core.contract.values import Codes, Media
from mio.core.data.held_out import HeldOut
from mio.core.data.shards.store import TokenStore
from mio.core.data.sources import OpenSource, holding_out, open_sources
from mio.core.distributed.ranks import Ranks
from mio.core.errors import DataError, PluginError, UserError
from mio.core.generation.model import Model
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.visitor import key_of

RECORDS = 20_000
"""Records of each source that are searched."""
_PIECE = 500
"""Records that a rank searches at a time."""

Spans = Mapping[str, Collection[str]]
"""Digests of spans (see `digest`), by modality."""


def digest(codecs: Codecs, item: Media | Codes) -> str:
    """Stands for an item's codes: the same for the same ones, whatever integers and order in memory a tokenizer gives
    them in."""
    codes = np.ascontiguousarray(codecs.written(item), dtype="<i8")
    return hashlib.blake2b(codes.tobytes(), digest_size=16).hexdigest()


def copied_spans(model: Model, spans: Spans, ranks: Ranks | None = None) -> dict[str, set[str]]:
    """Those of `spans` that are in the run's training data, from shards where training read these; on the first rank.

    Ranks share the records; a collective call. Items that cannot be read are left out, as training left them out.

    Raises:
        DataError: a shard or source is damaged.
    """
    ranks = ranks or Ranks()
    ratios = dict.fromkeys(model.recipe.data.groups, 1.0)
    every = replace(model.recipe, mixture=replace(model.recipe.mixture, ratios=ratios))
    tokens = TokenStore.of(model.recipe, model.plugins, model.codecs)
    problem, pieces, held_out = "", [], {}
    try:
        sources = open_sources(every, model.plugins, tokens)
        held_out = {source.label: holding_out(every, source, tokens.hashes) for source in sources}
        pieces = [
            (source, range(start, min(start + _PIECE, len(source.records), RECORDS)))
            for source in sources
            for start in range(0, min(len(source.records), RECORDS), _PIECE)
        ]
    except DataError as error:
        problem = str(error)
    work = ranks.share_out(len(pieces))
    seen: set[tuple[str, str]] = set()
    """Modality and key of the items that this rank has looked at."""
    for number in work.pieces():
        try:
            source, records = pieces[number]
            found = _found(model.codecs, source, records, held_out[source.label], spans, seen)
            work.finish(number, {"found": {name: sorted(those) for name, those in found.items()}})
        except DataError as error:
            work.finish(number, {"problem": str(error)})
    ranks.barrier()
    copied: dict[str, set[str]] = {name: set() for name in spans}
    for result in work.results() if ranks.first else ():
        problem = problem or result.get("problem", "")
        for name, those in result.get("found", {}).items():
            copied[name].update(those)
    if problem and ranks.first:
        raise DataError(problem)
    return copied


def _found(
    codecs: Codecs,
    source: OpenSource,
    records: range,
    held_out: HeldOut | None,
    spans: Spans,
    seen: set[tuple[str, str]],
) -> dict[str, set[str]]:
    """Those of `spans` among some records of a source."""
    found: dict[str, set[str]] = {}
    for index in records:
        try:
            record = source.records[index]
            if held_out is not None and held_out(index, record):
                continue
            for item in codecs.items(record):
                key = key_of(item)
                if item.modality not in spans or (key and (item.modality, key) in seen):
                    continue
                if (value := digest(codecs, item)) in spans[item.modality]:
                    found.setdefault(item.modality, set()).add(value)
                if key:
                    seen.add((item.modality, key))
        except PluginError:
            raise
        except Exception as error:
            if isinstance(error, UserError) and not isinstance(error, DataError):  # a damaged shard
                raise DataError(str(error)) from error
            continue  # training has counted it
    return found
