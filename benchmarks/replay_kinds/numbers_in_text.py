"""Numbers, truth values, dates and texts in fields of JSON, Parquet and CSV that a template uses, or does not. What is
a number must be read as one of the same value, compared by `decimal`; what is none must be refused, if it is used."""

from __future__ import annotations

import csv
import datetime
import json
import random
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from one_source import open_one
from replays import Variant

from mio.core.data.plan import Plan

NOT_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "[NaN]", '["x", 1e309]')
NOT_TEXT = ('{"a": 1}', '[{"a": 1}]', "[[1]]", '"\\ud800"', '"a\\udfffb"', '["\\ud83d"]')
"""JSON that no field of text can hold; the last are halves of surrogate pairs."""
NUMBERS = ("0", "-0", "3", "-17", "3.0", "0.1", "1e22", "1E-7", "123456789012345678901234567890", "-0.0", "1.5e300")
TEXTS = ('"x"', '"NaN"', '"Infinity"', '"1e400"', '"\\ud83d\\ude00"', '"nan"', '"None"', "true", "false")
COLUMNS: dict[str, tuple[pa.Array, bool]] = {
    "int8": (pa.array([-5, 7], pa.int8()), True),
    "int64": (pa.array([2**62, -(2**62)]), True),
    "uint64": (pa.array([2**64 - 1, 0], pa.uint64()), True),
    "float64": (pa.array([0.1, 2.5]), True),
    "float32": (pa.array([0.5, -3.0], pa.float32()), True),
    "float16": (pa.array([0.5, 2.0], pa.float16()), True),
    "decimal": (pa.array([Decimal("1.50"), Decimal("-7.25")]), True),
    "integers beside null": (pa.array([3, None, 5]), True),
    "integers as floats beside null": (pa.array([3.0, None, 5.0]), True),
    "boolean": (pa.array([True, False]), True),
    "NaN": (pa.array([float("nan")]), False),
    "infinity": (pa.array([float("inf")]), False),
    "NaN of float32": (pa.array([float("nan")], pa.float32()), False),
    "list with NaN": (pa.array([[1.0, float("nan")]]), False),
    "date": (pa.array([datetime.date(2020, 1, 2)]), False),
    "time stamp": (pa.array([datetime.datetime(2020, 1, 2, 3)]), False),
    "time": (pa.array([datetime.time(3, 4)]), False),
    "duration": (pa.array([datetime.timedelta(seconds=5)]), False),
    "struct": (pa.array([{"a": 1}]), False),
    "bytes": (pa.array([b"x"]), False),
    "nested list": (pa.array([[[1]]]), False),
}


def same(read: str, written: Any) -> bool:
    """Whether a text holds the number, truth value or text that was written."""
    if isinstance(written, bool):
        return read == json.dumps(written)
    if isinstance(written, str):
        return read == written
    try:
        value = Decimal(read)
    except InvalidOperation:
        return False
    return value == (Decimal(written) if isinstance(written, Decimal | int) else Decimal(repr(float(written))))


def variants(folder: Path, chance: random.Random) -> Iterator[Variant]:
    cases: list[tuple[str, str, Any, bool]] = []
    cases += [(f"json {text}", "lines", text, False) for text in (*NOT_NUMBERS, *NOT_TEXT)]
    cases += [(f"json {text}", "lines", text, True) for text in (*NUMBERS, *TEXTS)]
    cases += [(f"json of {size} digits", "lines", "7" * size, True) for size in (30, 4000, 4301, 20000)]
    cases += [(f"column {name}", "parquet", column, readable) for name, (column, readable) in COLUMNS.items()]
    cases += [(f"cell {text}", "csv", text, True) for text in ("3", "3.0", "NaN", "inf", "1e400", "007", "0x10")]
    chance.shuffle(cases)
    for number, ((name, file, value, readable), used) in enumerate(
        (case, used) for used in cycle((True, False)) for case in cases
    ):
        place = folder / str(number)
        place.mkdir()
        yield made(place, f"{name}{'' if used else ', not used'}", file, value, readable or not used, used)


def made(folder: Path, name: str, file: str, value: Any, readable: bool, used: bool) -> Variant:
    source: dict[str, Any] = {}
    written: list[Any]
    if file == "parquet":
        written = value.to_pylist()
        pq.write_table(pa.table({"id": [str(i) for i in range(len(value))], "x": value}), folder / "data.parquet")
        source = {"dataset": "parquet", "options": {"path": str(folder / "data.parquet")}}
    elif file == "csv":
        written = [value]
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows([["file_name", "id", "x"], ["a.png", "0", value]])
        (folder / "a.png").write_bytes(b"picture")
        source = {"dataset": "folder", "options": {"path": str(folder)}}
    else:
        text = '{"id": "0", "x": %s}' % value  # noqa: UP031
        (folder / "data.jsonl").write_text(text, encoding="utf-8")
        digits = value.lstrip("-").isdigit()
        written = [Decimal(value) if digits else json.loads(value) if readable and used else None]
    templates = {"own": [{"direction": "d", "prompt": "{id}:", "response": "{x}" if used else "none"}]}

    def read() -> dict[int, str]:
        opened = open_one(
            folder,
            source={**source, "templates": "own"},
            data={"templates": templates, "packing": {"context": 1 << 16, "window": 4}},
        )
        opened.recipe.data.max_skipped = 0.5 if None in written and used else 0.0  # null is no content
        opened.check()
        plan: Plan = opened.plan()
        [stream] = opened.streams
        found = {}
        for entry in plan.next_row():
            text = opened.spelled(stream.document(entry.n).tokens.tolist())
            record, _, answer = text.removeprefix("<bos>").removesuffix("<eos>").partition(":")
            found[int(record)] = answer
        return found

    def right(found: dict[int, str]) -> str:
        for index, truth in enumerate(written):
            if not used:
                if found.get(index) != "none":
                    return f"record {index} reads {found.get(index)!r}"
            elif truth is None:
                if index in found:
                    return f"null reads {found[index]!r}"
            elif index not in found or not same(found[index], truth):
                return f"{truth!r:.100} reads {found.get(index)!r:.100}"
        return ""

    return Variant(name, read, right, readable)
