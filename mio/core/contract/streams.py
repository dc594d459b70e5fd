"""Media that are given out while their codes come: what a detokenizer may offer beside `Detokenizer`.

Shapes: Q codebooks, f frames, of which each call brings some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from mio.core.contract.validation import missing_methods
from mio.core.contract.values import CodeArray
from mio.core.errors import PluginError


class SpanDecoder(Protocol):
    """Decodes one span piece by piece. What it gives, joined by `joined`, is exactly what `decode` gives of all codes
    of the span, however these are cut: no bit differs."""

    def push(self, codes: CodeArray) -> Any:
        """Takes the codes int64 `[Q, f]` of the frames that come next, of the codebooks that `decode` takes. Returns
        the media that no later frame can change and that were not given out yet; None if there are none.

        Raises as `decode` does.
        """

    def finish(self) -> Any:
        """The media that are left, now that all frames have come; None if there are none. Nothing is called after."""


@runtime_checkable
class Streamable(Protocol):
    """What a detokenizer offers beside `Detokenizer` where the beginning of its media does not depend on their end."""

    def stream(self) -> SpanDecoder:
        """A decoder for one span. Decoders of several spans may be in use at the same time."""


def opened_stream(detokenizer: Any, modality: str) -> SpanDecoder | None:
    """What decodes one span of a modality while its codes come; None where its detokenizer decodes whole spans alone.
    Raises `PluginError` where it says that it streams and does not."""
    if not isinstance(detokenizer, Streamable):
        return None
    decoder = detokenizer.stream()
    if problems := missing_methods(decoder, ("push", "finish")):
        raise PluginError(f"the detokenizer of `{modality}`: its `stream` made no decoder: {'; '.join(problems)}")
    return decoder


def joined(pieces: Sequence[Any]) -> Any:
    """One item of media of its pieces, at least one, in order.

    Arrays follow each other along their first axis and lists end to end. Tuples are joined member by member, where
    members that are neither (a rate, say) are the same in all pieces. So pieces of samples `[t]` with their rate become
    samples with their rate.

    Raises:
        PluginError: the pieces are of different kinds, shapes or rates.
    """
    import numpy as np

    first = pieces[0]
    if any(type(piece) is not type(first) for piece in pieces):
        kinds = ", ".join(dict.fromkeys(type(piece).__name__ for piece in pieces))
        raise PluginError(f"pieces of one item are of several kinds: {kinds}")
    if isinstance(first, np.ndarray):
        if len({(piece.dtype, piece.ndim, piece.shape[1:]) for piece in pieces}) > 1 or not first.ndim:
            shapes = ", ".join(dict.fromkeys(f"{piece.dtype} {list(piece.shape)}" for piece in pieces))
            raise PluginError(f"pieces of one item do not fit each other along their first axis: {shapes}")
        return first if len(pieces) == 1 else np.concatenate(pieces)
    if isinstance(first, list):
        return [item for piece in pieces for item in piece]
    if isinstance(first, tuple) and len({len(piece) for piece in pieces}) == 1:
        return tuple(joined(members) for members in zip(*pieces, strict=True))
    if any(piece != first for piece in pieces):
        raise PluginError(f"pieces of one item differ in what is the same for all of it: {', '.join(map(str, pieces))}")
    return first
