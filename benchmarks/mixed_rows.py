"""Batches of packed documents with lengths like those of MIO's stage II, random tokens in them, for benchmarks.

Lengths follow the published description (arXiv 2409.17692 v4, section 2.1, tables 9 and 10): an image is 32 codes
between two tokens, speech 50 codes a second where it is read and 200 where it is written, groups share rows as 2:2:6:6.
What it leaves open is assumed: captions of 8 to 60 tokens, web text around a median of 500, 2 to 8 images in an
interleaved document, 3 to 12 s of speech.
"""

from __future__ import annotations

from typing import Any

import numpy as np

IMAGE = 34
SHARES = {"image_text": 2, "text": 2, "interleaved": 6, "speech_text": 6}
"""Rows of each group."""
_WINDOW = 512


def length(group: str, generator: np.random.Generator) -> int:
    """Positions of one document of a group."""
    if group == "image_text":
        return IMAGE + int(generator.integers(8, 61))
    if group == "text":
        return int(generator.lognormal(np.log(500), 1.0))
    if group == "interleaved":
        images = int(generator.integers(2, 9))
        return images * (IMAGE + int(generator.integers(10, 90)))
    seconds = float(generator.uniform(3, 12))
    codes = (50, 200)[int(generator.integers(2))]
    return int(seconds * codes + seconds * 3) + 12


def packed_lengths(rows: int, context: int, seed: int = 0) -> list[list[int]]:
    """Lengths of the documents of each row, packed as `mio fit` does: groups take turns, each row is filled as far as
    documents that wait allow, and what is longer than the context is cut."""
    from mio.core.data.packing import Entry, Pool

    generator = np.random.default_rng(seed)
    pools = {group: Pool(1) for group in SHARES}
    order = [group for group, share in SHARES.items() for _ in range(share)]
    generator.shuffle(order)
    found = []
    number = 0
    for index in range(rows):
        group = order[index % len(order)]
        pool = pools[group]
        while len(pool) < _WINDOW:
            pool.add(Entry(0, number, max(2, min(context, length(group, generator))), False))
            number += 1
        found.append([pool.remove(entry.stream, entry.n).length for entry in pool.best_fit(context)])
    return found


def span(lengths: list[list[int]]) -> float:
    """Mean number of tokens in the document of a token: what `flops_per_token` calls the mean length, exactly."""
    flat = [n for row in lengths for n in row]
    return sum(n * n for n in flat) / sum(flat)


def batches(lengths: list[list[int]], context: int, micro_rows: int, vocabulary: int, seed: int = 0) -> list[Any]:
    """`mio.core.data.batch.Batch`es of one optimizer step, `micro_rows` rows each; the last one ends the step."""
    from dataclasses import dataclass

    from mio.core.data.batch import assemble
    from mio.core.data.plan import Changes

    @dataclass
    class Document:
        tokens: Any
        weights: Any

    generator = np.random.default_rng(seed)
    step = []
    for start in range(0, len(lengths), micro_rows):
        rows = [
            [
                (0, Document(generator.integers(vocabulary, size=n + 1, dtype=np.int32), np.ones(n + 1, np.float32)))
                for n in row
            ]
            for row in lengths[start : start + micro_rows]
        ]
        batch = assemble(rows, context, pad=0, windows=[0])
        batch.digests = [0] * len(rows)
        step.append(batch)
    step[-1].changes = Changes()
    return step
