"""The plugin that is checked, among those that are in use beside it, with media of its modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import TEXT, File, Media, Modality, Record, Source, TextTokenizer, Trainable
from mio.core.errors import UserError
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.vocabulary import Vocabulary
from mio.testing.outcomes import RECORDS, SkippedCheckError, media_in

FITTED_ON = 128
"""Most media that a tokenizer is trained on before it is checked."""

SAMPLE_TEXTS = ("Hello, world", "Füße and 数字 1234\n\ttabs")


class Subject:
    """What all checks of one plugin look at."""

    def __init__(self, name: str, plugins: EnabledPlugins, samples: Mapping[str, Sequence[Any]], folder: Path) -> None:
        """`folder` is empty, and for the weights and files of these checks."""
        self.name = name
        self.plugins = plugins
        self.samples = samples
        self.folder = folder
        self.declared = [modality for owner, modality in plugins.modalities() if owner == name]
        """The plugin's own modalities."""
        self._media: dict[str, list[Media]] = {}
        self._sources: dict[tuple[str, str], Source] = {}
        self._ready: set[str] = set()

    @property
    def manager(self) -> PluginManager:
        return self.plugins.manager

    def has(self, hook: str) -> bool:
        """Whether the plugin implements a hook."""
        return hook in self.manager.candidate(self.name).hooks

    @cached_property
    def own_sources(self) -> list[str]:
        """Names of the corpora that the plugin ships. Raises `SkippedCheckError` if there are none."""
        own = [name for name, (owner, _) in self.plugins.sources().items() if owner == self.name]
        if not own:
            raise SkippedCheckError("the plugin ships no sources")
        return own

    def source(self, name: str, split: str) -> Source:
        """A corpus of the plugins in use, opened once."""
        if (name, split) not in self._sources:
            self._sources[name, split] = self.plugins.sources()[name][1](split, {})
        return self._sources[name, split]

    def records(self, name: str, split: str = "train", most: int = RECORDS) -> list[Record]:
        """The first records of a corpus."""
        source = self.source(name, split)
        return [source[index] for index in range(min(len(source), most))]

    def media(self, modality: str) -> list[Media]:
        """Media of a modality, read: the samples, else those of the corpora of the plugins in use. Raises
        `SkippedCheckError` if there are none."""
        if modality not in self._media:
            self._media[modality] = self._find(modality)
        if not self._media[modality]:
            raise SkippedCheckError(
                f"no media of `{modality}`; give `samples`, or a plugin with sources (`--with NAME`)"
            )
        return self._media[modality]

    def data(self, modality: str) -> list[Any]:
        """Data of a few of them."""
        return [item.data for item in self.media(modality)[:RECORDS]]

    def _find(self, modality: str) -> list[Media]:
        if modality in self.samples:
            return [
                item if isinstance(item, Media) else Media(modality, item, key=f"sample-{index}")
                for index, item in enumerate(self.samples[modality])
            ]
        declared = self.plugins.modality(modality)[1]
        tokenizer = self.plugins.tokenizer(modality) if declared.codebooks or declared.parts else None
        most, media = FITTED_ON if isinstance(tokenizer, Trainable) else 2 * RECORDS, list[Media]()
        for name in self.plugins.sources():
            source = self.source(name, "train")
            for index in range(min(len(source), FITTED_ON)):
                found = [item for item in media_in(source[index]) if item.modality == modality]
                media += found
                if len(media) >= most or (index >= RECORDS and not found):
                    break
            if len(media) >= most:
                break
        read = self.plugins.datamodule(modality).read
        return [
            replace(item, data=read(item.data)) if isinstance(item.data, File) and read else item
            for item in media[:most]
        ]

    @cached_property
    def _codecs(self) -> Codecs:
        codecs = Codecs(self.plugins)
        (self.folder / "weights").mkdir(exist_ok=True)
        codecs.attach(self.folder / "weights", trusted=True)
        return codecs

    def codecs(self, *modalities: str) -> Codecs:
        """Tokenizers and detokenizers; those of `modalities` and of their parts are ready: one that learns its weights
        is trained first. Raises `SkippedCheckError` where there are no media to train one on."""
        for name in modalities:
            declared = self.plugins.modality(name)[1]
            if declared.parts:
                self.codecs(*declared.part_names)
            if name not in self._ready and (declared.text or declared.codebooks):
                tokenizer: Any = self.plugins.tokenizer(name)
                if isinstance(tokenizer, Trainable):
                    tokenizer.fit(list(SAMPLE_TEXTS) * 20 if name == TEXT else self.media(name), seed=0)
                    self.weights(name).mkdir(parents=True)
                    tokenizer.save_weights(self.weights(name))
            self._ready.add(name)
        return self._codecs

    def fresh_tokenizer(self, modality: str) -> Any:
        """Another tokenizer of a modality, with the weights of the first if it has some."""
        self.codecs(modality)
        tokenizer: Any = self.plugins.tokenizer(modality)
        if isinstance(tokenizer, Trainable):
            tokenizer.load(self.weights(modality))
        return tokenizer

    def weights(self, modality: str) -> Path:
        """Folder of the weights of a tokenizer that learns some."""
        return self.folder / "weights" / modality

    @cached_property
    def text(self) -> TextTokenizer:
        """A text tokenizer that needs no training. Raises `SkippedCheckError` if there is none."""
        if not any(declared.text for _, declared in self.plugins.modalities()):
            raise SkippedCheckError("no plugin with text; give one (`--with text`)")
        text = self.plugins.tokenizer(TEXT)
        if isinstance(text, Trainable):
            raise SkippedCheckError("the text tokenizer is trained first; give one that is there")
        assert isinstance(text, TextTokenizer)
        return text

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of all plugins in use. Raises `SkippedCheckError` where there is no text tokenizer."""
        return Vocabulary.build(self.text, self.plugins.modalities(), self.plugins.control_tokens())

    def coded(self) -> list[Modality]:
        """Own modalities whose items become codes."""
        return [modality for modality in self.declared if modality.codebooks]

    def encoded(self) -> list[str]:
        """Modalities that an encoder of the plugin reads, or that it declares for one."""
        names = []
        for owner, modality in self.plugins.modalities():
            if modality.text or modality.parts:
                continue
            try:
                found = self.plugins.encoder(modality.name)
                supplies = found is not None and found[0] == self.name
            except UserError:  # which the checks report
                supplies = True
            if supplies or (owner == self.name and not modality.codebooks and not self._is_made(modality)):
                names.append(modality.name)
        return names

    def made(self) -> list[str]:
        """Modalities that a head of the plugin makes."""
        every = (modality for _, modality in self.plugins.modalities() if not (modality.text or modality.parts))
        return [modality.name for modality in every if self._is_made(modality)]

    def _is_made(self, modality: Modality) -> bool:
        try:
            found = self.plugins.head(modality.name)
        except UserError as error:  # which the checks report
            return f"plugin `{self.name}`" in str(error)
        return found is not None and found[0] == self.name

    def adapts(self) -> bool:
        """Whether the plugin has adapters."""
        if not self.has("mio_adapters"):
            return False
        try:
            return self.name in self.plugins.adapters()
        except UserError:  # which the checks report
            return True
