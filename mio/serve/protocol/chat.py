"""Body of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from mio.serve.protocol.fields import TOOLS, UNSAMPLED, Neutral, Strict, TextSampling, Tokens, within

AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"]


class Url(Strict):
    """Media in the request: a data URL, or a file of the folder that the operator allows."""

    unused = frozenset({"detail"})

    url: str


class InputAudio(Strict):
    """Sound in base64. What format it has is seen from its content."""

    unused = frozenset({"format"})

    data: str


class File(Strict):
    neutral: ClassVar[Neutral] = {"file_id": ("files are not kept here, give `file_data`", ())}

    file_data: str
    """A data URL, or base64."""
    filename: str
    """Its ending says of which modality it is."""


class Part(Strict):
    """A piece of a message."""

    unused = frozenset({"index", "cache_control", "prompt_cache_breakpoint"})

    type: Literal["text", "image_url", "input_audio", "audio_url", "video_url", "file", "refusal"]
    text: str | None = None
    image_url: Url | None = None
    input_audio: InputAudio | None = None
    audio_url: Url | None = None
    video_url: Url | None = None
    file: File | None = None
    refusal: str | None = None
    modality: str | None = None
    """Which of several modalities of this kind it is, by its name in the run."""

    @model_validator(mode="after")
    def _has_its_content(self) -> Part:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type `{self.type}` needs the field `{self.type}`")
        return self


class PastAudio(Strict):
    """Sound of an earlier answer, by the name that it was given."""

    unused = frozenset({"data", "expires_at", "transcript"})

    id: str


def _listed(value: Any) -> Any:
    """A text is the one part of its message."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[Part], Field(fail_fast=True)]


class Place(Strict):
    """What an answer said at a place: text, a control token, or the next of its media of a kind."""

    unused = frozenset({"index", "id"})

    type: str
    text: str | None = None
    name: str | None = None


class Message(Strict):
    unused = frozenset({"name", "refusal", "annotations", "silent", "reasoning_content"})
    neutral: ClassVar[Neutral] = {
        "tool_calls": (TOOLS, ([],)),
        "function_call": (TOOLS, ()),
        "tool_call_id": (TOOLS, ()),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Parts | None, BeforeValidator(_listed)] = None
    audio: PastAudio | None = None
    """Of an answer: sound that the model gave."""
    images: Parts | None = None
    videos: Parts | None = None
    files: Parts | None = None
    """Of an answer: media as the server gave them."""
    parts: Annotated[list[Place], Field(fail_fast=True)] | None = None
    """Of an answer: what it consists of, in order."""


class AudioOut(Strict):
    """Sound of an answer. The run's own voice is the only one."""

    unused = frozenset({"voice"})

    format: AudioFormat = "wav"


class ResponseFormat(Strict):
    type: Literal["text"]


class ChatRequest(TextSampling):
    unused = frozenset({"parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"})
    neutral: ClassVar[Neutral] = {
        "logprobs": ("log-probabilities are not given", (False,)),
        "top_logprobs": ("log-probabilities are not given", (0,)),
        "tools": (TOOLS, ([],)),
        "tool_choice": (TOOLS, ("none", "auto")),
        "functions": (TOOLS, ([],)),
        "function_call": (TOOLS, ("none", "auto")),
        "web_search_options": (UNSAMPLED, ()),
        "prediction": (UNSAMPLED, ()),
        "moderation": (UNSAMPLED, ()),
        "store": ("answers are not stored", (False,)),
        "reasoning_effort": ("this model does not reason before it answers", ("none",)),
        "verbosity": (UNSAMPLED, ("medium",)),
    }

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Tokens | None = None
    modalities: Annotated[list[str], Field(min_length=1, max_length=16, fail_fast=True)] | None = None
    """Kinds of content that the answer may have; without it, whatever the model says."""
    audio: AudioOut | None = None
    most: Annotated[int, within("most")] | None = None
    """Media of each modality, at most; 0: any number."""
    response_format: ResponseFormat | None = None
