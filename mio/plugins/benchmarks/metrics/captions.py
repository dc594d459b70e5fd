"""Figures of captions as the COCO evaluation has them (pycocoevalcap 1.2): CIDEr, BLEU and ROUGE-L.

A caption is a tuple of words, see `penn_treebank.words`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]

_ORDERS = 4
"""Lengths of n-grams."""
_SIGMA = 6.0
_TINY, _SMALL = 1e-15, 1e-9
_BETA = 1.2


def cider(answers: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of each answer, from 0 to 10, whose mean is the figure of them all (arXiv 1411.5726; `cider_scorer.py`).

    How much an n-gram weighs hangs on how many items' references have it, so the figures are those of the whole set. Of
    a single item all are 0.
    """
    documents = Counter(
        gram for those in references for gram in {gram for reference in those for gram in _grams(reference)}
    )
    most = math.log(float(len(references))) if references else 0.0
    scores = []
    for answer, those in zip(answers, references, strict=True):
        said = _Weighted(answer, documents, most)
        similar = [said.similarity(_Weighted(reference, documents, most)) for reference in those]
        scores.append(10 * sum(similar) / len(similar))
    return scores


def bleu(answers: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """BLEU-4 of all answers together, from 0 to 1, with the length of the closest reference of each (`bleu_scorer.py`;
    of a single item, the average length, as there)."""
    said, wanted = 0, 0.0
    right, tried = [0] * _ORDERS, [0] * _ORDERS
    for answer, those in zip(answers, references, strict=True):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in those:
            most |= _grams(reference)
        for gram, count in _grams(answer).items():
            right[len(gram) - 1] += min(count, most[gram])
        for order in range(_ORDERS):
            tried[order] += max(0, len(answer) - order)
        said += len(answer)
        lengths = [len(reference) for reference in those]
        wanted += min((abs(length - len(answer)), length) for length in lengths)[1]
        if len(answers) == 1:
            wanted = sum(lengths) / len(lengths)
    precision = math.prod((right[order] + _TINY) / (tried[order] + _SMALL) for order in range(_ORDERS))
    ratio = (said + _TINY) / (wanted + _SMALL)
    return precision ** (1 / _ORDERS) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def rouge(answer: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of an answer, from 0 to 1 (`rouge.py`: the best precision and the best recall over the references)."""
    said = list(answer) or [""]  # as splitting an empty caption gives there
    common = [(_longest_common(reference or [""], said), len(reference) or 1) for reference in references]
    precision = max(length for length, _ in common) / len(said)
    recall = max(length / size for length, size in common)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


class _Weighted:
    """N-grams of a caption, weighted by how rare they are."""

    def __init__(self, caption: Words, documents: Counter[tuple[str, ...]], most: float) -> None:
        self.weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_ORDERS)]
        for gram, count in _grams(caption).items():
            self.weights[len(gram) - 1][gram] = count * (most - math.log(max(1.0, documents[gram])))
        self.norms = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in self.weights]
        self.pairs = max(0, len(caption) - 1)
        """What the reference takes for the length: the number of pairs of words."""

    def similarity(self, reference: _Weighted) -> float:
        """Mean over the lengths of n-grams."""
        likeness = 0.0
        for own, other, norm, norm_of_other in zip(
            self.weights, reference.weights, self.norms, reference.norms, strict=True
        ):
            value = sum(min(weight, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, weight in own.items())
            likeness += value / (norm * norm_of_other) if norm and norm_of_other else value
        return likeness * math.exp(-((self.pairs - reference.pairs) ** 2) / (2 * _SIGMA**2)) / _ORDERS


def _grams(caption: Words) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(caption[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(caption) - order + 1)
    )


def _longest_common(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
        before = row
    return before[-1]
