"""Voice activity: a stream of sound becomes utterances.

Shapes: T samples, C channels. Times are seconds of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mio import DataError, UserError, Utterance, media
from mio.plugins.vita.session import VoiceOptions

Samples = npt.NDArray[np.float32]
Detector = Callable[[Samples], float]
"""How likely it is that a window `[T]` holds speech, from 0 to 1."""

WINDOW = 0.032
"""Seconds that are judged at a time, as `silero-vad` does."""
HYSTERESIS = 0.15
"""Speech goes on until its probability is this much below the threshold: the rule of silero's `VADIterator`."""
CHUNK = 0.1
"""Seconds of a chunk of a file."""
LONGEST_FILE = 4 * 3600.0
"""Seconds of a file that are read."""
DETECTION_RATES = (8000, 16000)
"""Samples per second that `silero-vad` takes."""


class VoiceSegmenter:
    """A `mio.Segmenter` of chunks `(samples, rate)`: samples float `[T]` or `[T, C]` in [-1, 1] or signed integers."""

    def __init__(self, options: VoiceOptions) -> None:
        self._options = options
        self._detect: Detector | None = None
        self._begin()

    def _begin(self) -> None:
        self._rate = 0
        self._kept: Samples = np.zeros(0, np.float32)
        self._first = 0
        """Place in the stream of the first kept sample."""
        self._window = 0
        """Windows judged so far."""
        self._onset: float | None = None
        """Where the speech began that is not over yet."""
        self._quiet: float | None = None
        """Where the silence began that may end it."""
        self._free = 0.0
        """Where the last utterance ended: no other reaches back behind it."""

    @property
    def onset(self) -> float | None:
        """Where the speech began that is not over yet, in seconds of the stream."""
        return self._onset

    def push(self, chunk: Any) -> list[Utterance]:
        """Raises `DataError` for what is no sound, and where the rate changes within the stream."""
        samples, rate = _mono(chunk)
        if self._rate and rate != self._rate:
            raise DataError(f"the stream of sound began with {self._rate} samples a second and goes on with {rate}")
        if not self._rate:
            self._rate, self._detect = rate, _detector(self._options, rate)
        self._kept = np.concatenate((self._kept, samples))
        found = []
        while (end := self._place(self._window + 1)) <= self._first + len(self._kept):
            found += self._judge(self._cut(self._place(self._window), end))
            self._window += 1
        if self._onset is None:
            self._forget(self._window * WINDOW - self._options.padding)
        return found

    def close(self) -> list[Utterance]:
        found = []
        if self._onset is not None:
            end = (self._first + len(self._kept)) / self._rate
            found = [self._utterance(self._onset, end if self._quiet is None else self._quiet, end)]
        self._begin()
        return found

    def _place(self, window: int) -> int:
        """Number of the sample with which a window begins."""
        return round(window * WINDOW * self._rate)

    def _cut(self, begin: int, end: int) -> Samples:
        return self._kept[max(begin - self._first, 0) : max(end - self._first, 0)]

    def _judge(self, window: Samples) -> list[Utterance]:
        """Takes one window into account; the utterance that it ends, if any."""
        chosen, begin, end = self._options, self._window * WINDOW, (self._window + 1) * WINDOW
        assert self._detect is not None
        speech = self._detect(window)
        if speech >= chosen.threshold:
            self._quiet = None
            if self._onset is None:
                self._onset = begin
        elif self._onset is not None and self._quiet is None and speech < chosen.threshold - HYSTERESIS:
            self._quiet = begin
        if self._onset is None:
            return []
        if self._quiet is not None and end - self._quiet >= chosen.silence - 1e-9:
            found = self._utterance(self._onset, self._quiet, end)
            self._onset = self._quiet = None
            return [found]
        if end - self._onset >= chosen.longest:
            found = self._utterance(self._onset, end, end)
            self._onset, self._quiet = end, None
            return [found]
        return []

    def _utterance(self, onset: float, quiet: float, known: float) -> Utterance:
        """The speech from `onset` to `quiet`, with what is around it as far as it is `known`."""
        chosen = self._options
        begin = max(onset - chosen.padding, self._free, self._first / self._rate)
        end = min(quiet + chosen.padding, known)
        self._free = end
        ignored = ""
        if quiet - onset < chosen.shortest:
            ignored = f"{quiet - onset:.2f} s of speech, shorter than {chosen.shortest:g} s"
        samples = self._cut(round(begin * self._rate), round(end * self._rate)).copy()
        return Utterance((samples, self._rate), begin, end, ignored)

    def _forget(self, until: float) -> None:
        """Drops samples before a time."""
        drop = round(until * self._rate) - self._first
        if drop > 0:
            self._kept, self._first = self._kept[drop:].copy(), self._first + drop


def open_sound(path: Path) -> Iterator[tuple[float, tuple[Samples, int]]]:
    """A sound file as chunks, each with the time at which it is over. Raises `DataError` for a file that is damaged or
    not sound."""
    sound = media.read_sound(path, LONGEST_FILE)
    size = max(1, round(CHUNK * sound.rate))
    for start in range(0, len(sound.samples), size):
        chunk = sound.samples[start : start + size]
        yield (start + len(chunk)) / sound.rate, (np.asarray(chunk, np.float32), sound.rate)


def _mono(chunk: Any) -> tuple[Samples, int]:
    if not isinstance(chunk, tuple | list) or len(chunk) != 2:
        raise DataError("a chunk of sound must be a pair of samples and rate")
    samples, rate = np.asarray(chunk[0]), chunk[1]
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise DataError(f"a chunk of sound must be samples [T] or [T, C], not {samples.dtype} {list(samples.shape)}")
    if not isinstance(rate, int | float | np.number) or not 1000 <= rate <= 768_000 or int(rate) != rate:
        raise DataError(f"the rate of a chunk of sound must be 1,000 to 768,000 samples a second, not {rate}")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if not np.isfinite(samples).all():
        raise DataError("a chunk of sound holds samples that are not numbers")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    return np.asarray(samples, np.float32), int(rate)


def _detector(options: VoiceOptions, rate: int) -> Detector:
    return _silero(rate) if options.detector == "silero" else _energy(options.level)


def _energy(level: float) -> Detector:
    least = 10 ** (level / 20)
    return lambda window: float(np.sqrt(np.mean(np.square(window, dtype=np.float64))) >= least)


def _silero(rate: int) -> Detector:
    """The network inside the package `silero-vad` (MIT licence), which keeps a state from window to window."""
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad
    except ImportError as error:
        raise UserError(
            "voice activity `silero` needs the package silero-vad: pip install 'mio[vita]', or take "
            "`voice.detector=energy`"
        ) from error
    finally:
        torch.set_num_threads(threads)  # its import sets one thread for the whole process
    network = load_silero_vad()
    heard = rate if rate in DETECTION_RATES else 16000
    size = round(WINDOW * heard)

    def detect(window: Samples) -> float:
        if rate != heard:
            window = _resampled(window, size)
        with torch.inference_mode():
            return float(network(torch.from_numpy(np.ascontiguousarray(window)), heard))

    return detect


def _resampled(window: Samples, size: int) -> Samples:
    """A window at another rate. Each is resampled by itself: its edges matter to no probability of speech."""
    from scipy.signal import resample

    return np.asarray(resample(window, size), np.float32)


def sound_seconds(modality: str, content: Any) -> float:  # noqa: ARG001
    """How long sound plays; nothing for what is none."""
    if isinstance(content, Sequence) and len(content) == 2 and isinstance(content[1], int | np.number):
        return len(content[0]) / float(content[1])
    return 0.0
