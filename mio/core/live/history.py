"""What a query is asked with: earlier queries and their answers, as far as the policy keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mio.core.contract.sessions import SessionPolicy
from mio.core.contract.values import Value
from mio.core.generation.engine import answer_room
from mio.core.generation.model import Model
from mio.core.generation.reading import AnswerReader
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.templates import CHAT
from mio.core.tokens.visitor import control_of


@dataclass
class Query:
    """Something that the model is asked."""

    number: int
    shown: tuple[Value, ...]
    """Media that it is about."""
    said: tuple[Value, ...]


@dataclass
class Exchange:
    """A query that is answered, or was."""

    query: Query
    answer: AnswerReader


def prompt_of(
    model: Model, policy: SessionPolicy, past: Sequence[Exchange], query: Query, least: int
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
    context, wanted = model.recipe.data.packing.context, policy.decoding.max_tokens
    while True:
        prompt = model.renderer.prompt(_document(model, policy, kept, query))
        if not kept or len(prompt.tokens) + wanted <= context + 1:
            return prompt, min(wanted, answer_room(len(prompt.tokens), context, least))
        kept = kept[1:]


def _document(model: Model, policy: SessionPolicy, past: Sequence[Exchange], query: Query) -> Document:
    if model.recipe.data.form != CHAT:
        return plain_document(policy.compose(query.shown, query.said), [])
    messages = []
    for exchange in past:
        shown = exchange.query.shown if policy.older_media else ()
        messages.append(_message("user", policy.compose(shown, exchange.query.said)))
        keeps = policy.control_in_history
        answer = [part for part in exchange.answer.parts if keeps or control_of(part) is None]
        messages.append(_message("assistant", answer))
    messages += [_message("user", policy.compose(query.shown, query.said)), _message("assistant", [])]
    return chat_document(messages, model.recipe.data.system, policy.output)


def _message(role: str, content: Sequence[Value]) -> dict[str, object]:
    return {"role": role, "content": list(content)}
