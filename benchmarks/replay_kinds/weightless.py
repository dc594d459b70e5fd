"""Sources of which nothing, or only some, is left to learn: by truncation, by weights of the loss, by those of turns.
What is left is computed here from the bytes of the text; a source of which nothing is must be refused before training,
and whatever is drawn must have a weight."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from one_source import OneSource, open_one
from replays import Variant

from mio.core.data.streams import CUT_AWAY, WEIGHTLESS

RECORDS = 6


def variants(folder: Path, chance: random.Random) -> Iterator[Variant]:
    cases = list(
        product(
            ("chat", "plain"),
            ("truncate", "skip"),
            (48, 64, 200),
            ("none", "response", "prompt", "all"),
            ("some", "long"),
        )
    )
    chance.shuffle(cases)
    for number, case in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        yield made(place, chance, *case)


def made(folder: Path, chance: random.Random, form: str, policy: str, context: int, zeros: str, sizes: str) -> Variant:
    loss = {
        "prompt_text": 0.0 if zeros in ("prompt", "all") else 1.0,
        "response_text": 0.0 if zeros in ("response", "all") else 1.0,
    }
    rows, expected = [], []
    for _ in range(RECORDS):
        least = context if sizes == "long" else 4
        prompt, answer = "p" * chance.randint(least, 2 * context), "a" * chance.randint(1, context)
        skipped = form == "chat" and chance.random() < 0.3
        if form == "chat":
            turn: dict[str, Any] = {"role": "assistant", "content": answer} | ({"weight": 0} if skipped else {})
            rows.append({"messages": [{"role": "user", "content": prompt}, turn]})
            # bos, im_start, `user\n`, the prompt, im_end, `\n`, im_start, `assistant\n`; then what is learnt
            before, learnt, after = 1 + 1 + 5 + len(prompt) + 2 + 1 + 10, len(answer) + 1, 1
            weights = [0.0] * before + [loss["response_text"] * (not skipped)] * learnt + [0.0] * after
        else:
            rows.append({"question": prompt, "answer": answer})
            weights = [0.0] + [loss["prompt_text"]] * len(prompt) + [loss["response_text"]] * (len(answer) + 1)
        expected.append(fate(weights, context, policy))
    templates = {} if form == "chat" else {"own": [{"direction": "d", "prompt": "{question}", "response": "{answer}"}]}
    source = {"form": form} | ({} if form == "chat" else {"templates": "own"})
    data = {"templates": templates, "packing": {"context": context, "window": 4, "too_long": policy}}

    def read() -> tuple[dict[str, int], list[float]]:
        opened = open_one(folder, rows, source=source, data=data, train={"loss": loss})
        opened.check()
        return drawn(opened)

    def right(found: tuple[dict[str, int], list[float]]) -> str:
        counts, weights = found
        wanted = Counter(expected)
        used = wanted.pop("used", 0)
        if min(weights) <= 0:
            return "a document without weight was drawn"
        if counts.pop("used") != used or counts != dict(wanted):
            return f"{counts}, must be {dict(wanted)} and {used} used"
        return ""

    name = f"{form}, {policy}, context {context}, no weight: {zeros}, prompts: {sizes}"
    return Variant(name, read, right, "used" in expected)


def fate(weights: list[float], context: int, policy: str) -> str:
    """What becomes of a document with these weights."""
    if not any(weights[1:]):
        return WEIGHTLESS
    if len(weights) - 1 > context:
        if policy == "skip":
            return "longer than the context"
        if not any(weights[1 : context + 1]):
            return CUT_AWAY
    return "used"


def drawn(opened: OneSource) -> tuple[dict[str, int], list[float]]:
    """Documents of the first epoch that were used, or left out by reason, and the weight of each that was used."""
    plan = opened.plan()
    seen: Counter[str] = Counter()
    weights = []
    [stream] = opened.streams
    left = len(stream)
    while plan.counts[0].next < left:
        plan.next_row()
    for n in range(left):
        length = stream.length(n)
        if length is None:
            seen[stream.reason(n)] += 1
        elif length > opened.recipe.data.packing.context and opened.recipe.data.packing.too_long == "skip":
            seen["longer than the context"] += 1
        else:
            seen["used"] += 1
            weights.append(float(stream.document(n).weights[1:].sum()))
    return dict(seen), weights
