"""The tokenizer files of an export: every token of the vocabulary, to and from its string."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.values import Modality, PortableText, TextTokenizer
from mio.core.errors import PluginError
from mio.core.exchange.chat_template import chat_template
from mio.core.exchange.sentencepiece import added_token
from mio.core.exchange.tokens import CONFIG, SPECIALS, TOKENIZER
from mio.core.files import write_json, write_text
from mio.core.recipe.schema import Recipe
from mio.core.tokens.vocabulary import Vocabulary

TEMPLATE = "chat_template.jinja"


def tokenizer_definition(text: TextTokenizer, vocabulary: Vocabulary) -> dict[str, Any]:
    """Content of `tokenizer.json`: the text tokenizer, extended by every token behind it.

    Added tokens are matched before a text is split into words, so a span written as token strings becomes its ids; a
    text begins with bos, as documents do. Raises `PluginError` if the text tokenizer has no definition, or if the
    library gives a token another id.
    """
    owner = vocabulary.blocks[0].owner
    if not isinstance(text, PortableText):
        raise PluginError(
            f"plugin `{owner}`: its text tokenizer has no method `definition`, so it cannot be exported "
            "(see PortableText in mio/core/contract/values.py)"
        )
    content = text.definition()
    vocab = content["model"]["vocab"]
    own = set(vocab.values()) if isinstance(vocab, dict) else set(range(len(vocab)))
    entries = list(content.get("added_tokens") or [])
    present = own | {entry["id"] for entry in entries}
    entries += [
        added_token(index, vocabulary.token(index), special=True)
        for index in range(vocabulary.size)
        if index not in present
    ]
    content |= {"added_tokens": entries, "post_processor": _starting_with(vocabulary)}
    _check(content, vocabulary, owner)
    return content


def write_tokenizer(
    folder: Path, text: TextTokenizer, vocabulary: Vocabulary, recipe: Recipe, modalities: Sequence[Modality]
) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja`."""
    definition = tokenizer_definition(text, vocabulary)
    write_text(folder / TOKENIZER, json.dumps(definition, ensure_ascii=False))
    specials = vocabulary.specials
    controls = {name: token.token for name, token in vocabulary.controls.tokens.items()}
    names = {f"{name}_token": vocabulary.token(getattr(specials, name)) for name in ("bos", "eos", "pad")}
    write_json(folder / SPECIALS, names)
    write_json(
        folder / CONFIG,
        {
            **names,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": recipe.data.packing.context,
            "clean_up_tokenization_spaces": False,
            "padding_side": "left",
        },
    )
    write_text(folder / TEMPLATE, chat_template(recipe.data.system, modalities, controls))


def _starting_with(vocabulary: Vocabulary) -> dict[str, Any]:
    """Post-processor that adds bos."""
    index = vocabulary.specials.bos
    bos = vocabulary.token(index)
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {bos: {"id": bos, "ids": [index], "tokens": [bos]}},
    }


def _check(content: dict[str, Any], vocabulary: Vocabulary, owner: str) -> None:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises plain Exception
        raise PluginError(f"plugin `{owner}`: the definition of its text tokenizer cannot be read: {error}") from error
    for index in range(vocabulary.size):
        token = vocabulary.token(index)
        if tokenizer.token_to_id(token) != index or tokenizer.id_to_token(index) != token:
            raise PluginError(
                f"plugin `{owner}`: in the definition of its text tokenizer the id {index} is not `{token}`"
            )
