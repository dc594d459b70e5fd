"""From generated tokens to an answer: text, decoded media and control tokens in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.tasks import Answer
from mio.core.contract.values import TEXT, Codes, Media, Modality
from mio.core.generation.growing import AnswerTokens
from mio.core.generation.stopping import before_stop
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.controls import is_silent
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.visitor import Visitor
from mio.core.tokens.vocabulary import Vocabulary


def read_answer(
    given: AnswerTokens, vocabulary: Vocabulary, codecs: Codecs, output: str = "", stop: Sequence[str] = ()
) -> Answer:
    """The answer that was generated as these tokens and media (see `decode_answer`)."""
    answer = decode_answer(codecs, parse_tokens(given.tokens, vocabulary, codecs.text, given.made).parts, output, stop)
    return replace(answer, silent=is_silent(answer.controls, vocabulary.controls))


def decode_answer(
    codecs: Codecs, parts: Sequence[str | Codes | Control | Media], output: str = "", stop: Sequence[str] = ()
) -> Answer:
    """Decodes the spans of codes among `parts`, beside the media that heads have made, up to a string in their text
    that ends the answer.

    Where `output` is a modality made of another's spans, neighbouring spans of that other one become one item of it; of
    one that is made of several others', one span of each in its order.
    """
    decoding = _Decoding(codecs, output)
    for part in before_stop(parts, stop):
        decoding.visit(part)
    return Answer(tuple(decoding.content()), tuple(decoding.spans))


class _Decoding(Visitor[None]):
    def __init__(self, codecs: Codecs, output: str) -> None:
        self._codecs = codecs
        self._joining = codecs.modalities[output] if output else None
        self._items: list[tuple[str, Any] | Joined] = []
        self.spans: list[Codes] = []

    def text(self, text: str) -> None:
        self._items.append((TEXT, text))

    def control(self, control: Control) -> None:
        self._items.append((CONTROL, control.name))

    def codes(self, codes: Codes) -> None:
        self.spans.append(codes)
        name = codes.modality
        self._add(name, self._codecs.decode(name, codes.of(self._codecs.modalities[name].view("generate"))))

    def media(self, media: Media) -> None:
        self._add(media.modality, media.data)

    def _add(self, name: str, content: Any) -> None:
        items, joining = self._items, self._joining
        if joining is None or name not in joining.part_names:
            items.append((name, content))
            return
        last = items[-1] if items else None
        if not isinstance(last, Joined) or not last.takes(name):
            last = Joined(joining)
            items.append(last)
        last.parts.append((name, content))

    def content(self) -> list[tuple[str, Any]]:
        """Pairs of modality and content, in order."""
        found: list[tuple[str, Any]] = []
        for item in self._items:
            if not isinstance(item, Joined):
                found.append(item)
            elif item.whole:
                media = [content for _, content in item.parts]
                found.append((item.declared.name, self._codecs.decode(item.declared.name, media)))
            else:
                found += item.parts
        return found


@dataclass(frozen=True)
class Joined:
    """Parts of one item that have followed each other in an answer, with what each of them is."""

    declared: Modality
    """Of the item."""
    parts: list[tuple[str, Any]] = field(default_factory=list)

    def takes(self, name: str) -> bool:
        """Whether a part of that modality may come next."""
        return self.declared.next_part(len(self.parts)) == name

    @property
    def whole(self) -> bool:
        """Whether it is an item: one of several modalities has a part of each."""
        return isinstance(self.declared.parts, str) or len(self.parts) == len(self.declared.parts)


def written_part(name: str, content: Any) -> dict[str, Any] | None:
    """A part of an answer as values of JSON; None for media, which are files."""
    if name == CONTROL:
        return {"type": CONTROL, "name": content}
    return {"type": TEXT, "text": content} if name == TEXT else None
