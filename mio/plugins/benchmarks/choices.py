"""Questions with four answers to choose from, by log-likelihood: SEED-Bench and MMLU."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mio import Answer, Choices, Media, Record, Task, Template
from mio.plugins.benchmarks.folders import Entry, Folder, sample
from mio.plugins.benchmarks.options import BenchmarkOptions

LETTERS = ("A", "B", "C", "D")

_SEED_BENCH = (
    # LMMs-Eval, lmms_eval/tasks/seedbench
    "{image}\n{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n"
    "Answer with the option's letter from the given choices directly."
)
_MMLU = (
    # arXiv 2409.17692 v4, table 12; the lines of answers as in hendrycks/test, `evaluate.py`
    "The following are multiple choice questions (with answers) about {subject}.\n\n"
    "{question}\nA. {a?}\nB. {b?}\nC. {c?}\nD. {d?}\nAnswer:"
)


def tasks(options: BenchmarkOptions) -> list[Task]:
    every = {
        "seed_bench": (_SEED_BENCH, _seen),
        "mmlu": (_MMLU, _examined),
    }
    return [
        Task(
            name=data_set,
            template=Template(direction="choose", prompt=prompt, response="{answer}"),
            records=partial(records, options),
            output="text",
            judge=_judge,
            choices=Choices(field="answer", of=_candidates),
            needs=(options.image,) if "{image}" in prompt else (),
            missing=options.missing(data_set),
        )
        for data_set, (prompt, records) in every.items()
    ]


def _candidates(record: Record) -> Sequence[str]:  # noqa: ARG001
    return LETTERS


def _judge(answers: Sequence[Answer], records: Sequence[Record]) -> list[bool]:
    return [
        answer.chosen is not None and LETTERS[answer.chosen] == record["answer"]
        for answer, record in zip(answers, records, strict=True)
    ]


def _seen(options: BenchmarkOptions, count: int) -> list[Record]:
    """Of SEED-Bench, the nine kinds of questions about pictures, which MIO reports."""
    folder = Folder.of(options, "seed_bench")
    every = folder.json("SEED-Bench.json")["questions"]
    questions = [entry for entry in every if entry["data_type"].text == "image"]
    return [
        {
            "image": _shown(options, folder, entry),
            "question": entry["question"].text,
            **{letter: entry[f"choice_{letter}"].name for letter in "abcd"},
            "answer": _letter(folder, entry["answer"].text, str(entry)),
        }
        for entry in sample(questions, count, lambda entry: entry["question_id"].name)
    ]


def _shown(options: BenchmarkOptions, folder: Folder, entry: Entry) -> Media:
    """Files have no ending as they are published."""
    name = f"SEED-Bench-image/{entry['data_id'].file_name}"
    return folder.media(options.image, folder.place(name, f"{name}.jpg", f"{name}.png"), str(entry))


def _examined(options: BenchmarkOptions, count: int) -> list[Record]:
    """Of MMLU, all subjects together, of which each question counts the same."""
    folder = Folder.of(options, "mmlu")
    split = options.split("mmlu")
    tables = sorted(folder.place(f"data/{split}", split).glob(f"*_{split}.csv"))
    if not tables:
        raise folder.problem(f"{folder.place(f'data/{split}', split)}: holds no *_{split}.csv")
    rows = [row for table in tables for row in _rows(folder, table, split)]
    return [record for _, record in sample(rows, count, lambda row: row[0])]


def _rows(folder: Folder, table: Path, split: str) -> list[tuple[str, Record]]:
    """Questions of a subject, each with a name."""
    subject = table.name.removesuffix(f"_{split}.csv")
    rows: list[tuple[str, Record]] = []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file, strict=True), start=1):
                where = f"{table}, record {number}"
                if len(row) != 6:
                    raise folder.problem(f"{where}: has {len(row)} columns, not question, four answers and the letter")
                question, *texts, letter = row
                rows.append((
                    f"{subject}/{number}",
                    {
                        "subject": subject.replace("_", " "),
                        "question": question.strip(),
                        **dict(zip("abcd", texts, strict=True)),
                        "answer": _letter(folder, letter, where),
                    },
                ))  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise folder.problem(f"{table}: cannot be read: {error}") from error
    return rows


def _letter(folder: Folder, letter: str, where: str) -> str:
    if letter.strip() not in LETTERS:
        raise folder.problem(f"{where}: the answer {letter!r} is not one of {', '.join(LETTERS)}")
    return letter.strip()
