"""Evaluation tasks: what is asked, how answers are judged, and which figures that makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mio.core.contract.controls import CONTROL
from mio.core.contract.values import TEXT, Codes, Decoding, Media, Record, Template
from mio.core.errors import DataError


@dataclass(frozen=True)
class Answer:
    """What the model said: text, decoded media and control tokens in order, with the codes behind each media part."""

    parts: tuple[tuple[str, Any], ...]
    """Pairs of modality name and content: a string for text, decoded media otherwise; `control` and the name of a
    control token."""
    codes: tuple[Codes, ...] = ()
    """Codes of the spans, in order. They can be given to the model again, in a further turn."""
    silent: bool = False
    """Whether a control token says that nothing of it is meant for anybody (action `silence`)."""
    scores: tuple[float, ...] = ()
    """Of a task with `Choices`: by what the candidates were compared, in their order."""
    chosen: int | None = None
    """Which candidate `parts` are, of a task with `Choices`."""

    @property
    def text(self) -> str:
        """All text of the answer, joined."""
        return "".join(content for name, content in self.parts if name == TEXT)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the control tokens, in order."""
        return tuple(content for name, content in self.parts if name == CONTROL)

    def media(self, modality: str) -> list[Any]:
        """Decoded media of one modality, in order."""
        return [content for name, content in self.parts if name == modality]

    def first(self, modality: str) -> Any:
        """The first of them. Raises `DataError` if there is none, by which a judge says that it cannot tell."""
        media = self.media(modality)
        if not media:
            raise DataError(f"the answer has no {modality}")
        return media[0]


RoundTrip = Callable[[Sequence[Media]], list[Any]]
"""Media through tokenizer and detokenizer and back."""


HIGHER, LOWER = "higher", "lower"

SUM, TOKEN, CHARACTER = "sum", "token", "character"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a task, made of what its judge says of every item.

    The figure is the mean of the judge's numbers, with an interval that covers the mean of endlessly many such items 95
    times of 100. Of pairs `(a, b)` it is the sum of a over the sum of b, as the word error rate is of errors and words.
    """

    name: str = "accuracy"
    better: str = HIGHER
    """Which figures are better, `higher` or `lower` ones."""
    least: float = 0.0
    """Bounds of what the judge may say of an item, where that is a number; infinities are allowed."""
    most: float = 1.0
    worst: Callable[[Record], Any] | None = None
    """What an item counts that could not be asked, decoded or judged. Default: the bound that is worse, which has to be
    finite then. None of a measure with `overall` leaves the item out, which the report's `failed` counts."""
    overall: Callable[[Sequence[Any], Sequence[Record]], float | Sequence[float]] | None = None
    """For what is no mean: makes the figure of what the judge said of all items, and their records. The judge may then
    say whatever JSON can hold, or an array of numbers, which becomes float32. Answers one number (the Frechet distance
    of two sets), whose interval comes from leaving out a twentieth of the items at a time; or a number per item, whose
    mean it is (CIDEr, whose weights depend on all references)."""

    def at_worst(self, record: Record) -> Any:
        """What an item counts that has no verdict; None: it is left out."""
        if self.worst is not None:
            return self.worst(record)
        if self.overall is not None:
            return None
        return self.least if self.better == HIGHER else self.most

    @property
    def has_worst(self) -> bool:
        """Whether it is known what an item without a verdict counts."""
        bound = self.least if self.better == HIGHER else self.most
        return self.worst is not None or self.overall is not None or math.isfinite(bound)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Candidates of which the model's likeliest is the answer: nothing is generated.

    The answer's `parts` are that candidate, `chosen` its number, and `scores` the numbers by which all were compared.
    """

    field: str
    """Field of the record in the template's response in whose place each candidate is put."""
    of: Callable[[Record], Sequence[Any]]
    """Candidates of a record: each is text, `Media`, or a list of both."""
    by: str = SUM
    """The candidate with the highest log-likelihood is chosen: the whole one's (`sum`), or per `token`, or per
    `character` of its text, which do not favour short ones."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One evaluation task: held-out records, the prompt made of each, and the judge of the answers."""

    name: str
    template: Template
    """The prompt is given to the model; the response shows the expected answer."""
    records: Callable[[int], Sequence[Record]]
    """`records(n)`: n held-out records, the same at every call; fewer if there are no more."""
    output: str
    """Modality of the answer that is judged; generation must produce at least one of it."""
    judge: Callable[[Sequence[Answer], Sequence[Record]], Sequence[Any]]
    """What each answer is worth: with one measure a number from 0 to 1 (a truth value will do) or what the measure
    takes, with several a mapping that has their names and no other. `DataError` for an answer that it cannot judge. It
    is given some answers at a time, in any of several processes: each is judged by itself."""
    measures: tuple[Measure, ...] = (Measure(),)
    """Figures made of what the judge says. The first is what the task is known by."""
    ceiling: Callable[[Sequence[Record], RoundTrip], float | Mapping[str, float]] | None = None
    """The first measure's figure for the right answers themselves once they went through the codec; a mapping has that
    of any measures by name."""
    choices: Choices | None = None
    """Candidates to choose from, in place of an answer that is generated."""
    decoding: Decoding = Decoding()  # noqa: RUF009  it is frozen
    copies: bool = False
    """Report how many generated spans equal a training item code by code. Not of media that a head makes."""
    needs: tuple[str, ...] = ()
    """Modalities of its prompts. In a recipe that lacks one, or its `output`, the task rests: it is not among the
    recipe's tasks, and who asks for it by name is told why."""
    controls: tuple[str, ...] = ()
    """Control tokens that its judge looks for, or its template names; without one of them it rests as well."""
    missing: str = ""
    """What has to be given before the task can be asked, such as an option; it rests until then."""

    @property
    def measure(self) -> Measure:
        """The first."""
        return self.measures[0]
