"""Requests as vLLM has them, as answers under the grammar. Needs neither vLLM nor torch.

What an answer is to be is said in a request's `vllm_xargs`:

| | |
| --- | --- |
| `mio_output` | modality of the answer: one item of it, and no media of another; without it, anything |
| `mio_most` | most media of each modality; of `mio_output`, from one to so many |
| `mio_only` | 0: media of other modalities than `mio_output` may come too |
| `mio_temperature` | temperature outside of spans, in place of the request's; 0 is greedy |
| `mio_media_temperature` | the same inside of spans |
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from mio_vllm.grammar import Answer, Grammar, GrammarError, Need

GRAMMAR = "MIO_GRAMMAR"
"""Environment variable with the path of the export's `grammar.json`: every process of vLLM reads it, as requests are
checked in one and answered in another."""
PREFIX = "mio_"
KEYS = ("mio_output", "mio_most", "mio_only", "mio_temperature", "mio_media_temperature")
CONFLICTS = {"min_tokens": 0, "ignore_eos": False, "allowed_token_ids": None, "structured_outputs": None}
"""Options of vLLM that decide themselves which token may come, with the values at which they do not."""

logger = logging.getLogger("mio_vllm")


@lru_cache(maxsize=4)
def load(path: str) -> Grammar:
    """The grammar of a file."""
    return Grammar.load(path)


def grammar() -> Grammar:
    """The grammar that the environment names. Raises `GrammarError` where it names none."""
    path = os.environ.get(GRAMMAR)
    if not path:
        raise GrammarError(
            f"{GRAMMAR} is not set: it has to name the export's grammar.json, as in "
            f"`{GRAMMAR}=exported/grammar.json vllm serve exported --logits-processors mio_vllm.v2:SpanGrammar`"
        )
    return load(path)


@dataclass(frozen=True)
class Wish:
    """What a request says of its answer."""

    need: Need
    temperature: float | None = None
    media_temperature: float | None = None

    @classmethod
    def of(cls, params: Any, grammar: Grammar) -> Wish:
        """Of vLLM's `SamplingParams`. Raises `GrammarError`."""
        extra = {key: value for key, value in (params.extra_args or {}).items() if key.startswith(PREFIX)}
        for key in extra:
            if key not in KEYS:
                near = get_close_matches(key, KEYS, 1)
                raise GrammarError(f"no argument `{key}`{f'; did you mean `{near[0]}`?' if near else ''} ({KEYS})")
        for key, unset in CONFLICTS.items():
            if getattr(params, key, unset) not in (unset, None):
                raise GrammarError(f"`{key}` decides which token may come, and so does the grammar: leave it out")
        output = extra.get("mio_output", "")
        if not isinstance(output, str):
            raise GrammarError(f"`mio_output` is {output!r:.40}, not the name of a modality")
        most, only = _whole(extra, "mio_most", 0, 1 << 20), _whole(extra, "mio_only", 1, 1)
        need = grammar.need(output, bool(only), most)
        least, room = grammar.least(need), params.max_tokens or math.inf
        if room < least:
            raise GrammarError(f"an answer in `{output}` takes {least} tokens at least, and `max_tokens` is {room}")
        wish = cls(need, _temperature(extra, "mio_temperature"), _temperature(extra, "mio_media_temperature"))
        if not params.temperature and {wish.temperature, wish.media_temperature} - {None, 0.0}:
            raise GrammarError(
                "`temperature` is 0, which is greedy whatever else is said; leave it at 1 beside `mio_temperature` and "
                "`mio_media_temperature`"
            )
        return wish


class Following:
    """An answer that vLLM writes: the grammar beside it, as far as its tokens are known.

    Args:
        room: tokens that the context has left behind the prompt.
    """

    def __init__(self, params: Any, grammar: Grammar, room: int) -> None:
        self.tokens = 0
        """Of the answer, that the grammar has taken."""
        self._base = float(params.temperature or 0.0)
        self._wish = Wish(Need())
        budget = min(params.max_tokens or room, room)
        try:
            self._wish = Wish.of(params, grammar)
            self.answer = grammar.answer(self._wish.need, budget)
        except GrammarError as error:  # the prompt leaves too little room: an error here would end the server
            logger.warning("an answer is left empty: %s", error)
            self.answer = Answer(grammar, Need(), budget)
            self.answer.done = True  # before anything is asked of it

    def take(self, token: int) -> None:
        """Takes the next token of the answer."""
        self.tokens += 1
        self.answer.advance(token)

    def scale(self, answer: Answer) -> float:
        """Factor on logits by which the request's temperature becomes that of the place where `answer` is; infinite
        where that is greedy."""
        wish = self._wish
        wanted = wish.media_temperature if answer.in_span else wish.temperature
        if wanted is None or not self._base:
            return 1.0
        return self._base / wanted if wanted else math.inf


def _whole(extra: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = extra.get(key, default)
    if not isinstance(value, int | float) or not 0 <= value <= most or value != int(value):
        raise GrammarError(f"`{key}` is {value!r:.40}, not a whole number from 0 to {most}")
    return int(value)


def _temperature(extra: Mapping[str, Any], key: str) -> float | None:
    value = extra.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise GrammarError(f"`{key}` is {value!r:.40}, not a temperature from 0 on")
    return max(float(value), 1e-3) if value else 0.0
