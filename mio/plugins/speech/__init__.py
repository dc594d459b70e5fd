"""Speech as spans of codes: MIO's SpeechTokenizer declaration, and a small mel codec that trains in seconds.

Options under `plugins: {speech: {...}}`:

    tokenizer: speechtokenizer   # MIO: 4 codebooks of 1024, 50 frames a second
    tokenizer: mel_rvq           # `codebooks` codebooks of `codebook_size`, 50 frames a second
    max_seconds, layout, views   # of both, see `SpeechOptions`; those of `mel_rvq` alone in `MelOptions`

The first codebook holds the content, what is said; the others refine how it sounds. Speech that is read carries the
first alone, speech that is written carries all.

Media data: tuples `(samples, rate)`, samples float `[T]` or `[T, C]` in [-1, 1] or signed integers, rate in hertz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from mio import DataModule, Frames, Modality, Template, UserError, hookimpl

if TYPE_CHECKING:
    from mio import Detokenizer, Tokenizer

FRAME_RATE = 50
"""Frames per second of both tokenizers."""

_SAY = Template(
    direction="text_to_speech", prompt="Please generate a speech of “{transcription}”: ", response="{speech}"
)

TEMPLATES = {
    # MIO, arXiv 2409.17692 v4, appendix B: stages I and II
    "speech_text": (
        Template(direction="speech_to_text", prompt="{speech} Transcribe this speech:", response=" {transcription}"),
        _SAY,
    ),
    # the same, stage III
    "speech_text_3": (
        Template(
            direction="speech_to_text",
            prompt="{speech} The transcription of this speech is:",
            response=" {transcription}",
        ),
        _SAY,
    ),
    # the same, table 12
    "speech_text_sft": (
        Template(
            direction="speech_to_text", prompt="Please transcribe this speech.{speech}", response="{transcription}"
        ),
        Template(
            direction="text_to_speech",
            prompt="Please generate a speech according to the given transcription. Start with <spch>. {transcription}",
            response="{speech}",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """Options of every tokenizer; the codebooks here are those of `speechtokenizer`, which are not an option."""

    max_seconds: float = 15.0
    """Longest speech; a longer item is an error, never cut."""
    layout: str = "codebook_major"
    """`codebook_major` (MIO), `frame_major` or `delayed`; with one codebook always `flat`."""
    views: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Codebooks of speech that is read (`understand`, default the first) and written (`generate`, default all)."""

    def __post_init__(self) -> None:
        if not FRAME_RATE * self.max_seconds >= 1:
            raise UserError(f"plugins.speech: `max_seconds` is {self.max_seconds}, must be at least {1 / FRAME_RATE}")

    @property
    def books(self) -> tuple[int, ...]:
        """Size of each codebook."""
        return (1024,) * 4

    @property
    def frames(self) -> Frames:
        """Frames that a span may have."""
        # the tiny addition keeps 0.58 s, in binary a little less, at 29 frames
        return Frames(minimum=1, maximum=int(FRAME_RATE * self.max_seconds + 1e-6))


@dataclass(frozen=True, kw_only=True)
class MelOptions(SpeechOptions):
    """Options of the `mel_rvq` tokenizer."""

    rate: int = 8000
    """Samples per second that all speech is resampled to and generated at."""
    codebook_size: int = 128
    codebooks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("rate", 4000), ("codebook_size", 2), ("codebooks", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UserError(f"plugins.speech: `{name}` is {value!r}, must be a whole number of {least} or more")
        if self.rate % (4 * FRAME_RATE):
            raise UserError(f"plugins.speech: `rate` is {self.rate}, must be a multiple of {4 * FRAME_RATE}")

    @property
    def books(self) -> tuple[int, ...]:
        return (self.codebook_size,) * self.codebooks


_TOKENIZERS: Mapping[str, type[SpeechOptions]] = {"speechtokenizer": SpeechOptions, "mel_rvq": MelOptions}


def _parsed(options: Mapping[str, Any]) -> SpeechOptions:
    """The options of the tokenizer that they name. Raises `UserError` for an unknown tokenizer or option."""
    given = dict(options)
    name = given.pop("tokenizer", "speechtokenizer")
    if name not in _TOKENIZERS:
        raise UserError(f"plugins.speech: unknown tokenizer `{name}`; known are {', '.join(_TOKENIZERS)}")
    known = [option.name for option in fields(_TOKENIZERS[name])]
    for option in given:
        if option not in known:
            raise UserError(f"plugins.speech: tokenizer `{name}` has no option `{option}`; it has {', '.join(known)}")
    return _TOKENIZERS[name](**given)


def _mel(modality: str, options: Mapping[str, Any]) -> MelOptions | None:
    """Options of `mel_rvq` where that is the tokenizer of this modality."""
    parsed = _parsed(options) if modality == "speech" else None
    return parsed if isinstance(parsed, MelOptions) else None


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    parsed = _parsed(options)
    views = {"understand": (0,), **{name: tuple(books) for name, books in parsed.views.items()}}
    return [
        Modality(
            name="speech",
            codebooks=parsed.books,
            begin="<spch>",
            end="</spch>",
            code_token="<spch{}>",
            layout=parsed.layout if len(parsed.books) > 1 else "flat",
            views=views,
            frames=parsed.frames,
        )
    ]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Tokenizer | None:
    mel = _mel(modality, options)
    if mel is None:
        return None
    from mio.plugins.speech.mel_rvq import MelTokenizer

    return MelTokenizer(mel)


@hookimpl
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    mel = _mel(modality, options)
    if mel is None:
        return None
    from mio.plugins.speech.mel_rvq import MelDetokenizer

    return MelDetokenizer(mel)


@hookimpl
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    if modality != "speech":
        return None
    from mio.plugins.speech import files

    longest = _parsed(options).max_seconds
    return DataModule(
        read=partial(files.read, max_seconds=longest),
        suffixes=files.SUFFIXES,
        templates=TEMPLATES,
        filters={"max_seconds": partial(files.max_seconds, default=longest)},
    )
