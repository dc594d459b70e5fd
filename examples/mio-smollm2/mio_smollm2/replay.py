"""English to be shown beside what is learnt, so that the model goes on speaking as it does.

The recipe learns it from what the untouched model thinks of every token (`train.distillation`): a text need not be the
model's own, and none is learnt by heart. Answers, drawn at temperature 1, are what conversations look like.
"""

from __future__ import annotations

import json
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


def requests() -> list[str]:
    """Every form of every subject, subjects first."""
    return [form.format(subject) for form in FORMS for subject in SUBJECTS]


def write_replay(run: Path, folder: Path, documents: int, paragraphs: int, tokens: int = 192, rows: int = 64) -> int:
    """Writes what is to be kept into three files of the folder, and returns the tokens of the answers.

    `replay.jsonl` has answers to the first `documents` requests as conversations, `{"messages": [...]}` a line. An
    answer of `tokens` tokens is cut off there: its turn has `end_tag: false`, since the model did not end it.
    `prose.jsonl` has the same answers as texts that stand alone, and `docstrings.jsonl` so many paragraphs of others,
    each `{"text": ...}`: English is not kept where it never comes.
    """
    asked = [question(text) for text in requests()[:documents]]
    loaded = mio.load(run, "cpu", "bf16", rows=rows)
    replies = loaded.generate_many(asked, "text", temperature=1.0, max_tokens=tokens)
    conversations = []
    for messages, reply in zip(asked, replies, strict=True):
        answer = {"role": "assistant", "content": reply.text, "end_tag": reply.reason == "stop"}
        if reply.text.strip():
            conversations.append({"messages": [*messages, answer]})
    files = {
        "replay.jsonl": conversations,
        "prose.jsonl": [{"text": reply.text} for reply in replies if reply.text.strip()],
        "docstrings.jsonl": [{"text": text} for text in docstring_texts(paragraphs)],
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return sum(len(reply.tokens) for reply in replies)
