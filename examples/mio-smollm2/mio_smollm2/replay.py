"""What a model answers in English, as documents to train on beside others, so that it goes on speaking as it does.

Drawn at temperature 1, answers have the model's own distribution: learning them changes nothing in expectation, and
holds it where other documents would pull it away. No text of anybody else is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import mio
from mio_smollm2.docstrings import docstring_texts
from mio_smollm2.greedy import question

SUBJECTS = (
    *(
        "the sea",
        "a railway station",
        "bread",
        "the history of glass",
        "bees",
        "a long walk",
        "winter",
        "music",
        "maps",
    ),
    *(
        "the human heart",
        "a small town",
        "money",
        "rivers",
        "sleep",
        "an old bridge",
        "gardens",
        "the moon",
        "teachers",
    ),
    *("a lost letter", "trade", "volcanoes", "friendship", "clocks", "forests", "cities", "language", "medicine"),
    *("a family dinner", "the law", "horses", "painting", "the weather", "libraries", "ships", "coffee", "mountains"),
)
FORMS = (
    "Write a short story about {}.",
    "Explain to a student what is interesting about {}.",
    "Write two paragraphs of an essay on {}.",
    "Tell me about {}.",
    "What do people get wrong about {}?",
    "Describe {} for somebody who has never seen or heard of it.",
)

WEIGHT = 0.1
"""Of an answer's tokens in the loss, beside those of other answers in words: two hundred tokens of a story would drown
answers of one word."""


def requests() -> list[str]:
    """Every form of every subject, subjects first."""
    return [form.format(subject) for form in FORMS for subject in SUBJECTS]


def write_replay(run: Path, folder: Path, documents: int, paragraphs: int, tokens: int = 192, rows: int = 64) -> int:
    """Writes what is to be kept into three files of the folder, and returns the tokens of the answers.

    `replay.jsonl` has answers to the first `documents` requests as conversations, `{"messages": [...]}` a line. An
    answer of `tokens` tokens is cut off there: its turn has `end_tag: false`, since the model did not end it.
    `prose.jsonl` has the same answers as texts that stand alone, and `docstrings.jsonl` so many paragraphs of others,
    each `{"text": ..., "end": ...}`, where `end` is the last word: English is not kept where it never comes.
    """
    asked = [question(text) for text in requests()[:documents]]
    loaded = mio.load(run, "cpu", "bf16", rows=rows)
    replies = loaded.generate_many(asked, "text", temperature=1.0, max_tokens=tokens)
    conversations = []
    for messages, reply in zip(asked, replies, strict=True):
        answer = {"role": "assistant", "content": reply.text, "weight": WEIGHT, "end_tag": reply.reason == "stop"}
        if reply.text.strip():
            conversations.append({"messages": [*messages, answer]})
    files = {
        "replay.jsonl": conversations,
        "prose.jsonl": _texts(reply.text for reply in replies),
        "docstrings.jsonl": _texts(docstring_texts(paragraphs)),
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return sum(len(reply.tokens) for reply in replies)


def _texts(texts: Iterable[str]) -> list[dict[str, str]]:
    parts = (text.strip().rpartition(" ") for text in texts)
    return [{"text": text, "end": end} for text, _, end in parts if text.strip() and end]
