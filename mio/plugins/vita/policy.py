"""VITA's live conversation: its options as what the engine asks for."""

from __future__ import annotations

from dataclasses import replace

from mio import Decoding, SessionPolicy, Stream, TurnDetection
from mio.plugins.vita.session import SessionOptions, VoiceOptions
from mio.plugins.vita.voice_activity import VoiceSegmenter, open_sound, sound_seconds


def policy(chosen: SessionOptions) -> SessionPolicy:
    """The policy of a conversation with these options."""
    return SessionPolicy(
        stream=_stream(chosen.modality, chosen.voice),
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


def _stream(modality: str, voice: VoiceOptions) -> Stream:
    return Stream(
        modality=modality,
        segmenter=lambda: VoiceSegmenter(voice),
        open=open_sound,
        detection=TurnDetection(threshold=voice.threshold, silence=voice.silence, padding=voice.padding),
        detect=lambda chosen: VoiceSegmenter(
            replace(voice, threshold=chosen.threshold, silence=chosen.silence, padding=chosen.padding)
        ),
    )
