"""A model whose answers are written down, for exact tests of what is done with them.

Its "keys" are the tokens themselves, so that it sees what the cache holds and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from conftest import MELODY

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.controls import Control
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.model.cache import KVCache
from mio.core.model.transformer import Output
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.layouts import layout
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

found = functools.cache(discover)
"""Plugins that are installed: looking for them takes longer than most tests."""
PARLEY = Path(__file__).with_name("parley.py")
CHIMES = Path(__file__).with_name("chimes.py")


class Scripted:
    """In place of a `Transformer`: says the answer that belongs to the last query, token by token."""

    def __init__(self, vocabulary, codecs, answers):
        self.config = TransformerConfig(width=8, layers=1, heads=1, kv_heads=1, head_width=2)
        self.head_weight = torch.zeros(vocabulary.rows, 8)
        self.vocabulary, self.codecs, self.answers = vocabulary, codecs, answers
        self.passes = []
        """Shape of the tokens of each forward pass."""
        self.prompts = []
        """What each prompt says, when its answer begins."""

    def cache(self, batch, capacity):
        return KVCache(self.config, batch, capacity)

    def __call__(self, tokens, positions, cache, items=()):  # noqa: ARG002
        self.passes.append(tuple(tokens.shape))
        step = cache.step(positions, 1, (0,))
        ids = tokens[..., None, None].expand(-1, -1, 1, 2).float()
        step.attend(0, 0, torch.zeros_like(ids), ids, ids)
        hidden = torch.zeros(*tokens.shape, 1)
        for row, ids in enumerate(tokens.tolist()):
            column = max(place for place, token in enumerate(ids) if token)  # what follows is padding
            held = cache.keys[0, row, 0, : positions[row, column] + 1, 0].long().tolist()
            hidden[row, column, 0] = self.next(held)
        return Output(hidden, torch.zeros(()), {})

    def decode(self, tokens, cache):
        return self(tokens[:, None], cache.positions(1), cache=cache).hidden[:, 0]

    def next(self, held):
        specials = self.vocabulary.specials
        header = [specials.im_start, *self.codecs.text.encode("assistant\n")]
        start = max(at for at in range(len(held)) if held[at : at + len(header)] == header) + len(header)
        given = held[start:]
        if not given:
            self.prompts.append(self.spelt(held[: start - len(header)]))
        turns = self.spelt(held[: start - len(header)]).split("<im_start>user\n")
        query = turns[-1].split("<im_end>")[0]
        answer = self.tokens(self.answers[query])
        assert answer[: len(given)] == given, f"{self.spelt(given)!r} is no beginning of {self.answers[query]!r}"
        return answer[len(given)] if len(given) < len(answer) else specials.im_end

    def tokens(self, answer):
        """Of text, melodies, and chimes as arrays of codes."""
        ids = []
        for part in answer if isinstance(answer, list) else [answer]:
            if isinstance(part, str):
                ids += self.codecs.text.encode(part)
            elif isinstance(part, np.ndarray):
                books, codes = layout(self.vocabulary.modality("chime").layout).flatten(part)
                starts = [self.vocabulary.code_ids("chime", book).start for book in range(len(part))]
                ids += [
                    self.vocabulary.begin("chime"),
                    *(starts[book] + code for book, code in zip(books, codes, strict=True)),
                ]
                ids += [self.vocabulary.end("chime")]
            else:
                codes = self.vocabulary.code_ids("melody", 0)
                ids += [self.vocabulary.begin("melody"), *(codes.start + note for note in part)]
                ids += [self.vocabulary.end("melody")]
        return ids

    def spelt(self, ids):
        """Text, with media as their codes, and special and control tokens by name."""
        names = {self.vocabulary.specials.im_start: "<im_start>", self.vocabulary.specials.im_end: "<im_end>",
                 self.vocabulary.specials.bos: ""}  # fmt: skip
        text, run = "", []
        for index in [*ids, self.vocabulary.specials.bos]:
            if index not in names:
                run.append(index)
                continue
            for part in parse_tokens(run, self.vocabulary, self.codecs.text).parts:
                if isinstance(part, Control):
                    text += f"<{part.name}>"
                else:
                    text += part if isinstance(part, str) else str(part.codes[0].tolist())
            text, run = text + names[index], []
        return text

    def logits(self, hidden, size, first=0):
        return 1e4 * (hidden[:, :1].long() == torch.arange(first, size)).float()


@dataclass
class World:
    """A model with its script."""

    answers: dict[str, object]
    form: str = "chat"
    context: int = 200
    plugins: dict[str, dict] = field(
        default_factory=lambda: {"text": {"tokenizer": "bytes"}, "melody": {}, "parley": {}}
    )

    def model(self):
        candidates = [*found(), local(f"melody={MELODY / 'mio_melody.py'}"), local(f"parley={PARLEY}"),
                      local(f"chimes={CHIMES}")]  # fmt: skip
        plugins = PluginManager(candidates).enable(self.plugins)
        codecs = Codecs(plugins)
        vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
        recipe = Recipe(name="made", data=DataConfig(form=self.form, packing=PackingConfig(context=self.context)))
        transformer = Scripted(vocabulary, codecs, self.answers)
        return Model(
            recipe, plugins, vocabulary, codecs, Renderer(vocabulary, codecs, LossConfig()), Path("runs/made"),
            lambda: (transformer, Replicas(Ranks())),
        )  # fmt: skip


def shown(events):
    """Events as short tuples, neighbouring pieces of one text joined."""
    short = []
    for event in events:
        detail = {
            "text": event.text, "control": event.control, "interrupted": event.by, "ignored": event.reason,
            "media": event.content,
        }.get(event.kind)  # fmt: skip
        if event.kind == "text" and short and short[-1][:2] == ("text", event.query):
            detail = short.pop()[2] + detail
        short.append((event.kind, event.query) if detail is None else (event.kind, event.query, detail))
    return short
