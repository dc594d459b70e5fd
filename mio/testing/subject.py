"""The plugin that is checked, among those that are in use beside it, with media of its modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import TEXT, File, Media, Modality, Record, Source, TextTokenizer, Trainable
from mio.core.errors import DataError, UserError
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.vocabulary import Vocabulary
from mio.testing.corpora import Furnished, open_splits, read
from mio.testing.outcomes import RECORDS, SkippedCheckError, media_in

FITTED_ON = 128
"""Most media that a tokenizer is trained on before it is checked."""

_FARTHEST = 50
"""Records among which those that can be read are looked for."""

SAMPLE_TEXTS = ("Hello, world", "Füße and 数字 1234\n\ttabs")


class Subject:
    """What all checks of one plugin look at."""

    def __init__(self, name: str, plugins: Furnished, samples: Mapping[str, Sequence[Any]], folder: Path) -> None:
        """`folder` is empty, and for the weights and files of these checks."""
        self.name = name
        self.plugins = plugins
        self.samples = samples
        self.folder = folder
        self.declared = [modality for owner, modality in plugins.modalities() if owner == name]
        """The plugin's own modalities."""
        self._media: dict[str, list[Media]] = {}
        self._usable: dict[str, list[Media]] = {}
        self._refusals: dict[str, list[str]] = {}
        self._makes: dict[str, list[Callable[[Any], Any]]] = {}
        self._splits: dict[str, tuple[dict[str, Source], str]] = {}
        self._ready: set[str] = set()

    @property
    def manager(self) -> PluginManager:
        return self.plugins.manager

    def has(self, hook: str) -> bool:
        """Whether the plugin implements a hook."""
        return hook in self.manager.candidate(self.name).hooks

    @cached_property
    def shipped(self) -> list[str]:
        """Names of the corpora that the plugin ships. Raises `SkippedCheckError` if there are none."""
        own = [name for name, (owner, _) in self.plugins.sources().items() if owner == self.name]
        if not own:
            raise SkippedCheckError("the plugin ships no sources")
        return own

    @cached_property
    def own_sources(self) -> list[str]:
        """Names of those of them that can be opened. Raises `SkippedCheckError` with the reason if there are none."""
        refused = {name: self.refusal(name) for name in self.shipped}
        if all(refused.values()):
            raise SkippedCheckError("; ".join(refused.values()))
        return [name for name, reason in refused.items() if not reason]

    def splits(self, name: str) -> dict[str, Source]:
        """The splits that a corpus of the plugins in use has, opened once."""
        return self.opened(name)[0]

    def refusal(self, name: str) -> str:
        """Why a corpus cannot be opened, as a `UserError` says; nothing if it can. Another exception is for the checks
        to report."""
        try:
            found, reason = self.opened(name)
        except Exception:
            return ""
        return "" if found else f"source `{name}`: {reason} (`--source {name}.KEY=VALUE` gives it an option)"

    def opened(self, name: str) -> tuple[dict[str, Source], str]:
        """The splits of a corpus, and why it has no others (see `open_splits`)."""
        if name not in self._splits:
            self._splits[name] = open_splits(self.plugins, name)
        return self._splits[name]

    def records(self, name: str, most: int = RECORDS) -> Iterator[Record]:
        """The first records of a corpus that can be read, of `train` where it has that."""
        for source in list(self.splits(name).values())[:1]:
            readable = (read(source, index) for index in range(min(len(source), max(most, _FARTHEST))))
            yield from islice((record for record in readable if record is not None), most)

    def media(self, modality: str) -> list[Media]:
        """A few media of a modality, read, of which the plugin can make something: of the samples, else of the corpora
        of the plugins in use. Raises `SkippedCheckError` if there are none."""
        if modality not in self._usable:
            usable, refusals = list[Media](), list[str]()
            for item in self._every(modality):
                reason = self.refused(item)
                if reason:
                    refusals.append(reason)
                else:
                    usable.append(item)
                if len(usable) == 2 * RECORDS:
                    break
            self._usable[modality], self._refusals[modality] = usable, refusals
        refusals = self._refusals[modality]
        assert self._usable[modality], f"`{modality}`: each of {len(refusals)} items is refused: {refusals[0]}"
        return self._usable[modality]

    def refusals(self, modality: str) -> str:
        """How many items were passed over to find `media`, and why the first of them; nothing if none was."""
        reasons = self._refusals.get(modality, [])
        return f"; {len(reasons)} more refused, as in: {reasons[0]}" if reasons else ""

    def refused(self, item: Media) -> str:
        """Why nothing can be made of an item, as a `DataError` of the plugin says; nothing if something can. Another
        exception is for the checks to report."""
        try:
            data = self._read(item).data
            for make in self._makers(item.modality):
                make(data)
        except DataError as error:
            return str(error)
        except Exception:
            return ""
        return ""

    def _makers(self, modality: str) -> list[Callable[[Any], Any]]:
        """What the plugin makes of one item's data. What cannot be had is for the checks to report."""
        if modality in self._makes:
            return self._makes[modality]
        makers = self._makes.setdefault(modality, [])
        if modality in [one.name for one in self.coded()]:
            with suppress(Exception):
                tokenizer = self.codecs(modality).tokenizer(modality)
                makers += [tokenizer.frames, lambda data: tokenizer.encode([data])]
        for find, names in (
            (self.plugins.encoder, ("positions", "prepare")),
            (self.plugins.head, ("positions", "target")),
        ):
            with suppress(Exception):
                found = find(modality)
                if found is not None and found[0] == self.name:
                    makers += [getattr(found[1], name) for name in names]
        return makers

    def _read(self, item: Media) -> Media:
        read_file = self.plugins.datamodule(item.modality).read
        return replace(item, data=read_file(item.data)) if isinstance(item.data, File) and read_file else item

    def _every(self, modality: str) -> list[Media]:
        """Media of a modality, read. Raises `SkippedCheckError` if there are none."""
        if modality not in self._media:
            self._media[modality] = self._find(modality)
        if not self._media[modality]:
            closed = [reason for name in self.plugins.sources() if (reason := self.refusal(name))]
            raise SkippedCheckError(
                f"no media of `{modality}`; give `samples`, or a plugin with sources (`--with NAME`)"
                + "".join(f"; {reason}" for reason in closed)
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
            if self.refusal(name):
                continue
            for index, record in enumerate(self.records(name, FITTED_ON)):
                found = [item for item in media_in(record) if item.modality == modality]
                media += found
                if len(media) >= most or (index >= RECORDS and not found):
                    break
            if len(media) >= most:
                break
        readable, broken = list[Media](), list[DataError]()
        for item in media[:most]:
            try:
                readable.append(self._read(item))
            except DataError as error:  # of a file that makes its record broken
                broken.append(error)
        if broken and not readable:
            raise broken[0]
        return readable

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
                    tokenizer.fit(list(SAMPLE_TEXTS) * 20 if name == TEXT else self._every(name), seed=0)
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
