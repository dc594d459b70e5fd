"""Answers to all prompts of a file. One that has none costs no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mio.api.answer_file import AnswerFile
from mio.api.loaded import Loaded
from mio.api.prompt_file import PromptLine
from mio.api.running import Pending
from mio.core.errors import DataError, MioError, UserError
from mio.core.generation.generate import Asked, ask

Told = Callable[[int, dict[str, Any]], None]


class PromptAnswering:
    """Answers the prompts of a file.

    Args:
        folder: for media, whose names begin with the number of their line.
        file: where answers are kept; None: they are only told.
        tell: called with the number of a line and its answer, in the order of the lines: `parts` as `Reply.to_json` has
            them, `reason`, `tokens`, `prompt_tokens`; or `error`. Not with those that were there.
    """

    def __init__(self, run: Loaded, folder: Path, file: AnswerFile | None, tell: Told) -> None:
        self._run, self._folder, self._file, self._tell = run, folder, file, tell
        self._held: dict[int, dict[str, Any]] = {}
        """Answers that wait for those of lines before them."""
        self._due: list[int] = []
        """Lines that are still to be told, the last one first."""

    def answer(self, lines: Sequence[PromptLine]) -> dict[int, str]:
        """Answers all lines; returns why some have no answer, by their number."""
        kept = self._file.kept if self._file else set()
        self._due = [line.number for line in reversed(lines) if line.number not in kept]
        problems: dict[int, str] = {}
        with self._file.writing() if self._file else nullcontext():
            for number, pending in self._run.running.answers(self._asked(lines, kept, problems)):
                content = self._content(number, pending)
                if "error" in content:
                    problems[number] = content["error"]
                self._finish(number, content)
        return dict(sorted(problems.items()))

    def _asked(
        self, lines: Sequence[PromptLine], kept: set[int], problems: dict[int, str]
    ) -> Iterator[tuple[int, Asked]]:
        for line in lines:
            if line.number in kept:
                continue
            problem = line.problem
            if line.question is not None:
                try:
                    yield line.number, ask(self._run.model, line.question)
                    continue
                except UserError as error:
                    problem = str(error)
            problems[line.number] = problem
            self._finish(line.number, {"error": problem})

    def _content(self, number: int, pending: Pending) -> dict[str, Any]:
        try:
            answer = self._run.reply(pending)
            told = answer.to_json(self._folder, f"{number}-")
        except Exception as error:  # whatever its codes are, one answer does not end the others
            if isinstance(error, MemoryError | OSError) or (
                isinstance(error, MioError) and not isinstance(error, DataError)
            ):
                raise
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            return {"error": f"the answer cannot be decoded: {kind}{error}"}
        notice = {"notice": answer.notice} if answer.notice else {}
        counts = {"tokens": len(answer.tokens), "prompt_tokens": answer.usage.prompt_tokens}
        return {**told, "reason": answer.reason, **notice, **counts}

    def _finish(self, number: int, content: dict[str, Any]) -> None:
        if self._file:
            self._file.add(number, content)
        self._held[number] = content
        while self._due and self._due[-1] in self._held:
            number = self._due.pop()
            self._tell(number, self._held.pop(number))
