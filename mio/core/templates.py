"""Templates: a record becomes a document.

A template's strings hold `{field}`; a literal brace is doubled. A field may be text, media, codes, or a list of them;
a number counts as text.

Each literal and each text field is a piece that is tokenised by itself, so that lengths add up and a prompt's tokens
do not depend on what follows. Only where a literal ends in a space directly before text does the space move to the
text, since tokenizers attach a space to the word after it: `Say: {word}` gives the pieces `Say:` and ` three`. No space
moves from the prompt to the response: write it at the start of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from string import Formatter
from typing import Any

from mio.core.chat import Message, chat_document
from mio.core.documents import Document, interleaved_document, plain_document
from mio.core.errors import DataError, RecipeError
from mio.core.modality import Codes, Media, Record, Template, TokenisedText, Value

PLAIN, CHAT = "plain", "chat"


class CompiledTemplate:
    """A template with its strings taken apart once.

    Raises RecipeError, naming the template, for a brace that is neither doubled nor around a field's name.
    """

    def __init__(self, template: Template, name: str = "") -> None:
        self.name = f"{name}/{template.direction}" if name else template.direction
        self.direction = template.direction
        self._prompt = _take_apart(template.prompt, self.name)
        self._response = _take_apart(template.response, self.name)
        self.fields = tuple(dict.fromkeys(field for _, field in self._prompt + self._response if field))
        """Names of the fields, in order of first use."""

    def prompt(self, record: Record) -> list[Value]:
        """The prompt's pieces. Raises DataError for a field that the record lacks or that holds no content."""
        return self._fill(self._prompt, record)

    def response(self, record: Record) -> list[Value]:
        """The response's pieces. Raises DataError as `prompt` does."""
        return self._fill(self._response, record)

    def _fill(self, pieces: Sequence[tuple[str, str]], record: Record) -> list[Value]:
        filled: list[Value] = []
        for literal, field in pieces:
            values: Sequence[Value] = ()
            if field:
                try:
                    value = record[field]
                except KeyError:
                    raise DataError(
                        f"template `{self.name}` needs field `{field}`; the record has: {', '.join(record) or 'none'}"
                    ) from None
                values = (value,) if isinstance(value, str) else self._contents(value, field)
            if values and isinstance(values[0], str) and literal.endswith(" "):
                filled.append(literal[:-1])
                first = values[0]
                filled.append(first.spaced() if isinstance(first, TokenisedText) else " " + first)
                values = values[1:]
            else:
                filled.append(literal)
            filled.extend(values)
        return [piece for piece in filled if piece != ""] if "" in filled else filled

    def _contents(self, value: Any, field: str) -> Sequence[Value]:
        if isinstance(value, list | tuple):
            return [self._content(item, field) for item in value]
        return (self._content(value, field),)

    def _content(self, value: Any, field: str) -> Value:
        if isinstance(value, str | Media | Codes):
            return value
        if isinstance(value, Real) and not isinstance(value, bool):
            return str(value)
        raise DataError(
            f"template `{self.name}`: field `{field}` holds a {type(value).__name__}, "
            "not text, a number, media, codes, or a list of them"
        )


def to_document(
    record: Record,
    template: CompiledTemplate | None = None,
    form: str = PLAIN,
    system: Mapping[str, str] | None = None,
    output: str | None = None,
) -> Document:
    """Document of a record: by `template`, or without one of its `messages` (chat form) or its `parts` (plain form).

    `system` and `output` are those of `chat_document`. Raises DataError for a record that does not fit.
    """
    if template is not None:
        prompt, response = template.prompt(record), template.response(record)
        if form == PLAIN:
            return plain_document(prompt, response)
        turns: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return chat_document(turns, system or {}, output)
    if "messages" in record:
        if form != CHAT:
            raise DataError("a record of `messages` needs the chat form: set `form: chat` for its source")
        if not any(message.get("role") == "assistant" for message in record["messages"]):
            raise DataError("a record of `messages` has no turn of the assistant: there is nothing to learn from it")
        return chat_document(record["messages"], system or {}, output)
    if "parts" in record:
        if form != PLAIN:
            raise DataError("a record of `parts` needs the plain form: set `form: plain` for its source")
        return interleaved_document(record["parts"])
    raise DataError(
        f"a record with the fields {', '.join(record) or 'none'} needs a template, or the field `messages` or `parts`"
    )


def _take_apart(text: str, name: str) -> list[tuple[str, str]]:
    """Pairs of a literal and the field after it; the last pair may lack the field."""
    pieces: list[tuple[str, str]] = []
    literal = ""
    try:
        for written, field, spec, conversion in Formatter().parse(text):
            literal += written
            if field is None:  # a doubled brace ends a piece of the formatter's, not one of ours
                continue
            if not field.isidentifier() or spec or conversion:
                raise ValueError(f"`{{{field}}}` is no plain field name")
            pieces.append((literal, field))
            literal = ""
    except ValueError as error:
        raise RecipeError([f"template `{name}`: {text!r}: {error}; double a brace that is meant as such"]) from error
    return [*pieces, (literal, "")] if literal else pieces
