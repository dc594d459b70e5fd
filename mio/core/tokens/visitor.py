"""What kind a value is: the one place that asks, for records and documents alike.

Whoever does something with values writes a `Visitor`, with a method for each kind that it treats apart. A further kind
of value is a further method here, and every visitor that does not know of it refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar

from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media
from mio.core.tokens.documents import Special, Viewed
from mio.core.tokens.tokenised import CodedMedia, TokenisedText, is_tokenised

Result = TypeVar("Result")

_KINDS: tuple[tuple[type, str], ...] = (
    (TokenisedText, "tokenised_text"),
    (str, "text"),
    (Special, "special"),
    (Control, "control"),
    (CodedMedia, "coded_media"),
    (Media, "_media"),
    (Codes, "codes"),
    (Viewed, "viewed"),
    (NoneType, "constant"),
    (bool, "constant"),
    (Real, "number"),
    (Mapping, "mapping"),
    (list, "sequence"),
    (tuple, "sequence"),
    (object, "other"),
)
"""Method by type; the first that fits counts."""


class _ByType(dict[type, Callable[[Any, Any], Any]]):
    """The methods of a visitor by the type of a value, looked up once per type."""

    def __init__(self, visitor: type[Visitor[Any]]) -> None:
        super().__init__()
        self._visitor = visitor

    def __missing__(self, kind: type) -> Callable[[Any, Any], Any]:
        name = next(name for known, name in _KINDS if issubclass(kind, known))
        self[kind] = method = getattr(self._visitor, name)
        return method


class Visitor(Generic[Result]):
    """Does one thing with values of any kind: `visit(value)` calls the method of its kind.

    A text or an item that brings its tokens is treated like any other unless a visitor says otherwise; every further
    kind that it has no method for goes to `other`, which raises `TypeError`.
    """

    methods: ClassVar[_ByType]
    """By type of a value: `methods[type(value)](visitor, value)` in loops where calling `visit` would take long."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.methods = _ByType(cls)

    def visit(self, value: object) -> Result:
        """The result of the value's method."""
        result: Result = self.methods[type(value)](self, value)
        return result

    def text(self, text: str) -> Result:
        """A text."""
        return self.other(text)

    def tokenised_text(self, text: TokenisedText) -> Result:
        """A text that brings its tokens."""
        return self.text(text)

    def special(self, special: Special) -> Result:
        """A special token of the text tokenizer, in documents alone."""
        return self.other(special)

    def control(self, control: Control) -> Result:
        """A control token."""
        return self.other(control)

    def media(self, media: Media) -> Result:
        """An item before tokenisation."""
        return self.other(media)

    def tokenised_media(self, media: Media) -> Result:
        """An item of a modality of parts, whose data are the codes of these."""
        return self.media(media)

    def coded_media(self, media: CodedMedia) -> Result:
        """An item before tokenisation that brings its codes."""
        return self.media(media)

    def codes(self, codes: Codes) -> Result:
        """An item after tokenisation."""
        return self.other(codes)

    def viewed(self, viewed: Viewed) -> Result:
        """A piece of content that takes another view than its place gives it, in prompts of templates alone."""
        return self.visit(viewed.content)

    def sequence(self, values: Sequence[Any]) -> Result:
        """A list or tuple of values, in records alone, as all below."""
        return self.other(values)

    def mapping(self, values: Mapping[str, Any]) -> Result:
        """Values by name: a record, or a turn of a conversation."""
        return self.other(values)

    def number(self, number: Real) -> Result:
        """A number, other than a truth value."""
        return self.other(number)

    def constant(self, constant: bool | None) -> Result:
        """A truth value, or nothing."""
        return self.other(constant)

    def other(self, value: Any) -> Result:
        """Whatever this visitor has no method for."""
        raise TypeError(f"{type(self).__name__} knows no values of the type {type(value).__name__}")

    def _media(self, media: Media) -> Result:
        return self.tokenised_media(media) if is_tokenised(media) else self.media(media)


class _KeyOf(Visitor[str]):
    def media(self, media: Media) -> str:
        return media.key

    def codes(self, codes: Codes) -> str:  # noqa: ARG002
        return ""


class _TextOf(Visitor[str | None]):
    def text(self, text: str) -> str:
        return text

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class _ControlOf(Visitor[Control | None]):
    def control(self, control: Control) -> Control:
        return control

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class _CodesOf(Visitor[Codes | None]):
    def codes(self, codes: Codes) -> Codes:
        return codes

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class _MediaOf(Visitor[Media | None]):
    def media(self, media: Media) -> Media:
        return media

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


_KEY_OF, _TEXT_OF, _CONTROL_OF, _CODES_OF, _MEDIA_OF = _KeyOf(), _TextOf(), _ControlOf(), _CodesOf(), _MediaOf()


def key_of(item: Media | Codes) -> str:
    """Key of an item; the empty string for one that is given as codes."""
    return _KEY_OF.visit(item)


def text_of(value: object) -> str | None:
    """A value that is text; None for every other."""
    return _TEXT_OF.visit(value)


def control_of(value: object) -> Control | None:
    """A value that is a control token; None for every other."""
    return _CONTROL_OF.visit(value)


def codes_in(values: Iterable[object]) -> list[Codes]:
    """Those of the values that are codes, in order."""
    return [codes for codes in map(_CODES_OF.visit, values) if codes is not None]


def media_in(values: Iterable[object]) -> list[Media]:
    """Those of the values that are media, in order."""
    return [media for media in map(_MEDIA_OF.visit, values) if media is not None]
