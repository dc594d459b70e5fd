"""Which generated spans are copies: equal to a training item, code by code.

The codes of the training data are looked up in an index, a file per modality: digests of the codes of every item that
was trained on. It is made once per run and data; a run that is evaluated again reads no training data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Codes, Media
from mio.core.data.held_out import HeldOut, record_key
from mio.core.data.shards.format import map_arrays, read_checked, write_shard
from mio.core.data.shards.store import TokenStore, source_identity
from mio.core.data.sources import OpenSource, holding_out, open_sources
from mio.core.distributed.ranks import Ranks
from mio.core.errors import DataError, PluginError, UserError
from mio.core.generation.model import Model
from mio.core.runs.versions import versions
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.visitor import Visitor, key_of

RECORDS = 20_000
"""Records of each source that are looked at."""
INDEX = "training-codes"
"""Folder of the index, where a run's evaluation is kept."""
_PIECE = 500
"""Records that a rank looks at at a time."""
_SAMPLED = 16
"""Records by which a source is known that says nothing of its content."""
_DIGESTS = "digests"

Spans = Mapping[str, Sequence[str]]
"""Digests of spans (see `digest`), by modality."""


def digest(codecs: Codecs, item: Media | Codes) -> str:
    """Stands for an item's codes: the same for the same ones, whatever integers and order in memory a tokenizer gives
    them in. 64 bits in hexadecimal: of a million training items, one of 10^13 spans is taken for a copy by mistake."""
    codes = np.ascontiguousarray(codecs.written(item), dtype="<i8")
    return hashlib.blake2b(codes.tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Copies:
    """Which spans are in the training data."""

    found: Mapping[str, frozenset[str]]
    """Their digests, by modality."""
    searched: int
    """Training records that were looked at."""
    records: int
    """Training records that there are."""

    def share(self, spans: Sequence[tuple[str, str]]) -> float:
        """Of these spans, each a modality and a digest."""
        return sum(value in self.found.get(modality, ()) for modality, value in spans) / max(1, len(spans))


def copied_spans(model: Model, spans: Spans, ranks: Ranks | None = None, folder: Path | None = None) -> Copies:
    """Those of `spans` that are in the run's training data, from shards where training read these; on the first rank.

    Ranks share the records; a collective call. Items that cannot be read are left out, as training left them out.

    Args:
        folder: of the evaluation, where the index is kept; where it cannot be written, or without one, it is not.

    Raises:
        DataError: a shard or source is damaged.
    """
    ranks = ranks or Ranks()
    data, problem = _Data([], {}, []), ""
    try:
        data = _Data.of(model)
    except DataError as error:
        problem = str(error)
    if not ranks.least(int(not problem)):  # a rank that reads nothing would take pieces of the others' work
        raise DataError(problem or "another process cannot read what was trained on")
    places = {name: folder / INDEX / f"{name}.index" if folder else None for name in spans}
    about = {name: data.described(model.codecs, name) for name in spans}
    known = {name: index for name in spans if (index := _read(places[name], about[name])) is not None}
    missing = ranks.broadcast([name for name in spans if name not in known])
    if missing:
        made = _made(model.codecs, data, missing, ranks)
        problem = made.problem
        for name in missing if ranks.first and not problem else ():
            known[name] = made.digests[name]
            _write(places[name], about[name], known[name])
    if problem and ranks.first:
        raise DataError(problem)
    searched, records = data.searched
    found = {name: _looked_up(known[name], values) for name, values in spans.items()} if ranks.first else {}
    return Copies(found, searched, records)


_Digests = npt.NDArray[np.uint64]


def _looked_up(index: _Digests, values: Sequence[str]) -> frozenset[str]:
    wanted = np.array([int(value, 16) for value in values], np.uint64)
    return frozenset(value for value, is_there in zip(values, np.isin(wanted, index), strict=True) if is_there)


@dataclass(frozen=True)
class _Data:
    """What was trained on: each source once, however many groups have it."""

    sources: list[OpenSource]
    held_out: dict[str, HeldOut | None]
    """By label."""
    content: list[list[Any]]
    """Of each source what tells it from another."""

    @classmethod
    def of(cls, model: Model) -> _Data:
        """Raises `DataError` where a source is damaged."""
        recipe = model.recipe
        ratios = dict.fromkeys(recipe.data.groups, 1.0)
        every = replace(recipe, mixture=replace(recipe.mixture, ratios=ratios))
        tokens = TokenStore.of(recipe, model.plugins, model.codecs)
        sources, held_out, content = [], {}, []
        for source in open_sources(every, model.plugins, tokens):
            own = holding_out(every, source, tokens.hashes)
            described = _content(model, source, tokens, own)
            if described not in content:
                sources.append(source)
                held_out[source.label] = own
                content.append(described)
        return cls(sources, held_out, content)

    @property
    def searched(self) -> tuple[int, int]:
        """Records that are looked at, and all there are."""
        sizes = [len(source.records) for source in self.sources]
        return sum(min(size, RECORDS) for size in sizes), sum(sizes)

    @property
    def pieces(self) -> list[tuple[OpenSource, range]]:
        """Records that are looked at together."""
        return [
            (source, range(start, min(start + _PIECE, len(source.records), RECORDS)))
            for source in self.sources
            for start in range(0, min(len(source.records), RECORDS), _PIECE)
        ]

    def described(self, codecs: Codecs, modality: str) -> str:
        """Changes when anything does that an index of a modality depends on."""
        declared = codecs.modalities[modality]
        codes = [modality, declared.codebooks, declared.view("generate"), codecs.fingerprints().get(modality, "")]
        text = json.dumps([RECORDS, codes, self.content], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _content(model: Model, source: OpenSource, tokens: TokenStore, held_out: HeldOut | None) -> list[Any]:
    """What tells a source from another, as JSON holds it."""
    of = [held_out.share, list(held_out.by)] if held_out else []
    about: list[Any] = [source_identity(source.config), len(source.records), source.tokenised, of]
    if source.tokenised:
        return [*about, getattr(source.records, "fingerprint", "")]
    if source.shipped:
        owner = model.plugins.sources()[source.config.dataset][0]
        about += [versions(model.plugins.manager, [owner])["plugins"], getattr(source.records, "fingerprint", "")]
    step = max(1, len(source.records) // _SAMPLED)
    return [*about, [_known_by(source, index, tokens) for index in range(0, len(source.records), step)]]


def _known_by(source: OpenSource, index: int, tokens: TokenStore) -> str:
    try:
        return f"{record_key(source.records[index], (), tokens.hashes):016x}"
    except PluginError:
        raise
    except Exception:  # training has counted it
        return ""


@dataclass
class _Made:
    """An index that was made, on the first rank."""

    digests: dict[str, _Digests]
    problem: str = ""


def _made(codecs: Codecs, data: _Data, modalities: Sequence[str], ranks: Ranks) -> _Made:
    pieces = data.pieces
    work = ranks.share_out(len(pieces))
    seen: set[str] = set()
    """Names of the items that this rank has looked at."""
    for number in work.pieces():
        ranks.check()
        source, records = pieces[number]
        try:
            found = _found(codecs, source, records, data.held_out[source.label], modalities, seen)
            work.finish(number, {"found": {name: sorted(those) for name, those in found.items()}})
        except DataError as error:
            work.finish(number, {"problem": str(error)})
    ranks.barrier()
    together: dict[str, set[str]] = {name: set() for name in modalities}
    problem = ""
    for _, result in work.results() if ranks.first else ():
        problem = problem or result.get("problem", "")
        for name, those in result.get("found", {}).items():
            together[name].update(those)
    digests = {
        name: np.sort(np.array([int(value, 16) for value in values], np.uint64)) for name, values in together.items()
    }
    return _Made(digests, problem)


def _found(
    codecs: Codecs,
    source: OpenSource,
    records: range,
    held_out: HeldOut | None,
    modalities: Sequence[str],
    seen: set[str],
) -> dict[str, set[str]]:
    """Digests of the items among some records of a source, of those that were not seen."""
    items: list[Media | Codes] = []
    for index in records:
        try:
            record = source.records[index]
            if held_out is None or not held_out(index, record):
                items += [item for item in codecs.items(record) if item.modality in modalities and _new(item, seen)]
        except PluginError:
            raise
        except Exception as error:
            if isinstance(error, UserError) and not isinstance(error, DataError):  # a damaged shard
                raise DataError(str(error)) from error
            continue  # training has counted it
    with contextlib.suppress(Exception):  # what fails now is told item by item
        codecs.learn(media for item in items for media in _UNCODED.visit(item))
    found: dict[str, set[str]] = {}
    for item in items:
        try:
            found.setdefault(item.modality, set()).add(digest(codecs, item))
        except PluginError:
            raise
        except Exception:
            continue
    return found


class _Uncoded(Visitor[list[Media]]):
    """Media that have no codes yet."""

    def media(self, media: Media) -> list[Media]:
        return [media]

    def coded_media(self, media: Media) -> list[Media]:  # noqa: ARG002
        return []

    def codes(self, codes: Codes) -> list[Media]:  # noqa: ARG002
        return []


_UNCODED = _Uncoded()


def _new(item: Media | Codes, seen: set[str]) -> bool:
    """Whether an item was not seen before. Notes that it was."""
    key = key_of(item)
    name = f"{item.modality}:{key}"
    if name in seen:
        return False
    if key:
        seen.add(name)
    return True


def _read(path: Path | None, about: str) -> _Digests | None:
    """The index in a file, if it is whole and was made of the same data."""
    if path is None:
        return None
    try:
        header, start = read_checked(path)
        if header.get("about") != about:
            return None
        digests: _Digests = map_arrays(path, header, start)[_DIGESTS]
    except (DataError, OSError, ValueError, KeyError):
        return None
    return digests


def _write(path: Path | None, about: str, digests: _Digests) -> None:
    if path is None:
        return
    with contextlib.suppress(OSError):  # the run may be somebody else's: the index is made again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, {"about": about}, {_DIGESTS: digests})
