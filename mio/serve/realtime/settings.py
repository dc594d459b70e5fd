"""What a run offers to realtime conversations, and what a client chooses of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mio.core.contract.sessions import ALL, MODEL, Segmenter, SessionPolicy, Stream, TurnDetection
from mio.core.contract.values import TEXT, Decoding
from mio.core.errors import UserError
from mio.core.generation.defaults import decoding_for
from mio.core.generation.model import Model
from mio.core.live.policy import policy_of
from mio.serve.abilities import Abilities
from mio.serve.conversations import check_characters
from mio.serve.errors import unsupported
from mio.serve.realtime.answers import Manner
from mio.serve.realtime.audio import segmenter_fails
from mio.serve.realtime.items import identifier
from mio.serve.realtime.protocol import PCM, AudioInput, AudioOutput, ResponseSettings, SessionSettings
from mio.serve.realtime.responses import Form
from mio.serve.receiving import AUDIO
from mio.serve.service import Service

_HISTORY = 1000
"""Earlier questions that a run without a policy is told of: as many as the context holds."""
_FIELD = "session.audio.input.turn_detection"


@dataclass(frozen=True)
class Ground:
    """What a run offers."""

    policy: SessionPolicy
    own: bool
    """Whether a plugin of the run says how conversations go."""
    listens: str
    """Modality in which sound is read; empty: none is."""
    writes: str
    """Modality of sound that answers are made of where sound is wanted; empty: what the policy says."""
    sounds: bool
    """Whether answers can be sound."""
    stream: Stream | None
    """Whose segmenters hear when something is said."""
    deaf: str
    """Why they cannot; empty if they can."""

    @classmethod
    def of(cls, model: Model, abilities: Abilities) -> Ground:
        """By the policy of the run's plugins. Without one, all is answered that the model does not call silent, and
        voice activity is that of a policy that is installed. Raises `UserError` for options that a plugin refuses."""
        reads, writes = (abilities.of_type(AUDIO, names) for names in (abilities.reads, abilities.writes))
        answer = model.plugins.session({}, "")
        own = answer is not None
        answers = MODEL if model.vocabulary.controls.tokens else ALL
        usual = SessionPolicy(answers=answers, history=_HISTORY, older_media=True, seconds=_seconds)
        policy = answer[1] if answer is not None else usual
        stream = policy.stream if own else _installed_stream(model)
        if stream is not None and stream.modality not in reads:
            stream = None
        listens = stream.modality if stream is not None else next(iter(reads), "")
        deaf = "this run has no voice activity; commit what was said" if stream is None else ""
        if stream is not None:
            deaf = segmenter_fails(stream.segmenter)
        return cls(policy, own, listens, "" if own or not writes else writes[0], bool(policy.speaks or writes),
                   stream, deaf)  # fmt: skip

    def decoding(self, model: Model, output: str) -> Decoding:
        """How answers in a modality are decoded: as the policy says, or, without one, the run's recipe."""
        return self.policy.decoding if self.own else decoding_for(model.recipe, output, beams=1)


def _installed_stream(model: Model) -> Stream | None:
    """What hears utterances in a run without a policy: that of an installed plugin for a modality of the run."""
    for name, one in model.plugins.manager.candidates.items():
        if not one.problem and "mio_session" in one.hooks:
            try:
                stream = policy_of(model, name, {"answers": ALL}).stream
            except UserError:
                continue
            if stream is not None and stream.modality in model.codecs.modalities:
                return stream
    return None


def _seconds(modality: str, content: Any) -> float:  # noqa: ARG001
    """How long sound plays."""
    if isinstance(content, tuple) and len(content) == 2:
        return len(content[0]) / float(content[1])
    return 0.0


@dataclass(frozen=True)
class Turns:
    """Voice activity as a client has it."""

    threshold: float | None
    prefix_padding_ms: int | None
    silence_duration_ms: int | None
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None

    @classmethod
    def of(cls, detection: TurnDetection | None) -> Turns:
        if detection is None:
            return cls(None, None, None)
        return cls(detection.threshold, round(1000 * detection.padding), round(1000 * detection.silence))

    def wire(self) -> dict[str, Any]:
        return {"type": "server_vad", **self.__dict__}


class Choices:
    """What a client chose, as `session.created` and `session.updated` tell it."""

    def __init__(self, ground: Ground, service: Service, system: str, lasts: float) -> None:
        self._ground, self._system = ground, system
        self._model, self._most = service.settings.name, service.settings.limits.max_tokens
        self._characters = service.characters
        self._id, self._expires = identifier("sess"), int(time.time() + lasts)
        self.manner = Manner(Form(AUDIO if ground.sounds else TEXT))
        stream = ground.stream
        self.turns = Turns.of(stream.detection) if ground.own and stream is not None and not ground.deaf else None

    def update(self, settings: SessionSettings) -> None:
        """Takes what a client wants to change: all of it, or nothing. Raises `ApiError`."""
        if settings.model is not None and settings.model != self._model:
            raise unsupported("session.model", f"`session.model`: this server has `{self._model}` alone")
        form, audio, turns = self.manner.form, settings.audio, self.turns
        if settings.output_modalities is not None:
            form = replace(form, modality=self.modality(settings.output_modalities[0], "session.output_modalities"))
        if settings.max_output_tokens is not None:
            most = self.most(settings.max_output_tokens, "session.max_output_tokens")
            form = replace(form, max_output_tokens=most)
        if audio is not None and audio.output is not None:
            form = replace(form, voice=voice_of(audio.output) or form.voice)
        if audio is not None and audio.input is not None and "turn_detection" in audio.input.model_fields_set:
            turns = self._turns(audio.input)
        check_characters(len(settings.instructions or ""), self._characters, "session.instructions")
        instructions = self.manner.instructions if settings.instructions is None else settings.instructions
        self.turns = turns
        self.manner = Manner(form, instructions, turns is None or turns.create_response,
                             turns is None or turns.interrupt_response)  # fmt: skip

    def modality(self, wanted: str, param: str) -> str:
        """Raises `ApiError` for sound from a run that makes none."""
        if wanted == AUDIO and not self._ground.sounds:
            raise unsupported(param, f'`{param}`: answers of this run are text; give ["text"]')
        return wanted

    def most(self, wanted: int | str, param: str) -> int | str:
        """Raises `ApiError` for too many tokens."""
        if wanted != "inf" and int(wanted) > self._most:
            raise unsupported(param, f"`{param}`: answers have at most {self._most} tokens here")
        return wanted

    def _turns(self, audio: AudioInput) -> Turns | None:
        if audio.turn_detection is None:
            return None
        if self._ground.deaf:
            raise unsupported(_FIELD, f"`{_FIELD}`: {self._ground.deaf}; give null")
        assert self._ground.stream is not None
        before = self.turns or Turns.of(self._ground.stream.detection)
        given = {name: getattr(audio.turn_detection, name) for name in audio.turn_detection.model_fields_set - {"type"}}
        given = {name: value for name, value in given.items() if value is not None or name == "idle_timeout_ms"}
        after = replace(before, **given)
        if self._ground.stream.detect is None:
            for name in ("threshold", "prefix_padding_ms", "silence_duration_ms"):
                if getattr(after, name) != getattr(before, name):
                    raise unsupported(
                        f"{_FIELD}.{name}", f"`{_FIELD}.{name}`: the voice activity of this run cannot be set"
                    )
        return after

    def check(self, settings: ResponseSettings) -> None:
        """Raises `ApiError` for what a response of this run cannot be."""
        check_characters(len(settings.instructions or ""), self._characters, "response.instructions")
        if settings.output_modalities is not None:
            self.modality(settings.output_modalities[0], "response.output_modalities")
        if settings.max_output_tokens is not None:
            self.most(settings.max_output_tokens, "response.max_output_tokens")

    @property
    def segmenter(self) -> Callable[[], Segmenter] | None:
        """What makes segmenters as they were chosen; None: the client commits."""
        turns, stream = self.turns, self._ground.stream
        if turns is None or stream is None:
            return None
        detect = stream.detect
        if detect is None or turns.threshold is None:
            return stream.segmenter
        chosen = TurnDetection(threshold=turns.threshold, silence=(turns.silence_duration_ms or 0) / 1000,
                               padding=(turns.prefix_padding_ms or 0) / 1000)  # fmt: skip
        return lambda: detect(chosen)

    def wire(self) -> dict[str, Any]:
        """As clients are told of it."""
        form, instructions = self.manner.form, self.manner.instructions
        return {
            "type": "realtime", "object": "realtime.session", "id": self._id, "model": self._model,
            "expires_at": self._expires, "output_modalities": [form.modality],
            "instructions": self._system if instructions is None else instructions,
            "max_output_tokens": form.max_output_tokens, "tools": [], "tool_choice": "auto", "truncation": "auto",
            "audio": {
                "input": {"format": dict(PCM), "transcription": None, "noise_reduction": None,
                          "turn_detection": None if self.turns is None else self.turns.wire()},
                "output": {"format": dict(PCM), "voice": form.voice, "speed": 1.0},
            },
        }  # fmt: skip


def voice_of(output: AudioOutput) -> Any:
    """A voice as it was given: the run's own is the only one."""
    return output.voice if output.voice is None or isinstance(output.voice, str) else output.voice.model_dump()
