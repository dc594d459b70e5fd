"""What is compared once, when vLLM starts."""

from __future__ import annotations

from typing import Any

from mio_vllm.grammar import Grammar, GrammarError
from mio_vllm.requests import GRAMMAR


def check_model(vllm_config: Any, grammar: Grammar) -> int:
    """Tokens that prompt and answer may have together in vLLM. Raises `GrammarError` where the model that is served is
    not the grammar's."""
    model = vllm_config.model_config
    size = model.get_vocab_size()
    if size != grammar.size:
        raise GrammarError(
            f"the model has {size} ids, and the grammar of {GRAMMAR} {grammar.size}: it belongs to another export"
        )
    return int(model.max_model_len)
