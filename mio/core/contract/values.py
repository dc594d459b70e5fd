"""The values that plugins return and that records are made of. See `hookspecs.py` for who asks for them.

Shapes: Q codebooks, F frames. Codes are integer arrays `[Q, F]`, each below the size of its codebook. A tokenizer may
give any integer type, and shards store the smallest; `mio.core.tokens.codecs.Codecs.codes` makes int64 of either, the
type in which detokenizers and the renderer get codes. Ids are int32 in a rendered document, int64 in a batch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mio.core.contract.automata import Automaton
from mio.core.contract.controls import Control
from mio.core.contract.decoding import (
    HOTTEST,
    LARGEST_PENALTY,
    MOST_BEAMS,
    MOST_LIKELIEST,
    SMALLEST_PENALTY,
    ModalityDecoding,
)
from mio.core.contract.ranges import KEYS, number
from mio.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    CodeArray = npt.NDArray[np.int64]
else:
    CodeArray = Any  # plugins are declared without loading NumPy

TEXT = "text"
"""Name of the modality whose tokens are the backbone's own text tokens."""

OPTIONAL = "?"
"""Ends the name of a template's field that may be empty or missing."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How many frames a span may have: `minimum`, `minimum + step` and so on, at most `maximum`."""

    minimum: int = 1
    maximum: int = 4096
    step: int = 1

    @property
    def longest(self) -> int:
        """The last of these lengths, `maximum` or just below it."""
        return self.maximum - (self.maximum - self.minimum) % self.step

    def __contains__(self, frames: int) -> bool:
        return self.minimum <= frames <= self.maximum and (frames - self.minimum) % self.step == 0

    def __str__(self) -> str:
        """`5`, `1 to 9`, `3 to 9 in steps of 3`."""
        if self.minimum == self.longest:
            return f"{self.minimum}"
        steps = f" in steps of {self.step}" if self.step != 1 else ""
        return f"{self.minimum} to {self.longest}{steps}"


@dataclass(frozen=True, kw_only=True)
class Modality:
    """Declaration of one modality. `text`, `codebooks` or `parts` says what kind it is; one without any of them is read
    by an encoder (`mio_encoder`), and never written."""

    name: str
    """Unique, lower case: also the key of `Media.modality` and the `type` of a message part."""
    text: bool = False
    """True for the one modality whose tokens are the text tokenizer's."""
    codebooks: tuple[int, ...] = ()
    """Size of each codebook, in order; codebook q owns a block of that many ids of its own."""
    parts: str | tuple[str, ...] = ""
    """For a modality without codes: it is a sequence of spans of this other modality; of several, exactly one span of
    each, in this order."""
    begin: str = ""
    """Special token that opens a span."""
    end: str = ""
    """Special token that closes a span."""
    specials: tuple[str, ...] = ()
    """Further special tokens. Those of a modality other than text are control tokens (`ControlToken`) that may be said
    anywhere and do nothing, and are called by their string: `{control:<bar>}` in templates, `Control("<bar>")`."""
    code_token: str = ""
    """Token string of a code, with one `{}` for its number, which runs on through the codebooks: `<img{}>`."""
    layout: str = "flat"
    """How a `[Q, F]` grid becomes a span: `flat`, `codebook_major`, `frame_major` or `delayed`."""
    views: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Codebooks that a span carries when it is read (`understand`) and written (`generate`). Default: all."""
    frames: Frames = Frames()
    """Frames of one span; for a modality of `parts`, number of parts."""
    automaton: Automaton | None = None
    """Structure of the codes of a span, with the layouts `flat` and `frame_major`. None: any codes."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Modalities of its parts, in order; none of one without parts."""
        return self.parts if isinstance(self.parts, tuple) else (self.parts,) if self.parts else ()

    @property
    def part_counts(self) -> Frames:
        """How many parts an item has."""
        return (
            Frames(minimum=len(self.parts), maximum=len(self.parts)) if isinstance(self.parts, tuple) else self.frames
        )

    def next_part(self, count: int) -> str:
        """Modality of the part behind so many; empty where the item is complete."""
        if isinstance(self.parts, tuple):
            return self.parts[count] if count < len(self.parts) else ""
        return self.parts

    def view(self, name: str) -> tuple[int, ...]:
        """Codebook indices that the view `name` carries, ascending."""
        return tuple(self.views.get(name, range(len(self.codebooks))))


@dataclass(frozen=True)
class MemoryFile:
    """The content of a file that is in memory: media that came as bytes, in an archive or a table.

    Has of a `Path` what reading a file needs, so that a function that reads one reads the other.
    """

    content: bytes = field(repr=False)
    suffix: str = ""
    """Ending of its name, lower case with the dot, as its source or its modality says."""

    def open(self, mode: str = "rb") -> io.BytesIO:
        """A binary file object at its beginning. Raises `ValueError` for any other mode."""
        if mode != "rb":
            raise ValueError(f"a file in memory opens as `rb` alone, not {mode!r}")
        return io.BytesIO(self.content)

    def read_bytes(self) -> bytes:
        return self.content

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.content.decode(encoding)

    def __str__(self) -> str:
        """In place of a path, in messages."""
        return "media given as bytes"


@dataclass(frozen=True)
class Media:
    """One item of a modality before tokenisation.

    `data` is what the modality's tokenizer takes (an array, say), or a file that the modality's data module reads: a
    `Path`, or a `MemoryFile`. `key` names the item for ever: the same key means the same codes, so codes are computed
    once per key. `label` is what the item shows or says, where that is known; a trainable tokenizer may use it and then
    says so.
    """

    modality: str
    data: Any
    key: str
    label: str = ""


@dataclass(frozen=True)
class Codes:
    """One item of a modality after tokenisation.

    `codes` is `[Q, F]`. Where `codebooks` names some of the modality's codebooks, in ascending order, `codes` has the
    rows of these alone, as a span of a view does that carries no others. Raises `DataError` for codebooks in another
    order.
    """

    modality: str
    codes: CodeArray
    codebooks: tuple[int, ...] = ()
    """Empty: all."""

    def __post_init__(self) -> None:
        if self.codebooks and any(second <= first for first, second in pairwise((-1, *self.codebooks))):
            raise DataError(f"codes of `{self.modality}`: codebooks {list(self.codebooks)} are not in ascending order")

    def of(self, codebooks: Sequence[int]) -> CodeArray:
        """Codes of these codebooks, `[len(codebooks), F]`. Raises `DataError` if they do not hold one of them."""
        if not self.codebooks:
            return self.codes if len(codebooks) == len(self.codes) else self.codes[list(codebooks)]
        missing = set(codebooks) - set(self.codebooks)
        if missing:
            raise DataError(
                f"codes of `{self.modality}` hold the codebooks {list(self.codebooks)} alone, "
                f"codebook {min(missing)} is needed as well"
            )
        return self.codes[[self.codebooks.index(codebook) for codebook in codebooks]]


File = Path | MemoryFile
"""What a data module reads."""

Value = str | Media | Codes | Control
"""A piece of content: text, media, codes, or a control token."""

Record = Mapping[str, Any]
"""Fields of one record. A field holds a `Value` or a list of them. The field `messages` makes it a conversation,
`[{"role": ..., "content": [Value, ...]}, ...]`, where a turn may have a `weight`; the field `parts` alone makes it an
interleaved document."""


class Source(Protocol):
    """A finite sequence of records, the same at every reading. An exception other than `IndexError` from `[i]` counts
    as one broken record."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@runtime_checkable
class EpochSource(Source, Protocol):
    """A source whose records differ from epoch to epoch, as augmentation makes them.

    Its place in the order of the run says the epoch, so that a resumed training draws the same. `mio tokenize` leaves
    such a source out.
    """

    def at_epoch(self, index: int, epoch: int) -> Record:
        """Record `index` of the epoch, from 0 on: a function of both alone, of which epoch 0 is `[index]`. Media that
        differ have keys that differ."""


SourceFactory = Callable[[str, Mapping[str, Any]], Source]
"""`factory(split, options)`; `split` is `train` or `test`, `options` what the recipe gives the source."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Turns a record into a document. Both strings may hold `{field}`, `{field?}` where there may be none, and
    `{control:NAME}`, a control token; a literal brace is doubled.

    `prompt` is what is given, `response` what the model is to say. In chat form the prompt is the user's turn and the
    response the assistant's. Media of the prompt take the view `understand`, media of the response `generate`;
    `{field:generate}` in the prompt gives media as they would be written.
    """

    direction: str
    prompt: str = ""
    response: str


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to ids of the text block `[0, size)` and back."""

    fingerprint: str
    size: int
    specials: Mapping[str, int]
    """Ids of `pad`, `bos`, `eos`, `im_start`, `im_end`."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens added; a special token's string inside `text` stays plain text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""

    def token(self, index: int) -> str:
        """Token string of an id."""


@runtime_checkable
class PortableText(Protocol):
    """What a text tokenizer offers beside `TextTokenizer` where other programs can do the same, for `mio export`."""

    def definition(self) -> dict[str, Any]:
        """Content of a `tokenizer.json` (library `tokenizers`) with the same ids, token strings and encoding."""


@runtime_checkable
class Tokenizer(Protocol):
    """Media of one modality to codes."""

    fingerprint: str
    """Changes whenever the codes of any media could change."""

    def encode(self, media: Sequence[Any]) -> list[CodeArray]:
        """Codes `[Q, F]` of each item; an item's codes must not depend on the others.

        A tokenizer that encodes on another device than the CPU has an attribute `device` that says so (as `str` of it:
        `cuda:1`). It is then called in the training process alone: data workers cannot use such a device.
        """

    def frames(self, media: Any) -> int:
        """Frames that `encode` would give for this item, without running it.

        `media` is what `encode` takes, or what the data module's `probe` makes of a file. Not asked where the
        modality's declaration leaves one number: `Frames` whose minimum is its maximum.
        """


@runtime_checkable
class Detokenizer(Protocol):
    """Codes of one modality to media. For a modality of `parts`, `codes` is a list of the parts' media,
    in order: of several modalities, one of each."""

    def decode(self, codes: Any) -> Any:
        """Media of codes `[Q, F]`. Raises `DataError` for codes that mean nothing: an answer that holds them has
        failed, and what it is part of goes on."""

    def save(self, media: Any, stem: Path) -> Path:
        """Writes media to `stem` plus the format's suffix; returns the path written."""


@runtime_checkable
class Trainable(Protocol):
    """What a tokenizer offers beside `Tokenizer` where it has weights of its own.

    `folder` belongs to the tokenizer alone. A modality's detokenizer that has a `load` is given the same folder.
    """

    def fit(self, items: Sequence[Any], seed: int) -> Mapping[str, float]:
        """Trains on strings (text) or `Media` with `data` read. Returns figures worth reporting."""

    def save_weights(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


@runtime_checkable
class Splitter(Protocol):
    """Tokenizer of a modality of `parts`: media to media of the other modality, or of the others, in order.

    It may have a `fingerprint` that changes whenever the parts of any media could; otherwise its plugin's options are
    taken for one.
    """

    def split(self, media: Media) -> list[Media]: ...


Filter = Callable[[Record, Mapping[str, Any]], str]
"""`filter(record, options)`: a reason to drop the record, or the empty string."""


@dataclass(frozen=True, kw_only=True)
class DataModule:
    """A modality's own data module."""

    read: Callable[[Any], Any] | None = None
    """Opens a file as what the tokenizer takes: a `Path`, and with `in_memory` a `MemoryFile` as well. Raises for a
    file that is damaged or of another kind."""
    in_memory: bool = False
    """Whether `read` and `probe` take a `MemoryFile` too. Otherwise what came as bytes is written to a file first."""
    probe: Callable[[Any], Any] | None = None
    """As `read`, at less cost: something of which the tokenizer's `frames` says the same as of what `read` gives, made
    from the file's header where that is exact. Where it is not, `read` is what remains. Default: `read`."""
    suffixes: tuple[str, ...] = ()
    """File name endings that `read` understands, lower case with the dot."""
    media_type: str = ""
    """What its items are to programs that know no plugins: the first half of a media type (RFC 2046, section 3). Media
    then have the form that docs/plugins.md gives for it. Empty: such programs pass items of it on as files."""
    names: tuple[str, ...] = ()
    """What data call this modality beside its own name. A name N stands for the placeholder `<N>` in the text of
    conversations, for the columns N and Ns of media beside them, and for parts of the type N."""
    templates: Mapping[str, tuple[Template, ...]] = field(default_factory=dict)
    """Named template sets; a recipe picks one per source and may replace it."""
    filters: Mapping[str, Filter] = field(default_factory=dict)
    """Named record filters."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is sampled. The ranges are those of recipes, of the command line and of requests to a server."""

    temperature: float = number(0.0, 0, HOTTEST)
    """0 is greedy. Applies to text."""
    media_temperature: float = number(0.7, 0, HOTTEST)
    """Temperature inside spans."""
    top_k: int = number(0, 0, MOST_LIKELIEST)
    """As many of the likeliest tokens are drawn from; 0: all."""
    top_p: float = number(1.0, 0, 1)
    """Smallest set of the likeliest tokens whose probability reaches it (arXiv 1904.09751)."""
    min_p: float = number(0.0, 0, 1)
    """Tokens less likely than this share of the likeliest one are left out (arXiv 2407.01082)."""
    repetition_penalty: float = number(1.0, SMALLEST_PENALTY, LARGEST_PENALTY)
    """What logits of tokens that the answer has said are divided by where they are positive, and multiplied by where
    they are negative (arXiv 1909.05858): text by what text it has said, codes by its codes of that modality."""
    by: Mapping[str, Mapping[str, float]] = field(default_factory=dict, metadata={KEYS: dict[str, ModalityDecoding]})
    """What is different for some modalities: `{MODALITY: {"temperature": 1, "top_p": 0.7}}`. Keys as above; a
    modality's `temperature` stands for either."""
    beams: int = number(1, 1, MOST_BEAMS)
    """Beam search of answers of text: the likeliest of so many sequences (see `generation/beams.py`)."""
    stop: Sequence[str] = ()
    """Text that ends an answer, and is no part of it."""
    max_tokens: int = number(256, 1, 1 << 20)
    most: int = number(0, 0, 1 << 20)
    """Media of each modality in the answer, at most; 0: any number. Of a modality of parts, each part counts."""
    steps: int = number(0, 0, 10**4)
    """Of a head's sampler; 0: as many as the head takes by itself."""
    guidance: float = number(0.0, 0, 1000)
    """Weight of classifier-free guidance (arXiv 2207.12598) of what a head makes and of spans of codes; 1: none, 0: the
    head's own, and none of codes."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, list):  # as JSON has it
            object.__setattr__(self, "stop", tuple(self.stop))
