"""What a query is asked with: earlier queries and their answers, as far as the policy keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mio.core.contract.sessions import SessionPolicy
from mio.core.contract.values import Decoding, Value
from mio.core.generation.engine import answer_room
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader
from mio.core.generation.requests import Ticket
from mio.core.generation.stopping import before_stop
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.templates import CHAT
from mio.core.tokens.visitor import control_of

Message = Mapping[str, Any]
"""`role` and `content`, as `chat_document` takes it."""

Turn = Sequence[Message]
"""Messages that a prompt holds or leaves out together: a query and its answer."""


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How a query is answered."""

    answers: str
    """As in `SessionPolicy`."""
    output: str
    """Modality that the answer consists of; empty: text, and spans where the model opens one."""
    speaks: bool
    """Whether its text is said as well, where the policy says in what."""
    system: Mapping[str, str]
    """System prompts, as `chat_document` takes them."""
    decoding: Decoding
    interrupts: bool = True
    """Whether it may stop the answer that is given; otherwise it waits for its end, whatever the model says."""

    @classmethod
    def of(cls, model: Model, policy: SessionPolicy) -> AnswerSettings:
        """Those of a policy."""
        return cls(answers=policy.answers, output=policy.output, speaks=bool(policy.speaks),
                   system=model.recipe.data.system, decoding=policy.decoding)  # fmt: skip


@dataclass
class Query:
    """Something that the model is asked."""

    number: int
    shown: tuple[Value, ...]
    """Media that it is about."""
    said: tuple[Value, ...]
    settings: AnswerSettings
    past: Callable[[], Sequence[Turn]] | None = None
    """What went before; None: what the session remembers."""


@dataclass
class Exchange:
    """A query that is answered, or was."""

    query: Query
    answer: AnswerReader
    ticket: Ticket | None = None
    """Of its answer, as soon as the engine is asked for it."""
    left_out: bool = False
    """Whether later queries are told nothing of it: it was not meant for the model, or could not be answered."""

    @property
    def number(self) -> int:
        return self.query.number

    @property
    def parts(self) -> list[Value]:
        """What there is of the answer, without the string that has ended it."""
        return list(before_stop(self.answer.parts, self.query.settings.decoding.stop))


def turn_of(policy: SessionPolicy, exchange: Exchange) -> Turn:
    """What later queries are told of an exchange."""
    shown = exchange.query.shown if policy.older_media else ()
    keeps = policy.control_in_history
    answer = [part for part in exchange.parts if keeps or control_of(part) is None]
    return _message("user", policy.compose(shown, exchange.query.said)), _message("assistant", answer)


def prompt_of(
    model: Model, policy: SessionPolicy, past: Sequence[Turn], query: Query, least: int
) -> tuple[Prompt, int]:
    """Prompt of a query, and the tokens that its answer may have. Of the past, as much goes along as the policy keeps
    and the context holds with an answer of full length.

    Args:
        least: tokens of the shortest answer.

    Raises:
        DataError: media of the query cannot be read, or it does not fit the context.
    """
    chat = model.recipe.data.form == CHAT
    kept = list(past[max(0, len(past) - policy.history) :]) if chat else []
    context, wanted = model.recipe.data.packing.context, query.settings.decoding.max_tokens
    while True:
        prompt = model.renderer.prompt(_document(model, policy, kept, query))
        if not kept or len(prompt.tokens) + wanted <= context + 1:
            return prompt, min(wanted, answer_room(len(prompt.tokens), context, least))
        kept = kept[1:]


def _document(model: Model, policy: SessionPolicy, past: Sequence[Turn], query: Query) -> Document:
    asked = policy.compose(query.shown, query.said)
    if model.recipe.data.form != CHAT:
        return plain_document(asked, [])
    messages = [message for turn in past for message in turn]
    if asked:
        messages.append(_message("user", asked))
    messages.append(_message("assistant", []))
    return chat_document(messages, query.settings.system, query.settings.output)


def _message(role: str, content: Sequence[Value]) -> Message:
    return {"role": role, "content": list(content)}
