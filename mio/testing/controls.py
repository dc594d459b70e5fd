"""Checks of a plugin's control tokens, and of its rule for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Record
from mio.core.errors import DataError
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import Document
from mio.core.tokens.templates import CHAT, PLAIN, CompiledTemplate, to_document
from mio.testing.corpora import open_splits, read
from mio.testing.subject import Subject

_LABELLED = 20
"""Records of each source that are labelled."""


_FOREIGN: Record = {
    "messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I am well."}]
}
"""Without the fields of any corpus."""


class ControlChecks:
    """The checks of one plugin, among those that it needs beside it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._plugins = subject.plugins

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check; none for a plugin without control tokens."""
        yield "control tokens are valid", self._plugins.control_tokens
        try:
            named = [owner for owner, _ in (*self._plugins.control_tokens(), *self._plugins.label_rules())]
        except Exception:  # which the check above reports
            return
        if self._subject.name in named:
            yield "control tokens can be told from text", lambda: self._subject.vocabulary
            yield "records are labelled, and the same again", self._labelled

    def _labelled(self) -> None:
        labels = Labels(self._plugins.control_tokens(), self._plugins.label_rules())
        try:
            _documents(self._plugins, _FOREIGN, labels)
        except Exception as error:
            raise AssertionError(
                f"of a record of somebody else's, a conversation: {error}; a rule is asked of all answers of a recipe"
            ) from error
        for name in self._subject.own_sources:
            for index, (first, second) in enumerate(
                zip(labelled(self._plugins, name), labelled(self._plugins, name), strict=True)
            ):
                assert first == second, f"`{name}`: record {index} is labelled otherwise at the second time"


def labelled(plugins: EnabledPlugins, name: str) -> list[list[list[Any]]]:
    """Of the first records of a corpus, the documents that their own form, or the plugins' templates, make of them:
    their texts and control tokens."""
    labels = Labels(plugins.control_tokens(), plugins.label_rules())
    found = []
    for source in list(open_splits(plugins, name)[0].values())[:1]:
        for index in range(min(len(source), _LABELLED)):
            record = read(source, index)
            documents = [] if record is None else _documents(plugins, record, labels)
            found.append([[one.content for one in each.segments if not _is_media(one.content)] for each in documents])
    return found


def _documents(plugins: EnabledPlugins, record: Record, labels: Labels) -> list[Document]:
    if "messages" in record or "parts" in record:
        return [to_document(record, None, CHAT if "messages" in record else PLAIN, {}, labels=labels)]
    documents = []
    for _, templates in plugins.templates().values():
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
