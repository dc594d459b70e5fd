"""Questions to a model: what is asked, with all that its answer depends on, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mio.core.contract.values import Decoding
from mio.core.data.items import prepared
from mio.core.errors import DataError
from mio.core.generation.model import Model
from mio.core.generation.prompt import Content, prompt_document
from mio.core.generation.requests import LENGTH, Request
from mio.core.generation.sampling import check_decoding


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something that a model is asked."""

    content: Content
    output: str = ""
    """Modality that the answer holds: one item, or up to `decoding.most`, and no media of another. Empty: text, and
    spans where the model opens one."""
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    beyond_context: bool = False
    """Whether prompt and answer may be longer than what the model was trained on."""


class Asked(NamedTuple):
    """A question as tokens."""

    question: Question
    request: Request

    def notice(self, reason: str, tokens: int, context: int) -> str:
        """What a person should know of an answer that ended for a reason, with so many tokens: that it was the context
        which was trained on."""
        if reason != LENGTH or self.request.budget == self.question.decoding.max_tokens:
            return ""
        return (
            f"the answer ends after {tokens} tokens, with the {context} positions that the model was trained on; "
            "--beyond-context (`beyond_context=True`) lets it go on"
        )


def ask(model: Model, question: Question) -> Asked:
    """Makes the prompt of a question: its media are read, and encoded where they become codes.

    Raises:
        UserError: media cannot be read, the prompt does not fit the context, options of `decoding` are invalid, the
            model has no such modality.
    """
    decoding = question.decoding
    check_decoding(decoding, question.seed)
    need = model.need(question.output, only=True, decoding=decoding)
    prompt = model.renderer.prompt(prompt_document(model, question.content, question.output))
    prompt = prompt._replace(items=prepared(prompt.items, model.codecs))
    try:
        return Asked(question, model.request(prompt, decoding, need, question.seed, question.beyond_context))
    except DataError as error:
        raise DataError(
            f"{error}, or give --beyond-context (`beyond_context=True`): answers get worse there, and take much memory"
        ) from None
