"""Options of the speech tokenizers, each tokenizer's one dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio import Frames, UserError, media, number, one_of, read_options

FRAME_RATE = 50
"""Frames per second of all tokenizers."""

TOKENS = {
    "mio": ("<spch>", "</spch>", "<spch{}>"),
    # U+1F5E3 U+FE0F: the emoji with its variation selector
    "anygpt": ("<sosp>", "<eosp>", "<\N{SPEAKING HEAD IN SILHOUETTE}\N{VARIATION SELECTOR-16}{}>"),
}
"""Begin, end and code tokens by convention: MIO's, and those of AnyGPT (arXiv 2402.12226)."""

CODES = 1024
"""Codes of each level of SpeechTokenizer."""

WEIGHTS = ("SpeechTokenizer.pt", "ckpt.dev")
CONFIG = "config.json"
FOLDERS = ("SpeechTokenizer", "speechtokenizer", "speechtokenizer_hubert_avg")
"""Folders of the checkpoint inside the model repositories of MIO, AnyGPT and SpeechTokenizer itself."""
SOURCE = (
    "`hf download fnlp/SpeechTokenizer --include 'speechtokenizer_hubert_avg/*' --local-dir DIR` gets the one of MIO, "
    "`hf download fnlp/AnyGPT-speech-modules --include 'speechtokenizer/*' --local-dir DIR` that of AnyGPT"
)


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """Options of all speech, with a tokenizer or without."""

    max_seconds: float = number(15.0, 1 / FRAME_RATE, 86_400)
    """Longest speech."""
    too_long: str = one_of("error", "error", "truncate")
    """Treatment of longer items: `error` (the record is skipped and counted; the filter `max_seconds` drops it earlier,
    as MIO does) or `truncate` (its beginning is kept)."""

    @property
    def sounds(self) -> media.SoundRules:
        """How speech is read and converted for tokenizers."""
        return media.SoundRules(
            name="speech",
            frame_rate=FRAME_RATE,
            max_seconds=self.max_seconds,
            truncate=self.too_long == "truncate",
            filter_name="max_seconds",
        )


@dataclass(frozen=True, kw_only=True)
class UncodedOptions(LengthOptions):
    """Options of speech without a tokenizer: an encoder of another plugin reads it, and none is written."""

    tokens: str = one_of("none", "none", *TOKENS)
    """Tokens around speech: `none`, or those of `mio` or `anygpt`."""

    @property
    def borders(self) -> tuple[str, str]:
        """Begin and end token; empty for none."""
        return TOKENS[self.tokens][:2] if self.tokens in TOKENS else ("", "")


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(LengthOptions):
    """Options of every tokenizer."""

    layout: str = "codebook_major"
    """`codebook_major` (MIO), `frame_major` or `delayed`; with one codebook always `flat`."""
    views: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Codebooks of speech that is read (`understand`, default the first) and written (`generate`, default all)."""
    tokens: str = one_of("mio", *TOKENS)
    """Strings of the tokens: `mio` (`<spch>`, `</spch>`, `<spch0>`) or `anygpt` (`<sosp>`, `<eosp>`)."""

    @property
    def frames(self) -> Frames:
        """Frames that a span may have."""
        return Frames(minimum=1, maximum=self.sounds.most_frames)


@dataclass(frozen=True, kw_only=True)
class PretrainedOptions(SpeechOptions):
    """Options of the `speechtokenizer` tokenizer, whose weights are a file."""

    checkpoint: str = ""
    """Folder with `config.json` and `SpeechTokenizer.pt` (MIO) or `ckpt.dev` (AnyGPT), or a model folder that has them
    in `SpeechTokenizer/`, `speechtokenizer/` or `speechtokenizer_hubert_avg/`."""
    weights: str = ""
    """File to use instead of the folder's weights."""
    config: str = ""
    """File to use instead of the `config.json` beside the weights."""
    codebooks: int = number(4, 1, 8)
    """Levels that are kept, of eight: 4 (MIO), 1 (AnyGPT, which leaves the others to a detokenizer of its own)."""
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda`, `cuda:1`. Data workers can only use `cpu`."""
    dtype: str = one_of("float32", "float32", "bf16", "fp16")
    """Of the networks: `float32`, `bf16` or `fp16`. Codebooks are searched in float32."""

    @property
    def books(self) -> tuple[int, ...]:
        """Size of each codebook."""
        return (CODES,) * self.codebooks

    def files(self) -> tuple[Path, Path]:
        """Paths of configuration and weights. Raises `UserError` that says which is missing and where to get it."""
        weights = self._weights()
        config = Path(self.config).expanduser() if self.config else weights.with_name(CONFIG)
        if not config.is_file():
            option = "`config`" if self.config else f"`config` is not given, and beside {weights.name}"
            raise UserError(f"plugins.speech: {option}: {config} is not a file; {SOURCE}")
        return config, weights

    def _weights(self) -> Path:
        if self.weights:
            path = Path(self.weights).expanduser()
            if path.is_file():
                return path
            raise UserError(f"plugins.speech: `weights`: {path} is not a file; {SOURCE}")
        if not self.checkpoint:
            raise UserError(
                f"plugins.speech: tokenizer `speechtokenizer` needs {' or '.join(WEIGHTS)}: set `checkpoint` to its "
                f"folder; {SOURCE}"
            )
        folder = Path(self.checkpoint).expanduser()
        for place in (folder, *(folder / name for name in FOLDERS)):
            for name in WEIGHTS:
                if (place / name).is_file():
                    return place / name
        inside = ", ".join(f"{name}/" for name in FOLDERS)
        raise UserError(f"plugins.speech: no {' or '.join(WEIGHTS)} in {folder} or its {inside}; {SOURCE}")


@dataclass(frozen=True, kw_only=True)
class MelOptions(SpeechOptions):
    """Options of the `mel_rvq` tokenizer."""

    rate: int = number(8000, 4000, 384_000)
    """Samples per second that all speech is resampled to and generated at."""
    codebook_size: int = number(128, 2, 2**20)
    codebooks: int = number(4, 1, 64)

    def __post_init__(self) -> None:
        if self.rate % (4 * FRAME_RATE):
            raise UserError(f"plugins.speech: `rate` is {self.rate}, must be a multiple of {4 * FRAME_RATE}")

    @property
    def books(self) -> tuple[int, ...]:
        """Size of each codebook."""
        return (self.codebook_size,) * self.codebooks


TOKENIZERS: Mapping[str, type[PretrainedOptions | MelOptions | UncodedOptions]] = {
    "speechtokenizer": PretrainedOptions,
    "mel_rvq": MelOptions,
    "none": UncodedOptions,
}


def parsed(options: Mapping[str, Any]) -> PretrainedOptions | MelOptions | UncodedOptions:
    """The options of the tokenizer that they name. Raises `UserError` for an unknown tokenizer or option."""
    rest = dict(options)
    name = rest.pop("tokenizer", "speechtokenizer")
    if not isinstance(name, str) or name not in TOKENIZERS:
        raise UserError(f"plugins.speech: unknown tokenizer `{name}`; known are {', '.join(TOKENIZERS)}")
    return read_options(TOKENIZERS[name], rest, f"plugins.speech: tokenizer `{name}`")
