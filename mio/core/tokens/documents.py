"""Documents: ordered segments of any modality, each with its role in training.

A document holds everything that rendering needs and no ids, so that one document serves every vocabulary.
`plain_document` and `interleaved_document` build the plain form, `mio.core.tokens.chat` the chat form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from mio.core.contract.values import Value

PROMPT, RESPONSE, SYSTEM = "prompt", "response", "system"
"""Roles of a segment. They choose the loss weight of what is supervised."""

UNDERSTAND, GENERATE = "understand", "generate"
"""Views of media: as the model reads them, as it writes them."""


class Special(Enum):
    """A special token of the text tokenizer as the content of a segment."""

    BOS = "bos"
    EOS = "eos"
    IM_START = "im_start"
    IM_END = "im_end"


class Viewed(NamedTuple):
    """A piece of content that takes another view than its place gives it."""

    content: Value
    view: str


class Segment(NamedTuple):
    """A piece of one modality."""

    content: Value | Special
    role: str
    supervised: float
    """Whether its tokens are targets, weighted by role and kind; a number is a further factor, of the record's own."""
    view: str = UNDERSTAND
    """Of media: which codebooks its span carries."""


class Document(NamedTuple):
    """Segments in order. `answer` is the index of the first segment that a model would generate."""

    segments: tuple[Segment, ...]
    answer: int


def prompt_segments(
    contents: Iterable[Value | Viewed], *, role: str = PROMPT, supervised: bool = True
) -> list[Segment]:
    """Segments that the model reads."""
    return [_segment(content, role, supervised, UNDERSTAND) for content in contents]


def response_segments(contents: Iterable[Value | Viewed], supervised: float = True) -> list[Segment]:
    """Segments that the model learns to write; unsupervised, an answer that is not learnt."""
    return [_segment(content, RESPONSE, supervised, GENERATE) for content in contents]


def _segment(content: Value | Viewed, role: str, supervised: float, view: str) -> Segment:
    if isinstance(content, Viewed):
        content, view = content
    return Segment(content, role, supervised, view)


def plain_document(prompt: Sequence[Value | Viewed], response: Sequence[Value]) -> Document:
    """`[bos] prompt response [eos]`, all of it supervised but for bos, which is never a target."""
    segments = [Segment(Special.BOS, PROMPT, False), *prompt_segments(prompt)]
    answer = len(segments)
    segments += response_segments(response)
    segments.append(Segment(Special.EOS, RESPONSE, True))
    return Document(tuple(segments), answer)


def interleaved_document(parts: Sequence[Value]) -> Document:
    """Plain form of a record that holds `parts`: the model writes all of it."""
    return plain_document((), parts)
