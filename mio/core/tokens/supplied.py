"""What plugins supply for the modalities of a recipe, each loaded once, with the weights of a run folder."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.core.contract.heads import Head
from mio.core.contract.networks import Networks
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.streams import SpanDecoder, opened_stream
from mio.core.contract.values import TEXT, DataModule, Detokenizer, TextTokenizer, Trainable
from mio.core.errors import PluginError, UserError
from mio.core.tokens.documents import UNDERSTAND
from mio.core.tokens.item_encoders import ItemEncoder, item_encoders
from mio.core.tokens.item_heads import ItemHead, item_heads
from mio.core.tokens.tokenizer_files import check_tokenizers, reading_weights, save_record, tokenizer_record

_CPU = "cpu"


class Supplied:
    """Tokenizers, detokenizers, data modules, encoders and heads, by modality."""

    def __init__(self, plugins: EnabledPlugins) -> None:
        self.modalities = {declared.name: declared for _, declared in plugins.modalities()}
        self._owners = {declared.name: owner for owner, declared in plugins.modalities()}
        self._plugins = plugins
        self._tokenizers: dict[str, Any] = {}
        self._supplied: dict[str, Detokenizer | None] = {}
        self._detokenizers: dict[str, Detokenizer] = {}
        """With their weights."""
        self._datamodules: dict[str, DataModule] = {}
        self._folder: Path | None = None
        self._saved: dict[str, str] = {}
        """Fingerprints that the folder remembers."""
        self._trusted = False

    @property
    def text(self) -> TextTokenizer:
        """The text tokenizer. Raises `PluginError` where the recipe has no plugin with text."""
        if TEXT not in self.modalities:
            raise PluginError(f"no plugin of the recipe declares `{TEXT}`; add `{TEXT}: {{}}` under `plugins:`")
        tokenizer: TextTokenizer = self.tokenizer(TEXT)
        return tokenizer

    def tokenizer(self, modality: str) -> Any:
        """Tokenizer of a modality. Raises `PluginError` if no plugin supplies one."""
        if modality not in self._tokenizers:
            self._tokenizers[modality] = self._plugins.tokenizer(modality)
            if self._folder is not None:
                self._restore(modality, self._folder)
        return self._tokenizers[modality]

    @cached_property
    def readers(self) -> dict[str, ItemEncoder]:
        """Encoders by modality (see `item_encoders`)."""
        return item_encoders(self._plugins, self.makers)

    @cached_property
    def makers(self) -> dict[str, ItemHead]:
        """Heads by modality (see `item_heads`)."""
        return item_heads(self._plugins)

    @cached_property
    def networks(self) -> Networks:
        """What plugins put into the model."""
        return Networks(
            {name: reader.encoder for name, reader in self.readers.items()},
            self._plugins.adapters(),
            {name: maker.head for name, maker in self.makers.items()},
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """Modalities whose media networks are given as they are, and not as codes alone."""
        return tuple(dict.fromkeys((*self.readers, *self.makers)))

    def by_network(self, modality: str, view: str) -> bool:
        """Whether a span of this modality and view is the work of a network, and not codes."""
        return modality in (self.readers if view == UNDERSTAND else self.makers)

    @cached_property
    def undecodable(self) -> frozenset[str]:
        """Modalities with codes that are read and never written: nothing makes media of their codes. Where a plugin
        has an objection to decoding, it is told when something is to be decoded."""
        found = set()
        for name, declared in self.modalities.items():
            with contextlib.suppress(UserError):
                if declared.codebooks and self._unloaded(name) is None and name not in self.makers:
                    found.add(name)
        return frozenset(found)

    def _unloaded(self, modality: str) -> Detokenizer | None:
        """Detokenizer of a modality as it is before weights are loaded; None if no plugin supplies one."""
        if modality not in self._supplied:
            self._supplied[modality] = self._plugins.detokenizer(modality)
        return self._supplied[modality]

    def detokenizer(self, modality: str) -> Detokenizer:
        """Detokenizer of a modality, with the tokenizer's weights where it takes them."""
        if modality not in self._detokenizers:
            detokenizer = self._unloaded(modality)
            if detokenizer is None:
                raise PluginError(f"no plugin supplies a detokenizer for `{modality}` with the recipe's options")
            if self._folder is not None and (self._folder / modality).is_dir() and hasattr(detokenizer, "load"):
                if not self._checked(modality, self._folder):
                    self.tokenizer(modality)  # whose fingerprint is compared
                with reading_weights(self._folder / modality, modality):
                    detokenizer.load(self._folder / modality)
            self._detokenizers[modality] = detokenizer
        return self._detokenizers[modality]

    def span_decoder(self, modality: str) -> SpanDecoder | None:
        """What decodes one span of a modality while its codes come; None where it is decoded as a whole."""
        return opened_stream(self.detokenizer(modality), modality)

    def saver(self, modality: str) -> Detokenizer | Head:
        """What writes media of a modality to files: the head that makes them, or else the detokenizer."""
        maker = self.makers.get(modality)
        return self.detokenizer(modality) if maker is None else maker.head

    def trainable(self) -> list[str]:
        """Modalities whose tokenizer learns its weights."""
        return [name for name in self._tokenised if isinstance(self.tokenizer(name), Trainable)]

    def load(self, folder: Path) -> None:
        """Loads the weights saved by `train_tokenizers`. Raises `UserError` when they are another tokenizer's.

        The folder remembers the fingerprint of every tokenizer that was ever used with it.
        """
        self.attach(folder)
        new = {name: fingerprint for name, fingerprint in self.fingerprints().items() if name not in self._saved}
        if new:
            folder.mkdir(parents=True, exist_ok=True)
            save_record(folder, new)
            self._saved |= new

    def attach(self, folder: Path, trusted: bool = False) -> None:
        """Like `load`, but a tokenizer is made and checked when first needed: text alone needs no other's weights.

        `trusted` takes the folder's files for what they are, whatever its record says.
        """
        self._saved = {} if trusted else tokenizer_record(folder)
        self._folder, self._trusted = folder, trusted
        self._detokenizers.clear()
        for name in self._tokenizers:
            self._restore(name, folder)

    def _checked(self, name: str, folder: Path) -> bool:
        """Compares a tokenizer's files with the folder's record; false if it has no checksums of them."""
        return self._trusted or check_tokenizers(folder, [name])

    def _restore(self, name: str, folder: Path) -> None:
        tokenizer = self._tokenizers[name]
        if isinstance(tokenizer, Trainable):
            self._checked(name, folder)
            with reading_weights(folder / name, name):
                tokenizer.load(folder / name)
        if name in self._saved and self._saved[name] != tokenizer.fingerprint:
            raise UserError(
                f"{folder}: tokenizer of `{name}` is {tokenizer.fingerprint}, but the run was made with "
                f"{self._saved[name]}; give the plugin the options it had, or start a new run"
            )

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of every tokenizer that makes tokens."""
        return {name: self.tokenizer(name).fingerprint for name in self._tokenised if not self.modalities[name].parts}

    @property
    def _tokenised(self) -> list[str]:
        """Modalities that have a tokenizer that is used, or a splitter."""
        return [name for name, one in self.modalities.items() if one.text or one.parts or self.is_coded(name)]

    @property
    def uncoded(self) -> tuple[str, ...]:
        """Modalities whose media networks read and make, so that nothing needs codes of them."""
        return tuple(name for name in self.readers if name in self.makers)

    def is_coded(self, modality: str) -> bool:
        """Whether items of a modality become codes, as they are read or as they are written."""
        return bool(self.modalities[modality].codebooks) and modality not in self.uncoded

    def _datamodule(self, modality: str) -> DataModule:
        if modality not in self._datamodules:  # a hook's answer is checked, which takes longer than a small file
            self._datamodules[modality] = self._plugins.datamodule(modality)
        return self._datamodules[modality]

    @cached_property
    def elsewhere(self) -> frozenset[str]:
        """Modalities whose tokenizer encodes on another device than the CPU, which data workers cannot use."""
        coded = filter(self.is_coded, self.modalities)
        return frozenset(name for name in coded if str(getattr(self.tokenizer(name), "device", _CPU)) != _CPU)
