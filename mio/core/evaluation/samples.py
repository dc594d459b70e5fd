"""Answers to look at and to hear, as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.tasks import Answer
from mio.core.contract.values import Codes, Media, Record
from mio.core.errors import DataError
from mio.core.evaluation.judging import OwnedTask
from mio.core.files import write_json
from mio.core.generation.answer import written_part
from mio.core.generation.model import Model
from mio.core.tokens.templates import CompiledTemplate
from mio.core.tokens.visitor import Visitor


def save_samples(
    model: Model, owned: OwnedTask, folder: Path, records: Mapping[int, Record], answers: Mapping[int, Answer]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes the media of answers, by the numbers of their items, into a folder of samples. Returns what `TASK.json`
    says about them, prompts and answers in order, and the failures."""
    folder, name = place(folder, owned)
    folder.mkdir(parents=True, exist_ok=True)
    template = CompiledTemplate(owned.task.template, owned.task.name)
    samples, failures = [], []
    for item, answer in answers.items():
        try:
            parts = []
            for number, (modality, content) in enumerate(answer.parts):
                if written := written_part(modality, content):
                    parts.append(written)
                else:
                    path = model.codecs.saver(modality).save(content, folder / f"{name}-{item}-{number}")
                    parts.append({"type": modality, "path": path.name})
            prompt = "".join(map(_SHOWN.visit, template.prompt(records[item])))
            samples.append({"prompt": prompt, "answer": parts})
        except DataError as error:
            failures.append(f"{owned}, sample {item}: {error}")
    return samples, failures


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


def place(folder: Path, owned: OwnedTask) -> tuple[Path, str]:
    """Where the samples of a task are, and what their files begin with. Names may have slashes."""
    return folder / Path(owned.task.name).parent, Path(owned.task.name).name
