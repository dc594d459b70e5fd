"""Held-out records that the model completes at the end of a stage, for people to look at and listen to.

Of each direction of each source that validates, the first records are asked as they stand: the prompt of the template,
a conversation up to its last answer, or the first half of what has no prompt. Prompt, answer and what the record says
are kept in the run folder, `samples/step-N/completions.jsonl`, with their media.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mio.core.contract.controls import CONTROL, Control
from mio.core.contract.loggers import Sample
from mio.core.contract.values import TEXT
from mio.core.data.items import prepared
from mio.core.data.streams import RecordStream
from mio.core.data.validation import HeldOutSources
from mio.core.distributed.ranks import without_process_group
from mio.core.errors import DataError
from mio.core.evaluation.shown_parts import GIVEN, Part, PartFiles
from mio.core.files import write_text
from mio.core.generation.answer import read_answer
from mio.core.generation.defaults import decoding_for
from mio.core.generation.engine import answer_all, answer_room
from mio.core.generation.growing import AnswerTokens
from mio.core.generation.model import Model
from mio.core.generation.sampling import item_seed
from mio.core.model.transformer import Transformer
from mio.core.recipe.places import COMPLETIONS
from mio.core.tokens.documents import Document, Special
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.visitor import media_in
from mio.core.training.module import MioModule
from mio.core.training.validation import Found

TURN = "turn"
"""Type of a part of a prompt: here begins the turn of `name`."""
_SPARE = 32
"""Tokens that an answer may have beyond twice those of the record's own."""


@dataclass(frozen=True)
class CompletionLook:
    """What the last validation of a stage looks at beside losses (see `Look`). Nothing of the training is touched, and
    nothing that goes wrong ends it: it is told in a line."""

    model: Callable[[Transformer], Model]
    """What is trained, as a model that can be asked."""
    held_out: HeldOutSources
    items: int
    """Of each stream."""
    last: int
    """The step after which it looks."""
    folder: Path
    """Of the samples of a run."""
    tell: Callable[[str], None]

    def __call__(self, module: MioModule, step: int, heartbeat: Callable[[str], None]) -> Found:
        if step < self.last:
            return Found({}, ())
        heartbeat("validation, completions")
        model = self.model(module.transformer)
        _ = model.transformer  # gathered by the process group
        with without_process_group(), model.led() as leads:
            if not leads or not model.replicas.ranks.first:
                return Found({}, ())
            try:
                return Found({}, self._completed(model, step, heartbeat))
            except Exception as error:  # of plugins too: a stage that is trained does not end for something to look at
                self.tell(f"no held-out records were completed: {error}")
                return Found({}, ())

    @torch.no_grad()
    def _completed(self, model: Model, step: int, heartbeat: Callable[[str], None]) -> list[Sample]:
        folder = self.folder / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        asked = list(self._asked(model))
        batch, samples, lines = model.recipe.evaluate.batch, [], []
        problems: list[str] = []
        for start in range(0, len(asked), batch):
            heartbeat("validation, completions")
            some = asked[start : start + batch]
            for one, answer in zip(some, _answers(model, some), strict=True):
                line, sample = _written(model, folder, one, answer, problems)
                lines.append(json.dumps(line, ensure_ascii=False))
                samples.append(sample)
        write_text(folder / COMPLETIONS, "".join(f"{line}\n" for line in lines))
        if problems:
            self.tell(f"{len(problems)} media of completed records are not shown, the first of them: {problems[0]}")
        return samples

    def _asked(self, model: Model) -> Iterator[Asked]:
        """What is asked. Records whose prompts leave no room for an answer are passed over."""
        for source in range(len(self.held_out)):
            for stream, records in self.held_out.records(source, self.items):
                for number, record in enumerate(records):
                    try:
                        yield _asked(model, stream, record, number)
                    except DataError as error:
                        self.tell(f"{stream.name}: a held-out record was not completed: {error}")


@dataclass(frozen=True)
class Asked:
    """One record, as the model is asked to complete it."""

    stream: str
    number: int
    """Among the records of its stream."""
    document: Document
    prompt: Prompt
    most: int
    """Tokens of its answer: a model that has learnt little goes on for ever."""


def _asked(model: Model, stream: RecordStream, record: int, number: int) -> Asked:
    document = opened(stream.unrendered(record))
    prompt = model.renderer.prompt(document)
    answer_room(len(prompt.tokens), model.recipe.data.packing.context)
    ready = prompt._replace(items=prepared(prompt.items, model.codecs))
    own = max(0, stream.measure(record) + 1 - len(prompt.tokens))
    return Asked("/".join(filter(None, stream.share[:3])), number, document, ready, 2 * own + _SPARE)


def opened(document: Document) -> Document:
    """A document with an answer to complete: its own, or where nothing comes before that, its second half; of a single
    text, the second half of its words."""
    segments, first = document.segments, document.answer
    if any(not isinstance(segment.content, Special) for segment in segments[:first]):
        return document
    end = next((n for n in range(first, len(segments)) if isinstance(segments[n].content, Special)), len(segments))
    if end - first > 1:
        return Document(segments, first + (end - first) // 2)
    words = segments[first].content if end > first else ""
    if not isinstance(words, str) or " " not in words.strip():
        return document
    half = words.find(" ", len(words) // 2)
    half = half if half > 0 else words.rfind(" ", 1, len(words) // 2)
    if half <= 0:
        return document
    split = [segments[first]._replace(content=part) for part in (words[:half], words[half:])]
    return Document((*segments[:first], *split, *segments[first + 1 :]), first + 1)


def _answers(model: Model, asked: Sequence[Asked]) -> list[AnswerTokens]:
    """Made together, as the recipe says by default."""
    decoding = decoding_for(model.recipe)
    need = model.need("", only=False, decoding=decoding)
    requests = [
        model.request(
            one.prompt,
            replace(decoding, max_tokens=min(decoding.max_tokens, one.most)),
            need,
            item_seed(model.recipe.seed, one.stream, one.number),
        )
        for one in asked
    ]
    capacity = max(len(one.prompt.tokens) + one.budget for one in requests)
    return answer_all(model.engine(len(requests), capacity), requests)


def _written(
    model: Model, folder: Path, one: Asked, given: AnswerTokens, problems: list[str]
) -> tuple[dict[str, Any], Sample]:
    """A line of `completions.jsonl`, and what loggers are given. `problems` gets what cannot be shown."""
    stem = f"{one.stream.replace('/', '-')}-{one.number}"
    expected = list(_expected(one.document))
    joined = next((item.modality for item in media_in(expected) if model.codecs.modalities[item.modality].parts), "")
    line: dict[str, Any] = {"stream": one.stream, "number": one.number}
    line["prompt"] = _turns(one.document, PartFiles(model, folder / GIVEN, f"{stem}-prompt", problems))
    line["expected"] = PartFiles(model, folder / GIVEN, f"{stem}-expected", problems).parts(expected)
    files = PartFiles(model, folder, stem)
    try:
        answer = read_answer(given, model.vocabulary, model.codecs, joined)
        line["answer"] = [
            files.visit(content) if name == TEXT else files.visit(Control(content)) if name == CONTROL
            else files.written(name, content)
            for name, content in answer.parts
        ]  # fmt: skip
    except Exception as error:  # whatever its codes are, one answer does not end the others
        if isinstance(error, MemoryError):
            raise
        line |= {"answer": [], "failure": f"the answer cannot be decoded: {error}"}
    paths = tuple(folder / part["path"] for part in line["answer"] if "path" in part)
    return line, Sample(
        name=f"completions/{one.stream}", prompt=_told(line["prompt"]), answer=_told(line["answer"]), files=paths
    )


def _expected(document: Document) -> Iterator[object]:
    """What the record itself answers."""
    for segment in document.segments[document.answer :]:
        if isinstance(segment.content, Special):
            return
        yield segment.content


def _turns(document: Document, files: PartFiles) -> list[Part]:
    """What comes before the answer. Of a conversation without its system prompt, and with the names of those who speak
    where there are several turns."""
    turns: list[tuple[str, list[Part]]] = [("", [])]
    opens = closed = False
    for segment in document.segments[: document.answer]:
        content = segment.content
        if isinstance(content, Special):
            opens, closed = content is Special.IM_START, content is Special.IM_END
        elif opens:
            turns.append((str(content).strip(), []))
            opens = False
        elif not closed and turns[-1][0] != "system":
            turns[-1][1].append(files.visit(content))
        if not isinstance(content, Special):
            closed = False
    taken = [(name, parts) for name, parts in turns if parts]
    if len(taken) < 2:
        return [part for _, parts in taken for part in parts]
    return [part for name, parts in taken for part in ({"type": TURN, "name": name}, *parts)]


def _told(parts: Sequence[Part]) -> str:
    """Parts in a line of text, as loggers have prompts and answers."""
    told = []
    for part in parts:
        if "text" in part:
            told.append(part["text"])
        elif "name" in part:
            told.append(f"[{part['name']}]")
        else:
            told.append(f"{{{part['type']}:{part.get('path') or part.get('key')}}}")
    return "".join(told)
