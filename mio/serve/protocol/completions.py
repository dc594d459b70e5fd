"""Body of `/v1/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from mio.core.contract.validation import is_int
from mio.serve.protocol.fields import UNSAMPLED, Neutral, TextSampling

Prompt = str | list[int]


def _prompts(value: Any) -> list[Prompt]:
    """Prompts one by one. Raises `ValueError` for what is none of the four."""
    if isinstance(value, str) or (isinstance(value, list) and value and is_int(value[0])):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("give a text, a list of token ids, or a list of either, which is not empty")
    for number, one in enumerate(value):
        texts = isinstance(one, str) and one
        if not texts and not (isinstance(one, list) and one and all(map(is_int, one))):
            raise ValueError(f"number {number} is neither a text nor a list of token ids, or it is empty")
    return value


class CompletionRequest(TextSampling):
    neutral: ClassVar[Neutral] = {
        "echo": (UNSAMPLED, (False,)),
        "suffix": (UNSAMPLED, ("",)),
        "best_of": (UNSAMPLED, (1,)),
        "logprobs": ("log-probabilities are not given", ()),
        "prompt_logprobs": ("log-probabilities are not given", ()),
        "ignore_eos": (UNSAMPLED, (False,)),
        "min_tokens": (UNSAMPLED, (0,)),
    }

    prompt: Annotated[Any, AfterValidator(_prompts)]
    """A text, token ids, or several of either."""
    modality: str | None = None
    """The answer holds this modality, and no media of another."""
    return_token_ids: bool | None = None
    """Whether choices have `token_ids` and `prompt_token_ids`."""
    add_special_tokens: bool | None = None
    """Whether the token that begins texts comes before a prompt of text; default: yes."""
    skip_special_tokens: bool | None = None
    """Whether the text leaves out tokens of media and special ones; default: yes."""
