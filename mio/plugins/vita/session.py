"""Options of VITA's live conversation: what is heard, asked, and said aloud. Defaults are those of its demo
(`web_demo/` of its repository)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mio import number, one_of


@dataclass(frozen=True, kw_only=True)
class VoiceOptions:
    """How utterances are found in a stream of sound (`web_demo/wakeup_and_vad`)."""

    detector: str = one_of("silero", "silero", "energy")
    """`silero`: the network of `silero-vad` (extra `vita`); `energy`: all that is louder than `level`."""
    threshold: float = number(0.7, 0, 1, above=True)
    """Probability from which 32 ms of sound count as speech."""
    level: float = number(-40.0, -120, 0)
    """For `energy`: root mean square, in decibels of full scale, from which they do."""
    silence: float = number(0.5, 0.032, 60)
    """Seconds of silence that end an utterance."""
    shortest: float = number(1.5, 0, 3600)
    """Utterances with less speech than this, in seconds, are ignored."""
    longest: float = number(15.0, 0.1, 3600)
    """Seconds of speech after which an utterance is cut and goes on as another."""
    padding: float = number(0.1, 0, 2)
    """Seconds before and after the speech that belong to an utterance."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options of a conversation, under `session`. Those of one name with `mio.SessionPolicy` mean the same."""

    modality: str = "speech"
    """Modality of the utterances."""
    voice: VoiceOptions = field(default_factory=VoiceOptions)
    answers: str = one_of("model", "model", "all")
    history: int = number(1, 0, 1000)
    older_media: bool = False
    control_in_history: bool = True
    """VITA's demo takes the control tokens out of earlier answers; documents of several turns have them in training."""
    shown_stays: bool = True
    output: str = ""
    speaks: str = ""
    temperature: float = number(0.0, 0, 100)
    media_temperature: float = number(0.7, 0, 100)
    top_p: float = number(1.0, 0, 1)
    max_tokens: int = number(256, 1, 1 << 20)
    """These four: `mio.Decoding`."""
