"""What judges and ceilings of tasks may return, of every type and length.

The oracle is the definition: one truth value or number from 0 to 1 for each answer, in order; anything else is refused
with the task and the plugin named, and nothing that is reported is no JSON.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from replays import Variant

from mio import Answer, DataError, Record, Task, Template, UserError
from mio.core.evaluation.judging import OwnedTask

CONTAINERS: dict[str, tuple[Callable[[list[Any]], Any], bool]] = {
    "list": (list, True),
    "tuple": (tuple, True),
    "deque": (deque, True),
    "generator": (lambda values: (value for value in values), True),
    "values of a mapping": (lambda values: dict(enumerate(values)).values(), True),
    "array of objects": (lambda values: np.array([*values, None], dtype=object)[:-1], True),
    "mapping": (lambda values: dict(enumerate(values)), False),
    "set": (set, False),
    "text": (lambda values: "1" * len(values), False),
    "bytes": (lambda values: bytes(len(values)), False),
    "nothing": (lambda _: None, False),
    "one truth value": (lambda _: True, False),
    "array without dimensions": (lambda _: np.array(1.0), False),
    "tensor without dimensions": (lambda _: torch.tensor(True), False),
    "column": (lambda values: np.ones((len(values), 1)), False),
    "masked": (
        lambda values: np.ma.masked_array(np.ones(len(values)), mask=[True, *[False] * (len(values) - 1)]),
        False,
    ),
}
GOOD: dict[str, Callable[[float], Any]] = {
    "bool": lambda share: share >= 0.5,
    "int": round,
    "float": float,
    "Fraction": Fraction,
    "numpy bool": lambda share: np.bool_(share >= 0.5),
    "float16": np.float16,
    "uint8": lambda share: np.uint8(round(share)),
    "longdouble": np.longdouble,
    "array of one number": np.array,
    "tensor of one number": torch.tensor,
}
BAD: dict[str, Any] = {
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "13.47": 13.47,
    "-0.001": -0.001,
    "2": 2,
    "10^400": 10**400,
    "None": None,
    "text": "1",
    "complex": 1 + 0j,
    "Decimal": Decimal(1),
    "list": [True],
    "tensor of NaN": torch.tensor(math.nan),
    "float32 above 1": np.nextafter(np.float32(1), np.float32(2)),
}
RECORDS: list[Record] = [{"number": place} for place in range(40)]


def task(judge: Callable[..., Any]) -> Task:
    template = Template(direction="count", prompt="{number}", response="{number}")
    return Task(name="count", template=template, records=lambda n: RECORDS[:n], output="text", judge=judge)


def variant(name: str, given: Callable[[], Any], expected: list[float] | None, answers: int) -> Variant:
    """`expected` None: must be refused."""

    def read() -> Any:
        found = {place: Answer((("text", str(place)),)) for place in range(answers)}
        try:
            return OwnedTask("counter", task(lambda *_: given())).verdicts(found, RECORDS, {})
        except UserError as error:
            if "task `count` of plugin `counter`" not in str(error):
                raise RuntimeError("task and plugin are not named") from error
            raise

    def right(made: Any) -> str:
        json.dumps(made, allow_nan=False)
        return "" if made == dict(enumerate(expected or [])) else f"{made} for {expected}"

    return Variant(name, read, right, readable=expected is not None)


def stumbling(places: set[int], answers: int) -> Variant:
    """A judge that raises for some answers, wherever they stand."""

    def judge(given: Any, records: Any) -> list[bool]:
        for record in records:
            if record["number"] in places:
                raise DataError(f"nothing to see in {record['number']}")
        return [int(answer.text) % 2 == 0 for answer in given]

    def read() -> Any:
        failed: dict[int, str] = {}
        found = {place: Answer((("text", str(place)),)) for place in range(answers)}
        return OwnedTask("counter", task(judge)).verdicts(found, RECORDS, failed), failed

    def right(made: Any) -> str:
        found, failed = made
        expected = {place: float(place % 2 == 0) for place in range(answers) if place not in places}
        said = {place: f"the judge cannot tell: nothing to see in {place}" for place in places}
        return "" if (found, failed) == (expected, said) else f"{found}, {failed}"

    return Variant(f"raises for {len(places)} of {answers} answers", read, right)


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:  # noqa: ARG001
    for name, value in BAD.items():
        values = [True, value, False]
        random.shuffle(values)
        yield variant(f"{name} among truth values", partial(list, values), None, 3)
    for name, (container, fine) in CONTAINERS.items():
        made = [True, False, True]
        expected = [1.0, 0.0, 1.0] if fine else None
        yield variant(name, partial(container, made), expected, 3)
    while True:
        answers = random.randint(1, 40)
        if random.random() < 0.2:
            yield stumbling(set(random.sample(range(answers), random.randint(1, answers))), answers)
            continue
        count = random.choice([answers, answers, answers, 0, 1, answers - 1, answers + 1, 2 * answers])
        kind = random.choice(list(GOOD))
        values = [GOOD[kind](random.choice([0.0, 0.25, 0.5, 1.0])) for _ in range(count)]
        good = [float(value) for value in values] if count == answers else None
        container = random.choice([made for made, fine in CONTAINERS.values() if fine])
        yield variant(f"{count} of {kind} for {answers}", partial(container, values), good, answers)
