"""Answers as tokens, read back and given to the model again, for every layout, view and type of integers.

The oracle writes a span cell by cell from the definition of its layout, and says what the codes of each codebook are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from replays import Variant

from mio import Codes, Frames, Media, Modality
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import plain_document
from mio.core.tokens.encoding import int64
from mio.core.tokens.parsing import Parsed, parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins.text.byte_tokenizer import ByteTokenizer

TEXT = ByteTokenizer()
INTEGERS = ("int8", "uint8", "int16", ">i2", "int32", ">i4", "uint32", "int64", ">i8", "uint64")


class GivenCodes(Codecs):
    """Media whose data are their codes."""

    text = TEXT

    def by_network(self, modality: str, view: str) -> bool:  # noqa: ARG002
        return False

    def __init__(self) -> None:
        pass

    def codes(self, media: Media) -> Any:
        return int64(media.data)

    def split(self, media: Media) -> Sequence[Media]:
        return list(media.data)


def cells(layout: str, codebooks: int, frames: int) -> list[tuple[int, int]]:
    """(row, frame) of each code of a span in turn, by the layout's definition."""
    if layout in ("flat", "codebook_major"):
        return [(row, frame) for row in range(codebooks) for frame in range(frames)]
    if layout == "frame_major":
        return [(row, frame) for frame in range(frames) for row in range(codebooks)]
    steps = range(codebooks + frames)
    return [(row, step - row) for step in steps for row in range(codebooks) if 0 <= step - row < frames]


def variant(modality: Modality, grids: list[np.ndarray], dtype: str, order: str, read_view: bool) -> Variant:
    vocabulary = Vocabulary.build(TEXT, [("text", Modality(name="text", text=True)), ("made", modality)])
    renderer = Renderer(vocabulary, GivenCodes(), LossConfig())
    view = modality.view("understand" if read_view else "generate")
    words = [f"item {number}: " for number in range(len(grids))]

    def tokens(values: Sequence[Any]) -> list[int]:
        document = plain_document(values, []) if read_view else plain_document([], values)
        return renderer.render(document).tokens.tolist()

    def read() -> tuple[list[int], Parsed, list[int]]:
        values: list[Any] = []
        for word, grid in zip(words, grids, strict=True):
            values += [word, Codes(modality.name, np.array(grid, dtype=dtype, order=order))]
        first = tokens(values)
        parsed = parse_tokens(first, vocabulary, TEXT)
        return first, parsed, tokens(parsed.parts)

    def right(made: tuple[list[int], Parsed, list[int]]) -> str:
        first, parsed, again = made
        expected = [vocabulary.specials.bos]
        for word, grid in zip(words, grids, strict=True):
            expected += [*word.encode(), vocabulary.begin(modality.name)]
            for row, frame in cells(modality.layout, len(view), grid.shape[1]):
                expected.append(vocabulary.code_ids(modality.name, view[row]).start + int(grid[view[row], frame]))
            expected.append(vocabulary.end(modality.name))
        expected.append(vocabulary.specials.eos)
        if first != expected:
            return f"was rendered as {first}, which should be {expected}"
        if again != expected:
            return "was rendered differently the second time"
        if parsed.problems or parsed.unfinished:
            return f"was read with {parsed.problems}, {parsed.unfinished}"
        found = [part for part in parsed.parts if isinstance(part, Codes)]
        if len(found) != len(grids) or [part for part in parsed.parts if isinstance(part, str)] != words:
            return "was read as other parts"
        for codes, grid in zip(found, grids, strict=True):
            held = codes.codebooks or tuple(range(len(modality.codebooks)))
            if held != view or not np.array_equal(codes.codes, grid[list(view)]):
                return f"codes were read as {codes}"
        return ""

    name = f"{modality.layout}, {len(modality.codebooks)} codebooks, {'read' if read_view else 'written'} {view}"
    return Variant(f"{name}, {len(grids)} items as {dtype} {order}", read, right)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:  # noqa: ARG001
    while True:
        layout = random.choice(["flat", "codebook_major", "frame_major", "delayed"])
        count = 1 if layout == "flat" else random.randint(1, 8)
        views = {
            name: tuple(sorted(random.sample(range(count), random.randint(1, count))))
            for name in random.choice([(), ("understand",), ("generate",), ("understand", "generate")])
        }
        sizes = tuple(random.choice([2, 5, 100]) for _ in range(count))
        modality = Modality(
            name="tones",
            codebooks=sizes,
            begin="<t>",
            end="</t>",
            code_token="<t{}>",
            layout=layout,
            views=views,
            frames=Frames(minimum=1, maximum=40),
        )
        grids = []
        for _ in range(random.randint(1, 3)):
            frames = random.choice([1, 2, 3, 40])
            grids.append(np.array([[random.randrange(size) for _ in range(frames)] for size in sizes]))
        yield variant(modality, grids, random.choice(INTEGERS), random.choice("CF"), random.random() < 0.5)
