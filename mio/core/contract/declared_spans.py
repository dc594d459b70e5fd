"""What is declared of the spans of modalities beside their ids: how those that a run was trained on are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mio.core.contract.validation import VIEWS
from mio.core.contract.values import Modality

Spans = Mapping[str, Mapping[str, str]]
"""By modality and field of its declaration."""
NONE = "none"


def declared_spans(modalities: Iterable[Modality]) -> dict[str, dict[str, str]]:
    """Of all modalities but text, in words that people can compare. Of an automaton, the fingerprint."""
    return {declared.name: dict(_fields(declared)) for declared in modalities if not declared.text}


def _fields(declared: Modality) -> Iterator[tuple[str, str]]:
    for name in ("begin", "end"):
        if token := getattr(declared, name):
            yield name, token
    if declared.codebooks:
        yield "layout", declared.layout
        for view in VIEWS:
            yield f"views.{view}", " ".join(map(str, declared.view(view)))
    if declared.parts:
        yield "parts", " ".join(declared.part_names)
    if declared.codebooks or (isinstance(declared.parts, str) and declared.parts):
        yield "frames", str(declared.frames)
    if declared.automaton is not None:
        yield "automaton", declared.automaton.fingerprint[:12]


def span_changes(old: Spans, new: Spans) -> Iterator[tuple[str, str, str, str]]:
    """(modality, field, old, new) of what two declarations of a modality differ in."""
    for name in sorted(old.keys() & new.keys()):
        for field in sorted(old[name].keys() | new[name].keys()):
            was, now = old[name].get(field, NONE), new[name].get(field, NONE)
            if was != now:
                yield name, field, was, now
