"""Records to shards: reads media, tokenises them in batches, and notes what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import Codes, Media, Record
from mio.core.data.partial import Failed, notes_of
from mio.core.data.reasons import reason_of
from mio.core.data.shards.kept import Kept, KeptMedia, pack
from mio.core.data.shards.writer import ShardWriter
from mio.core.errors import DataError
from mio.core.tokens.codecs import Codecs, name_of
from mio.core.tokens.encoding import BATCH, BATCH_BYTES, encode, size_of
from mio.core.tokens.visitor import Visitor

_Done = Mapping[str, Any]
"""Codes by the name of an item, `Failed` where it has none."""


@dataclass(frozen=True)
class _Item:
    """In place of media that are being tokenised."""

    modality: str
    name: str

    def resolved(self, done: _Done) -> Codes:
        codes = done[self.name]
        if isinstance(codes, Failed):
            raise DataError(codes.reason)
        return Codes(self.modality, codes)


@dataclass(frozen=True)
class _Parts:
    """In place of an item of parts."""

    modality: str
    items: tuple[_Item | Codes, ...]

    def resolved(self, done: _Done) -> Media:
        parts = (item.resolved(done) if isinstance(item, _Item) else item for item in self.items)
        return Media(self.modality, tuple(parts), key="tokenised")


@dataclass(frozen=True)
class _Kept:
    """In place of media that are kept as they are, for networks, and tokenised too where they become codes."""

    modality: str
    content: Kept
    coded: _Item | _Parts | None

    def resolved(self, done: _Done) -> KeptMedia:
        return KeptMedia(self.modality, self.content, None if self.coded is None else self.coded.resolved(done))


class ShardEncoder:
    """Makes one shard of records. What it does depends on the shard alone, not on what was tokenised before it.

    Args:
        codecs: with the tokenizers' weights loaded.
        fingerprints: of the tokenizers (see `mio.core.data.shards.store.tokenizer_fingerprints`).
        drop: a reason to leave a record out, or the empty string.
        key: of a record, which is kept beside it (see `mio.core.data.held_out`).
    """

    def __init__(
        self,
        codecs: Codecs,
        fingerprints: Mapping[str, str],
        drop: Callable[[Record], str],
        key: Callable[[Record], int] = lambda _: 0,
    ) -> None:
        self._codecs = codecs
        self._fingerprints = fingerprints
        self._drop = drop
        self._key = key
        self._done: dict[str, Any] = {}
        self._kept: dict[str, Kept] = {}
        self._waiting: dict[str, list[tuple[str, Any]]] = {}
        self._samples: dict[str, Any] = {}
        self._bytes = 0

    def encode(
        self, records: Iterable[Callable[[], Record]], first: int, where: Callable[[int], str], tick: Callable[[], None]
    ) -> ShardWriter:
        """The shard of `records`, each of which is read by a call.

        Args:
            first: index of the first record in its source.
            where: names a record by its index, for what is noted about it.
            tick: called after every record.

        Raises what a mistake in the recipe or a plugin raises; what is wrong with a record is noted in its place.
        """
        self._done, self._kept, self._waiting, self._samples, self._bytes = {}, {}, {}, {}, 0
        writer = ShardWriter(self._codecs.modalities, self._fingerprints, first)
        read: list[tuple[dict[str, Any], int] | Failed | str] = []
        for index, call in enumerate(records, first):
            try:
                record = call()
                reason = self._drop(record)
                if reason:
                    read.append(reason)
                else:
                    own, notes = self._key(record), notes_of(record)
                    fields = {name: self._field(value, where(index)) for name, value in record.items()}
                    read.append(({**fields, **notes.failed}, own))
                    for key in notes.unknown:
                        writer.note(key)
            except Exception as error:
                read.append(_failed(error, where(index)))
            tick()
        for modality in self._waiting:
            self._flush(modality)
        for index, content in enumerate(read, first):
            if isinstance(content, Failed):
                writer.fail(content.reason)
            elif isinstance(content, str):
                writer.drop(content)
            else:
                fields, own = content
                writer.add({name: self._resolved(value, where(index)) for name, value in fields.items()}, own)
        return writer

    def sample(self) -> dict[str, Any]:
        """The first item of each modality decoded and tokenised again: `kept`, the share of codes that stay the same.

        Where the decoder gives an array of the item's own shape, `snr_db` compares the two. A modality that nothing
        can decode has the reason instead.
        """
        return {name: self._reconstruction(name, data) for name, data in sorted(self._samples.items())}

    def _reconstruction(self, modality: str, data: Any) -> dict[str, Any]:
        tokenizer = self._codecs.tokenizer(modality)
        view = list(self._codecs.modalities[modality].view("generate"))
        try:
            codes = np.asarray(tokenizer.encode([data])[0])
            decoded = self._codecs.decode(modality, codes[view])
            again = np.asarray(tokenizer.encode([decoded])[0])
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {error}"}
        frames = min(codes.shape[1], again.shape[1])
        same = (codes[view, :frames] == again[view, :frames]).sum()
        figures: dict[str, Any] = {"frames": codes.shape[1], "kept": round(float(same) / max(1, codes[view].size), 3)}
        first, second = _numbers(data), _numbers(decoded)
        if first is not None and second is not None and first.shape == second.shape and first.size:
            noise, power = float(np.square(first - second).mean()), float(np.square(first).mean())
            if noise > 0 and power > 0:
                figures["snr_db"] = round(float(10 * np.log10(power / noise)), 1)
        return figures

    def _field(self, value: Any, where: str) -> Any:
        try:
            return _Scheduling(self).visit(value)
        except Exception as error:
            return _failed(error, where)

    def schedule(self, media: Media) -> _Item | _Parts | _Kept:
        """What takes the place of media: they are read and wait to be tokenised, are kept as they are, or both."""
        codecs = self._codecs
        declared = codecs.modalities[media.modality]
        names = declared.part_names or (media.modality,)
        coded: _Item | _Parts | None = None
        if all(map(codecs.is_coded, names)):
            coded = self.parts(media) if declared.parts else self.item(media)
        if not any(name in codecs.kept for name in names):
            assert coded is not None, "what has no codes is read or made by a network"
            return coded
        name = name_of(media)
        if name not in self._kept:
            self._kept[name] = pack(media)
        return _Kept(media.modality, self._kept[name], coded)

    def parts(self, media: Media) -> _Parts:
        """What takes the place of the parts of an item, those that are not tokenised yet."""
        waiting = _Waiting(self)
        return _Parts(media.modality, tuple(map(waiting.visit, self._codecs.split(media))))

    def item(self, media: Media) -> _Item:
        """What takes the place of an item that waits to be tokenised, once it is read."""
        item = _Item(media.modality, name_of(media))
        if item.name not in self._done:
            data = self._codecs.originals([media])[0]
            self._samples.setdefault(media.modality, data)
            self._done[item.name] = None
            waiting = self._waiting.setdefault(media.modality, [])
            waiting.append((item.name, data))
            self._bytes += size_of(data)
            if len(waiting) == BATCH:
                self._flush(media.modality)
            elif self._bytes > BATCH_BYTES:
                for modality in self._waiting:
                    self._flush(modality)
        return item

    def _flush(self, modality: str) -> None:
        """Tokenises what waits; where the batch fails, each item by itself, so that one costs no other."""
        waiting, self._waiting[modality] = self._waiting[modality], []
        tokenizer = self._codecs.tokenizer(modality)
        results = encode(tokenizer, modality, [data for _, data in waiting])
        for (name, data), codes in zip(waiting, results, strict=True):
            self._done[name] = _failed(codes) if isinstance(codes, Exception) else codes
            self._bytes -= size_of(data)

    def _resolved(self, value: Any, where: str) -> Any:
        """The value with codes in place of its items; `Failed` where one of them has none."""
        try:
            return _Resolving(self._done).visit(value)
        except DataError as error:
            return _failed(error, where)


class _Rebuilding(Visitor[Any]):
    """A value with something in the place of some of its content."""

    def mapping(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.visit(value) for name, value in values.items()}

    def sequence(self, values: Sequence[Any]) -> list[Any]:
        return [self.visit(value) for value in values]

    def other(self, value: Any) -> Any:
        return value


class _Scheduling(_Rebuilding):
    """A value with placeholders for its media."""

    def __init__(self, encoder: ShardEncoder) -> None:
        self._encoder = encoder

    def media(self, media: Media) -> Any:
        return self._encoder.schedule(media)

    def tokenised_media(self, media: Media) -> Any:
        return self._encoder.parts(media)


class _Waiting(Visitor[_Item | Codes]):
    """A part of an item, as codes or as what takes their place."""

    def __init__(self, encoder: ShardEncoder) -> None:
        self._encoder = encoder

    def media(self, media: Media) -> _Item:
        return self._encoder.item(media)

    def codes(self, codes: Codes) -> Codes:
        return codes


class _Resolving(_Rebuilding):
    """The value that placeholders stood in."""

    def __init__(self, done: _Done) -> None:
        self._done = done

    def other(self, value: Any) -> Any:
        return value.resolved(self._done) if isinstance(value, _Item | _Parts | _Kept) else value


def _failed(error: Exception, where: str = "") -> Failed:
    """What is noted of an error. Raises it again if it is no record's fault."""
    return Failed(reason_of(error, where))


def _numbers(media: Any) -> npt.NDArray[np.float64] | None:
    """The array that media are, or the first of those that they are a tuple of; None for media of another kind."""
    if isinstance(media, tuple):
        media = media[0] if media else None
    try:
        array = np.asarray(media)
        return array.astype(np.float64) if array.dtype.kind in "biuf" else None
    except Exception:  # whatever an object of a plugin's does when it is taken for an array
        return None
