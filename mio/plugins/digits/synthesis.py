"""Says words of the digits world: the synthesiser of answers that are spoken, made of clips."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mio import DataError
from mio.plugins.digits.voices import clips, question_clips
from mio.plugins.digits.world import GAP, OWN_VOICE

_WORD = re.compile(r"[^\W_]+")


class ClipSynthesiser:
    """A `mio.Synthesiser`: words in the voice in which the model answers aloud, with short silences between."""

    def __init__(self) -> None:
        voice, take = OWN_VOICE
        known = (*question_clips("train"), *clips("train"))
        self._clips = {clip.word: clip for clip in known if (clip.voice, clip.take) == (voice, take)}
        self._rate = next(iter(self._clips.values())).rate

    def say(self, text: str) -> tuple[npt.NDArray[np.float32], int] | None:
        """Samples float32 `[T]` in [-1, 1] and their rate. Raises `DataError` for a word that there is no clip of."""
        words = _WORD.findall(text.lower())
        if not words:
            return None
        if unknown := [word for word in words if word not in self._clips]:
            raise DataError(f"the digits world has no clip of the word `{unknown[0]}`: {text.strip()!r} is not said")
        silence = np.zeros(round(GAP * self._rate), np.float32)
        pieces = [piece for word in words for piece in (self._clips[word].samples, silence)]
        return np.concatenate(pieces), self._rate

    def save(self, sound: tuple[npt.NDArray[np.float32], int], stem: Path) -> Path:
        """Writes `stem` plus `.wav` as 16-bit PCM."""
        import soundfile

        path = stem.with_name(f"{stem.name}.wav")
        soundfile.write(path, *sound, subtype="PCM_16")
        return path
