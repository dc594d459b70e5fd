"""Corpora in the forms that training reads, for tests of the whole way from files to batches: shards of pictures,
utterances, interleaved documents and clips with every shape of record, and JSON Lines of texts and conversations.

Everything is arithmetic: no random number, no tokenizer with weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mio_world import IMAGE, SPEECH, TEXT, VIDEO, FakeCodecs, FakeText

from mio.core.contract.values import Codes, DataModule, Media
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.format import shard_name
from mio.core.data.shards.reader import TokenIndex
from mio.core.data.shards.store import TokenStore, source_folder, write_index
from mio.core.data.shards.texts import write_text_tokens
from mio.core.data.shards.writer import ShardWriter
from mio.core.recipe.data_schema import (
    DataConfig,
    GroupConfig,
    MixtureConfig,
    PackingConfig,
    SourceConfig,
    TemplateConfig,
)
from mio.core.recipe.schema import LossConfig, Recipe, TrainConfig
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

DECLARED = [("text", TEXT), ("image", IMAGE), ("speech", SPEECH), ("video", VIDEO)]
FINGERPRINTS = {"image": "i1", "speech": "s1", "video": "v1"}
SHARD_RECORDS = 32


def words(index: int, count: int) -> str:
    return " ".join(f"w{(index * 31 + k * k * 7) % 101}" for k in range(count))


def picture(index: int) -> Codes:
    return Codes("image", ((np.arange(32)[None] * 37 + index * 101) % 8192).astype(np.uint16))


def utterance(index: int) -> Codes:
    frames = 3 + index * 13 % 40
    return Codes("speech", ((np.arange(4 * frames).reshape(4, frames) * 57 + index * 11) % 1024).astype(np.uint16))


def pair(index: int):
    if index % 29 == 7:
        return None  # a hole
    return {"image": picture(index), "caption": words(index, 1 + index % 9), "id": index, "url": None}


def spoken(index: int):
    return {"speech": utterance(index), "transcription": words(index, 2 + index % 11)}


def page(index: int):
    parts = []
    for k in range(1 + index % 3):
        parts += [words(index + k, 3 + (index + k) % 17), picture(index + k)]
    return {"parts": parts}


def clip(index: int):
    frames = tuple(picture(index + k) for k in range(2 + index % 4))
    return {"video": Media("video", frames, f"clip{index}"), "caption": words(index, 4)}


def talk(index: int):
    question = [{"type": "text", "text": words(index, 3)}] if index % 2 else words(index, 4)
    question = [words(index, 3), picture(index)] if index % 2 else question
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": [utterance(index)]}]}


TOKENISED = {
    "pairs": (pair, 150),
    "spoken": (spoken, 90),
    "pages": (page, 70),
    "clips": (clip, 33),
    "talks": (talk, 40),
}
TEMPLATES = {
    "image_text": [
        TemplateConfig("image_to_text", "{image} ", "{caption}"),
        TemplateConfig("image_to_text", "{image} The caption: ", "{caption}"),
        TemplateConfig("text_to_image", "Draw {caption}: ", "{image}"),
    ],
    "speech_text": [
        TemplateConfig("speech_to_text", "{speech} The transcription of this speech is:", " {transcription}"),
        TemplateConfig("text_to_speech", "Please say “{transcription}”: ", "{speech}"),
    ],
    "video_text": [TemplateConfig("video_to_text", "{video}", "{caption}")],
    "text": [TemplateConfig("text", "", "{text}")],
}


class Plugins:
    """What data asks of plugins: the modalities of MIO, nothing shipped."""

    def control_tokens(self):
        return []

    def modalities(self):
        return DECLARED

    def sources(self):
        return {}

    def templates(self):
        return {}

    def filters(self):
        return {}

    def datamodule(self, modality):  # noqa: ARG002
        return DataModule()


def sources(folder: Path) -> dict[str, dict[str, SourceConfig]]:
    def source(name, templates="", **other):
        return SourceConfig("jsonl", options={"path": str(folder / f"{name}.jsonl")}, templates=templates, **other)

    return {
        "image_text": {
            "pairs": source("pairs", "image_text", directions={"image_to_text": 1, "text_to_image": 2}),
            "clips": source("clips", "video_text", weight=0.5),
        },
        "text": {"articles": source("articles", "text")},
        "interleaved": {"pages": source("pages")},
        "speech_text": {"spoken": source("spoken", "speech_text")},
        "sft": {"talks": source("talks", form="chat"), "chats": source("chats", form="chat")},
    }


def write(folder: Path, texts: bool = False) -> None:
    """Writes shards of all but articles and chats, which stay JSON Lines; `texts` says whether with tokens of texts."""
    config = {name: one for group in sources(folder).values() for name, one in group.items()}
    modalities = dict(DECLARED)
    for name, (made, records) in TOKENISED.items():
        place = source_folder(folder / "tokens", config[name])
        place.mkdir(parents=True)
        checksums = []
        for number, first in enumerate(range(0, records, SHARD_RECORDS)):
            writer = ShardWriter(modalities, FINGERPRINTS, first)
            for index in range(first, min(first + SHARD_RECORDS, records)):
                record = made(index)
                if record is None:
                    writer.drop("too small: a reason")
                else:
                    writer.add(record)
            checksums.append(writer.write(place / shard_name(number), {})["checksum"])
            if texts:
                write_text_tokens(place / shard_name(number), FakeText())
        write_index(place, TokenIndex(records, SHARD_RECORDS, "c", FINGERPRINTS, 0, {}, checksums))
    articles = [{"text": words(i, 20 + i * 17 % 90)} if i % 23 != 5 else {"txt": "no text"} for i in range(60)]
    chats = [
        {
            "messages": [{"role": "user", "content": words(i, 5)}, {"role": "assistant", "content": words(i, 9)}]
            * (1 + i % 2)
        }
        for i in range(25)
    ]
    for name, records in (("articles", articles), ("chats", chats)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))


def data_module(folder: Path, *, ratios, unit="tokens", context=384, window=32, **train) -> MioDataModule:
    """The data of a recipe over the corpora in `folder`."""
    recipe = Recipe(
        name="made",
        data=DataConfig(
            groups={name: GroupConfig(own) for name, own in sources(folder).items()},
            templates=TEMPLATES,
            system={"default": "Be brief.", "speech": "Speak."},
            packing=PackingConfig(context=context, window=window),
        ),
        mixture=MixtureConfig(unit=unit, ratios=ratios),
        train=TrainConfig(**{"steps": 50, "rows": 4, "micro_rows": 2, **train}),
    )
    loss = LossConfig(prompt_text=0.25, prompt_media=0.5, response_text=2.0, response_media=3.0)
    renderer = Renderer(Vocabulary.build(FakeText(), DECLARED), FakeCodecs(), loss)
    return MioDataModule(
        recipe, Plugins(), renderer, 0, TokenStore(folder / "tokens", FINGERPRINTS, FakeText().fingerprint)
    )
