"""Checks of a modality that is tokenised: its codes, and their way back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.span_table import span_table
from mio.core.contract.streams import Streamable, joined
from mio.core.contract.values import CodeArray, File, MemoryFile, Modality
from mio.core.tokens.automata import check_codes, random_codes
from mio.testing.digests import digest
from mio.testing.outcomes import Check, SkippedCheckError, same
from mio.testing.subject import Subject

_STREAMED = 6
"""Pairs of spans that are decoded piece by piece."""
_LONGEST = 60
"""Frames of such a span beyond the fewest that one may have."""
_PUSHED = 9
"""Most frames that it gets at a time."""

STEMS = ("sample", "sam.ple-0")
"""Names of files that are saved: what is before a dot of a name is not all of it."""


class CodecChecks:
    """Checks of one modality's tokenizer and detokenizer. Trained at the first check, if it has to be."""

    def __init__(self, subject: Subject, modality: Modality) -> None:
        self.subject = subject
        self.modality = modality
        self.folder = subject.folder
        self._written: tuple[Path, CodeArray] | None = None
        """A file, and the codes of the media that were saved in it."""

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        name = self.modality.name
        yield f"{name}: codes fit the declaration", self.codes_fit
        yield f"{name}: codes are the same again", self.deterministic
        yield f"{name}: a fresh tokenizer gives the same codes", self.fresh
        yield f"{name}: `frames` foretells `encode`", self.frames
        yield f"{name}: the tokenizer can be pickled", self.pickled
        yield f"{name}: codes decode, and are written as a file", self.round_trip
        yield f"{name}: pieces of a stream are what `decode` gives", self.streams
        yield f"{name}: what is written is read again, as long as its file says", self.files

    @cached_property
    def _prepared(self) -> tuple[list[Any], Any, list[CodeArray]]:
        """(media data, tokenizer, their codes)."""
        data = self.subject.data(self.modality.name)
        tokenizer = self.subject.codecs(self.modality.name).tokenizer(self.modality.name)
        return data, tokenizer, tokenizer.encode(data)

    @cached_property
    def _detokenizer(self) -> Any:
        """With its weights."""
        if self.subject.plugins.detokenizer(self.modality.name) is None:
            raise SkippedCheckError("no plugin supplies a detokenizer")
        return self.subject.codecs(self.modality.name).detokenizer(self.modality.name)

    def codes_fit(self) -> None:
        """Shape, type and range of the codes."""
        data, tokenizer, codes = self._prepared
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
        """The same codes at the second call, alone, in another order, and in batches of other sizes."""
        data, tokenizer, codes = self._prepared
        backwards = tokenizer.encode(data[::-1])[::-1]
        again = tokenizer.encode(data)
        alone = [tokenizer.encode([item])[0] for item in data]
        pairs = [array for at in range(0, len(data), 2) for array in tokenizer.encode(data[at : at + 2])]
        twice = tokenizer.encode([item for item in data for _ in range(2)])[1::2]
        for index, array in enumerate(codes):
            for other, when in (
                (again, "at the second call"),
                (backwards, "in another order of items"),
                (alone, "when encoded alone"),
                (pairs, "in batches of two"),
                (twice, "when it is twice in a batch"),
            ):
                assert np.array_equal(array, other[index]), f"item {index}: other codes {when}"

    def fresh(self) -> None:
        """The same codes and fingerprint from a second tokenizer, with the saved weights if it has some."""
        data, tokenizer, codes = self._prepared
        other = self.subject.fresh_tokenizer(self.modality.name)
        assert other.fingerprint == tokenizer.fingerprint, "its fingerprint differs"
        for index, array in enumerate(other.encode(data)):
            assert np.array_equal(array, codes[index]), f"item {index}: the codes differ"

    def pickled(self) -> None:
        """A copy gives the same codes, as it has to where work is handed to other processes. Codes and media too."""
        data, _, codes = self._prepared
        copy, copied = pickle.loads(pickle.dumps((self.subject.fresh_tokenizer(self.modality.name), data)))
        for index, array in enumerate(copy.encode(copied)):
            assert np.array_equal(array, codes[index]), f"item {index}: the copy gives other codes"

    def frames(self) -> None:
        """`frames` against the codes' width."""
        data, tokenizer, codes = self._prepared
        for index, (item, array) in enumerate(zip(data, codes, strict=True)):
            frames = tokenizer.frames(item)
            assert frames == array.shape[1], f"item {index}: `frames` says {frames}, `encode` gives {array.shape[1]}"

    def round_trip(self) -> None:
        """Decoding and saving."""
        _, tokenizer, codes = self._prepared
        written = codes[0][list(self.modality.view("generate"))]
        media = self._detokenizer.decode(np.asarray(written, np.int64))
        assert media is not None, "`decode` returned nothing"
        again = self._detokenizer.decode(np.asarray(written, np.int64))
        assert digest(again) == digest(media), (
            "`decode` gives other media of the same codes at the second time; draw from a generator with a fixed "
            "seed, and leave the codes as they are"
        )
        (place := self.folder / f"{self.modality.name}-written").mkdir()
        for stem in STEMS:
            path = check_saved(self._detokenizer.save, media, place / stem)
        encoded = tokenizer.encode([media])[0]
        assert encoded.shape[0] == len(self.modality.codebooks), "what is decoded does not encode"
        self._written = path, np.asarray(encoded)

    def streams(self) -> None:
        """Pieces against the whole: random codes, cut anywhere, two spans at the same time."""
        detokenizer: Any = self._detokenizer
        if not isinstance(detokenizer, Streamable):
            raise SkippedCheckError("media are decoded as a whole: the detokenizer has no `stream`")
        random = np.random.default_rng(0)
        for _ in range(_STREAMED):
            spans = [self._random_codes(random) for _ in range(2)]
            for codes, pieces in zip(spans, _in_turns(detokenizer, spans, random), strict=True):
                assert pieces, f"`stream` gives nothing of {codes.shape[1]} frames"
                whole, made = self._detokenizer.decode(codes), joined(pieces)
                assert type(made) is type(whole) and same(made, whole), (  # noqa: PT018
                    f"what `stream` gives of {codes.shape[1]} frames is not what `decode` gives of them"
                )

    def _random_codes(self, random: np.random.Generator) -> CodeArray:
        """Codes of a span as it is written, of as many frames as one may have, within reason."""
        return random_codes(self.modality, random, self.modality.frames.minimum + _LONGEST)

    def files(self) -> str:
        """A file by path and from memory, read and measured. What a format loses of media is told, and no fault."""
        _, tokenizer, _ = self._prepared
        module = self.subject.plugins.datamodule(self.modality.name)
        if self._written is None:
            raise SkippedCheckError("nothing was written")
        if module.read is None or not module.suffixes:
            raise SkippedCheckError("the data module reads no files")
        path, saved = self._written
        suffix = path.suffix.lower()
        known = ", ".join(module.suffixes)
        assert suffix in module.suffixes, f"`save` writes `{suffix}`, which the data module does not read ({known})"
        files: list[File] = [path]
        if module.in_memory:
            files.append(MemoryFile(path.read_bytes(), suffix))
        codes = [tokenizer.encode([module.read(file)])[0] for file in files]
        assert np.array_equal(codes[0], codes[-1]), "a file in memory has other codes than the same file on a disk"
        for file, where in zip(files, ("a file", "a file in memory"), strict=False):
            frames = tokenizer.frames((module.probe or module.read)(file))
            due = codes[0].shape[1]
            assert frames == due, f"`frames` says {frames} of what `probe` makes of {where}, `encode` gives {due}"
        return _compared(np.asarray(codes[0]), saved)


def _compared(read: CodeArray, saved: CodeArray) -> str:
    """How many codes of what was read again are those of what was saved."""
    if read.shape != saved.shape:
        return f"what is read again has {read.shape[1]} frames, what was saved had {saved.shape[1]}"
    return f"{int((read == saved).sum())} of {saved.size} codes are those of what was saved"


def check_saved(save: Callable[[Any, Path], Any], media: Any, stem: Path) -> Path:
    """Saves media; returns the file. Raises `AssertionError` unless `stem` plus a suffix was written, and no other."""
    before = set(stem.parent.iterdir())
    path = save(media, stem)
    assert isinstance(path, Path), f"`save` returned {path!r}; the path that it wrote is due"
    assert path.is_file(), f"`save` returned {path}, which is no file"
    assert path.parent == stem.parent, f"`save` was to write in {stem.parent}, and wrote in {path.parent}"
    assert path.stem == stem.name, (
        f"`save` was to write `{stem.name}` plus a suffix, and wrote {path.name}; `stem.with_name(stem.name + SUFFIX)` "
        "keeps a name that has dots"
    )
    assert path.suffix, f"`save` wrote {path.name}, without a suffix"
    others = sorted(one.name for one in stem.parent.iterdir() if one != path and one not in before)
    assert not others, f"`save` wrote {', '.join(others)} too, which nobody asked for"
    return path


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
