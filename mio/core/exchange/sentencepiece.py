"""SentencePiece models (`tokenizer.model`) as definitions of the library `tokenizers`.

Repositories of Llama's time hold nothing else. Only byte pair encoding is read, which Llama, Yi and Mistral use. The
fields are those of `sentencepiece_model.proto` (https://github.com/google/sentencepiece), in the wire format of
protocol buffers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mio.core.errors import DataError, UserError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_BPE = 2
_SPACE = "▁"


class Piece(NamedTuple):
    """A token. The ids are the places in the file."""

    string: str
    score: float
    """Merges with a higher score come first."""
    kind: int


class SentencePieceModel(NamedTuple):
    """What matters of a `tokenizer.model`."""

    pieces: list[Piece]
    charsmap: bytes
    """Compiled normalisation rules; empty for the identity."""
    dummy_prefix: bool
    """A space is put in front of every text."""

    def definition(self) -> dict[str, Any]:
        """Content of a `tokenizer.json` that encodes alike."""
        ids = {piece.string: index for index, piece in enumerate(self.pieces)}
        unknown = next((piece.string for piece in self.pieces if piece.kind == _UNKNOWN), None)
        normalizers: list[dict[str, Any]] = []
        if self.charsmap:
            rules = base64.b64encode(self.charsmap).decode()
            normalizers.append({"type": "Precompiled", "precompiled_charsmap": rules})
        if self.dummy_prefix:
            normalizers.append({"type": "Prepend", "prepend": _SPACE})
        normalizers.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
        decoders: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        if self.dummy_prefix:
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                added_token(index, piece.string, special=piece.kind != _USER_DEFINED)
                for index, piece in enumerate(self.pieces)
                if piece.kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
            ],
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": unknown,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": any(piece.kind == _BYTE for piece in self.pieces),
                "ignore_merges": False,
                "vocab": ids,
                "merges": list(map(list, self._merges(ids))),
            },
        }

    def _merges(self, ids: dict[str, int]) -> list[tuple[str, str]]:
        """Pairs in the order in which they are merged.

        SentencePiece joins whichever neighbours make the piece of the highest score; a merge list says the same where
        every way to cut a piece into two known ones stands at the place of the piece.
        """
        normal = [piece for piece in self.pieces if piece.kind == _NORMAL and len(piece.string) > 1]
        merges: list[tuple[str, str]] = []
        for piece in sorted(normal, key=lambda piece: -piece.score):  # stable: earlier ids first
            string = piece.string
            cuts = [(string[:cut], string[cut:]) for cut in range(1, len(string))]
            known = [pair for pair in cuts if pair[0] in ids and pair[1] in ids]
            merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        return merges


def added_token(index: int, content: str, *, special: bool) -> dict[str, Any]:
    """Entry of `added_tokens`: a token that is found before anything else is done to a text."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": content, **flags, "special": special}


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads a `tokenizer.model`. Raises `DataError` for a damaged file, `UserError` for another kind of model."""
    pieces: list[Piece] = []
    kind, charsmap, dummy_prefix = 1, b"", True
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                inner = dict(_fields(value))
                score = struct.unpack("<f", inner.get(2, bytes(4)))[0]
                pieces.append(Piece(inner[1].decode(), score, inner.get(3, _NORMAL)))
            elif field == 2:
                kind = dict(_fields(value)).get(3, 1)
            elif field == 3:
                rules = dict(_fields(value))
                charsmap, dummy_prefix = rules.get(2, b""), bool(rules.get(3, 1))
    except (OSError, IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise DataError(f"{path}: this is no whole SentencePiece model ({error!r}); copy it again") from error
    if kind != _BPE:
        raise UserError(
            f"{path}: a SentencePiece model of another kind than BPE; write a tokenizer.json beside it with "
            "transformers: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        )
    return SentencePieceModel(pieces, charsmap, dummy_prefix)


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
