"""Checks of a plugin's control tokens, and of its rule for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, Record, TextTokenizer, Trainable
from mio.core.errors import DataError
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import Document
from mio.core.tokens.templates import CHAT, PLAIN, CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary
from mio.testing.outcomes import RECORDS, SkippedCheckError


class ControlChecks:
    """The checks of one plugin, among those that it needs beside it."""

    def __init__(self, name: str, plugins: EnabledPlugins) -> None:
        self._name = name
        self._plugins = plugins

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check; none for a plugin without control tokens."""
        yield "control tokens are valid", self._plugins.control_tokens
        try:
            named = [owner for owner, _ in (*self._plugins.control_tokens(), *self._plugins.label_rules())]
        except Exception:  # which the check above reports
            return
        if self._name in named:
            yield "control tokens can be told from text", self._told_apart
            yield "records are labelled, and the same again", self._labelled

    def _told_apart(self) -> None:
        plugins = self._plugins
        if not any(declared.text for _, declared in plugins.modalities()):
            raise SkippedCheckError("no plugin with text; give one (`--with text`)")
        text = plugins.tokenizer(TEXT)
        if isinstance(text, Trainable):
            raise SkippedCheckError("the text tokenizer is trained first; give one that is there")
        assert isinstance(text, TextTokenizer)
        Vocabulary.build(text, plugins.modalities(), plugins.control_tokens())

    def _labelled(self) -> None:
        own = [(name, factory) for name, (owner, factory) in self._plugins.sources().items() if owner == self._name]
        if not own:
            raise SkippedCheckError("the plugin ships no sources")
        labels = Labels(self._plugins.control_tokens(), self._plugins.label_rules())
        for name, factory in own:
            source = factory("train", {})
            for index in range(min(len(source), RECORDS)):
                for first, second in zip(*(self._documents(source[index], labels) for _ in range(2)), strict=True):
                    assert [one.content for one in first.segments if not _is_media(one.content)] == [
                        one.content for one in second.segments if not _is_media(one.content)
                    ], f"`{name}`: record {index} is labelled otherwise at the second time"

    def _documents(self, record: Record, labels: Labels) -> list[Document]:
        """The documents that the record's own form, or the plugins' templates, make of it."""
        if "messages" in record or "parts" in record:
            return [to_document(record, None, CHAT if "messages" in record else PLAIN, {}, labels=labels)]
        documents = []
        for _, templates in self._plugins.templates().values():
            for template in templates:
                compiled = CompiledTemplate(template)
                if set(compiled.fields) <= record.keys():
                    try:
                        documents.append(to_document(record, compiled, PLAIN, {}, labels=labels))
                    except DataError as error:
                        if "`label`" in str(error):
                            raise
        return documents


def _is_media(content: Any) -> bool:
    return not isinstance(content, str | Mapping) and hasattr(content, "modality")
