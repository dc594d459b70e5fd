"""Answers to the prompts of a file, as lines of JSON in a folder beside their media.

Every answer is written as soon as there is one, with a fingerprint of all that it depends on: the same command, given
again after an interruption, keeps what is there and goes on. At the end the lines are in the order of the prompts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.api.forms import key_of_content
from mio.api.prompt_file import PromptLine
from mio.core.contract.controls import Control
from mio.core.contract.values import Codes, Media
from mio.core.errors import UserError
from mio.core.files import locked, write_text
from mio.core.generation.generate import Question
from mio.core.generation.prompt import Content
from mio.core.tokens.visitor import Visitor

ANSWERS = "answers.jsonl"


class AnswerFile:
    """The answers in a folder.

    Args:
        folder: made where it is missing.
        lines: what is asked.
        model: stands for the model, with all that changes its answers.

    Raises:
        UserError: the folder holds answers to something else.
    """

    def __init__(self, folder: Path, lines: Sequence[PromptLine], model: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / ANSWERS
        self._fingerprints = {one.number: _fingerprint(one.question, model) for one in lines if one.question}
        self._lines = {line["line"]: line for line in self._read()}

    @property
    def kept(self) -> set[int]:
        """Lines of prompts that have their answer."""
        return {number for number, line in self._lines.items() if "error" not in line}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While answers are added. Raises `UserError` if another process does so."""
        busy = f"{self.path}: a process writes answers there; wait for it, or give another folder"
        with locked(self.path.parent, busy):
            self._write()
            yield
            self._write()

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """Writes the answer to the prompt of a line. Its media lie beside the file, and so say their paths."""
        parts = [one | {"path": Path(one["path"]).name} if "path" in one else one for one in answer.get("parts", ())]
        content = answer | ({"parts": parts} if parts else {})
        self._lines[number] = {"line": number, "fingerprint": self._fingerprints.get(number, ""), **content}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_json(self._lines[number]))

    def _write(self) -> None:
        write_text(self.path, "".join(_json(self._lines[number]) for number in sorted(self._lines)))

    def _read(self) -> Iterator[dict[str, Any]]:
        """Lines that are whole: the last one may not be, if the process that wrote it was killed."""
        if not self.path.exists():
            return
        for place, content in enumerate(self.path.read_bytes().split(b"\n"), 1):
            try:
                line = json.loads(content) if content.strip() else None
            except ValueError:
                continue
            if line is None:
                continue
            where = f"{self.path}, line {place}"
            if not isinstance(line, dict) or not isinstance(line.get("line"), int) or "fingerprint" not in line:
                raise UserError(f"{where}: is no answer of `mio generate`; give another folder with --out")
            if "error" in line:
                continue  # it is tried again
            if self._fingerprints.get(line["line"]) != line["fingerprint"]:
                raise UserError(
                    f"{where}: answers another prompt, or was made by another model or with other options; give "
                    "another folder with --out, or remove the file"
                )
            yield line


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _fingerprint(question: Question, model: str) -> str:
    told = {
        "content": _contents(question.content),
        "output": question.output,
        "decoding": asdict(question.decoding),
        "seed": question.seed,
        "beyond_context": question.beyond_context,
        "model": model,
    }
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


def _contents(content: Content) -> list[Any]:
    return [
        [one["role"], *map(_TOLD.visit, one["content"])] if isinstance(one, dict) else _TOLD.visit(one)
        for one in content
    ]


class _Told(Visitor[list[str]]):
    """A piece of a prompt as values of JSON that are the same for the same piece alone."""

    def text(self, text: str) -> list[str]:
        return ["text", text]

    def media(self, media: Media) -> list[str]:
        return ["media", media.modality, media.key]

    def codes(self, codes: Codes) -> list[str]:
        return ["codes", codes.modality, key_of_content(codes.codes), str(codes.codebooks)]

    def control(self, control: Control) -> list[str]:
        return ["control", control.name]


_TOLD = _Told()
