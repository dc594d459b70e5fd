"""Bodies of `/v1/audio/speech` and `/v1/images/generations`, fields of `/v1/audio/transcriptions`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mio.serve.protocol.fields import UNSAMPLED, Neutral, Sampling, TextSampling

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
ImageFormat = Literal["png", "jpeg", "webp"]


class SpeechRequest(Sampling):
    unused = frozenset({"voice"})
    """The run's own is the only one."""
    neutral: ClassVar[Neutral] = {
        "instructions": ("the run has one voice", ("",)),
        "speed": ("the run has one voice", (1, 1.0)),
    }

    input: Annotated[str, Field(min_length=1)]
    response_format: SpeechFormat | None = None
    stream_format: Literal["sse", "audio"] | None = None
    modality: str | None = None
    """Which of several modalities of sound it is, by its name in the run."""


class ImagesRequest(Sampling):
    unused = frozenset({"moderation"})
    neutral: ClassVar[Neutral] = {
        "response_format": ("pictures are given as base64, not kept under a URL", ("b64_json",)),
        "partial_images": ("a picture is given when it is complete", (0,)),
        "size": ("the run makes pictures of its own size", ("auto",)),
        "quality": ("the run has one quality", ("auto",)),
        "background": (UNSAMPLED, ("auto", "opaque")),
        **dict.fromkeys(("complexity", "style", "frame_count", "frame_duration_ms", "svg"), (UNSAMPLED, ())),
    }

    prompt: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1)] | None = None
    output_format: ImageFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    stream: bool | None = None
    modality: str | None = None
    """Which of several modalities of pictures it is, by its name in the run."""

    @model_validator(mode="after")
    def _png_is_exact(self) -> ImagesRequest:
        if self.output_compression is not None and self.output_format not in ("jpeg", "webp"):
            raise ValueError("`output_compression` is for `output_format` jpeg and webp")
        return self


class TranscriptionRequest(TextSampling):
    """The fields beside `file`, of which a form has texts. What language it is, is heard."""

    unused = frozenset({"languages"})
    neutral: ClassVar[Neutral] = {
        "prompt": ("the run's own prompt is used", ("",)),
        "timestamp_granularities": ("there are no timestamps", ([],)),
        "include": (UNSAMPLED, ([],)),
        "chunking_strategy": (UNSAMPLED, ("auto",)),
        **dict.fromkeys(("keywords", "known_speaker_names", "known_speaker_references"), (UNSAMPLED, ([],))),
    }

    response_format: Literal["json", "text", "verbose_json"] | None = None
    language: Annotated[str, Field(max_length=32)] | None = None
    """Told again in `verbose_json`."""
    modality: str | None = None
    """Which of several modalities of sound it is, by its name in the run."""
