"""What an evaluation leaves of every item: prompt, output and verdicts, a line of JSON each, and what it goes on from.

A finished evaluation of a task is `TASK.jsonl`: the first line says of what it is, and the figures; each further one is
an item. Until it is finished, `TASK.partial.jsonl` has the results as they come, from which the same evaluation goes on
that was ended.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from mio.core.contract.values import Record
from mio.core.data.hashing import FileHashes
from mio.core.data.held_out import record_key
from mio.core.errors import DataError
from mio.core.evaluation.judging import OwnedTask
from mio.core.files import locked, write_bytes
from mio.core.generation.model import Model
from mio.core.recipe.schema import Recipe
from mio.core.runs.versions import versions

FIGURES = "figures"
"""Key of the first line that has what the report says about the task."""
_FINISHED, _PARTIAL = ".jsonl", ".partial.jsonl"

Description = dict[str, Any]
"""Of what the items are. It changes with whatever may change a figure."""
Line = dict[str, Any]
"""Of an item: `item`, its number; `prompt`, with media as `{MODALITY:KEY}`; `output`, parts as `mio generate --json`
has them, media by their file where it is kept; `verdicts` by measure; `failure`, why it has none; `seed`; of the first
ones `asked` and `expected`, the parts of prompt and record with their media as files."""


def drawn_from(recipe: Recipe) -> int:
    """Seed of what answers draw."""
    return recipe.evaluate.seed or recipe.seed


def described(model: Model, owned: OwnedTask, records: Sequence[Record]) -> Description:
    """What the figures of a task depend on. Not: devices, processes, how many items are answered together."""
    task, recipe = owned.task, model.recipe
    digest, hashes = xxhash.xxh3_128(), FileHashes(None)
    for record in records:
        digest.update(record_key(record, sorted(record), hashes).to_bytes(8, "little"))
    content = {
        "task": task.name,
        "plugin": owned.plugin,
        "n": len(records),
        "records": digest.hexdigest(),
        "weights": dict(model.weights()),
        "precision": str(model.transformer.head_weight.dtype).removeprefix("torch."),
        "seed": drawn_from(recipe),
        "template": asdict(task.template),
        "output": task.output,
        "decoding": asdict(task.decoding),
        "measures": {measure.name: measure.better for measure in task.measures},
        **({"choices": [task.choices.field, task.choices.by]} if task.choices is not None else {}),
        "asked": {
            "form": recipe.data.form,
            "system": dict(recipe.data.system),
            "context": recipe.data.packing.context,
        },
        "plugins": dict(model.plugins.options),
        "versions": versions(model.plugins.manager, model.plugins.names),
    }
    as_written: Description = json.loads(json.dumps(content, default=str))
    return as_written


@dataclass
class ItemFile:
    """The items of a task while they are measured. Nobody else measures the same ones there meanwhile."""

    folder: Path
    """Of an evaluation."""
    task: str
    description: Description
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def finished(self) -> Path:
        return self.folder / f"{self.task}{_FINISHED}"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.task}{_PARTIAL}"

    def begin(self) -> list[dict[str, Any]]:
        """The results that are there of the same evaluation, which was ended; of another one, they are given up.

        Raises:
            OSError: nothing can be written there.
            UserError: another process measures this.
        """
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{self.partial}: another process evaluates `{self.task}` here; wait for it, or give another `--out`"
        self._lock.enter_context(locked(self.partial.parent, busy, self.partial.name))
        kept, size = [], 0
        lines = _whole_lines(self.partial)
        if next(lines, (None, 0))[0] == self.description:
            size = len(self._first)
            for content, size in lines:  # noqa: B007
                if not isinstance(content, dict):
                    break
                kept.append(content)
        with self.partial.open("r+b") as file:  # what was being written when it was ended is not whole
            file.truncate(size)
            if not size:
                file.write(self._first)
        return kept

    @property
    def _first(self) -> bytes:
        return _line(self.description)

    def add(self, result: Mapping[str, Any]) -> None:
        """Keeps what a piece of work gave. Raises `OSError` where it cannot be written."""
        with self.partial.open("ab") as file:
            file.write(_line(result))

    def finish(self, figures: Mapping[str, Any]) -> None:
        """Writes the items in their order, and `figures` before them. Raises `OSError` where that cannot be done."""
        results = (content for content, _ in _whole_lines(self.partial))
        by_number = {line["item"]: line for result in results for line in result.get("items", ())}
        lines = [_line({**self.description, FIGURES: figures}), *(_line(by_number[item]) for item in sorted(by_number))]
        write_bytes(self.finished, b"".join(lines))
        self.partial.unlink()

    def close(self) -> None:
        """Lets others measure this."""
        self._lock.close()


@dataclass(frozen=True)
class Items:
    """Of a finished evaluation of a task."""

    description: Description
    figures: dict[str, Any]
    lines: list[Line]
    """By number."""


def read_items(path: Path) -> Items:
    """The items in a file. Raises `DataError` if it is not there, or not what an evaluation wrote."""
    advice = "give `mio evaluate` again"
    if not path.is_file():
        raise DataError(f"{path}: no such file; {advice}")
    content = [content for content, _ in _whole_lines(path)]
    if not content or not all(isinstance(line, dict) for line in content):
        raise DataError(f"{path}: is damaged; {advice}")
    first, *lines = content
    figures = first.pop(FIGURES, None)
    if not isinstance(figures, dict) or [line.get("item") for line in lines] != list(range(first.get("n", -1))):
        raise DataError(f"{path}: is damaged; {advice}")
    return Items(first, figures, lines)


def find_items(file: ItemFile) -> Items | None:
    """Those that are finished of the same evaluation; None where there are none, or not whole."""
    with contextlib.suppress(DataError, OSError):
        items = read_items(file.finished)
        return items if items.description == file.description else None
    return None


def _line(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n").encode(
        errors="surrogatepass"
    )


def _whole_lines(path: Path) -> Iterator[tuple[Any, int]]:
    """What each line of a file holds, and the bytes up to its end, up to the first line that is damaged."""
    size = 0
    with path.open("rb") as file:
        for line in file:
            size += len(line)
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                return
            if content is None:
                return
            yield content, size
