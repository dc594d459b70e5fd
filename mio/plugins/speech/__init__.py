"""Speech as spans of codes: SpeechTokenizer as MIO and AnyGPT use it, and a small mel codec that trains in seconds.

Options under `plugins: {speech: {...}}`, each described in `options.py`:

    tokenizer: speechtokenizer   # MIO: 4 codebooks of 1024, 50 frames a second; needs weights, see `PretrainedOptions`
    tokenizer: mel_rvq           # `codebooks` codebooks of `codebook_size`, 50 frames a second; see `MelOptions`
    max_seconds, too_long, layout, views, tokens   # of both, see `SpeechOptions`
    tokenizer: none              # no codes: speech is read by another plugin's encoder (`audio_tower`), never written

The first codebook holds the content, what is said; the others refine how it sounds. Speech that is read carries the
first alone, speech that is written carries all.

Media data: tuples `(samples, rate)`, samples float `[T]` or `[T, C]` in [-1, 1] or signed integers, rate in hertz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import DataModule, Modality, Template, UserError, hookimpl, media
from mio.plugins.speech.options import TOKENS, MelOptions, UncodedOptions, parsed

if TYPE_CHECKING:
    from mio import Detokenizer, Tokenizer

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


@hookimpl
def mio_modalities(options: Mapping[str, Any]) -> Sequence[Modality]:
    chosen = parsed(options)
    if isinstance(chosen, UncodedOptions):
        begin, end = chosen.borders
        return [Modality(name="speech", begin=begin, end=end)]
    begin, end, code_token = TOKENS[chosen.tokens]
    return [
        Modality(
            name="speech",
            codebooks=chosen.books,
            begin=begin,
            end=end,
            code_token=code_token,
            layout=chosen.layout if len(chosen.books) > 1 else "flat",
            views={"understand": (0,), **{name: tuple(books) for name, books in chosen.views.items()}},
            frames=chosen.frames,
        )
    ]


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint", "weights", "config"]


@hookimpl
def mio_tokenizer(modality: str, options: Mapping[str, Any]) -> Tokenizer | None:
    if modality != "speech":
        return None
    chosen = parsed(options)
    if isinstance(chosen, UncodedOptions):
        return None
    if isinstance(chosen, MelOptions):
        from mio.plugins.speech.mel_rvq import MelTokenizer

        return MelTokenizer(chosen)
    from mio.plugins.speech.speechtokenizer import PretrainedTokenizer

    return PretrainedTokenizer(chosen)


@hookimpl
def mio_detokenizer(modality: str, options: Mapping[str, Any]) -> Detokenizer | None:
    if modality != "speech":
        return None
    chosen = parsed(options)
    if isinstance(chosen, UncodedOptions):
        return None
    written = tuple(chosen.views.get("generate", ()))
    if written != tuple(range(len(written))):
        raise UserError(
            f"plugins.speech: `views` writes the codebooks {list(written)}; each refines those before it, so speech "
            "can only be made of the first ones, in order"
        )
    if isinstance(chosen, MelOptions):
        from mio.plugins.speech.mel_rvq import MelDetokenizer

        return MelDetokenizer(chosen)
    from mio.plugins.speech.speechtokenizer import PretrainedDetokenizer

    return PretrainedDetokenizer(chosen)


@hookimpl
def mio_datamodule(modality: str, options: Mapping[str, Any]) -> DataModule | None:
    if modality != "speech":
        return None
    chosen = parsed(options)
    sounds = chosen.sounds
    templates: Mapping[str, tuple[Template, ...]] = TEMPLATES
    if isinstance(chosen, UncodedOptions):
        templates = {
            name: tuple(one for one in templates if "{speech}" not in one.response)
            for name, templates in TEMPLATES.items()
        }
    return DataModule(
        read=sounds.read,
        in_memory=True,
        probe=sounds.probe,
        suffixes=media.SOUND_SUFFIXES,
        names=("audio",),
        media_type="audio",
        templates=templates,
        filters={"max_seconds": sounds.filter},
    )
