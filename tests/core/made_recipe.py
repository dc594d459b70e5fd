"""A small recipe with a plugin and a renderer of its own, for the tests of sources and loader."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mio.core.contract.values import Codes, DataModule, Media, Modality, Template
from mio.core.errors import DataError, UserError
from mio.core.recipe.data_schema import (
    DataConfig,
    GroupConfig,
    MixtureConfig,
    PackingConfig,
    SourceConfig,
    TemplateConfig,
)
from mio.core.recipe.schema import Recipe, TrainConfig
from mio.core.tokens.documents import Special
from mio.core.tokens.rendered import Rendered


class Letters:
    """Records of a letter and its number; some are broken."""

    def __init__(self, size, broken=()):
        self.size = size
        self.broken = set(broken)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError(f"disk trouble at {index}")
        return {"word": chr(97 + index % 26) * (1 + index % 7), "number": str(index)}


class Turns:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"messages": [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": f"{index}!"}]}


def letters(split, options):
    if split not in ("train", "test"):
        raise UserError(f"no split `{split}`")
    return Letters(options.get("size", 50), options.get("broken", ()))


class Plugins:
    """What an `EnabledPlugins` answers, for one plugin called `made`."""

    def control_tokens(self):
        return []

    def modalities(self):
        return [("made", Modality(name="text", text=True)), ("made", Modality(name="sketch", codebooks=(8,)))]

    def sources(self):
        return {"made/letters": ("made", letters), "made/turns": ("made", lambda *_: Turns(30))}

    def templates(self):
        both = (
            Template(direction="read", prompt="{word}", response="{number}"),
            Template(direction="write", prompt="{number}", response="{word}"),
            Template(direction="write", prompt="{number}, please", response="{word}"),
        )
        return {"letters": ("text", both)}

    def datamodule(self, modality):  # noqa: ARG002
        return DataModule()

    def filters(self):
        return {"longest": ("text", lambda record, options: "too long" if len(record["word"]) > options["at"] else "")}


class Characters:
    """Renders a document as its characters; media by their key."""

    codecs = SimpleNamespace(kept=())

    def render(self, document, blank=()):  # noqa: ARG002
        tokens = []
        for segment in document.segments:
            content = segment.content
            if isinstance(content, Special):
                tokens.append(list(Special).index(content))
            elif isinstance(content, Media):
                if content.label == "unreadable":
                    raise DataError(f"{content.data}: damaged")
                tokens += [1000, *content.key.encode()[-4:], 1001]
            elif isinstance(content, Codes):
                tokens += [1000, *content.codes.ravel().tolist(), 1001]
            else:
                tokens += list(content.encode())
        return Rendered(
            np.array(tokens, dtype=np.int32),
            np.ones(len(tokens), dtype=np.float32),
            np.zeros((0, 2), dtype=np.int32),
        )

    def learns(self, document):  # noqa: ARG002
        return True

    def measure(self, document):  # noqa: ARG002
        return None


def made_recipe(*, unit="tokens", steps=12, rows=4, micro_rows=0, **sources):
    """A recipe of two groups; keyword arguments replace fields of the first source."""
    first = SourceConfig(**{"dataset": "made/letters", "templates": "letters", **sources})
    return Recipe(
        name="made",
        data=DataConfig(
            groups={
                "pairs": GroupConfig(sources={"letters": first}),
                "talk": GroupConfig(sources={"turns": SourceConfig(dataset="made/turns", form="chat")}),
            },
            templates={},
            packing=PackingConfig(context=64, window=16),
        ),
        mixture=MixtureConfig(unit=unit, ratios={"pairs": 3, "talk": 1}),
        train=TrainConfig(steps=steps, rows=rows, micro_rows=micro_rows),
    )


OWN = [TemplateConfig(direction="spell", prompt="", response="{number} is {word}")]
