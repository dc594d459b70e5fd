"""Layouts: the order in which a grid of codes `[Q, F]` becomes a span, and the grammar that permits only such spans.

A layout is an order in which the cells of the grid are written. In each of them a span of F frames has exactly Q * F
codes, the cells of one codebook come in frame order, and the sequence of codebooks alone determines each code's cell.

| name | order of the codes | used by |
| --- | --- | --- |
| `flat` | the one codebook | single-codebook tokenizers |
| `codebook_major` | all of codebook 0, then all of 1, ... | MIO (arXiv 2409.17692, section 2.1) |
| `frame_major` | all codebooks of frame 0, then of 1, ... | AnyGPT (arXiv 2402.12226, section 3.1) |
| `delayed` | step t writes (q, t - q) for each q | Copet et al. 2023 (arXiv 2306.05284), without padding |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import sub

import numpy as np
import numpy.typing as npt

from mio.core.contract.values import CodeArray, Frames
from mio.core.errors import DataError, PluginError

IndexArray = npt.NDArray[np.int64]


class SpanGrammar:
    """Which codebook's code may come next inside a span; one subclass per layout.

    Codebooks are numbered 0 to Q - 1 within the span. The state is one count per codebook, so a step takes about a
    microsecond. Codebook 0 decides the number of frames: each of its codes opens one more.
    """

    __slots__ = ("codebooks", "emitted", "maximum", "minimum", "step", "written")

    def __init__(self, codebooks: int, frames: Frames) -> None:
        self.codebooks = codebooks
        self.minimum = frames.minimum
        self.maximum = frames.longest
        self.step = frames.step
        self.written = [0] * codebooks
        """Codes so far, by codebook."""
        self.emitted = 0
        """Codes so far."""

    @property
    def frames(self) -> int:
        """Frames opened so far."""
        return self.written[0]

    def _following(self) -> tuple[tuple[int, ...], bool]:
        """Codebooks that may come next, and whether the span may end here."""
        raise NotImplementedError

    def _frame_or(self, *closing: int) -> tuple[tuple[int, ...], bool]:
        """`_following` where another frame may be opened. With a number of frames that a span has it may be closed
        instead: by a code of the codebook `closing`, or by the end token where none is given."""
        more = (0,) if self.frames < self.maximum else ()
        if self.frames < self.minimum or (self.frames - self.minimum) % self.step:
            return more, False
        return (*more, *closing), not closing

    def allowed(self, budget: int | None = None) -> tuple[tuple[int, ...], bool]:
        """Codebooks of which a code may come next, and whether the end token may.

        With `budget`, the number of tokens left for the span including its end token, only codebooks after which the
        span can still be closed in time. As long as `remaining() <= budget`, something is always allowed.
        """
        codebooks, may_end = self._following()
        # with more, nothing is too long
        if budget is not None and budget < self.remaining() + self.codebooks * self.step:
            codebooks = tuple(codebook for codebook in codebooks if self._needed(codebook) <= budget)
        return codebooks, may_end

    def advance(self, codebook: int, code: int = 0) -> None:  # noqa: ARG002 - any code of a codebook is as good
        """Records that a code of `codebook` was written. Raises ValueError where the grammar does not permit it."""
        if codebook not in self._following()[0]:
            raise ValueError(f"a code of codebook {codebook} may not follow after {self.emitted} codes of this span")
        self.written[codebook] += 1
        self.emitted += 1

    def remaining(self) -> int:
        """Fewest further tokens that close the span from here, its end token included."""
        return self.codebooks * self._complete(self.frames) - self.emitted + 1

    def _complete(self, frames: int) -> int:
        """The fewest frames of a span that has so many, or more."""
        more = frames - self.minimum
        return frames + -more % self.step if more > 0 else self.minimum

    def _needed(self, codebook: int) -> int:
        """Fewest tokens that close the span if a code of `codebook` is the first of them."""
        return self.codebooks * self._complete(self.frames + (codebook == 0)) - self.emitted + 1


class _FrameMajorGrammar(SpanGrammar):
    """Also that of `flat`, the case Q = 1."""

    __slots__ = ()

    def _following(self) -> tuple[tuple[int, ...], bool]:
        codebook = self.emitted % self.codebooks
        return ((codebook,), False) if codebook else self._frame_or()


class _CodebookMajorGrammar(SpanGrammar):
    __slots__ = ()

    def _following(self) -> tuple[tuple[int, ...], bool]:
        if self.emitted > self.frames:  # codebook 0 is complete, and its length is everyone's
            codebook = self.emitted // self.frames
            return ((codebook,), False) if codebook < self.codebooks else ((), True)
        return self._frame_or() if self.codebooks == 1 or not self.frames else self._frame_or(1)


class _DelayedGrammar(SpanGrammar):
    """Each codebook follows the one before it at a distance of one frame.

    A new code of codebook q puts q + 1 two frames behind, so that q + 1 is next. Where none is two frames behind, the
    step is complete. The next one opens a frame, or leaves codebook 0 as it is: then the first codebook that is behind
    catches up, and from then on no frame can be opened.
    """

    __slots__ = ()

    def _following(self) -> tuple[tuple[int, ...], bool]:
        behind = list(map(sub, self.written, self.written[1:]))
        for distance in (2, 1):
            if distance in behind:
                codebook = behind.index(distance) + 1
                return self._frame_or(1) if distance == codebook == 1 else ((codebook,), False)
        return self._frame_or() if self.codebooks == 1 or not self.frames else ((), True)


@dataclass(frozen=True)
class Layout:
    """One order of the cells of a grid of codes."""

    name: str
    _cells: Callable[[int, int], IndexArray]
    _grammar: type[SpanGrammar]

    def order(self, codebooks: int, frames: int) -> tuple[IndexArray, IndexArray]:
        """Indices into the raveled grid `[Q, F]` in the order in which codes are written, and the codebook of each,
        both int64 `[Q * F]` and read-only. Raises PluginError for `flat` with more than one codebook."""
        if self.name == "flat" and codebooks != 1:
            raise PluginError(f"layout `flat` carries one codebook, not {codebooks}: declare another layout")
        return _order(self._cells, codebooks, frames)

    def flatten(self, codes: CodeArray) -> tuple[IndexArray, CodeArray]:
        """Codebook and code of each position of the span, both `[Q * F]`, of codes `[Q, F]`."""
        cells, codebook = self.order(*codes.shape)
        return codebook, codes.ravel()[cells]

    def parse(self, codebook: IndexArray, code: CodeArray, codebooks: int) -> CodeArray:
        """Inverse of `flatten`: codes `[Q, F]`. Raises DataError for a span that is not a complete grid."""
        if len(codebook) % codebooks:
            raise DataError(
                f"{len(codebook)} codes are not a whole number of frames of {codebooks} codebooks "
                f"(layout `{self.name}`)"
            )
        frames = len(codebook) // codebooks
        cells, expected = self.order(codebooks, frames)
        wrong = np.flatnonzero(expected != codebook)
        if len(wrong):
            at = int(wrong[0])
            raise DataError(
                f"code {at} of the span is of codebook {int(codebook[at])}, "
                f"layout `{self.name}` has codebook {int(expected[at])} there ({frames} frames)"
            )
        codes = np.empty(len(cells), dtype=np.int64)
        codes[cells] = code
        return codes.reshape(codebooks, frames)

    def grammar(self, codebooks: int, frames: Frames) -> SpanGrammar:
        """Grammar of one span, at its start. It permits exactly the flattened grids of `frames` frames."""
        self.order(codebooks, 0)
        return self._grammar(codebooks, frames)


@lru_cache(maxsize=4096)
def _order(cells_of: Callable[[int, int], IndexArray], codebooks: int, frames: int) -> tuple[IndexArray, IndexArray]:
    cells = np.ascontiguousarray(cells_of(codebooks, frames))
    codebook = cells // max(frames, 1)
    cells.flags.writeable = codebook.flags.writeable = False
    return cells, codebook


def _codebook_major(codebooks: int, frames: int) -> IndexArray:
    return np.arange(codebooks * frames)


def _frame_major(codebooks: int, frames: int) -> IndexArray:
    return np.arange(codebooks * frames).reshape(codebooks, frames).T.ravel()


def _delayed(codebooks: int, frames: int) -> IndexArray:
    codebook, frame = np.divmod(np.arange(codebooks * frames), max(frames, 1))
    return np.lexsort((codebook, codebook + frame))  # by step, then by codebook


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("flat", _codebook_major, _FrameMajorGrammar),
        Layout("codebook_major", _codebook_major, _CodebookMajorGrammar),
        Layout("frame_major", _frame_major, _FrameMajorGrammar),
        Layout("delayed", _delayed, _DelayedGrammar),
    )
}


def layout(name: str) -> Layout:
    """Layout of that name. Raises PluginError for an unknown one."""
    try:
        return LAYOUTS[name]
    except KeyError:
        raise PluginError(f"there is no layout `{name}`; choose one of {', '.join(LAYOUTS)}") from None
