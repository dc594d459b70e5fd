"""Questions to begin with: prompts of the run's own tasks, made of records that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from mio.chat.composing import Composed, marked
from mio.chat.host import Host
from mio.chat.media import MediaFile, MediaFolder
from mio.chat.view import part_html
from mio.core.contract.values import Codes, Media
from mio.core.errors import MioError
from mio.core.evaluation.judging import OwnedTask
from mio.core.tokens.templates import CompiledTemplate

EACH = 4
"""Examples of a task."""


@dataclass(frozen=True)
class Example:
    """A prompt of a task, as somebody would compose it."""

    task: str
    output: str
    """Modality of the answer."""
    parts: tuple[str | MediaFile, ...]

    @property
    def composed(self) -> Composed:
        """What goes where a question is composed."""
        return marked([part if isinstance(part, str) else part.path for part in self.parts])

    @property
    def html(self) -> str:
        """To be looked at."""
        return "".join(map(part_html, self.parts))


class Examples:
    """Examples of a run's tasks, made when a task is first looked at.

    Args:
        folder: for their media.
    """

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._media = MediaFolder(folder, host.run.model.codecs, host.media_types)
        available = host.run.model.plugins.tasks()
        chosen = host.run.model.recipe.evaluate.tasks or available
        self._tasks = {name: OwnedTask(*available[name]) for name in chosen if name in available}
        self._made: dict[str, list[Example]] = {}
        self.left_out: dict[str, str] = {}
        """Why a task has fewer examples than it has records, by task."""

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks of which there may be examples: whose answers the run can give."""
        able = ("text", *self._host.writes)
        return [name for name, one in self._tasks.items() if one.task.output in able]

    def of(self, task: str) -> list[Example]:
        """Examples of a task. What cannot be composed by hand, such as codes and control tokens, is `left_out`."""
        if task not in self._tasks:
            return []
        with self._host.working:
            if task not in self._made:
                self._made[task] = self._examples(self._tasks[task])
        return self._made[task]

    def _examples(self, owned: OwnedTask) -> list[Example]:
        task = owned.task
        template = CompiledTemplate(task.template, task.name)
        made: dict[tuple[object, ...], Example] = {}
        try:
            records = owned.records(2 * EACH)
        except MioError as error:
            self.left_out[task.name] = str(error)
            return []
        for record in records:
            try:
                values = template.prompt(record)
                key = tuple(map(_key, values))  # a task may ask the same several times
                if key not in made:
                    made[key] = Example(task.name, task.output, tuple(map(self._part, values)))
            except MioError as error:
                self.left_out[task.name] = str(error)
            if len(made) == EACH:
                break
        return [*made.values()]

    def _part(self, value: object) -> str | MediaFile:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, Codes):
            return self._media.saved(value.modality, self._host.run.decode(value))
        if isinstance(value, Media):
            return self._media.saved(value.modality, value.data)
        raise MioError(f"an example with {escape(type(value).__name__)} cannot be composed")


def _key(value: object) -> object:
    """The same for pieces that say the same."""
    if isinstance(value, Media):
        return value.modality, value.key
    return (value.modality, value.codes.tobytes()) if isinstance(value, Codes) else value
