"""Samples of a run: prompts of held-out records, what the model answered, and what was expected.

samples/TASK.json                 first answers of each task of the evaluation
samples/step-N/TASK.json          those of a validation
samples/step-N/completions.jsonl  held-out records that the model completed (`mio.core.stages.completions`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.core.recipe.places import COMPLETIONS, SAMPLES, STEP_FOLDER
from mio.report.media import Gallery, Shown
from mio.report.reading import ReportedRun, json_lines, mapping

_LONGEST_TEXT = 2000
"""Characters of one piece of text."""
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_-]*):([^{}]{1,500})\}")
"""Media of a prompt that nobody kept, as `TASK.json` names them."""

_NAMED = {"control": "[{}]", "turn": "{}:"}
"""How control tokens and those who speak are named."""


@dataclass(frozen=True)
class Part:
    """A piece of a prompt or an answer: text, media, or a name in brackets."""

    text: str = ""
    media: Shown | None = None
    named: str = ""
    """A control token, or media of which there is the name alone."""
    title: str = ""


@dataclass(frozen=True)
class Sample:
    """One prompt with the model's answer."""

    prompt: Sequence[Part]
    answer: Sequence[Part]
    expected: Sequence[Part] = ()
    problem: str = ""


@dataclass(frozen=True)
class Samples:
    """Those of one task, or of one source in one direction."""

    name: str
    items: Sequence[Sample]
    where: str = ""
    """Source and direction, of records that the model completed."""
    step: int = 0


def task_samples(run: ReportedRun, gallery: Gallery) -> list[Samples]:
    """Of the tasks in the order of the evaluation; where there was none, of the newest validation."""
    folder = run.folder / SAMPLES
    found = [(name, folder / f"{name}.json") for name in mapping(run.summary.get("tasks"))]
    found += [(path.stem, path) for path in sorted(folder.glob("*.json"))]
    groups = list(_groups(run, gallery, found, 0))
    for step, path in newest_steps(run):
        if groups:
            break
        groups = list(_groups(run, gallery, [(file.stem, file) for file in sorted(path.glob("*.json"))], step))
    return groups


def completed_samples(run: ReportedRun, gallery: Gallery) -> list[Samples]:
    """Of held-out records by source and direction, at the newest step that has some."""
    for step, path in newest_steps(run):
        groups: dict[str, list[Sample]] = {}
        for sample in json_lines(path / COMPLETIONS):
            name = str(sample.get("stream", ""))
            groups.setdefault(name, []).append(_sample(sample, path, run.folder, gallery))
        if groups:
            return [Samples(name.rsplit("/", 1)[-1], items, name, step) for name, items in groups.items()]
    return []


def newest_steps(run: ReportedRun) -> list[tuple[int, Path]]:
    """Folders of validations, the newest first."""
    found = [(STEP_FOLDER.fullmatch(path.name), path) for path in (run.folder / SAMPLES).glob("step-*")]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _groups(run: ReportedRun, gallery: Gallery, found: Sequence[tuple[str, Path]], step: int) -> Iterator[Samples]:
    seen: set[Path] = set()
    for name, path in found:
        if path in seen:
            continue
        seen.add(path)
        items = [_sample(sample, path.parent, run.folder, gallery) for sample in _listed(path)]
        if items:
            yield Samples(name, items, step=step)


def _listed(path: Path) -> list[Mapping[str, Any]]:
    """The objects that a file of samples lists; none of a file that is damaged or not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [one for one in content if isinstance(one, Mapping)] if isinstance(content, list) else []


def _sample(sample: Mapping[str, Any], folder: Path, run: Path, gallery: Gallery) -> Sample:
    def parts(value: Any) -> list[Part]:
        return _joined(_parts(value, folder, run, gallery))

    problem = sample.get("failure") or sample.get("failed") or ""
    answer = sample.get("answer", sample.get("output"))
    return Sample(
        parts(sample.get("asked") or sample.get("prompt")), parts(answer), parts(sample.get("expected")), str(problem)
    )


def _parts(value: Any, folder: Path, run: Path, gallery: Gallery) -> Iterator[Part]:
    if isinstance(value, str):
        yield from text_parts(value)
        return
    for part in value if isinstance(value, list) else ():
        if not isinstance(part, Mapping):
            continue
        kind, path = str(part.get("type", "")), part.get("path")
        if isinstance(path, str) and path:
            shown = gallery.show(folder / path, run, str(part.get("media_type", "")))
            yield Part(media=shown, title=kind)
        elif isinstance(text := part.get("text"), str):
            yield Part(_cut(text))
        else:
            name = str(part.get("name") or part.get("key") or kind)
            yield Part(named=_NAMED.get(kind, kind).format(name), title=name)


def text_parts(text: str) -> Iterator[Part]:
    """Text in which media are named as `{MODALITY:KEY}`."""
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > at:
            yield Part(_cut(text[at : match.start()]))
        yield Part(named=match[1] if match[1] != "control" else f"[{match[2]}]", title=match[2])
        at = match.end()
    if text[at:]:
        yield Part(_cut(text[at:]))


def _joined(parts: Iterator[Part]) -> list[Part]:
    """Neighbouring texts as one."""
    joined: list[Part] = []
    for part in parts:
        if part.text and joined and joined[-1].text:
            joined[-1] = Part(joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ... ({len(text):,} characters)"
