"""Values that bring their tokens or codes, as shards hold them. To plugins they are ordinary text and media."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mio.core.contract.values import Codes, Media

if TYPE_CHECKING:
    import numpy.typing as npt


class TokenisedText(str):
    """A text that brings its tokens. Methods other than `spaced` return plain text."""

    __slots__ = ("_after_space", "tokens")

    tokens: npt.NDArray[Any]
    """Its ids in the text tokenizer at hand, `[n]`, of any integer type."""
    _after_space: npt.NDArray[Any] | None

    def __new__(cls, text: str, tokens: npt.NDArray[Any], after_space: npt.NDArray[Any] | None = None) -> TokenisedText:
        """`after_space` are the ids of the text with a space before it."""
        self = super().__new__(cls, text)
        self.tokens = tokens
        self._after_space = after_space
        return self

    def spaced(self) -> str:
        """The text with a space before it, with its tokens where they are known."""
        return f" {self}" if self._after_space is None else TokenisedText(f" {self}", self._after_space)


@dataclass(frozen=True)
class CodedMedia(Media):
    """An item that brings its codes: it is read by an encoder, and written as codes."""

    codes: Codes | tuple[Codes, ...] = ()
    """Of an item of a modality of parts, those of each part."""


def is_tokenised(media: Media) -> bool:
    """Whether the data of an item of a modality of parts are the codes of these parts."""
    return isinstance(media.data, tuple) and bool(media.data) and all(isinstance(part, Codes) for part in media.data)
