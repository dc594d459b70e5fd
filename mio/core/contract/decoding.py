"""What may be said of one modality in `mio.Decoding`, and what no range says of its values. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mio.core.contract.ranges import number

HOTTEST = 100
"""The highest temperature: tokens are about equally likely there."""
MOST_LIKELIEST = 1 << 20
"""Of `top_k`."""
SMALLEST_PENALTY, LARGEST_PENALTY = 0.01, 100
MOST_BEAMS = 64
MOST_STOPS, LONGEST_STOP = 64, 1000
"""Stop strings of one answer, and characters of each."""


@dataclass(frozen=True, kw_only=True)
class ModalityDecoding:
    """How tokens of one modality are chosen. What is not said is as for all others."""

    temperature: float | None = number(None, 0, HOTTEST)
    top_k: int | None = number(None, 0, MOST_LIKELIEST)
    top_p: float | None = number(None, 0, 1)
    min_p: float | None = number(None, 0, 1)
    repetition_penalty: float | None = number(None, SMALLEST_PENALTY, LARGEST_PENALTY)


def decoding_conflicts(stop: Sequence[str], beams: int, temperature: float) -> Iterator[str]:
    """What is wrong with strings that end an answer, and with beams that are to be drawn."""
    if beams > 1 and temperature:
        yield f"`beams` is {beams}: beam search draws nothing; set `temperature` to 0, or `beams` to 1"
    if len(stop) > MOST_STOPS:
        yield f"`stop` has {len(stop)} strings; at most {MOST_STOPS} are possible"
    for one in stop:
        if not one:
            yield "`stop` has an empty string, which would end every answer before it begins; leave it out"
        elif len(one) > LONGEST_STOP:
            yield f"`stop` has a string of {len(one):,} characters; at most {LONGEST_STOP:,} are possible"
