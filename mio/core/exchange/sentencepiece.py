"""SentencePiece models (`tokenizer.model`) as definitions of the library `tokenizers`.

Repositories of Llama's time hold nothing else. Byte pair encoding (Llama, Yi, Mistral), unigrams (T5) and characters
are read. The fields are those of `sentencepiece_model.proto` (https://github.com/google/sentencepiece), in the wire
format of protocol buffers.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mio.core.errors import DataError, UserError
from mio.core.exchange.charsmap import rule_normalizers, rule_problem

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE, _WORD, _CHARACTERS = 1, 2, 3, 4
_SPACE = "▁"


class Piece(NamedTuple):
    """A token; its id is its position in the file."""

    string: str
    score: float
    """BPE: merges with a higher score come first. Unigrams: logarithm of the probability."""
    kind: int


class SentencePieceModel(NamedTuple):
    """The parts of a `tokenizer.model` that encoding depends on."""

    pieces: list[Piece]
    kind: int
    charsmap: bytes
    """Compiled normalisation rules; empty for the identity."""
    dummy_prefix: bool
    """A space is added before every text."""
    extra_spaces: bool
    """Runs of spaces and spaces at both ends are kept."""
    escaped: bool
    """Spaces become U+2581."""
    suffix: bool
    """The space of `dummy_prefix` comes at the end."""

    def definition(self) -> dict[str, Any]:
        """Content of a `tokenizer.json` that encodes alike.

        User-defined symbols belong to the model where it can find them, so that a text is normalised as a whole;
        elsewhere they are added tokens, which split a text before normalisation.
        """
        symbols = [piece.string for piece in self.pieces if piece.kind == _USER_DEFINED]
        inside = bool(symbols) and self._finds(symbols)
        definition = self._definition(symbols if inside else [], cut=bool(symbols) and not inside)
        if inside and self.kind == _BPE and not self._reachable(definition):
            return self._definition([], cut=True)
        return definition

    def _definition(self, symbols: list[str], cut: bool) -> dict[str, Any]:
        normalizers = list(self._normalizers(cut))
        split = "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))
        split_off = symbols and self.kind != _UNIGRAM
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                added_token(index, piece.string, special=piece.kind != _USER_DEFINED)
                for index, piece in enumerate(self.pieces)
                if piece.kind in (_UNKNOWN, _CONTROL) or (cut and piece.kind == _USER_DEFINED)
            ],
            "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
            if split_off
            else None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": self._decoders()},
            "model": self._unigrams() if self.kind == _UNIGRAM else self._pairs(whole=bool(split_off)),
        }

    def _normalizers(self, cut: bool) -> Iterator[dict[str, Any]]:
        """`cut`: added tokens split a text before normalisation, so rules for the ends of a text do not apply."""
        yield from rule_normalizers(self.charsmap)
        if not self.extra_spaces:
            yield {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
            if not cut:
                yield {"type": "Replace", "pattern": {"Regex": _ENDS}, "content": ""}
        space = _SPACE if self.escaped else " "
        if self.escaped:
            yield {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        if self.dummy_prefix and not self.suffix:
            yield {"type": "Prepend", "prepend": space}
        elif self.dummy_prefix:
            yield {"type": "Replace", "pattern": {"Regex": _END}, "content": space}

    def _decoders(self) -> list[dict[str, Any]]:
        decoders: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        if self.dummy_prefix or not self.extra_spaces:
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return decoders

    @property
    def _unknown(self) -> int | None:
        return next((index for index, piece in enumerate(self.pieces) if piece.kind == _UNKNOWN), None)

    @property
    def _byte_fallback(self) -> bool:
        return any(piece.kind == _BYTE for piece in self.pieces)

    def _finds(self, symbols: list[str]) -> bool:
        """Whether normalisation leaves the symbols unchanged."""
        from tokenizers import Tokenizer

        rules = {"type": "Sequence", "normalizers": list(rule_normalizers(self.charsmap))}
        empty = {"type": "BPE", "vocab": {}, "merges": []}
        normalizer = Tokenizer.from_str(json.dumps({"model": empty, "normalizer": rules})).normalizer
        return all(
            " " not in symbol and _SPACE not in symbol and normalizer.normalize_str(symbol) == symbol
            for symbol in symbols
        )

    def _reachable(self, definition: dict[str, Any]) -> bool:
        """Whether merges build every piece from its characters, so that looking pieces up first changes nothing."""
        from tokenizers import Tokenizer

        plain = definition | {"normalizer": None, "pre_tokenizer": None, "added_tokens": []}
        tokenizer = Tokenizer.from_str(json.dumps(plain | {"model": self._pairs(whole=False)}))
        normal = [index for index, piece in enumerate(self.pieces) if piece.kind == _NORMAL]
        encoded = tokenizer.encode_batch([self.pieces[index].string for index in normal])
        return all(encoding.ids == [index] for index, encoding in zip(normal, encoded, strict=True))

    def _unigrams(self) -> dict[str, Any]:
        """A user-defined symbol counts as so many of the likeliest piece as it has characters (sentencepiece,
        `unigram_model.cc`, PopulateNodes)."""
        most = max((piece.score for piece in self.pieces if piece.kind == _NORMAL), default=0.0)
        return {
            "type": "Unigram",
            "unk_id": self._unknown,
            "byte_fallback": self._byte_fallback,
            "vocab": [
                [p.string, len(p.string) * most - 0.1 if p.kind == _USER_DEFINED else p.score] for p in self.pieces
            ],
        }

    def _pairs(self, whole: bool) -> dict[str, Any]:
        """`whole`: parts of a text that are pieces are looked up before merging."""
        ids = {piece.string: index for index, piece in enumerate(self.pieces)}
        unknown = self._unknown
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unknown is None else self.pieces[unknown].string,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": self._byte_fallback,
            "ignore_merges": whole,
            "vocab": ids,
            "merges": list(map(list, self._merges(ids))) if self.kind == _BPE else [],
        }

    def _merges(self, ids: dict[str, int]) -> list[tuple[str, str]]:
        """Pairs in the order in which they are merged.

        SentencePiece merges the neighbours that form the piece of the highest score. A merge list is equivalent if it
        has every way to cut a piece into two known ones at the piece's rank. The cut with the longer left part comes
        first: sentencepiece merges from the left, which leaves the shorter part of a run at its right.
        """
        normal = [piece for piece in self.pieces if piece.kind == _NORMAL and len(piece.string) > 1]
        merges: list[tuple[str, str]] = []
        for piece in sorted(normal, key=lambda piece: -piece.score):  # stable: earlier ids first
            string = piece.string
            cuts = [(string[:cut], string[cut:]) for cut in range(len(string) - 1, 0, -1)]
            merges += [pair for pair in cuts if all(self._joins(part, ids) for part in pair)]
        return merges

    def _joins(self, part: str, ids: dict[str, int]) -> bool:
        """Whether a part of a piece can exist while merging: single characters and normal pieces."""
        return part in ids and self.pieces[ids[part]].kind == _NORMAL


_ENDS = r"\A +| +\z"
"""Spaces that sentencepiece strips from the ends of a text."""
_END = r"(?<=[\s\S])\z"
"""Where it adds the space of `suffix`."""


def added_token(index: int, content: str, *, special: bool) -> dict[str, Any]:
    """Entry of `added_tokens`: a token that is matched before a text is normalised and split."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": content, **flags, "special": special}


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads a `tokenizer.model`. Raises `DataError` for a damaged file, `UserError` for another kind of model."""
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    rules: dict[int, Any] = {}
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                inner = dict(_fields(value))
                score = struct.unpack("<f", inner.get(2, bytes(4)))[0]
                pieces.append(Piece(inner[1].decode(), score, inner.get(3, _NORMAL)))
            elif field == 2:
                trainer |= dict(_fields(value))
            elif field == 3:
                rules |= dict(_fields(value))
        if pieces and not (trainer and rules):  # both come after the pieces
            raise ValueError("cut off")
        kind, charsmap = int(trainer.get(3, _UNIGRAM)), bytes(rules.get(2, b""))
    except (OSError, IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise DataError(f"{path}: not a complete SentencePiece model ({error!r}); copy it again") from error
    problem = _problem(pieces, kind) or rule_problem(charsmap)
    if problem:
        raise UserError(f"{path}: {problem}")
    return SentencePieceModel(
        pieces,
        kind,
        charsmap,
        dummy_prefix=bool(rules.get(3, 1)),
        extra_spaces=not rules.get(4, 1),
        escaped=bool(rules.get(5, 1)),
        suffix=bool(trainer.get(24, 0)),
    )


def _problem(pieces: list[Piece], kind: int) -> str:
    """Why a model cannot be read; empty if it can."""
    if not pieces:
        return "this SentencePiece model holds no pieces"
    if kind not in (_UNIGRAM, _BPE, _CHARACTERS):
        name = "whole words" if kind == _WORD else f"kind {kind}"
        return f"a SentencePiece model of {name} cannot be read, only unigrams, BPE and characters"
    seen: set[str] = set()
    for piece in pieces:
        if not piece.string or piece.string in seen:
            return f"the piece {piece.string!r} of this SentencePiece model is empty or occurs twice"
        if not math.isfinite(piece.score):
            return f"the piece {piece.string!r} of this SentencePiece model has the score {piece.score}"
        if piece.kind == _UNUSED:
            return f"the piece {piece.string!r} of this SentencePiece model is marked as unused, which cannot be read"
        seen.add(piece.string)
    return ""


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message: whole numbers for varints, bytes for everything else."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
