"""Which codebook's code may come next inside a span, by the layout of the span.

Codebooks are numbered 0 to Q - 1 in the order in which a span has them. The state of a span is the number of codes that
were written of each. Codebook 0 decides the number of frames: each of its codes opens one more.

| layout | order of the codes |
| --- | --- |
| `flat`, `frame_major` | all codebooks of frame 0, then of 1, ... |
| `codebook_major` | all of codebook 0, then all of 1, ... |
| `delayed` | step t has the code of codebook q and frame t - q, for each q in turn |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

Following = tuple[tuple[int, ...], bool]
"""Codebooks of which a code may come next, and whether the span may end."""


def following(layout: str, written: Sequence[int], minimum: int, maximum: int, step: int) -> Following:
    """What may follow in a span of `minimum`, `minimum + step`, ... `maximum` frames, of which these many codes by
    codebook are written."""
    return LAYOUTS[layout](written, range(minimum, maximum + 1, step))


def needed(written: Sequence[int], minimum: int, step: int, codebook: int = -1) -> int:
    """Fewest tokens that complete the span, its end included; if a `codebook` is given, with a code of that one as the
    first of them."""
    frames = written[0] + (codebook == 0)
    complete = frames + (minimum - frames) % step if frames > minimum else minimum
    return len(written) * complete - sum(written) + 1


def _frame_or(closing: tuple[int, ...], frames: int, lengths: range) -> Following:
    """Another frame is opened, or, where a span may have so many, it is closed: by a code of the codebook `closing`, or
    by its end where there is none."""
    more = (0,) if frames < lengths[-1] else ()
    if frames not in lengths:
        return more, False
    return (*more, *closing), not closing


def _frame_major(written: Sequence[int], lengths: range) -> Following:
    codebook = sum(written) % len(written)
    return ((codebook,), False) if codebook else _frame_or((), written[0], lengths)


def _codebook_major(written: Sequence[int], lengths: range) -> Following:
    frames, codes, books = written[0], sum(written), len(written)
    if codes > frames:  # codebook 0 is complete, and as long as all others are to be
        return ((codes // frames,), False) if codes < frames * books else ((), True)
    return _frame_or((1,) if books > 1 and frames else (), frames, lengths)


def _delayed(written: Sequence[int], lengths: range) -> Following:
    """A codebook that is two codes behind the one before it is next. Where none is, a step is complete: the next one
    opens a frame, or else the first codebook that is behind catches up, and no frame is opened from then on."""
    behind = [before - after for before, after in pairwise(written)]
    for distance in (2, 1):
        if distance in behind:
            codebook = behind.index(distance) + 1
            if distance == codebook == 1:
                return _frame_or((1,), written[0], lengths)
            return (codebook,), False
    return _frame_or((), written[0], lengths) if len(written) == 1 or not written[0] else ((), True)


LAYOUTS: dict[str, Callable[[Sequence[int], range], Following]] = {
    "flat": _frame_major,
    "frame_major": _frame_major,
    "codebook_major": _codebook_major,
    "delayed": _delayed,
}
