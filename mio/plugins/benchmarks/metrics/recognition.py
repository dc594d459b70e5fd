"""What a speech recogniser hears: a checkpoint of transformers from a local folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mio import DataError
from mio.plugins.benchmarks.metrics.checkpoints import loaded

_WINDOW = 30
_WHISPER = "seq2seq_whisper"


class Recogniser:
    """Whisper, or any other network that transformers has a pipeline of recognition for."""

    def __init__(self, folder: Path) -> None:
        """Raises `UserError` if the folder holds no such network or transformers is not installed."""

        def load() -> Any:
            from transformers import pipeline

            if not folder.is_dir():  # a name would be looked up on the Hub
                raise FileNotFoundError("no such folder")
            return pipeline("automatic-speech-recognition", model=str(folder), trust_remote_code=False)

        self._pipeline = loaded("recogniser", folder, load)
        settings = getattr(self._pipeline.model, "generation_config", None)
        several = getattr(settings, "is_multilingual", False)
        self._asked = {"generate_kwargs": {"language": "english", "task": "transcribe"}} if several else {}

    @classmethod
    @cache
    def of(cls, folder: str) -> Recogniser:
        """Loaded once per process."""
        return cls(Path(folder).expanduser())

    def heard(self, sound: tuple[Any, int]) -> str:
        """The words of samples `[T]` or `[T, C]` with their rate. Raises `DataError` for no samples."""
        samples, rate = sound
        wave = np.asarray(samples)
        if np.issubdtype(wave.dtype, np.integer):
            wave = wave / (float(np.iinfo(wave.dtype).max) + 1)
        wave = wave.astype(np.float32)
        wave = wave.mean(axis=1) if wave.ndim == 2 else wave
        if not len(wave):
            raise DataError("what is said holds no samples")
        # Whisper's window is 30 s; it takes longer sound apart by the times that it tells
        timed = {"return_timestamps": True} if len(wave) > _WINDOW * rate and self._pipeline.type == _WHISPER else {}
        return str(self._pipeline({"raw": wave, "sampling_rate": int(rate)}, **self._asked, **timed)["text"])
