"""Music as spans of codes: EnCodec at 32 kHz (arXiv 2210.13438, as retrained for MusicGen), the codec of AnyGPT.

Four codebooks of 2048 codes, 50 frames a second: 5 seconds are 250 frames and 1,000 tokens. The networks are those of
transformers: `pip install "mio[music]"`. Options under `plugins: {music: {...}}` are the fields of `MusicOptions`.

Media data: tuples `(samples, rate)`, samples float `[T]` or `[T, C]` in [-1, 1] or signed integers, rate in hertz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mio import DataModule, Frames, Modality, Template, UserError, hookimpl, media, number, one_of, read_options

if TYPE_CHECKING:
    from mio import Detokenizer, Tokenizer

FRAME_RATE = 50
"""Frames per second."""
BOOKS = (2048,) * 4

TOKENS = {
    "mio": ("<music>", "</music>", "<music{}>"),
    "anygpt": ("<somu>", "<eomu>", "<\N{MULTIPLE MUSICAL NOTES}{}>"),
}
"""Begin, end and code tokens by convention: as mio names those of other modalities, and as AnyGPT does."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"

TEMPLATES = {
    "music_text": (
        Template(direction="music_to_text", prompt="{music} The description of this music is:", response=" {caption}"),
        Template(direction="text_to_music", prompt="Please generate music of “{caption}”: ", response="{music}"),
    ),
    # for conversations: requests such as those that AnyGPT draws from
    "music_text_sft": (
        Template(direction="music_to_text", prompt="Please describe this music. {music}", response="{caption}"),
        Template(direction="music_to_text", prompt="{music} What does this piece sound like?", response="{caption}"),
        Template(
            direction="text_to_music",
            prompt="Please compose music according to the given description. {caption}",
            response="{music}",
        ),
        Template(direction="text_to_music", prompt="I would like to hear this: {caption}", response="{music}"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class MusicOptions:
    """Options of the plugin."""

    checkpoint: str = ""
    """Folder of facebook/encodec_32khz: `config.json` and `model.safetensors`."""
    max_seconds: float = number(5.0, 1 / FRAME_RATE, 86_400)
    """Longest clip; AnyGPT's."""
    too_long: str = one_of("error", "error", "truncate")
    """Treatment of longer clips: `error` (the record is skipped and counted) or `truncate` (the beginning is kept). The
    filter `music_max_seconds` drops them earlier."""
    layout: str = "frame_major"
    """`frame_major` (AnyGPT), `codebook_major` or `delayed` (MusicGen)."""
    tokens: str = one_of("mio", *TOKENS)
    """Strings of the tokens: `mio` (`<music>`, `</music>`, `<music0>`) or `anygpt` (`<somu>`, `<eomu>`, `<🎶0>`)."""
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda`, `cuda:1`. Data workers can only use `cpu`."""
    dtype: str = one_of("float32", "float32", "bf16", "fp16")
    """Of the networks: `float32`, `bf16` or `fp16`. Codebooks are searched in float32."""

    @property
    def frames(self) -> Frames:
        """Frames that a span may have."""
        return Frames(minimum=1, maximum=self.sounds.most_frames)

    @property
    def sounds(self) -> media.SoundRules:
        """How music is read and converted for the codec."""
        return media.SoundRules(
            name="music",
            frame_rate=FRAME_RATE,
            max_seconds=self.max_seconds,
            truncate=self.too_long == "truncate",
            filter_name="music_max_seconds",
        )

    def files(self) -> tuple[Path, Path]:
        """Paths of configuration and weights. Raises `UserError` that says which is missing and where to get it."""
        get = f"`hf download facebook/encodec_32khz {CONFIG} {WEIGHTS} --local-dir DIR` gets it"
        if not self.checkpoint:
            raise UserError(f"plugins.music: set `checkpoint` to the folder of EnCodec at 32 kHz; {get}")
        folder = Path(self.checkpoint).expanduser()
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise UserError(f"plugins.music: `checkpoint`: no {name} in {folder}; {get}")
        return folder / CONFIG, folder / WEIGHTS


def parsed(options: Mapping[str, Any]) -> MusicOptions:
    """Raises `UserError` for options that are unknown or wrong."""
    return read_options(MusicOptions, options, "plugins.music")


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    chosen = parsed(options)
    begin, end, code_token = TOKENS[chosen.tokens]
    return [
        Modality(
            name="music",
            codebooks=BOOKS,
            begin=begin,
            end=end,
            code_token=code_token,
            layout=chosen.layout,
            frames=chosen.frames,
        )
    ]


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint"]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Tokenizer | None:
    if modality != "music":
        return None
    from mio.plugins.music.encodec import EncodecTokenizer

    return EncodecTokenizer(parsed(options))


@hookimpl
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    if modality != "music":
        return None
    from mio.plugins.music.encodec import EncodecDetokenizer

    return EncodecDetokenizer(parsed(options))


@hookimpl
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    if modality != "music":
        return None
    sounds = parsed(options).sounds
    return DataModule(
        read=sounds.read,
        in_memory=True,
        probe=sounds.probe,
        suffixes=media.SOUND_SUFFIXES,
        media_type="audio",
        templates=TEMPLATES,
        # names of filters are shared by all plugins
        filters={"music_max_seconds": sounds.filter},
    )
