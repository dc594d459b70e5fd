"""Turns that say whether, and how much, they are learnt, in the keys of OpenAI (`weight`), axolotl (`train`)
and ms-swift (`loss`). The weight of every byte is computed here by the rule of ChatML, from what was written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from one_source import open_one
from replays import Variant

KEYS: dict[str, list[tuple[Any, float]]] = {
    "weight": [(0, 0), (1, 1), (0.0, 0), (0.5, 0.5), (2, 2), (False, 0), (True, 1), (0.25, 0.25)],
    "train": [(False, 0), (True, 1), (0, 0), (1, 1)],
    "training": [(False, 0), (True, 1)],
    "trainable": [(False, 0), (True, 1)],
    "loss": [(False, 0), (True, 1), (0, 0), (1.0, 1)],
}
WRONG: dict[str, list[Any]] = {
    "weight": [-1, "0", "high", [0], 1e30, 10**400, 1e-30],
    "train": ["no", 2, 0.5, -1, [False]],
    "loss": ["false", 0.5, {"a": 1}],
}
NOT_FINITE = ("NaN", "1e400", "-Infinity")
TEXTS = ("Red.", "a dog\n", "ü 3", "no <tag>", "x")


def variants(folder: Path, chance: random.Random) -> Iterator[Variant]:
    wrong: list[tuple[str, Any]] = [(key, value) for key, values in WRONG.items() for value in values]
    wrong += [("weight", float(text)) for text in NOT_FINITE]
    styles = cycle([*KEYS, "two keys", "none", "all 0", "nulls"])
    files = cycle(("messages", "conversations", "parquet"))
    number = 0
    while True:
        for style in (next(styles), next(styles), next(styles), "wrong"):
            place = folder / str(number)
            place.mkdir()
            number += 1
            yield made(place, chance, style, next(files), wrong)


def made(folder: Path, chance: random.Random, style: str, file: str, wrong: list[tuple[str, Any]]) -> Variant:
    turns: list[dict[str, Any]] = []
    weights: list[float] = []
    if chance.random() < 0.3:
        turns.append({"role": "system", "content": "Be brief."})
        weights.append(0)
    for _ in range(chance.randint(1, 4)):
        answer: dict[str, Any] = {"role": "assistant", "content": chance.choice(TEXTS)}
        weight = 1.0
        chosen = {"two keys": ["weight", "loss"], "none": [], "wrong": [], "all 0": ["weight"], "nulls": ["train"]}
        for key in chosen.get(style, [style]):
            value, factor = (0, 0.0) if style == "all 0" else chance.choice(KEYS[key])
            if style == "nulls" and chance.random() < 0.5:
                value, factor = None, 1.0
            answer[key] = value
            weight *= factor
        question: dict[str, Any] = {"role": "user", "content": chance.choice(TEXTS)}
        if chance.random() < 0.2:
            question["weight"] = 0
        turns += [question, answer]
        weights += [0, weight]
    told = ""
    if style == "wrong":
        key, value = chance.choice(wrong)
        turns[-1][key] = value
        told = f" {key}: {value!r:.30}"
        file = "messages" if file == "parquet" else file
    if file == "parquet" and not one_type(turns):
        file = "messages"
    source: dict[str, Any] = {"form": "chat"}
    if file == "parquet":
        pq.write_table(pa.Table.from_pylist([{"messages": turns}]), folder / "data.parquet")
        source |= {"dataset": "parquet", "options": {"path": str(folder / "data.parquet")}}
    else:
        row: dict[str, Any] = {"messages": turns}
        if file == "conversations":
            names = {"system": "system", "user": "human", "assistant": "gpt"}
            row = {"conversations": []}
            for turn in turns:
                renamed = {"from": names[turn["role"]], "value": turn["content"]}
                row["conversations"].append(renamed | {k: v for k, v in turn.items() if k not in ("role", "content")})
        (folder / "data.jsonl").write_text(json.dumps(row), encoding="utf-8")

    def read() -> tuple[str, list[float]]:
        opened = open_one(folder, source=source)
        opened.check()
        rendered = opened.rendered()
        return opened.spelled(rendered.tokens.tolist()), rendered.weights.tolist()

    def right(found: tuple[str, list[float]]) -> str:
        text, expected = "<bos>", [0.0]
        for turn, weight in zip(turns, weights, strict=True):
            content = turn["content"]
            text += f"<im_start>{turn['role']}\n{content}<im_end>\n"
            expected += [0.0] * (2 + len(turn["role"])) + [weight] * (len(content.encode()) + 1) + [0.0]
        if found[0] != text:
            return f"read {found[0]!r}, written {text!r}"
        return "" if np.allclose(found[1], expected) else f"weights {found[1]}, told {expected}"

    learnt = any(weights) and style != "wrong"
    return Variant(f"{style}, {file}{told}", read, right, learnt)


def one_type(turns: list[dict[str, Any]]) -> bool:
    """Whether the values of each key are of one type, as a table needs them."""
    types: dict[str, set[type]] = {}
    for turn in turns:
        for key, value in turn.items():
            if value is not None:
                types.setdefault(key, set()).add(type(value))
    return all(len(found) == 1 for found in types.values())
