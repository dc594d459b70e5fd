"""Answers to look at and to hear, as files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.tasks import Answer, Task
from mio.core.contract.values import Codes, Media, Record
from mio.core.errors import DataError
from mio.core.evaluation.judging import OwnedTask
from mio.core.evaluation.shown_parts import GIVEN, Part, PartFiles
from mio.core.files import write_json
from mio.core.generation.answer import written_part
from mio.core.generation.model import Model
from mio.core.tokens.templates import CompiledTemplate
from mio.core.tokens.visitor import Visitor


def prompt_of(task: Task, record: Record) -> str:
    """A prompt as a person types it. Raises `DataError` where the record lacks a field."""
    return "".join(map(_SHOWN.visit, CompiledTemplate(task.template, task.name).prompt(record)))


def parts_of(answer: Answer) -> list[dict[str, Any]]:
    """The parts of an answer as JSON holds them, media without their files."""
    return [written_part(modality, content) or {"type": modality} for modality, content in answer.parts]


def save_media(model: Model, owned: OwnedTask, folder: Path, item: int, answer: Answer) -> list[dict[str, Any]]:
    """As `parts_of`, of media that are written to files in a folder of samples, whose names they have.

    Raises:
        DataError: a file cannot be made.
        OSError: it cannot be written.
    """
    folder, name = place(folder, owned)
    folder.mkdir(parents=True, exist_ok=True)
    parts, stem = parts_of(answer), _stem(name)
    for number, (part, (modality, content)) in enumerate(zip(parts, answer.parts, strict=True)):
        if not written_part(modality, content):
            part["path"] = model.codecs.saver(modality).save(content, folder / f"{stem}-{item}-{number}").name
    return parts


def save_given(
    model: Model, owned: OwnedTask, folder: Path, item: int, record: Record, problems: list[str]
) -> dict[str, list[Part]]:
    """What an item's prompt consists of (`asked`), and what its record answers itself (`expected`), with their media as
    files in the folder `given` of a folder of samples. `problems` gets what cannot be shown.
    """
    folder, name = place(folder, owned)
    template, given = CompiledTemplate(owned.task.template, owned.task.name), {}
    for key, stem, pieces in (("asked", "prompt", template.prompt), ("expected", "expected", template.response)):
        files = PartFiles(model, folder / GIVEN, f"{_stem(name)}-{item}-{stem}")
        with contextlib.suppress(DataError):  # the record has not all that this side names
            given[key] = files.parts(pieces(record))
        problems += [f"{owned}, sample {item}, not shown: {problem}" for problem in files.problems]
    return given


class _Shown(Visitor[str]):
    """A piece of a prompt as a person types it."""

    def text(self, text: str) -> str:
        return text

    def media(self, media: Media) -> str:
        return f"{{{media.modality}:{media.key}}}"

    def codes(self, codes: Codes) -> str:
        return f"{{{codes.modality}:codes}}"

    def control(self, control: Control) -> str:
        return f"{{{CONTROL}:{control.name}}}"


_SHOWN = _Shown()


def list_samples(owned: OwnedTask, folder: Path, samples: list[dict[str, Any]]) -> None:
    """Writes `TASK.json`."""
    folder, name = place(folder, owned)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", samples)


def _stem(name: str) -> str:
    """Of a task's files: without dots, behind which others may see a suffix to replace, and unlike any other task's."""
    return name.replace(".", "+")


def place(folder: Path, owned: OwnedTask) -> tuple[Path, str]:
    """Where the samples of a task are, and what their files begin with. Names may have slashes."""
    return folder / Path(owned.task.name).parent, Path(owned.task.name).name
