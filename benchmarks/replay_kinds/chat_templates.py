"""Conversations through the chat template of an export: ids and assistant masks of transformers, as mio trains them.

The oracle is `apply_chat_template` of the exported tokenizer; mio renders the same conversation as a training document.
What a template cannot write, media as files, has to be refused by it.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from replays import Variant

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Codes
from mio.core.errors import UserError
from mio.core.exchange.tokenizer_files import write_tokenizer
from mio.core.recipe.compose import compose
from mio.core.tokens.chat import chat_document
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

SYSTEMS: tuple[Mapping[str, str], ...] = (
    {},
    {"default": 'You are "MIO".\nAnswer: {{ 1 }} %} {% ü 👍 \\n'},
    {"default": "Help.", "text": "Answer with text.", "image": "Draw."},
)
WORDS = ("What is this?", "a dog", "", "7 {x}", "naïve 数字", "two\nlines", "<b>", "👍", "it's")


def conversations(chance: random.Random) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(name, messages) that both read."""
    for turns in range(1, 4):
        for _ in range(5):
            messages = []
            for _ in range(turns):
                messages.append({"role": "user", "content": _content(chance)})
                messages.append({"role": "assistant", "content": _content(chance)})
            if chance.random() < 0.3:
                messages.insert(0, {"role": "system", "content": _content(chance)})
            yield f"{turns} turns", messages
    yield "null content", [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]
    yield (
        "no parts",
        [{"role": "user", "content": []}, {"role": "assistant", "content": [{"type": "text", "text": ""}]}],
    )


def _content(chance: random.Random) -> Any:
    text = chance.choice(WORDS)
    parts: list[Any] = [{"type": "text", "text": text}]
    return chance.choice([text, parts, [*parts, {"type": "text", "text": chance.choice(WORDS)}], [text]])


FILES = (
    [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}],
    [{"role": "user", "content": [{"type": "image"}]}],
    [{"role": "tool", "content": "x"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": [7]}],
)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    manager = PluginManager.discover()
    for number, system in enumerate(SYSTEMS):
        place = folder / str(number)
        place.mkdir()
        content = {"plugins": {"text": {"tokenizer": "bytes"}, "image": {"tokenizer": "patch_vq"}}}
        recipe_file = place / "recipe.yaml"
        told = content | {"name": "x", "data": {"form": "chat", "system": dict(system)}}
        recipe_file.write_text(json.dumps(told, ensure_ascii=False))
        recipe = compose([str(recipe_file)], [], manager)
        plugins = manager.enable(recipe.plugins)
        codecs = Codecs(plugins)
        vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
        write_tokenizer(place, codecs.text, vocabulary, recipe, [declared for _, declared in plugins.modalities()])
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        renderer = Renderer(vocabulary, codecs, recipe.train.loss)
        for name, messages in conversations(random):
            yield _variant(f"system {number}: {name}", messages, messages, system, renderer, tokenizer)
        code = vocabulary.token(vocabulary.code_ids("image", 0)[3])
        written = vocabulary.token(vocabulary.begin("image")) + code * 16 + vocabulary.token(vocabulary.end("image"))
        codes = Codes("image", np.full((1, 16), 3))
        theirs = [{"role": "user", "content": "draw"}, {"role": "assistant", "content": written}]
        ours = [theirs[0], {"role": "assistant", "content": [codes]}]
        yield _variant(f"system {number}: a drawn answer", theirs, ours, system, renderer, tokenizer)
        for messages in FILES:
            read = partial(_refused, tokenizer, messages)
            yield Variant(f"system {number}: {messages}", read, str, readable=False)


def _refused(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:
        raise UserError(" ".join(str(error).split())) from error


def _variant(
    name: str,
    theirs: list[dict[str, Any]],
    ours: list[dict[str, Any]],
    system: Mapping[str, str],
    renderer: Renderer,
    tokenizer: Any,
) -> Variant:
    def read() -> tuple[list[int], list[int]]:
        turns = [{"role": turn["role"], "content": _values(turn["content"])} for turn in ours]
        rendered = renderer.render(chat_document(turns, system))
        return rendered.tokens.tolist(), [int(weight > 0) for weight in rendered.weights]

    def right(answer: tuple[list[int], list[int]]) -> str:
        made = tokenizer.apply_chat_template(theirs, return_dict=True, return_assistant_tokens_mask=True)
        if made["input_ids"] != answer[0]:
            return f"{tokenizer.decode(answer[0])!r}, not {tokenizer.decode(made['input_ids'])!r}"
        return "" if made["assistant_masks"] == answer[1] else "the mask differs from what is trained"

    return Variant(name, read, right)


def _values(content: Any) -> list[Any]:
    parts = content if isinstance(content, list) else [content]
    values = [part["text"] if isinstance(part, dict) else part for part in parts]
    return [value for value in values if value is not None]
