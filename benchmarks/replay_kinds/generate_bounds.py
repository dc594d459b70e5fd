"""Answers to prompts of any length, with any options of sampling, beside any files, from healthy and broken weights.

The oracle is arithmetic: a row of C positions has C + 1 tokens, the stop token included; options have the meaning that
their definition gives them or none; files that were there stay what they were; whatever is answered is inside the
vocabulary's grammar and told where it was cut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from replays import Variant

from mio import Codes, DataModule, Frames, Media, Modality
from mio.api.answers import Reply
from mio.api.loaded import Loaded
from mio.core.contract.backbone import TransformerConfig
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.plugins.text.byte_tokenizer import ByteTokenizer

TEXT = ByteTokenizer()
TONES = Modality(name="tones", codebooks=(6, 6), begin="<t>", end="</t>", code_token="<t{}>",
                 layout="frame_major", frames=Frames(minimum=2, maximum=5))  # fmt: skip
SHORTEST = 1 + 2 * 2 + 1
"""Tokens of the shortest span of tones."""
MODALITIES = {"text": Modality(name="text", text=True), "tones": TONES}
VOCABULARY = Vocabulary.build(TEXT, [("made", modality) for modality in MODALITIES.values()])


class Tones:
    """Detokenizer: the codes as text."""

    def decode(self, codes: Any) -> str:
        return str(codes.tolist())

    def save(self, media: str, stem: Path) -> Path:
        path = stem.with_suffix(".txt")
        path.write_text(media)
        return path


class Codecs:
    text, modalities = TEXT, MODALITIES
    readers: Mapping[str, Any] = {}
    makers: Mapping[str, Any] = {}
    kept: tuple[str, ...] = ()

    def by_network(self, modality: str, view: str) -> bool:  # noqa: ARG002
        return False

    def codes(self, media: Media | Codes) -> Any:
        return media.codes if isinstance(media, Codes) else media.data

    def split(self, media: Media) -> list[Media]:
        return list(media.data)

    def saver(self, _: str) -> Tones:
        return Tones()

    def decode(self, _: str, codes: Any) -> str:
        return Tones().decode(codes)


def made_model(context: int, broken: str) -> Model:
    """A model whose weights have learnt nothing."""
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=16, layers=1, heads=2, init_std=0.5), VOCABULARY.rows).eval()
    if broken:
        with torch.no_grad():
            transformer.head_weight[:, 0] = float(broken)
    recipe: Any = SimpleNamespace(
        data=SimpleNamespace(packing=SimpleNamespace(context=context), form="plain", system={})
    )
    codecs, plugins = Codecs(), SimpleNamespace(datamodule=lambda _: DataModule())
    renderer = Renderer(VOCABULARY, codecs, LossConfig())
    return Model(recipe, plugins, VOCABULARY, codecs, renderer, Path(), lambda: (transformer, Replicas(Ranks())))


def is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def meaningful(options: dict[str, Any], seed: Any) -> bool:
    return (
        all(is_number(options.get(name, 0.0), 0, 100) for name in ("temperature", "media_temperature"))
        and is_number(options.get("top_p", 1.0), 0, 1)
        and type(options["max_tokens"]) is int
        and 1 <= options["max_tokens"] <= 1 << 20
        and type(seed) is int
        and 0 <= seed < 1 << 63
    )


def variant(
    folder: Path, context: int, size: int, output: str, options: dict[str, Any], seed: Any, beyond: bool, broken: str
) -> Variant:
    prompt = "x" * size
    taken = {folder / f"tones-{place}.txt": f"mine {place}" for place in (0, 2, 3)}
    room = options["max_tokens"]
    if meaningful(options, seed) and not beyond:
        room = min(room, context + 1 - (1 + size))  # the beginning of a text has a token
    needed = SHORTEST + 1 if output == "tones" else 1
    readable = meaningful(options, seed) and not broken and room >= needed

    def read() -> tuple[Reply, list[Path]]:
        folder.mkdir()
        for path, content in taken.items():
            path.write_text(content)
        run = Loaded(made_model(context, broken))
        answer = run.generate(prompt, output, seed=seed, beyond_context=beyond, **options)
        return answer, answer.save(folder)

    def right(made: tuple[Reply, list[Path]]) -> str:
        answer, files = made
        if any(path.read_text() != content for path, content in taken.items()):
            return "a file was overwritten"
        media = [content for name, content in answer.parts if name == "tones"]
        if [path.read_text() for path in files] != media or {*files} & {*taken}:
            return f"files {files} for {media}"
        if {*folder.iterdir()} != {*taken, *files}:
            return "left other files"
        if output == "tones" and len(media) != 1:
            return f"{len(media)} items for one"
        spans = sum(2 + codes.codes.size for codes in answer.codes)
        if spans + 1 > room:
            return f"{spans} tokens of spans for {room}"
        if answer.notice and room == options["max_tokens"]:
            return f"told of a cut that was none: {answer.notice}"
        return ""

    wild = ", ".join(f"{name} {value!r:.30}" for name, value in options.items())
    name = f"{size} bytes{' beyond' if beyond else ''} in {context}, {output or 'anything'}, {wild}, seed {seed!r:.25}"
    return Variant(f"{name}{f', weights {broken}' if broken else ''}", read, right, readable)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    numbers = [0.0, 1, 0.7, 1e-300, 1e300, 1e39, math.inf, -math.inf, math.nan, -0.1, 10**400, "1", True, None]
    number = 0
    while True:
        context = random.choice([16, 40, 96])
        options: dict[str, Any] = {"max_tokens": random.choice([1, 6, 7, 8, 20, 200, 1 << 20, 0, -1, 10**11, 2.0, "9"])}
        for name in ("temperature", "media_temperature", "top_p"):
            if random.random() < 0.12:
                options[name] = random.choice(numbers)
        if random.random() < 0.8:
            options["max_tokens"] = random.choice([7, 8, 20, 200])
        size = random.choice(
            [1, 5, 7, 8, context - 8, context - 7, context - 2, context - 1, context, 3 * context, 300]
        )
        beyond = random.random() < 0.2
        if beyond and meaningful(options, 0):
            options["max_tokens"] = min(options["max_tokens"], 200)
        seed = random.choice([0, 1, 2**32, 2**63 - 1, 2**63, 2**64, -1, 1.0, "1"]) if random.random() < 0.2 else number
        broken = random.choice(["nan", "inf", "-inf"]) if random.random() < 0.1 else ""
        output = random.choice(["", "text", "tones"])
        yield variant(folder / str(number), context, size, output, options, seed, beyond, broken)
        number += 1
