"""Batched decoding with a key-value cache under the span grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from mio.core.contract.values import Decoding
from mio.core.data.items import EncoderItems, change_items
from mio.core.errors import DataError, UserError
from mio.core.generation.choosing import choose
from mio.core.generation.grammar import Grammar, Need
from mio.core.generation.growing import AnswerTokens, GrowingAnswer
from mio.core.generation.guidance import UnaskedSpans
from mio.core.generation.making import Making
from mio.core.generation.sampling import check_decoding, is_guided
from mio.core.model.transformer import Transformer
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.spans import TokenArray


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
    seeds: Sequence[int],
    context: int = 0,
    items: Mapping[str, EncoderItems] = MappingProxyType({}),
    codecs: Codecs | None = None,
) -> list[AnswerTokens]:
    """Answers to `prompts` (token ids). An answer depends on its prompt and its seed, not on
    the others, but for what another shape of the same matrix products may change in their last bits.

    Computes and keeps keys and values in the dtype of the weights. Where the transformer's matrices are split over
    devices (see `decoding_copy`), all of these call this with the same arguments, and all get the answers.

    Args:
        seeds: one per prompt.
        context: positions that a prompt and its answer may take together; 0: no limit.
        items: media in the prompts that encoders read, by modality. Their places are index of the prompt * L +
            position, where L are the tokens of the longest prompt.
        codecs: what heads and encoders of a grammar with spans that heads make are asked by.

    Raises:
        UserError: the token budget or the context cannot hold what is needed, options of `decoding` are invalid, memory
            does not suffice, or the model's scores are not finite.
    """
    for seed in seeds:
        check_decoding(decoding, seed)
    budgets = [decoding.max_tokens] * len(prompts)
    if context:
        least = grammar.least(need)
        budgets = [min(decoding.max_tokens, answer_room(len(prompt), context, least)) for prompt in prompts]
    active = [GrowingAnswer(grammar, need, budget, seed, decoding) for budget, seed in zip(budgets, seeds, strict=True)]
    answers = list(active)
    making = Making(transformer, grammar.vocabulary, codecs, decoding) if codecs is not None else None
    capacity = max(len(prompt) + budget for prompt, budget in zip(prompts, budgets, strict=True))
    try:
        with torch.autocast(transformer.head_weight.device.type, enabled=False):
            _decode(transformer, grammar, prompts, items, decoding, active, capacity, making)
    except (torch.OutOfMemoryError, _NoRoom) as error:
        raise UserError(
            f"{len(prompts)} answers of up to {capacity} tokens with their prompts do not fit into memory; decode "
            "fewer together (`evaluate.batch`), or allow fewer tokens"
        ) from error
    return [answer.given for answer in answers]


class _NoRoom(Exception):
    """The cache does not fit into memory."""


def _decode(
    transformer: Transformer,
    grammar: Grammar,
    prompts: Sequence[Sequence[int] | TokenArray],
    items: Mapping[str, EncoderItems],
    decoding: Decoding,
    active: list[GrowingAnswer],
    capacity: int,
    making: Making | None,
) -> None:
    """Reads the prompts and adds tokens to the sequences, until all are done."""
    device = transformer.head_weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    given = torch.zeros(len(prompts), longest, dtype=torch.int64, device=device)
    for index, prompt in enumerate(prompts):
        given[index, : len(prompt)] = torch.as_tensor(prompt, device=device)
    try:
        cache = transformer.cache(len(prompts), capacity)
        spans = None
        if is_guided(decoding) and grammar.spans:
            spans = UnaskedSpans(transformer, grammar, len(prompts), max(one.grammar.budget for one in active))
    except RuntimeError as error:  # torch's error for too little memory
        raise _NoRoom from error
    if spans:
        spans.read_prompts()
    moved = change_items(items, lambda tensor: tensor.to(device))
    hidden = transformer(given, cache.positions(longest), cache=cache, items=moved).hidden
    hidden = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    cache.advance(lengths)
    while True:
        tokens = choose(transformer, active, hidden, spans.hidden if spans else None)
        chosen = torch.tensor(tokens, device=device)
        for sequence, token in zip(active, tokens, strict=True):
            sequence.advance(token)
        keep = [i for i, sequence in enumerate(active) if not sequence.done]
        if not keep:
            return
        if len(keep) < len(active):
            kept = torch.tensor(keep, device=device)
            active, chosen = [active[i] for i in keep], chosen[kept]
            cache.keep(kept)
            if spans:
                spans.keep(kept)
        if spans:
            spans.step(active, chosen)
        hidden = transformer(chosen[:, None], cache.positions(1), cache=cache).hidden[:, 0]
        cache.advance(1)
        if opened := {row: answer for row, answer in enumerate(active) if answer.grammar.opened}:
            assert making is not None
            for row, state in making.make(opened, cache).items():
                hidden[row] = state
