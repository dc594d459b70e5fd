"""Codes of the media items of a recipe, and media of codes, each item's computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.encoders import Arrays
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import CodeArray, Codes, Media, Splitter, Tokenizer
from mio.core.errors import DataError, PluginError
from mio.core.tokens import encoding
from mio.core.tokens.codec_visitors import AsCodes, Decodable, Items
from mio.core.tokens.decoding_errors import naming_modality
from mio.core.tokens.supplied import Supplied
from mio.core.tokens.tokenised import is_tokenised


class Codecs(Supplied):
    """Codes of media and media of codes for every modality of a recipe.

    `remembered` bounds of how many items codes, lengths and the like are kept, the least recently used leaving first.
    """

    def __init__(self, plugins: EnabledPlugins, remembered: int = 200_000) -> None:
        super().__init__(plugins)
        self._memory: OrderedDict[str, CodeArray] = OrderedDict()
        self._foretold: OrderedDict[str, int] = OrderedDict()
        """Frames of items that were measured."""
        self._positions: OrderedDict[str, int] = OrderedDict()
        """Positions of items that encoders read: of one that is written as well, another number."""
        self._own_positions: OrderedDict[str, int] = OrderedDict()
        """Heads' own of items that they make."""
        self._readable_files: OrderedDict[str, None] = OrderedDict()
        """Items whose file was read once."""
        self.remembered = remembered
        """May be lowered where items hardly come back."""

    def attach(self, folder: Path, trusted: bool = False) -> None:
        """What was remembered may be another tokenizer's."""
        super().attach(folder, trusted)
        self._memory.clear()
        self._foretold.clear()

    def positions(self, media: Media) -> int:
        """Positions of an item that an encoder reads, without running it. Raises `DataError` where its file cannot be
        read, and `PluginError` where the encoder says something else than a number above 0."""
        name = name_of(media)
        positions = self._positions.get(name)
        if positions is None:
            positions = self.readers[media.modality].positions(media.key, self._probed(media).data)
            self._remember(self._positions, name, positions)
        return positions

    def prepare(self, media: Media) -> Arrays:
        """What the encoder of an item's modality is given. Raises `DataError` where it cannot be made, and
        `PluginError` where it is not of the kind that all items are."""
        return self.readers[media.modality].prepare(media.key, self.opened(media).data)

    def check_prepared(self, media: Media, where: str) -> None:
        """Prepares an item of the record `where`, and keeps what its network is to be checked with."""
        reader = self.readers[media.modality]
        reader.check(where, media.key, self.opened(media).data, self.positions(media))

    def check_target(self, media: Media, where: str) -> None:
        """The same of an item that a head learns to make."""
        maker = self.makers[media.modality]
        maker.check(where, media.key, self.opened(media).data, self.own_positions(media))

    def dummy(self, modality: str) -> Arrays:
        """What the encoder of a modality runs on where there is no item."""
        return self.readers[modality].dummy

    def own_positions(self, media: Media) -> int:
        """Positions of its own that the head of an item's modality learns it in. Raises as `positions`."""
        name = name_of(media)
        positions = self._own_positions.get(name)
        if positions is None:
            positions = self.makers[media.modality].positions(media.key, self._probed(media).data)
            self._remember(self._own_positions, name, positions)
        return positions

    def made_positions(self, modality: str) -> int:
        """Most positions by which the encoder of a modality reads what its head makes; 0 where there is no encoder."""
        reader, maker = self.readers.get(modality), self.makers[modality]
        return 0 if reader is None else reader.positions(f"the `example` of {maker.name}", maker.head.example())

    def target(self, media: Media) -> Arrays:
        """What the head of an item's modality learns of it. Raises as `prepare`."""
        return self.makers[media.modality].target(media.key, self.opened(media).data)

    def opened(self, media: Media) -> Media:
        """Media with its file read. Raises `DataError` if that cannot be done."""
        if not encoding.is_file(media):
            return media
        module = self._datamodule(media.modality)
        return encoding.opened(media, module, module.read)

    def check_readable(self, media: Media) -> None:
        """Raises `DataError` unless the file of an item can be read. Of one that can, that much is remembered."""
        if (
            encoding.is_file(media)
            and (name := name_of(media)) not in self._memory
            and name not in self._readable_files
        ):
            self.opened(media)
            self._remember(self._readable_files, name, None)

    def frames(self, media: Media) -> int:
        """Frames of the span of an item, without encoding it: what the modality's declaration leaves no choice of, or
        else what its tokenizer says of the data, or of the file's header. Raises `DataError` where neither can tell."""
        fixed = self._fixed_frames(media.modality)
        if fixed is not None:
            return fixed
        name = name_of(media)
        if (codes := self._memory.get(name)) is not None:
            return int(codes.shape[-1])
        frames = self._foretold.get(name)
        if frames is None:
            frames = int(self.tokenizer(media.modality).frames(self._probed(media).data))
            self._remember(self._foretold, name, frames)
        return frames

    def _probed(self, media: Media) -> Media:
        """Media with as much of its file read as lengths need."""
        module = self._datamodule(media.modality) if encoding.is_file(media) else None
        return encoding.opened(media, module, module.probe or module.read) if module else media

    def _fixed_frames(self, modality: str) -> int | None:
        frames = self.modalities[modality].frames
        return frames.minimum if frames.minimum == frames.maximum else None

    def learn(self, items: Iterable[Media]) -> dict[str, DataError | PluginError]:
        """Encodes what is not remembered yet, the items of a modality together, each once.

        Returns, by name (see `name_of`), why items have no codes: `DataError` for those that cannot be read or encoded,
        `PluginError` for those with another number of frames than was foretold. What else a tokenizer raises is a
        defect, of it or of its device, and raised.
        """
        wanted: dict[str, dict[str, Media]] = {}
        for item in items:
            name = name_of(item)
            if name in self._memory:
                self._memory.move_to_end(name)
            else:
                wanted.setdefault(item.modality, {})[name] = item
        failed: dict[str, DataError | PluginError] = {}
        for modality, unknown in wanted.items():
            names = iter(unknown)
            for batch in encoding.batches(list(unknown.values()), self._read_or_error):
                own = [next(names) for _ in batch]
                failed |= {name: one for name, one in zip(own, batch, strict=True) if isinstance(one, DataError)}
                read = {name: one for name, one in zip(own, batch, strict=True) if isinstance(one, Media)}
                self._encode_batch(modality, read, failed)
        return failed

    def _read_or_error(self, media: Media) -> Media | DataError:
        try:
            return self.opened(media)
        except DataError as error:
            return error

    def _encode_batch(
        self, modality: str, media: Mapping[str, Media], failed: dict[str, DataError | PluginError]
    ) -> None:
        codes = encoding.encode(self.tokenizer(modality), modality, [item.data for item in media.values()])
        for (name, item), result in zip(media.items(), codes, strict=True):
            if isinstance(result, DataError):
                failed[name] = result
            elif isinstance(result, Exception):
                raise result
            else:
                array = encoding.int64(result)
                if array.ndim and array.shape[-1] != (due := self.frames(item)):
                    failed[name] = PluginError(self._mistaken(item, due, array.shape[-1]))
                else:
                    self._remember(self._memory, name, array)

    def _mistaken(self, media: Media, due: int, frames: int) -> str:
        owner, modality = self._owners[media.modality], media.modality
        who = f"the tokenizer of `{modality}`, which plugin `{owner}` declares, gave {frames} frames for {media.key}"
        if self._fixed_frames(modality) is not None:
            return f"{who}; declared are always {due}: correct the declaration's `frames`, or the tokenizer"
        return f"{who}, of which its `frames` had said {due}: correct `frames`, or the data module's `probe`"

    def codes(self, media: Media) -> CodeArray:
        """Codes `[Q, F]` of one item, int64 whatever its tokenizer gives. What are no integers is left to the renderer
        to refuse. Raises `DataError` when its file cannot be read."""
        name = name_of(media)
        codes = self._memory.get(name)
        if codes is not None:
            self._memory.move_to_end(name)
            return codes
        tokenizer: Tokenizer = self.tokenizer(media.modality)
        codes = encoding.int64(tokenizer.encode([self.opened(media).data])[0])
        self._remember(self._memory, name, codes)
        return codes

    def _remember(self, memory: OrderedDict[str, Any], name: str, value: Any) -> None:
        memory[name] = value
        while len(memory) > self.remembered:
            memory.popitem(last=False)

    def written(self, item: Media | Codes) -> CodeArray:
        """Codes of one item as an answer writes them: of the codebooks of the view `generate`."""
        return AsCodes(self).visit(item).of(self.modalities[item.modality].view("generate"))

    def split(self, media: Media) -> Sequence[Media | Codes]:
        """Parts of a media item whose modality is made of another's spans; of a tokenised one, their codes."""
        if is_tokenised(media):
            return list(media.data)
        splitter: Splitter = self.tokenizer(media.modality)
        return splitter.split(self.opened(media))

    def decode(self, modality: str, codes: Any) -> Any:
        """Media of codes `[Q, F]`, or of a list of parts' media. Raises `DataError` for codes that the detokenizer can
        make nothing of."""
        with naming_modality(modality):
            return self.detokenizer(modality).decode(codes)

    def originals(self, items: Iterable[Media]) -> list[Any]:
        """Media as they are, files read."""
        return [self.opened(item).data for item in items]

    def round_trip(self, items: Iterable[Media | Codes]) -> list[Any]:
        """Media after tokenizer and detokenizer, with the codebooks that an answer is written with. What heads make
        goes through no codec: it stays as it is."""
        given = ((item.modality, Decodable(self).visit(item)) for item in items)
        return [one if name in self.makers else self.decode(name, one) for name, one in given]

    def items(self, value: Any) -> list[Media | Codes]:
        """Media and codes inside a record or one of its fields: lists opened, items of parts split."""
        return Items(self).visit(value)


def name_of(media: Media) -> str:
    """Names an item among those of all modalities."""
    return f"{media.modality}:{media.key}"
