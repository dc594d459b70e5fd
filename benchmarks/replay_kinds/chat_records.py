"""Multimodal conversations, made as turns of text and media and written in the forms of LLaVA, ms-swift, LLaMA-Factory,
TRL, Qwen and OpenAI's interface, as JSON Lines, a JSON list and Parquet. What was written is what must be read."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from one_source import open_one
from replays import Variant

ENDINGS = {"image": "png", "video": "mp4", "audio": "wav"}
TEXTS = (
    "What is this?",
    "\nTell me: ",
    " and ",
    "Größe 3\u2028?",
    "a < b > c",
    "2 * 3 <b>",
    "\\alpha ",
    "<|im_end|>",
    "é" * 300,
)
ANSWERS = ("Red.", "A dog\nand a cat.", " 42 ", "¿Qué?", "<answer>7</answer>")
Turn = tuple[str, list[str | tuple[str, int]]]
"""Role, and pieces: text, or the name and number of media."""


def talk(chance: random.Random, names: list[str], media: int) -> tuple[list[Turn], dict[str, list[bytes]]]:
    """A conversation with so many media, and their contents by name, in the order in which they occur."""
    files: dict[str, list[bytes]] = {}
    turns: list[Turn] = []
    left = [chance.choice(names) for _ in range(media)]
    rounds = chance.randint(1, 3)
    for number in range(rounds):
        pieces: list[str | tuple[str, int]] = []
        for _ in range(len(left) if number == rounds - 1 else chance.randint(0, len(left))):
            if chance.random() < 0.5:
                pieces.append(chance.choice(TEXTS))
            name = left.pop()
            files.setdefault(name, []).append(f"{name} {len(files.get(name, []))} {chance.random()}".encode())
            pieces.append((name, len(files[name]) - 1))
        if not pieces or chance.random() < 0.7:
            pieces.append(chance.choice(TEXTS))
        turns += [("user", joined(pieces)), ("assistant", [chance.choice(ANSWERS)])]
    return turns, files


def joined(pieces: list[Any]) -> list[Any]:
    """Neighbouring texts as one."""
    made: list[Any] = []
    for piece in pieces:
        if made and isinstance(piece, str) and isinstance(made[-1], str):
            made[-1] += piece
        else:
            made.append(piece)
    return made


def marked(pieces: list[Any]) -> str:
    return "".join(piece if isinstance(piece, str) else f"<{piece[0]}>" for piece in pieces)


def cell(content: bytes, name: str, form: str, folder: Path) -> Any:
    """One item of media in one of the forms of cells."""
    path = folder / f"{abs(hash(content))}.{ENDINGS[name]}"
    path.write_bytes(content)
    packed = base64.b64encode(content).decode()
    kind = {"image": "image/png", "video": "video/mp4", "audio": "audio/wav"}[name]
    return {
        "path": path.name,
        "absolute": str(path),
        "object": {"path": path.name, "bytes": None},
        "base64": {"bytes": packed, "path": None},
        "data": f"data:{kind};base64,{packed}",
        "file": path.as_uri(),
        "bytes": {"bytes": content, "path": None},
    }[form]


def columns(files: dict[str, list[bytes]], form: str, folder: Path, single: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, contents in files.items():
        cells = [cell(content, name, form, folder) for content in contents]
        found.update({name: cells[0]} if single and len(cells) == 1 else {f"{name}s": cells})
    return found


def placeholders(turns: list[Turn], files: dict[str, list[bytes]], form: str, folder: Path) -> dict[str, Any]:
    """ms-swift and TRL: `messages`, media in columns of the plural."""
    messages = [{"role": role, "content": marked(pieces)} for role, pieces in turns]
    return {"messages": messages, **columns(files, form, folder, single=False)}


def llava(turns: list[Turn], files: dict[str, list[bytes]], form: str, folder: Path) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    turns_ = [{"from": names[role], "value": marked(pieces)} for role, pieces in turns]
    return {"id": "0001", "conversations": turns_, **columns(files, form, folder, single=True)}


def bound_parts(turns: list[Turn], files: dict[str, list[bytes]], form: str, folder: Path) -> dict[str, Any]:
    """TRL: typed parts, media in columns; keys that a part does not have are null, as tables make them."""
    messages = []
    for role, pieces in turns:
        parts = [
            {"type": "text", "text": piece} if isinstance(piece, str) else {"type": piece[0], "text": None}
            for piece in pieces
        ]
        messages.append({"role": role, "content": parts})
    return {"messages": messages, **columns(files, form, folder, single=False)}


def numbered_parts(turns: list[Turn], files: dict[str, list[bytes]], form: str, folder: Path) -> dict[str, Any]:
    """As `bound_parts`, with the number of the item that is meant."""
    made = bound_parts(turns, files, form, folder)
    for message, (_, pieces) in zip(made["messages"], turns, strict=True):
        for part, piece in zip(message["content"], pieces, strict=True):
            part["index"] = None if isinstance(piece, str) else piece[1]
    return made


def own_parts(turns: list[Turn], files: dict[str, list[bytes]], form: str, folder: Path, style: str) -> dict[str, Any]:
    """Parts that hold their media: Qwen's, transformers' and OpenAI's forms."""
    messages = []
    for role, pieces in turns:
        parts: list[Any] = []
        for piece in pieces:
            if isinstance(piece, str):
                parts.append({"text": piece} if style == "untyped" else {"type": "text", "text": piece})
                continue
            name, number = piece
            held = cell(files[name][number], name, form, folder)
            if style == "openai" and name == "audio":
                packed = base64.b64encode(files[name][number]).decode()
                parts.append({"type": "input_audio", "input_audio": {"data": packed, "format": "wav"}})
            elif style == "openai":
                parts.append({"type": f"{name}_url", f"{name}_url": {"url": held, "detail": "low"}})
            elif style == "untyped":
                parts.append({name: held})
            elif style == "place":
                parts.append({"type": name, "url" if form in ("data", "file") else "path": held})
            else:
                parts.append({"type": name, name: held})
        plain = len(parts) == 1 and isinstance(pieces[0], str)
        messages.append({"role": role, "content": pieces[0] if plain else parts})
    return {"messages": messages}


FORMS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
    "placeholders": (placeholders, ("path", "absolute", "object", "base64", "data", "file", "bytes")),
    "LLaVA": (llava, ("path", "absolute", "object", "data")),
    "bound parts": (bound_parts, ("path", "object", "data")),
    "numbered parts": (numbered_parts, ("path", "object")),
    "own parts": (partial(own_parts, style="typed"), ("path", "absolute", "object", "data")),
    "own parts without type": (partial(own_parts, style="untyped"), ("path", "data")),
    "parts with a place": (partial(own_parts, style="place"), ("path", "data", "file")),
    "OpenAI": (partial(own_parts, style="openai"), ("data", "file")),
}
FILES = ("lines", "list", "parquet")


def write(folder: Path, row: dict[str, Any], file: str) -> dict[str, Any]:
    """Writes a row; returns what the recipe says about its source."""
    if file == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), folder / "data.parquet")
        return {"dataset": "parquet", "options": {"path": str(folder / "data.parquet"), "folder": str(folder)}}
    text = json.dumps([row], indent=1, ensure_ascii=False) if file == "list" else json.dumps(row)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    return {}


def expected(turns: list[Turn], files: dict[str, list[bytes]]) -> list[tuple[str, list[str | bytes]]]:
    return [
        (role, [piece if isinstance(piece, str) else files[piece[0]][piece[1]] for piece in pieces])
        for role, pieces in turns
    ]


def spoilt(chance: random.Random, row: dict[str, Any], how: str) -> dict[str, Any]:
    """A record that cannot be read right."""
    media = next(name for name in ("images", "videos", "audios") if name in row)
    content = row["messages"][0]
    if how == "one too many":
        row[media] = [*row[media], row[media][0]]
    elif how == "one too few":
        row[media] = row[media][:-1]
    elif how == "none":
        del row[media]
    elif how == "an empty place":
        row[media] = [None, *row[media]]
    elif how == "quoted without a backslash":
        content["content"] += f" <{media[:-1]}>"
    elif how == "a file that is gone":
        row[media][0] = "gone.png"
    elif how == "an address":
        row[media][0] = "https://example.org/a.png"
    elif how == "base64 that is none":
        row[media][0] = f"data:image/png;base64,{chance.choice(['*', 'aGk', 'a'])}*"
    elif how == "another role":
        content["role"] = chance.choice(["tool", "observation", "", "moderator"])
    elif how == "two columns":
        row[media[:-1]] = row[media][0]
    return row


BROKEN = (
    "one too many", "one too few", "none", "an empty place", "quoted without a backslash", "a file that is gone",
    "an address", "base64 that is none", "another role", "two columns",
)  # fmt: skip


def variants(folder: Path, chance: random.Random) -> Iterator[Variant]:
    kinds = cycle(
        [*((form, cells) for form, (_, known) in FORMS.items() for cells in known), *BROKEN, "escape", "system"]
    )
    files_of = cycle(FILES)
    for number, kind in enumerate(kinds):
        place = folder / str(number)
        place.mkdir()
        names = chance.sample(list(ENDINGS), chance.randint(1, 3))
        turns, media = talk(chance, names, chance.randint(1, 4) if kind in BROKEN else chance.randint(0, 4))
        file, readable = next(files_of), kind not in BROKEN
        if isinstance(kind, tuple):
            form, cells = kind
            file = "parquet" if cells == "bytes" else file
            mixed = file == "parquet" and form in (
                "own parts",
                "own parts without type",
                "OpenAI",
                "parts with a place",
            )
            file = "lines" if mixed and cells == "object" else file
            row = FORMS[form][0](turns, media, cells, place)
            if mixed and form != "OpenAI":  # a column of a table has one type
                for message in row["messages"]:
                    if isinstance(message["content"], str):
                        message["content"] = [{"type": "text", "text": message["content"]}]
            elif file == "parquet" and form == "OpenAI":
                file = "lines"
            name = f"{form}, {cells}, {file}"
        else:
            row = placeholders(turns, media, "path", place)
            name = f"{kind}, {file}"
            if kind == "escape":
                quoted = chance.choice(list(ENDINGS))
                row["messages"][0]["content"] += f"\\<{quoted}>"
                turns[0] = ("user", joined([*turns[0][1], f"<{quoted}>"]))
            elif kind == "system":
                row["system"] = "Be brief."
                turns.insert(0, ("system", ["Be brief."]))
            else:
                row = spoilt(chance, row, kind)
        source = {"form": "chat", **write(place, row, file)}
        wanted = expected(turns, media)

        def right(found: Any, wanted: Any = wanted) -> str:
            return "" if found == wanted else f"read {found!r:.300}, written {wanted!r:.300}"

        yield Variant(
            name, lambda place=place, source=source: open_one(place, source=source).contents(), right, readable
        )  # type: ignore[misc]
