"""Templates: a record becomes a document.

A template's strings hold `{field}`, and `{control:NAME}` for a control token; a literal brace is doubled. A field may
be text, media, codes, a control token, or a list of them; a number counts as text. A record with an empty field, or one
of white space alone, is broken: no answer is learnt from nothing. A field that may be empty or missing is written
`{field?}`. Media of the prompt are given as the model reads them; `{field:generate}` gives them as it writes them, with
all codebooks that this takes: how something sounds, beside what it says.

Each literal and each text field is tokenised by itself, so that lengths add up and a prompt's tokens do not depend on
what follows. Where a literal ends in a space directly before text, the space moves to the text, since tokenizers attach
a space to the word after it: `Say: {word}` gives the pieces `Say:` and ` three`. No space
moves from the prompt to the response: write it at the start of the response.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

from mio.core.contract.controls import Control, Turn
from mio.core.contract.validation import TemplatePiece, template_pieces, view_problems
from mio.core.contract.values import Codes, Media, Record, Template, Value
from mio.core.errors import DataError, RecipeError
from mio.core.tokens.chat import CONTENT, ROLE, Message, chat_document, role_of
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import Document, Viewed, interleaved_document, plain_document
from mio.core.tokens.tokenised import TokenisedText
from mio.core.tokens.visitor import Visitor

PLAIN, CHAT = "plain", "chat"


class CompiledTemplate:
    """A template whose strings are parsed once.

    Raises RecipeError, naming the template, for a brace that is neither doubled nor around a field's name.
    """

    def __init__(self, template: Template, name: str = "") -> None:
        self.name = f"{name}/{template.direction}" if name else template.direction
        self.direction = template.direction
        self._prompt = _parse(template.prompt, self.name)
        self._response = _parse(template.response, self.name)
        if problems := view_problems(self._response):
            raise RecipeError([f"template `{self.name}`: {problem}" for problem in problems])
        fields = [piece for piece in self._prompt + self._response if piece.name and not piece.control]
        self.fields = tuple(dict.fromkeys(piece.name for piece in fields))
        """Names of the fields, in order of first use."""
        self.asks = any(piece.name or piece.literal.strip() for piece in self._prompt)
        """Whether the template has a prompt, other than white space."""
        self._has_views = any(piece.view for piece in self._prompt)
        self._has_prompt = _never_empty(self._prompt)
        self._has_response = _never_empty(self._response)
        self._needed = tuple(dict.fromkeys(piece.name for piece in fields if not piece.optional))
        first = next((piece for piece in self._response if not piece.control), TemplatePiece(""))
        of_field = first.name and not first.literal.strip()
        self._response_place = f"template `{self.name}`: " + (f"field `{first.name}`" if of_field else "its response")

    def prompt(self, record: Record) -> list[Value | Viewed]:
        """The prompt's pieces. Raises DataError for a field that is missing or holds something else than content."""
        if not self._has_views:
            return [*self._fill(self._prompt, record)]
        filled: list[Value | Viewed] = []
        for piece in self._prompt:
            values = self._fill((piece,), record)
            filled += [_viewed(value, piece.view) for value in values] if piece.view else values
        return filled

    def response(self, record: Record) -> list[Value]:
        """The response's pieces. Raises DataError as `prompt` does."""
        return self._fill(self._response, record)

    def response_places(self, record: Record, field: str) -> range:
        """Which of the response's pieces are those of a field, where it is there first. Raises DataError as `prompt`
        does."""
        end = 0
        for piece in self._response:
            end += len(self._fill((piece,), record))
            if piece.name == field and not piece.control:
                return range(end - len(self._fill((piece._replace(literal=""),), record)), end)
        return range(0)

    def filled(
        self, record: Record, labels: Labels | None = None, asked: bool = False
    ) -> tuple[list[Value | Viewed], list[Value]]:
        """Prompt and response of a record for training; `labels` put a control token at the beginning of a response
        that answers something.

        Raises DataError as `prompt` does, for an empty field that is not written `{field?}`, and for an empty prompt
        or, unless the record is only `asked` about, response.
        """
        for field in self._needed:
            if blank(self._value(record, field)):
                raise DataError(
                    f"template `{self.name}`: field `{field}` is empty; give it content, or write `{{{field}?}}` in "
                    "the template where it may be empty"
                )
        prompt, response = self.prompt(record), self.response(record)
        if labels is not None:
            turn = partial(Turn, record, 0, self._fill(self._prompt, record)) if self.asks else None
            response = labels.begun(response, turn, self._response_place)
        if not asked and not self._has_response and blank(response):
            raise DataError(f"template `{self.name}`: its response is empty: there is nothing to learn")
        if self.asks and not self._has_prompt and blank(prompt):
            raise DataError(f"template `{self.name}`: its prompt is empty: the response would answer nothing")
        return prompt, response

    def _value(self, record: Record, field: str) -> Any:
        try:
            return record[field]
        except KeyError:
            raise DataError(
                f"template `{self.name}` needs field `{field}`; the record has: {', '.join(record) or 'none'}"
            ) from None

    def _fill(self, pieces: Sequence[TemplatePiece], record: Record) -> list[Value]:
        filled: list[Value] = []
        for literal, name, control, optional, _ in pieces:
            values: Sequence[Value] = ()
            if control:
                values = (Control(name),)
            elif name:
                value = self._value(record, name) if not optional or name in record else ()
                if optional and blank(value):
                    value = ()
                values = self._contents(value, name)
            spaced = _SPACED.visit(values[0]) if values and literal.endswith(" ") else None
            if spaced is None:
                filled.append(literal)
                filled.extend(values)
            else:
                filled += (literal[:-1], spaced, *values[1:])
        return [piece for piece in filled if piece != ""] if "" in filled else filled

    def _contents(self, value: Any, field: str) -> Sequence[Value]:
        try:
            return _CONTENTS.visit(value)
        except DataError as error:
            raise DataError(f"template `{self.name}`: field `{field}` {error}") from None


class _Content(Visitor[Value]):
    """A value of a field, or of a list in one, as content."""

    def text(self, text: str) -> Value:
        return text

    def media(self, media: Media) -> Value:
        return media

    def codes(self, codes: Codes) -> Value:
        return codes

    def control(self, control: Control) -> Value:
        return control

    def number(self, number: Real) -> Value:
        if not math.isfinite(number):
            raise DataError(f"is {number}, which cannot be learnt")
        return str(number)

    def other(self, value: object) -> Value:
        raise DataError(
            f"holds a {type(value).__name__}, not text, a number, media, codes, a control token, or a list of them"
        )


class _Contents(Visitor[Sequence[Value]]):
    """What a field holds, one after the other."""

    def text(self, text: str) -> Sequence[Value]:
        return (text,)

    def media(self, media: Media) -> Sequence[Value]:
        return (media,)

    def codes(self, codes: Codes) -> Sequence[Value]:
        return (codes,)

    def sequence(self, values: Sequence[object]) -> Sequence[Value]:
        return [_CONTENT.visit(value) for value in values]

    def other(self, value: object) -> Sequence[Value]:
        return (_CONTENT.visit(value),)


class _Spaced(Visitor[str | None]):
    """A text with a space before it; None of everything else."""

    def text(self, text: str) -> str:
        return " " + text

    def tokenised_text(self, text: TokenisedText) -> str:
        return text.spaced()

    def other(self, value: object) -> None:  # noqa: ARG002
        return None


class _IsItem(Visitor[bool]):
    """Whether a value is media or codes, which alone have views."""

    def media(self, media: Media) -> bool:  # noqa: ARG002
        return True

    def codes(self, codes: Codes) -> bool:  # noqa: ARG002
        return True

    def other(self, value: object) -> bool:  # noqa: ARG002
        return False


class _Blank(Visitor[bool]):
    def text(self, text: str) -> bool:
        return not text or text.isspace()

    def sequence(self, values: Sequence[object]) -> bool:
        return all(map(self.visit, values))

    def constant(self, constant: bool | None) -> bool:
        return constant is None

    def other(self, value: object) -> bool:  # noqa: ARG002
        return False


_CONTENT, _CONTENTS, _SPACED, _IS_ITEM, _BLANK = _Content(), _Contents(), _Spaced(), _IsItem(), _Blank()


def _viewed(value: Value, view: str) -> Value | Viewed:
    return Viewed(value, view) if _IS_ITEM.visit(value) else value


def blank(value: object) -> bool:
    """Whether a piece of content, or a list of them, holds nothing: no media, no codes, white space alone."""
    return _BLANK.visit(value)


def _never_empty(pieces: Sequence[TemplatePiece]) -> bool:
    """Whether there is content for every record: a literal, a control token, or a field that must not be empty."""
    return any(piece.literal.strip() or (piece.name and not piece.optional) for piece in pieces)


def to_document(
    record: Record,
    template: CompiledTemplate | None = None,
    form: str = PLAIN,
    system: Mapping[str, str] | None = None,
    output: str | None = None,
    labels: Labels | None = None,
    asked: bool = False,
) -> Document:
    """Document of a record: by `template`, or without one of its `messages` (chat form) or its `parts` (plain form).

    `system` and `output` are those of `chat_document`; `labels` put control tokens at the beginning of what answers
    something. Responses may be empty of a record that is only `asked` about, or whose texts are. Raises DataError for a
    record that does not fit.
    """
    if template is not None:
        prompt, response = template.filled(record, labels, asked)
        if form == PLAIN:
            return plain_document(prompt, response)
        turns: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return chat_document(turns, system or {}, output)
    if "messages" in record:
        if form != CHAT:
            raise DataError("a record of `messages` needs the chat form: set `form: chat` for its source")
        messages = record["messages"] if labels is None else _labelled(record, labels)
        _check_turns(messages, asked)
        return chat_document(messages, system or {}, output)
    if "parts" in record:
        if form != PLAIN:
            raise DataError("a record of `parts` needs the plain form: set `form: plain` for its source")
        if blank(record["parts"]):
            raise DataError("`parts` is empty: there is nothing to learn from it")
        if labels is not None:
            labels.begun(record["parts"], None, "`parts`")
        return interleaved_document(record["parts"])
    raise DataError(
        f"a record with the fields {', '.join(record) or 'none'} needs a template, or the field `messages` or `parts`"
    )


_EMPTY = {False: ("system",), True: ("system", "assistant")}
"""Roles whose turns may be empty."""


def _labelled(record: Record, labels: Labels) -> list[Message]:
    """The conversation of a record, whose answers begin with their control tokens."""
    messages: list[Message] = []
    answers = 0
    for number, message in enumerate(record["messages"]):
        if role_of(message.get(ROLE, "")) == "assistant" and CONTENT in message:
            prompt = _listed(record["messages"][number - 1].get(CONTENT)) if number else ()
            place = f"`messages[{number}]`: the turn of the assistant"
            content = labels.begun(_listed(message[CONTENT]), partial(Turn, record, answers, prompt), place)
            messages.append({**message, CONTENT: content})
            answers += 1
        else:
            messages.append(message)
    return messages


def _listed(content: Any) -> Sequence[Value]:
    return content if isinstance(content, list | tuple) else [content]


def _check_turns(messages: Sequence[Message], asked: bool) -> None:
    """Raises DataError if the assistant has no turn, or if a turn other than the system prompt is empty, of what is
    only `asked` other than the assistant's."""
    answers = 0
    for number, message in enumerate(messages):
        role = role_of(message.get(ROLE, ""))
        answers += role == "assistant"
        if role not in _EMPTY[asked] and blank(message.get(CONTENT)):
            raise DataError(f"`messages[{number}]`: the turn of the {role} is empty; leave the record out, or fill it")
    if not answers:
        raise DataError("a record of `messages` has no turn of the assistant: there is nothing to learn from it")


def _parse(text: str, name: str) -> list[TemplatePiece]:
    """Pieces of one side of a template."""
    try:
        return template_pieces(text)
    except ValueError as error:
        raise RecipeError([f"template `{name}`: {text!r}: {error}; double a literal brace"]) from error
