"""What bodies of requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mio.core.contract.ranges import range_of
from mio.core.contract.values import Decoding
from mio.serve.errors import unsupported


def listed(value: Any) -> Any:
    """A text by itself is a list of one."""
    return [value] if isinstance(value, str) else value


def within(name: str) -> Any:
    """The range of a field of `mio.Decoding`."""
    allowed = range_of(Decoding, name)
    return Field(ge=allowed.least, le=allowed.most)


StopString = Annotated[str, Field(min_length=1, max_length=256)]
"""Fewer and shorter ones than `mio.Decoding` has: every token is compared with all beginnings of each, while the
answers of others wait."""
Tokens = Annotated[int, within("max_tokens")]
"""Of an answer. The operator's own limit is `Limits.max_tokens`."""
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]

UNSAMPLED = "this server does not support it"
Neutral = Mapping[str, tuple[str, tuple[Any, ...]]]
"""Fields that cannot be met: why, and their values that ask for nothing."""

TOOLS = "tools are not supported"


class Strict(BaseModel):
    """An object of a request: unknown fields are refused, and numbers are no strings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    unused: ClassVar[frozenset[str]] = frozenset()
    """Fields that are taken and change nothing."""
    neutral: ClassVar[Neutral] = {}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        for name, (why, values) in cls._gathered("neutral").items():
            given = content.get(name)
            if given is not None and not any(given == one and type(given) is type(one) for one in values):
                told = " or ".join(repr(one) for one in values)
                raise unsupported(name, f"`{name}`: {why}; leave it out" + (f", or give {told}" if told else ""))
        dropped = {*cls._gathered("neutral"), *cls._gathered("unused")}
        return {name: value for name, value in content.items() if name not in dropped}

    @classmethod
    def _gathered(cls, name: str) -> dict[str, Any]:
        """An attribute of this class and those that it extends."""
        gathered: dict[str, Any] = {}
        for one in reversed(cls.__mro__):
            gathered |= dict.fromkeys(found) if isinstance(found := vars(one).get(name, {}), frozenset) else found
        return gathered


class Sampling(Strict):
    """How an answer is sampled. What is not given is the run's own default."""

    unused = frozenset({"user", "metadata", "safety_identifier", "service_tier"})

    model: str | None = None
    seed: Seed | None = None
    """The same seed gives the same answer; without one, another each time."""
    media_temperature: Annotated[float, within("media_temperature")] | None = None
    """Temperature inside spans of media."""
    by: Annotated[dict[str, dict[str, float | int]], Field(max_length=64)] | None = None
    """What is different for some modalities: `{MODALITY: {"temperature": 1}}`."""
    guidance: Annotated[float, within("guidance")] | None = None
    """Weight of classifier-free guidance."""
    steps: Annotated[int, within("steps")] | None = None
    """Of a head that makes media."""
    max_tokens: Tokens | None = None


class StreamOptions(Strict):
    unused = frozenset({"include_obfuscation"})
    neutral: ClassVar[Neutral] = {"continuous_usage_stats": (UNSAMPLED, (False,))}

    include_usage: bool | None = None


class TextSampling(Sampling):
    """Sampling of answers with text."""

    neutral: ClassVar[Neutral] = {
        "frequency_penalty": ("of penalties there is `repetition_penalty` alone", (0, 0.0)),
        "presence_penalty": ("of penalties there is `repetition_penalty` alone", (0, 0.0)),
        "logit_bias": (UNSAMPLED, ({},)),
    }

    temperature: Annotated[float, within("temperature")] | None = None
    top_p: Annotated[float, within("top_p")] | None = None
    top_k: Annotated[int, Field(ge=-1, le=range_of(Decoding, "top_k").most)] | None = None
    """Of so many likeliest tokens; 0 and, as vLLM has it, -1: of all."""
    min_p: Annotated[float, within("min_p")] | None = None
    repetition_penalty: Annotated[float, within("repetition_penalty")] | None = None
    n: Positive | None = None
    stop: Annotated[list[StopString] | None, Field(max_length=16, fail_fast=True), BeforeValidator(listed)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
