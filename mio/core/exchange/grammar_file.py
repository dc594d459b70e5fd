"""The span grammar of an export as a file: what a program without mio needs to follow it.

The file holds declarations: blocks of ids, spans with their layouts, frames and automata, control tokens with what they
do. The page docs/exchange.md says how they are followed, and `examples/vllm` does so.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict
from typing import Any

from mio.core.contract.automata import Automaton, state_name
from mio.core.contract.controls import ENDS
from mio.core.contract.values import Modality
from mio.core.tokens.documents import GENERATE, UNDERSTAND
from mio.core.tokens.item_encoders import only_read
from mio.core.tokens.vocabulary import Vocabulary

FILE = "grammar.json"
FORMAT, VERSION = "mio-grammar", 2


def grammar_content(
    vocabulary: Vocabulary,
    stop: int,
    context: int,
    made: Container[str] = (),
    read: Container[str] = (),
    undecodable: Container[str] = (),
) -> dict[str, Any]:
    """The content of the file.

    Args:
        vocabulary: made with its plugins and its text tokenizer.
        stop: the token that ends an answer.
        context: positions that prompt and answer may take together; the stop token takes none.
        made: modalities whose spans that are written are made by heads.
        read: modalities whose spans that are read are computed by encoders.
        undecodable: modalities of whose codes nothing makes media, so that no answer has any.
    """
    modalities = {declared.name: declared for declared in vocabulary.modalities}
    specials = asdict(vocabulary.specials)
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": vocabulary.fingerprint,
        "size": vocabulary.size,
        "context": context,
        "specials": specials,
        "text": {"start": 0, "size": vocabulary.blocks[0].size, "excluded": sorted(set(specials.values()))},
        "stop": stop,
        "ends": sorted({stop, specials["eos"], *ending_controls(vocabulary)}),
        "reserved": [{"start": block.start, "size": block.size} for block in vocabulary.blocks if block.absent],
        "spans": {
            name: _span(vocabulary, declared, name in made, name in read, name in undecodable)
            for name, declared in modalities.items()
            if not (declared.text or declared.parts)
        },
        "sequences": _sequences(modalities, made, undecodable),
        "controls": _controls(vocabulary),
    }


def ending_controls(vocabulary: Vocabulary) -> list[int]:
    """Ids of the control tokens that end the answer in which they are said."""
    controls = vocabulary.controls
    return [index for index, name in controls.by_id.items() if controls.tokens[name].action in ENDS]


def unfilled(vocabulary: Vocabulary, made: Container[str] = (), undecodable: Container[str] = ()) -> list[int]:
    """Ids that open what a program without mio cannot go on with: media that heads make, or that are only read."""
    spans = [declared for declared in vocabulary.modalities if declared.begin and not declared.parts]
    return [
        vocabulary.begin(declared.name)
        for declared in spans
        if declared.name in made or declared.name in undecodable or not declared.codebooks
    ]


def _span(vocabulary: Vocabulary, declared: Modality, made: bool, read: bool, undecodable: bool) -> dict[str, Any]:
    """A modality whose items are spans. A view is the codebooks that a span carries, in the order of its layout, or how
    it is carried instead."""
    name = declared.name
    books = [vocabulary.code_ids(name, number) for number in range(len(declared.codebooks))]
    return {
        "begin": vocabulary.begin(name) if declared.begin else None,
        "end": vocabulary.end(name) if declared.end else None,
        "begin_token": declared.begin or None,
        "end_token": declared.end or None,
        "layout": declared.layout if books else None,
        "frames": asdict(declared.frames) if books else None,
        "automaton": _automaton(declared.automaton),
        "codebooks": [{"start": ids.start, "size": len(ids)} for ids in books],
        "written": "head" if made else None if undecodable else _view(declared, GENERATE),
        "read": "encoder" if read else _view(declared, UNDERSTAND),
    }


def _automaton(automaton: Automaton | None) -> dict[str, Any] | None:
    """States by number, of which a span begins in 0: labels, arcs as first code, code behind the last and the state
    they lead to, and whether a span may end."""
    if automaton is None:
        return None
    return {
        "states": list(map(state_name, automaton.states)),
        "arcs": [[list(run) for run in runs] for runs in automaton.runs],
        "ends": [number for number, end in enumerate(automaton.ends) if end],
    }


def _view(declared: Modality, view: str) -> list[int] | None:
    return list(declared.view(view)) or None


def _sequences(modalities: Mapping[str, Modality], made: Container[str], undecodable: Container[str]) -> dict[str, Any]:
    """Modalities whose items are spans of others, following each other: one of each, and that so often."""
    return {
        name: {
            "of": list(declared.part_names),
            "minimum": 1 if isinstance(declared.parts, tuple) else declared.frames.minimum,
            "maximum": 1 if isinstance(declared.parts, tuple) else declared.frames.maximum,
            "written": not only_read(modalities, name, made)
            and not any(part in undecodable for part in declared.part_names),
        }
        for name, declared in modalities.items()
        if declared.parts
    }


def _controls(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    controls = vocabulary.controls
    return [
        {
            "name": name,
            "ids": list(controls.ids[name]),
            "text": token.plain_text,
            "anywhere": token.anywhere,
            "action": token.action,
            "inserts": list(controls.inserts.get(name, ())),
        }
        for name, token in controls.tokens.items()
    ]
