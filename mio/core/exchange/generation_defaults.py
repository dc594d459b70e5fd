"""`generation_config.json`, for transformers and for vLLM, of which each obeys another part.

vLLM follows neither `do_sample` nor `suppress_tokens`, and leaves special tokens, which those of media are, out of
texts unless it is told otherwise. transformers knows nothing of that.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from mio.core.contract.values import TEXT, Decoding
from mio.core.exchange.grammar_file import ending_controls, unfilled
from mio.core.generation.defaults import decoding_for
from mio.core.recipe.schema import Recipe
from mio.core.tokens.vocabulary import Vocabulary

FILE = "generation_config.json"
_KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def generation_defaults(
    vocabulary: Vocabulary, recipe: Recipe, stops: Sequence[int], made: Container[str], undecodable: Container[str] = ()
) -> dict[str, Any]:
    """The content of the file: what the recipe says of answers of text (`generate.text`), as these programs have one
    setting for all tokens.

    Args:
        stops: what ends an answer.
        made: modalities whose spans are made by heads.
        undecodable: modalities of whose codes nothing makes media.
    """
    absent = {index for block in vocabulary.blocks if block.absent for index in block.ids}
    never = sorted(absent | set(unfilled(vocabulary, made, undecodable)))
    return {
        "bos_token_id": vocabulary.specials.bos,
        "eos_token_id": [*stops, *ending_controls(vocabulary)],
        "pad_token_id": vocabulary.specials.pad,
        **sampling(decoding_for(recipe, TEXT)),
        "skip_special_tokens": False,
        **({"suppress_tokens": never} if never else {}),
    }


def sampling(decoding: Decoding) -> dict[str, Any]:
    """How text is chosen. `max_tokens` is left out, as vLLM would take it for a bound that no request may pass."""
    own: dict[str, Any] = {name: getattr(decoding, name) for name in _KEYS}
    own |= {name: value for name, value in (decoding.by.get(TEXT) or {}).items() if value is not None}
    penalty = {"repetition_penalty": own["repetition_penalty"]} if own["repetition_penalty"] != 1 else {}
    if not own["temperature"] or decoding.beams > 1:
        beams = {"num_beams": decoding.beams} if decoding.beams > 1 else {}
        return {"do_sample": False, "top_k": 1, **beams, **penalty}
    chosen = {"do_sample": True, "temperature": own["temperature"], "top_k": own["top_k"], "top_p": own["top_p"]}
    return chosen | ({"min_p": own["min_p"]} if own["min_p"] else {}) | penalty
