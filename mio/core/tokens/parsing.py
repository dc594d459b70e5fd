"""From token ids back to text and codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mio.core.contract.controls import Control
from mio.core.contract.span_table import span_table
from mio.core.contract.values import Codes, Media, TextTokenizer
from mio.core.errors import DataError
from mio.core.tokens.automata import check_codes
from mio.core.tokens.controls import ControlReader
from mio.core.tokens.layouts import layout
from mio.core.tokens.vocabulary import Vocabulary


class Parsed(NamedTuple):
    """Content of a sequence of tokens."""

    parts: tuple[str | Codes | Control | Media, ...]
    """Text, complete spans, media made by heads and control tokens, in order. Codes have the codebooks that their span
    carries, and say which."""
    unfinished: str
    """Modality of the span in which the sequence ends; empty if it ends outside of spans."""
    problems: tuple[str, ...]
    """Problems, by position: spans that are not a complete grid or that their modality's automaton does not accept,
    and codes outside a span."""


def parse_tokens(ids: Sequence[int], vocabulary: Vocabulary, text: TextTokenizer, made: Sequence[Media] = ()) -> Parsed:
    """Text, codes and control tokens of any sequence of ids, an answer for example, with what heads have `made` of it,
    in order. Raises DataError for ids outside the vocabulary only.

    Special tokens are left out. Control tokens of plain text are told from text where the sequence begins. A span ends
    at its end token; anything but codes before that is a problem, and parsing goes on there. A span may carry the
    codebooks of either view. A span that a head has made holds padding, or nothing, and its end where there is one.
    """
    parts: list[str | Codes | Control | Media] = []
    media = deque(made)
    problems: list[str] = []
    unfinished = ""
    words: list[int] = []
    tokens = [int(index) for index in ids]
    if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary.size:
        raise DataError(f"token ids outside the vocabulary of {vocabulary.size} ids")
    position = 0
    reader = ControlReader(vocabulary.controls)

    def close_text() -> None:
        if words:
            parts.append(text.decode(words))
            words.clear()

    while position < len(tokens):
        token = tokens[position]
        block = vocabulary.blocks[vocabulary.block_of[token]]
        if said := reader.take(token):
            if block.kind == "text":
                words.clear()  # which the control token consists of
            close_text()
            parts.append(Control(said))
        elif block.kind == "text":
            words.append(token)
        elif media and token == vocabulary.begin(media[0].modality):
            close_text()
            name = media[0].modality
            parts.append(media.popleft())
            position = _behind_made(tokens, position + 1, vocabulary, name)
            continue
        elif token in vocabulary.begins:
            close_text()
            name, start = vocabulary.begins[token], position
            codebooks, codes = _read_codes(tokens, start + 1, vocabulary, name)
            position += len(codes) + 1
            if position == len(tokens):
                unfinished = name
                break
            if tokens[position] != vocabulary.end(name):
                problems.append(f"span of `{name}` at {start} is broken off at {position}")
                continue
            try:
                parts.append(_content(vocabulary, name, codebooks, codes))
            except DataError as error:
                problems.append(f"span of `{name}` at {start}: {error}")
        elif block.kind == "codes":
            problems.append(f"code of `{block.modality}` at {position} is outside a span")
        position += 1
    close_text()
    return Parsed(tuple(part for part in parts if part != ""), unfinished, tuple(problems))


def _behind_made(tokens: Sequence[int], position: int, vocabulary: Vocabulary, name: str) -> int:
    """Position behind a span that a head has made, of which the one behind its opening is given."""
    while position < len(tokens) and tokens[position] == vocabulary.specials.pad:
        position += 1
    closed = vocabulary.modality(name).end and tokens[position : position + 1] == [vocabulary.end(name)]
    return position + bool(closed)


def _read_codes(tokens: Sequence[int], start: int, vocabulary: Vocabulary, name: str) -> tuple[list[int], list[int]]:
    """Codebooks and codes of this modality from `start` on."""
    codebooks, codes = [], []
    for position in range(start, len(tokens)):
        block = vocabulary.blocks[vocabulary.block_of[tokens[position]]]
        if block.modality != name:
            break
        codebooks.append(block.codebook)
        codes.append(tokens[position] - block.start)
    return codebooks, codes


def _content(vocabulary: Vocabulary, name: str, codebooks: list[int], codes: list[int]) -> Codes:
    """Codes of a span, which carries the codebooks of one of the views."""
    modality = vocabulary.modality(name)
    views = [modality.view("generate"), modality.view("understand")]
    present = set(codebooks)
    view = next((view for view in views if set(view) == present), views[0])
    unexpected = present - set(view)
    if unexpected:
        raise DataError(f"codebook {min(unexpected)} in a span of the codebooks {list(view)}")
    grid = layout(modality.layout).parse(
        np.array([view.index(codebook) for codebook in codebooks], dtype=np.int64),
        np.array(codes, dtype=np.int64),
        len(view),
    )
    frames = grid.shape[1]
    if frames not in modality.frames:
        raise DataError(f"{frames} frames, a span has {modality.frames}")
    if (table := span_table(modality)) is not None:
        check_codes(table, grid)
    return Codes(name, grid, view if len(view) < len(modality.codebooks) else ())
