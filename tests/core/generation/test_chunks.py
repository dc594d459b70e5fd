"""Whole frames of spans that grow, against the definition of their layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import FakeText

from mio import Frames, Modality
from mio.core.generation.chunks import GrowingSpan
from mio.core.tokens.layouts import layout
from mio.core.tokens.vocabulary import Vocabulary

LAYOUTS = ("flat", "frame_major", "delayed", "codebook_major")


def vocabulary(name, books):
    text = Modality(name="text", text=True)
    declared = Modality(
        name="grid", codebooks=(7, *range(5, 4 + books)), begin="<g>", end="</g>", code_token="<g{}>", layout=name,
        views={"generate": tuple(range(books))}, frames=Frames(maximum=40),
    )  # fmt: skip
    return Vocabulary.build(FakeText(), [("text", text), ("grid", declared)])


def tokens_of(vocabulary, codes):
    codebook, code = layout(vocabulary.modality("grid").layout).flatten(codes)
    return [vocabulary.code_ids("grid", int(q)).start + int(c) for q, c in zip(codebook, code, strict=True)]


@settings(deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(1, 5), st.integers(1, 12), st.data())
def test_frames_are_given_once_as_soon_as_all_their_codes_are_there(name, books, frames, data):
    books = 1 if name == "flat" else books
    known = vocabulary(name, books)
    sizes = np.array(known.modality("grid").codebooks[:books])[:, None]
    codes = np.random.default_rng(frames).integers(0, 1 << 30, (books, frames)) % sizes
    order, _ = layout(name).order(books, frames)
    complete = {cell: step for step, cell in enumerate(order.tolist())}
    due = [max(complete[book * frames + frame] for book in range(books)) for frame in range(frames)]
    span, given = GrowingSpan(known, "grid"), []
    for step, token in enumerate(tokens_of(known, codes)):
        span.push(token)
        assert span.whole == sum(end <= step for end in due)
        if data.draw(st.booleans()) and (found := span.take()) is not None:
            assert found.dtype == np.int64
            given.append(found)
            assert span.take() is None
    span.push(known.end("grid"))
    rest = span.take()
    assert np.array_equal(np.concatenate([*given, *([] if rest is None else [rest])], axis=1), codes)


@pytest.mark.parametrize(
    ("name", "books", "frame", "tokens"),
    # the table of the module, of 20 frames
    [("flat", 1, 3, 4), ("frame_major", 4, 3, 16), ("delayed", 4, 3, 22), ("codebook_major", 4, 3, 64)],
)
def test_when_a_frame_is_whole(name, books, frame, tokens):
    known = vocabulary(name, books)
    span = GrowingSpan(known, "grid")
    ids = tokens_of(known, np.zeros((books, 20), np.int64))
    for token in ids[: tokens - 1]:
        span.push(token)
    assert span.whole == frame
    span.push(ids[tokens - 1])
    assert span.whole == frame + 1


def test_a_modality_without_codes_has_no_frames():
    declared = [("text", Modality(name="text", text=True)), ("tile", Modality(name="tile", begin="<t>"))]
    span = GrowingSpan(Vocabulary.build(FakeText(), declared), "tile")
    assert (span.whole, span.take()) == (0, None)
