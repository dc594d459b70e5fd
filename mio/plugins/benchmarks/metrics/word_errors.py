"""Word error rate of transcriptions in English, by `jiwer`, after the normaliser of Whisper (arXiv 2212.04356,
appendix C), which MIO's evaluation uses (arXiv 2409.17692 v4, 3.3).

The normaliser is that of the package `whisper-normalizer`, which has Whisper's own code and spellings; the one in
transformers needs a checkpoint's file of spellings.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from mio import UserError


def word_errors(said: str, wanted: str) -> tuple[int, int]:
    """Errors (words replaced, left out and put in, at least) and words of `wanted`, both texts normalised.

    Raises `UserError` where the packages are not installed.
    """
    import jiwer

    wanted, said = normalised(wanted), normalised(said)
    if not wanted:
        return len(said.split()), 0
    counts = jiwer.process_words(wanted, said)
    return counts.substitutions + counts.deletions + counts.insertions, len(wanted.split())


def normalised(text: str) -> str:
    """Text as Whisper's English normaliser has it."""
    return str(_normaliser()(text))


@cache
def _normaliser() -> Any:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise UserError(
            "plugins.benchmarks: word error rates need Whisper's normaliser: pip install 'mio[benchmarks]'"
        ) from None
    return EnglishTextNormalizer()
