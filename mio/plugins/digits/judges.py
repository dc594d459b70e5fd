"""Judges of the digits world: what does a picture show, what does a recording say?

Both are trained on real training media and small variations of them, never on the output of a codec or model: the one
of pictures once per process, the one of speech once and for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mio import Answer, DataError, Media, Record
from mio.plugins.digits import scans
from mio.plugins.digits.voices import DIGITS

if TYPE_CHECKING:
    from sklearn.svm import SVC

    from mio import RoundTrip


def see(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[int]:
    """Digit that each picture (uint8 `[H, W]` or `[H, W, 3]`, any size) shows. Raises `DataError` for other arrays."""
    if not pictures:
        return []
    return [int(digit) for digit in _picture_judge().predict(np.stack([_features(picture) for picture in pictures]))]


def hear(recordings: Sequence[tuple[npt.NDArray[np.float32], int]]) -> list[int]:
    """Digit that each recording (samples float32 `[T]`, rate) says. Raises `DataError` for anything but sound."""
    from mio.plugins.digits.speech_judge import SpeechJudge

    return SpeechJudge.trained().classify(list(recordings)) if recordings else []


VARIANTS = 8
"""Variants of each real scan that the picture judge learns from; without shifts it would misread shifted digits."""


def _features(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    grid = picture.shape[:2] if picture.ndim == 2 or picture.shape[2:] == (3,) else (0, 0)
    if picture.dtype != np.uint8 or not all(grid):
        raise DataError(f"the picture judge takes uint8 [H, W] or [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    if picture.shape != (scans.SIDE, scans.SIDE):
        from PIL import Image

        grey = Image.fromarray(picture).convert("L")
        picture = np.asarray(grey.resize((scans.SIDE, scans.SIDE), Image.Resampling.BOX))
    return picture.reshape(-1) / 255.0


@cache
def _picture_judge() -> SVC:
    from sklearn.svm import SVC

    digits = scans.scans()[1]
    train = [(index, variant) for index in scans.indices("train") for variant in range(VARIANTS)]
    pixels = np.stack([scans.vary(index, variant) for index, variant in train])
    # scikit-learn's own example for these scans takes gamma 0.001 on their levels 0 to 16; here they run from 0 to 1
    judge = SVC(gamma=0.001 * 16**2, C=10.0, random_state=0)
    return judge.fit(pixels.reshape(len(train), -1) / 255.0, digits[[index for index, _ in train]])


# ---- answers


def media_of(answer: Answer, modality: str) -> list[Any]:
    """Media of an answer, frame by frame: a video's frames count as images."""
    if modality != "image":
        return answer.media(modality)
    frames = [frame for video in answer.media("video") for frame in video]
    return frames or answer.media("image")


def shows(answers: Sequence[Answer], expected: Sequence[str], modality: str = "image") -> list[bool]:
    """Whether each answer's media of `modality` are the expected digits: names in order, none missing or too many."""
    shown = [media_of(answer, modality) for answer in answers]
    digits = iter((see if modality == "image" else hear)([item for items in shown for item in items]))
    return [
        " ".join(DIGITS[next(digits)] for _ in items) == names for items, names in zip(shown, expected, strict=True)
    ]


def last_clause(text: str) -> str:
    """The end of a text behind its last colon, in lower case, without a full stop: answers may explain first."""
    return text.rsplit(":", 1)[-1].strip().rstrip(".").lower()


# ---- ceilings


def ceiling(select: Callable[[Record], Sequence[Media]]) -> Callable[[Sequence[Record], RoundTrip], float]:
    """Share of records whose selected media the judges all read right after the codec.

    `select` gives the media that a right answer consists of, and those that must be read to find it.
    """

    def measure(records: Sequence[Record], roundtrip: RoundTrip) -> float:
        chosen = [(number, media) for number, record in enumerate(records) for media in select(record)]
        right = np.ones(len(records), bool)
        for modality, judge in (("image", see), ("speech", hear)):
            some = [(number, media) for number, media in chosen if media.modality == modality]
            digits = judge(roundtrip([media for _, media in some])) if some else []
            for (number, media), digit in zip(some, digits, strict=True):
                right[number] &= DIGITS[digit] == media.label
        return float(right.mean()) if len(records) else 0.0

    return measure


def frames_of(video: Media) -> list[Media]:
    """A video's frames as images, each labelled with its digit."""
    names = video.label.split()
    return [
        Media("image", frame, f"{video.key}/{place}", name)
        for place, (frame, name) in enumerate(zip(video.data, names, strict=True))
    ]
