"""How the endpoints that take bare text or sound ask the model: by the templates that it was trained with.

A text is spoken, a recording transcribed, a picture drawn in the form of those documents of the run's recipe whose
prompt has no other field than the text or the media, and whose response is what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mio.core.contract.values import OPTIONAL, TEXT, Template, Value
from mio.core.data.mixture import read_sources
from mio.core.data.sources import template_sets
from mio.core.errors import UserError, nearest
from mio.core.generation.model import Model
from mio.core.tokens.chat import Message, chat_document
from mio.core.tokens.documents import Document, plain_document
from mio.core.tokens.templates import CHAT, CompiledTemplate
from mio.serve.abilities import Abilities

SPEECH, TRANSCRIPTION, IMAGE = "speech", "transcription", "image"
KINDS = (SPEECH, TRANSCRIPTION, IMAGE)
_SAID = ("transcription", "transcript")
"""Names of fields that hold what a recording says."""


@dataclass(frozen=True)
class Question:
    """How something is asked."""

    template: CompiledTemplate
    field: str
    """What is asked about."""
    form: str
    output: str
    """Modality of the answer."""
    origin: str
    """Where it is from, for people."""
    system: Mapping[str, str]

    def document(self, value: Value) -> Document:
        """The prompt about a value. Raises `DataError` for an empty text."""
        record = {self.field: value}
        prompt = self.template.filled(record, asked=True)[0] if self.template.fields else [value]
        if self.form == CHAT:
            turns: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": []}]
            return chat_document(turns, self.system, self.output)
        return plain_document(prompt, [])


@dataclass(frozen=True)
class _Found:
    template: Template
    name: str
    form: str
    origin: str


class Questions:
    """The questions of a run, by kind and modality.

    Args:
        given: by kind, a template that takes the place of what would be found: `SET/DIRECTION`, or a prompt with one
            field in braces.

    Raises:
        UserError: one that is given does not fit.
    """

    def __init__(self, model: Model, abilities: Abilities, given: Mapping[str, str]) -> None:
        self._model = model
        self._data = model.recipe.data
        self._names = {
            name: {name, f"{name}s", *module.names, *(f"{other}s" for other in module.names)}
            for name, module in abilities.modules.items()
        }
        for kind in given:
            if kind not in KINDS:
                raise UserError(f"--template {kind}: is none of {', '.join(KINDS)}{nearest(kind, KINDS)}")
        self._given = {kind: self._parsed(kind, text) for kind, text in given.items()}
        self._cache: dict[tuple[str, str], Question] = {}

    def of(self, kind: str, modality: str) -> Question:
        """How something of this modality is asked for, or, of a transcription, asked about."""
        key = kind, modality
        if key not in self._cache:
            self._cache[key] = self._question(kind, modality)
        return self._cache[key]

    def _question(self, kind: str, modality: str) -> Question:
        output = TEXT if kind == TRANSCRIPTION else modality
        found = self._given.get(kind) or self._best(kind, modality)
        if found is None:  # what the model has to do with it, it has to see for itself
            found = _Found(Template(direction=kind, prompt="", response=""), "", self._data.form, "no template")
        asked = Template(direction=found.template.direction, prompt=found.template.prompt, response="")
        template = CompiledTemplate(asked, found.name)
        field = template.fields[0] if template.fields else ""
        return Question(template, field, found.form, output, found.origin, self._data.system)

    def _best(self, kind: str, modality: str) -> _Found | None:
        """Of the templates that fit: those of sources that the stage reads before those that its recipe declares, and
        these before the plugins' own; of these those whose name says so, and then the first."""
        for candidates in (self._of_sources(read=True), self._of_sources(read=False), self._of_plugins()):
            fits = [one for one in candidates if self._fits(one.template, kind, modality)]
            if fits:
                return min(fits, key=lambda one: self._unlike(one.template, kind, modality))
        return None

    def _of_sources(self, read: bool) -> Iterator[_Found]:
        sets = template_sets(self._model.recipe, self._model.plugins)
        recipe = self._model.recipe
        trained = {(group, name) for group, name, _ in read_sources(recipe.data, recipe.mixture)}
        for group, config in recipe.data.groups.items():
            for name, source in config.sources.items():
                if ((group, name) in trained) is not read:
                    continue
                for template in sets.get(source.templates, ()):
                    if not source.directions or source.directions.get(template.direction):
                        form = source.form or self._data.form
                        yield _Found(template, source.templates, form, f"data.groups.{group}.sources.{name}")

    def _of_plugins(self) -> Iterator[_Found]:
        """In chat form the last sets come first: plugins declare instructions behind what is learnt before them."""
        sets = list(template_sets(self._model.recipe, self._model.plugins).items())
        for name, templates in reversed(sets) if self._data.form == CHAT else sets:
            for template in templates:
                yield _Found(template, name, self._data.form, "its plugins")

    def _fits(self, template: Template, kind: str, modality: str) -> bool:
        prompt = CompiledTemplate(Template(direction="", prompt=template.prompt, response="")).fields
        response = CompiledTemplate(Template(direction="", response=template.response)).fields
        if len(prompt) != 1 or f"{prompt[0]}{OPTIONAL}" in template.prompt or len(response) != 1:
            return False
        asked, answered = self._modality(prompt[0]), self._modality(response[0])
        if kind == TRANSCRIPTION:
            return (asked, answered) == (modality, TEXT)
        return (asked, answered) == (TEXT, modality)

    def _modality(self, field: str) -> str:
        """What a field holds, by its name: media are called as their modality is, all else is text."""
        return next((name for name, names in self._names.items() if field in names), TEXT)

    def _unlike(self, template: Template, kind: str, modality: str) -> int:
        wanted = f"{modality}_to_{TEXT}" if kind == TRANSCRIPTION else f"{TEXT}_to_{modality}"
        if template.direction == wanted:
            return 0
        said = kind != TRANSCRIPTION or any(f"{{{name}}}" in template.response for name in _SAID)
        return 1 if said else 2

    def _parsed(self, kind: str, text: str) -> _Found:
        where = f"--template {kind}"
        if "{" in text:
            try:
                template = Template(direction=kind, prompt=text, response="")
                fields = CompiledTemplate(template).fields
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            if len(fields) != 1:
                raise UserError(
                    f"{where}: {text!r} has {len(fields)} fields; write one, where what is asked about goes"
                )
            return _Found(template, "", self._data.form, "--template")
        sets = template_sets(self._model.recipe, self._model.plugins)
        name, _, direction = text.rpartition("/")
        if not name:
            raise UserError(
                f"{where}: {text!r} is no SET/DIRECTION, and as a prompt it lacks a field in braces, as {{text}}, "
                "where what is asked about goes"
            )
        if name not in sets:
            raise UserError(f"{where}: no template set `{name}`{nearest(name, sets)}; write SET/DIRECTION, or a prompt")
        found = [one for one in sets[name] if one.direction == direction]
        if not found:
            known: Sequence[str] = [one.direction for one in sets[name]]
            raise UserError(f"{where}: `{name}` has no direction `{direction}`{nearest(direction, known)}")
        prompt = CompiledTemplate(Template(direction="", prompt=found[0].prompt, response="")).fields
        if len(prompt) != 1:
            raise UserError(
                f"{where}: the prompt of `{text}` has {len(prompt)} fields; one with a single field is needed"
            )
        return _Found(found[0], name, self._data.form, "--template")
