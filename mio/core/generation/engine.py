"""Batched decoding with a key-value cache under the span grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mio.core.contract.values import Decoding
from mio.core.errors import DataError, UserError
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need
from mio.core.generation.sampling import HOTTEST, check_decoding, sample
from mio.core.model.cache import KVCache
from mio.core.model.transformer import Transformer
from mio.core.tokens.rendering import TokenArray


@dataclass
class _Sequence:
    """An answer that is being generated."""

    grammar: AnswerGrammar
    tokens: list[int]


def answer_room(prompt: int, context: int, least: int = 1) -> int:
    """Most tokens of an answer, its stop token included, that fit `context` positions behind `prompt` tokens. Raises
    `DataError` if there are fewer than `least`."""
    room = context + 1 - prompt
    if room < least:
        raise DataError(
            f"the prompt has {prompt} tokens and the shortest answer {least}; they do not fit the {context} positions "
            "that the model was trained on; shorten the prompt"
        )
    return room


@torch.inference_mode()
def generate_tokens(
    transformer: Transformer,
    grammar: Grammar,
    prompts: Sequence[Sequence[int] | TokenArray],
    decoding: Decoding,
    need: Need,
    seed: int = 0,
    context: int = 0,
) -> list[list[int]]:
    """Answers to `prompts` (token ids), without their stop tokens: the same ones for the same prompts in the same order
    and the same seed.

    Args:
        context: positions that a prompt and its answer may take together; 0: no limit.

    Raises:
        UserError: the token budget or the context cannot hold what is needed, options of `decoding` are invalid, or the
            model's scores are not finite.
    """
    check_decoding(decoding, seed)
    device = transformer.head_weight.device
    generator = torch.Generator(device=device).manual_seed(seed)
    budgets = [decoding.max_tokens] * len(prompts)
    if context:
        least = grammar.least(need)
        budgets = [min(decoding.max_tokens, answer_room(len(prompt), context, least)) for prompt in prompts]
    active = [_Sequence(AnswerGrammar(grammar, need, budget), []) for budget in budgets]
    answers = [sequence.tokens for sequence in active]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=device)
    for index, prompt in enumerate(prompts):
        tokens[index, : len(prompt)] = torch.as_tensor(prompt, device=device)
    capacity = max(len(prompt) + budget for prompt, budget in zip(prompts, budgets, strict=True))
    try:
        cache = KVCache(transformer.config, len(prompts), capacity, device=device)
    except RuntimeError as error:  # torch's error for too little memory
        raise UserError(
            f"{len(prompts)} answers of up to {capacity} tokens with their prompts do not fit into memory; allow "
            "fewer tokens"
        ) from error
    hidden = transformer(tokens, cache.positions(longest), cache=cache).hidden
    hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    cache.advance(lengths)
    while True:
        chosen = _choose(transformer, grammar, active, hidden, decoding, generator)
        for sequence, token in zip(active, chosen.tolist(), strict=True):
            sequence.grammar.advance(token)
            if not sequence.grammar.done:
                sequence.tokens.append(token)
        keep = [i for i, sequence in enumerate(active) if not sequence.grammar.done]
        if not keep:
            return answers
        if len(keep) < len(active):
            kept = torch.tensor(keep, device=device)
            active, chosen = [active[i] for i in keep], chosen[kept]
            cache.keep(kept)
        hidden = transformer(chosen[:, None], cache.positions(1), cache=cache).hidden[:, 0]
        cache.advance(1)


def _choose(
    transformer: Transformer,
    grammar: Grammar,
    active: Sequence[_Sequence],
    hidden: Tensor,
    decoding: Decoding,
    generator: torch.Generator,
) -> Tensor:
    indices = [sequence.grammar.mask_index() for sequence in active]
    allowed = grammar.masks(hidden.device)[torch.tensor(indices, device=hidden.device)]
    in_span = torch.tensor([sequence.grammar.in_span for sequence in active], device=hidden.device)
    media, text = (float(min(value, HOTTEST)) for value in (decoding.media_temperature, decoding.temperature))
    temperature = torch.where(in_span, media, text)
    size = grammar.vocabulary.size
    return sample(transformer.logits(hidden, size), allowed[:, :size], temperature, decoding.top_p, generator)
