"""Codes of one item to the ids of its span, checked against their declaration.

Q codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mio.core.contract.span_table import SpanTable, span_table
from mio.core.contract.values import CodeArray, Codes, Media, Modality
from mio.core.errors import DataError
from mio.core.tokens.automata import check_codes
from mio.core.tokens.documents import GENERATE, UNDERSTAND
from mio.core.tokens.layouts import Layout, layout
from mio.core.tokens.vocabulary import Vocabulary

TokenArray = npt.NDArray[np.int32]

_ONLY = {
    GENERATE: "read, by an encoder: it cannot be part of an answer",
    UNDERSTAND: "written, by a head: it cannot be part of what the model reads",
}
AS_CODES = "given as codes"
"""In place of the key of an item that has none."""


class SpanPlan(NamedTuple):
    """How codes of one modality in one view become ids."""

    modality: Modality
    begin: int
    end: int
    codebooks: npt.NDArray[np.int64]
    """Of a span, ascending."""
    offsets: npt.NDArray[np.int64]
    """Id of each codebook's code 0, `[len(codebooks)]`."""
    sizes: npt.NDArray[np.uint64]
    """Size of every codebook of the modality, `[Q, 1]`."""
    layout: Layout
    table: SpanTable | None
    """Of the modality's automaton."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, name: str, view: str) -> SpanPlan:
        """Raises `DataError` for a modality without codes."""
        modality = vocabulary.modality(name)
        if not modality.codebooks:
            raise DataError(
                f"`{name}` has no codes: give it as a string" if modality.text else f"`{name}` is only {_ONLY[view]}"
            )
        codebooks = modality.view(view)
        return cls(
            modality,
            vocabulary.begin(name),
            vocabulary.end(name),
            np.array(codebooks),
            np.array([vocabulary.code_ids(name, codebook).start for codebook in codebooks]),
            np.array(modality.codebooks, dtype=np.uint64)[:, None],
            layout(modality.layout),
            span_table(modality),
        )

    def blank(self, frames: int) -> CodeArray:
        """Code 0 in every place of a span of so many frames, `[codebooks of the span, frames]`."""
        return np.zeros((len(self.codebooks), frames), np.int64)

    def carried(self, codes: CodeArray, key: str, codebooks: Sequence[int] = ()) -> CodeArray:
        """Codes `[codebooks of the span, F]` of one item, whose `codes` are those of `codebooks`, or of all where it
        names none. Raises `DataError`, with the item's `key`, where any of them is not in its codebook, or where
        they are no span of the modality's automaton."""
        name = self.modality.name
        if codebooks and codebooks[-1] >= len(self.sizes):
            raise DataError(f"`{name}` {key or AS_CODES}: there is no codebook {codebooks[-1]}")
        sizes = self.sizes[list(codebooks)] if codebooks else self.sizes
        if codes.ndim != 2 or len(codes) != len(sizes) or codes.dtype.kind not in "iu":
            raise DataError(
                f"`{name}` {key or AS_CODES}: codes are {codes.dtype} {list(codes.shape)}, "
                f"they must be integers of shape [{len(sizes)}, frames]"
            )
        check_frames(self.modality, key, codes.shape[1])
        wrong = codes.view(np.uint64) >= sizes  # a negative code becomes a huge one
        if wrong.any():
            row, frame = np.argwhere(wrong)[0]
            codebook = codebooks[row] if codebooks else row
            raise DataError(
                f"`{name}` {key or AS_CODES}: code {codes[row, frame]} at frame {frame} is outside "
                f"codebook {codebook} of {self.modality.codebooks[codebook]} codes"
            )
        if codebooks:
            codes = Codes(name, codes, tuple(codebooks)).of(self.codebooks.tolist())
        if self.table is not None:  # then a span has all codebooks
            try:
                check_codes(self.table, codes)
            except DataError as error:
                raise DataError(f"`{name}` {key or AS_CODES}: {error}") from None
        return codes if codebooks or len(self.codebooks) == len(codes) else codes[self.codebooks]

    def span(self, carried: CodeArray) -> TokenArray:
        """`<begin> codes <end>`."""
        cells, codebook_of = self.layout.order(*carried.shape)
        span = np.empty(len(cells) + 2, dtype=np.int32)
        span[0] = self.begin
        span[-1] = self.end
        np.add(carried.ravel()[cells], self.offsets[codebook_of], out=span[1:-1], casting="unsafe")
        return span


def check_frames(modality: Modality, key: str, frames: int) -> None:
    """Raises `DataError` for a number of frames that no span of the modality has."""
    if frames not in modality.frames:
        raise DataError(f"`{modality.name}` {key or AS_CODES} has {frames} frames, a span has {modality.frames}")


def check_parts(modality: Modality, key: str, parts: Sequence[Media | Codes]) -> None:
    """Raises `DataError` for parts that no item of the modality has."""
    if isinstance(modality.parts, str):
        check_frames(modality, key, len(parts))
    elif (found := tuple(part.modality for part in parts)) != modality.parts:
        raise DataError(
            f"`{modality.name}` {key or AS_CODES} has the parts {', '.join(found) or 'none'}; an item has one each of "
            f"{', '.join(modality.parts)}, in this order"
        )
