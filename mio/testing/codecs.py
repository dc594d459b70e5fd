"""Checks of a modality that is tokenised: its codes, and their way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.span_table import span_table
from mio.core.contract.streams import Streamable, joined
from mio.core.contract.values import CodeArray, File, Media, MemoryFile, Modality, Trainable
from mio.core.tokens.automata import check_codes, random_codes
from mio.testing.outcomes import RECORDS, SkippedCheckError, same

_STREAMED = 6
"""Pairs of spans that are decoded piece by piece."""
_LONGEST = 60
"""Frames of such a span beyond the fewest that one may have."""
_PUSHED = 9
"""Most frames that it gets at a time."""


class Codec:
    """Checks of one modality's tokenizer and detokenizer. Trained at the first check, if it has to be."""

    def __init__(
        self, plugins: EnabledPlugins, modality: Modality, folder: Path, media: Callable[[], list[Media]]
    ) -> None:
        self.plugins = plugins
        self.modality = modality
        self.folder = folder
        self._find_media = media
        self._ready: tuple[list[Any], Any, list[CodeArray]] | None = None
        self._written: Path | None = None
        self._detokenizer: Any = None
        """With its weights, once it has decoded."""

    def _prepared(self) -> tuple[list[Any], Any, list[CodeArray]]:
        """(media data, tokenizer, their codes)."""
        if self._ready is None:
            media = self._find_media()
            tokenizer: Any = self.plugins.tokenizer(self.modality.name)
            if isinstance(tokenizer, Trainable):
                tokenizer.fit(media, seed=0)
                (self.folder / "weights").mkdir()
                tokenizer.save_weights(self.folder / "weights")
            data = [item.data for item in media[:RECORDS]]
            self._ready = data, tokenizer, tokenizer.encode(data)
        return self._ready

    def codes_fit(self) -> None:
        """Shape, type and range of the codes."""
        data, tokenizer, codes = self._prepared()
        assert isinstance(tokenizer.fingerprint, str), "`fingerprint` is not a string"
        assert tokenizer.fingerprint, "`fingerprint` is empty"
        assert len(codes) == len(data), f"{len(data)} items gave {len(codes)} arrays of codes"
        sizes = self.modality.codebooks
        for array in map(np.asarray, codes):
            assert np.issubdtype(array.dtype, np.integer), f"codes are {array.dtype}, not integers"
            assert array.ndim == 2, f"codes have the shape {array.shape}; [codebooks, frames] is due"
            assert array.shape[0] == len(sizes), f"{array.shape[0]} codebooks, declared are {len(sizes)}"
            frames = self.modality.frames
            assert array.shape[1] in frames, f"{array.shape[1]} frames, declared are {frames}"
            for book, size in enumerate(sizes):
                assert array[book].min() >= 0, f"negative code in codebook {book}"
                assert array[book].max() < size, f"code {array[book].max()} in codebook {book} of size {size}"
            if (table := span_table(self.modality)) is not None:
                check_codes(table, array)

    def deterministic(self) -> None:
        """The same codes at the second call, alone and in another order."""
        data, tokenizer, codes = self._prepared()
        backwards = tokenizer.encode(data[::-1])[::-1]
        alone = [tokenizer.encode([item])[0] for item in data]
        for index, array in enumerate(codes):
            assert np.array_equal(array, backwards[index]), f"item {index}: other codes in another order of items"
            assert np.array_equal(array, alone[index]), f"item {index}: other codes when encoded alone"

    def fresh(self) -> None:
        """The same codes and fingerprint from a second tokenizer, with the saved weights if it has some."""
        data, tokenizer, codes = self._prepared()
        other: Any = self.plugins.tokenizer(self.modality.name)
        if isinstance(other, Trainable):
            other.load(self.folder / "weights")
        assert other.fingerprint == tokenizer.fingerprint, "its fingerprint differs"
        for index, array in enumerate(other.encode(data)):
            assert np.array_equal(array, codes[index]), f"item {index}: the codes differ"

    def frames(self) -> None:
        """`frames` against the codes' width."""
        data, tokenizer, codes = self._prepared()
        for index, (item, array) in enumerate(zip(data, codes, strict=True)):
            frames = tokenizer.frames(item)
            assert frames == array.shape[1], f"item {index}: `frames` says {frames}, `encode` gives {array.shape[1]}"

    def round_trip(self) -> None:
        """Decoding and saving."""
        _, tokenizer, codes = self._prepared()
        detokenizer: Any = self.plugins.detokenizer(self.modality.name)
        if detokenizer is None:
            raise SkippedCheckError("no plugin supplies a detokenizer")
        if isinstance(tokenizer, Trainable) and hasattr(detokenizer, "load"):
            detokenizer.load(self.folder / "weights")
        self._detokenizer = detokenizer
        media = detokenizer.decode(codes[0])
        assert media is not None, "`decode` returned nothing"
        path = detokenizer.save(media, self.folder / "sample")
        assert path.is_file(), f"`save` returned {path}, which is no file"
        assert path.stem == "sample", f"`save` was to write `sample` plus a suffix, and wrote {path.name}"
        assert path.suffix, f"`save` wrote {path.name}, without a suffix"
        assert tokenizer.encode([media])[0].shape[0] == len(self.modality.codebooks), "what is decoded does not encode"
        self._written = path

    def streams(self) -> None:
        """Pieces against the whole: random codes, cut anywhere, two spans at the same time."""
        detokenizer = self._detokenizer
        if not isinstance(detokenizer, Streamable):
            raise SkippedCheckError("media are decoded as a whole: the detokenizer has no `stream`")
        random = np.random.default_rng(0)
        for _ in range(_STREAMED):
            spans = [self._random_codes(random) for _ in range(2)]
            for codes, pieces in zip(spans, _in_turns(detokenizer, spans, random), strict=True):
                assert pieces, f"`stream` gives nothing of {codes.shape[1]} frames"
                assert same(joined(pieces), self._detokenizer.decode(codes)), (
                    f"what `stream` gives of {codes.shape[1]} frames is not what `decode` gives of them"
                )

    def _random_codes(self, random: np.random.Generator) -> CodeArray:
        """Codes of a span as it is written, of as many frames as one may have, within reason."""
        return random_codes(self.modality, random, self.modality.frames.minimum + _LONGEST)

    def files(self) -> None:
        """A file by path and from memory, read and measured."""
        _, tokenizer, _ = self._prepared()
        module = self.plugins.datamodule(self.modality.name)
        if self._written is None or module.read is None or self._written.suffix.lower() not in module.suffixes:
            raise SkippedCheckError("no file that the plugin writes is one that it reads")
        files: list[File] = [self._written]
        if module.in_memory:
            files.append(MemoryFile(self._written.read_bytes(), self._written.suffix.lower()))
        codes = [tokenizer.encode([module.read(file)])[0] for file in files]
        assert np.array_equal(codes[0], codes[-1]), "a file in memory has other codes than the same file on a disk"
        for file, where in zip(files, ("a file", "a file in memory"), strict=False):
            frames = tokenizer.frames((module.probe or module.read)(file))
            due = codes[0].shape[1]
            assert frames == due, f"`frames` says {frames} of what `probe` makes of {where}, `encode` gives {due}"


def _in_turns(detokenizer: Streamable, spans: Sequence[CodeArray], random: np.random.Generator) -> list[list[Any]]:
    """What streams give of spans that are cut anywhere and decoded beside each other."""
    decoders = [detokenizer.stream() for _ in spans]
    given: list[list[Any]] = [[] for _ in spans]
    begins = [0] * len(spans)
    while any(begin < codes.shape[1] for begin, codes in zip(begins, spans, strict=True)):
        for index, codes in enumerate(spans):
            end = begins[index] + int(random.integers(1, _PUSHED + 1))
            if (part := codes[:, begins[index] : end]).size:
                given[index].append(decoders[index].push(np.ascontiguousarray(part)))
            begins[index] = end
    for pieces, decoder in zip(given, decoders, strict=True):
        pieces.append(decoder.finish())
    return [[piece for piece in pieces if piece is not None] for pieces in given]
