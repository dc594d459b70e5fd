"""Fields, turns and parts without content, as JSON, Parquet and CSV have them. Nothing may be learnt from nothing; the
same records with content, or with a template that allows for its lack, are read as they were written."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from one_source import open_one
from replays import Variant

from mio.core.tokens.templates import CompiledTemplate

NOTHING: dict[str, Any] = {
    "null": None,
    "empty text": "",
    "a space": " ",
    "white space": "\n\t \u00a0\u3000",
    "empty list": [],
    "list of null": [None],
    "list of empty texts": ["", " "],
}
NO_MEDIA = {**NOTHING, "object of nulls": {"bytes": None, "path": None}, "no bytes": {"bytes": "", "path": ""}}
TEMPLATES = {
    "caption": ("{image} The caption:", " {caption}", ("image", "caption")),
    "draw": ("Draw {caption}: ", "{image}", ("caption", "image")),
    "ask": ("{question}", "{answer}", ("question", "answer")),
    "look": ("{image}{question}", "{answer}", ("image", "question", "answer")),
    "text": ("", "{text}", ("text",)),
}
FULL = {"image": "a.png", "caption": "a dog", "question": "What?", "answer": "Red.", "text": "Once."}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "empty question": ([user(""), assistant("x")], False),
    "blank question": ([user(" \n"), assistant("x")], False),
    "null question": ([user(None), assistant("x")], False),
    "no parts in the question": ([user([]), assistant("x")], False),
    "empty parts in the question": ([user([{"type": "text", "text": ""}]), assistant("x")], False),
    "empty answer": ([user("x"), assistant("")], False),
    "null answer": ([user("x"), assistant(None)], False),
    "blank answer of parts": ([user("x"), assistant([{"type": "text", "text": " "}])], False),
    "empty second answer": ([user("x"), assistant("y"), user("z"), assistant("")], False),
    "empty second question": ([user("x"), assistant("y"), user(""), assistant("w")], False),
    "no answer": ([user("x")], False),
    "no turns": ([], False),
    "system prompt alone": ([{"role": "system", "content": "x"}], False),
    "empty system prompt": ([{"role": "system", "content": ""}, user("x"), assistant("y")], True),
    "question open at the end": ([user("x"), assistant("y"), user("z")], True),
}
PARTS: dict[str, tuple[list[Any], bool]] = {
    "no parts": ([], False),
    "empty part": ([""], False),
    "blank parts": ([" ", {"type": "text", "text": "\n"}], False),
    "a part between blank ones": (["", "x", " "], True),
}


def write(folder: Path, row: dict[str, Any], file: str) -> dict[str, Any] | None:
    """Writes a row; returns what the recipe says about its source. None where a format cannot hold it."""
    if file == "parquet":
        try:
            pq.write_table(pa.Table.from_pylist([row]), folder / "data.parquet")
        except (pa.ArrowException, TypeError):
            return None
        return {"dataset": "parquet", "options": {"path": str(folder / "data.parquet"), "folder": str(folder)}}
    if file == "csv":
        if any(value is not None and not isinstance(value, str) for value in row.values()) or "image" not in row:
            return None
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table)
            writer.writerow(["number", *row])
            writer.writerow(["1", *("" if value is None else value for value in row.values())])
        return {"dataset": "folder", "options": {"path": str(folder)}}
    (folder / "data.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return {}


def variants(folder: Path, chance: random.Random) -> Iterator[Variant]:
    cases: list[Any] = []
    for (name, (_, _, fields)), file in product(TEMPLATES.items(), ("lines", "parquet", "csv")):
        cases.append((f"{name}, {file}, all there", name, {}, file, True, False))
        for field in fields:
            lacks = NO_MEDIA if field == "image" else NOTHING
            cases += [
                (f"{name}, {file}, `{field}`: {what}", name, {field: value}, file, False, False)
                for what, value in lacks.items()
            ]
            if field == "question":
                cases += [
                    (f"{name}, {file}, `{field}?`: {what}", name, {field: value}, file, name == "look", True)
                    for what, value in NOTHING.items()
                    if what in ("null", "empty text", "empty list")
                ]
    chance.shuffle(cases)
    talks: list[Any] = [(f"conversation: {name}", "messages", *told) for name, told in CONVERSATIONS.items()]
    talks += [(f"interleaved: {name}", "parts", *told) for name, told in PARTS.items()]
    chance.shuffle(talks)
    for number in range(max(len(cases), len(talks))):
        place = folder / str(number)
        place.mkdir()
        (place / "a.png").write_bytes(b"picture")
        if number < len(cases):
            yield from of_template(place, *cases[number])
        if number < len(talks):
            yield of_talk(place, *talks[number])


def of_template(
    folder: Path, name: str, template: str, lack: dict[str, Any], file: str, readable: bool, optional: bool
) -> Iterator[Variant]:
    prompt, response, fields = TEMPLATES[template]
    row = {field: FULL[field] for field in fields} | lack
    source = write(folder, row, file)
    if source is None:
        return
    if optional:
        prompt = prompt.replace("{question}", "{question?}")
    made = {"direction": "d", "prompt": prompt, "response": response}
    wanted = [*spelled(prompt, row), "|", *spelled(response, row)]

    def read() -> list[str | bytes]:
        data = {"templates": {"own": [made]}, "form": "chat"}
        opened = open_one(folder, source={**source, "templates": "own"}, data=data)
        [compiled] = [CompiledTemplate(one) for one in opened_templates(opened)]
        turns = opened.contents(compiled)
        return [*turns[0][1], "|", *turns[1][1]]

    def right(found: list[str | bytes]) -> str:
        return "" if flat(found) == flat(wanted) else f"read {found}, written {wanted}"

    yield Variant(name, read, right, True if optional and readable else readable)


def opened_templates(opened: Any) -> list[Any]:
    from mio.core.contract.values import Template

    return [
        Template(direction=one.direction, prompt=one.prompt, response=one.response)
        for one in opened.recipe.data.templates["own"]
    ]


def spelled(text: str, row: dict[str, Any]) -> list[str | bytes]:
    """The template filled by hand."""
    found: list[str | bytes] = []
    for piece in text.replace("}", "{").split("{"):
        field = piece.removesuffix("?")
        if field not in FULL:
            found.append(piece)
        elif field == "image":
            found.append(b"picture")
        elif row[field]:
            found.append(row[field])
    return found


def flat(pieces: list[str | bytes]) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces)


def of_talk(folder: Path, name: str, field: str, content: list[Any], readable: bool) -> Variant:
    form = "chat" if field == "messages" else "plain"

    def read() -> str:
        opened = open_one(folder, [{field: content}], source={"form": form})
        opened.check()
        return opened.spelled(opened.rendered().tokens.tolist())

    def right(found: str) -> str:
        texts = [text for part in content for text in ([part["content"]] if field == "messages" else [part])]
        missing = [text for text in texts if text not in found]
        return f"{missing} is not in {found!r}" if missing else ""

    return Variant(name, read, right, readable)
