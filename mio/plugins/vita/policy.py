"""VITA's live conversation: its options as what the engine asks for."""

from __future__ import annotations

from mio import Decoding, SessionPolicy, Stream
from mio.plugins.vita.session import SessionOptions
from mio.plugins.vita.voice_activity import VoiceSegmenter, open_sound, sound_seconds


def policy(chosen: SessionOptions) -> SessionPolicy:
    """The policy of a conversation with these options."""
    return SessionPolicy(
        stream=Stream(modality=chosen.modality, segmenter=lambda: VoiceSegmenter(chosen.voice), open=open_sound),
        answers=chosen.answers,
        history=chosen.history,
        older_media=chosen.older_media,
        control_in_history=chosen.control_in_history,
        shown_stays=chosen.shown_stays,
        output=chosen.output,
        speaks=chosen.speaks,
        seconds=sound_seconds,
        decoding=Decoding(
            temperature=chosen.temperature,
            media_temperature=chosen.media_temperature,
            top_p=chosen.top_p,
            max_tokens=chosen.max_tokens,
        ),
    )
