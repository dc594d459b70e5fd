"""Sources that are edited after they were tokenised: what is trained must be what is there.

Each variant writes a source, tokenises it, edits it and looks twice: a run must refuse the old shards, and after
`mio tokenize` the shards must be those of a source that was never tokenised before, made again only where the edit was.
The oracle reads the files itself (json, csv, tarfile, pyarrow) and knows a picture by its bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random as randomness
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from replays import Variant
from token_world import codes_of, read, shards_of, tokenise

from mio.core.errors import DataError

RECORDS, SHARD = 40, 8

Rows = list[tuple[str, bytes]]
"""(caption, content of the picture) of each record."""


@dataclass
class Form:
    """A way to store captions with pictures."""

    reader: str
    options: dict[str, Any]
    write: Callable[[Path, Rows], None]
    oracle: Callable[[Path], list[tuple[str, bytes]]]
    tables: str
    """Pattern of the files that hold the records; empty where there are none."""
    inside: bool
    """Whether pictures are inside those files."""


def _jsonl(folder: Path, rows: Rows) -> None:
    lines = []
    for index, (caption, content) in enumerate(rows):
        (folder / f"{index:03}.png").write_bytes(content)
        lines.append(json.dumps({"image": f"{index:03}.png", "caption": caption}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")


def _read_jsonl(folder: Path) -> Rows:
    found = [json.loads(line) for line in (folder / "data.jsonl").read_text().split("\n") if line.strip()]
    return [(row["caption"], (folder / row["image"]).read_bytes()) for row in found]


def _chat(folder: Path, rows: Rows) -> None:
    lines = []
    for index, (caption, content) in enumerate(rows):
        (folder / f"{index:03}.png").write_bytes(content)
        asked = [{"type": "image", "image": f"{index:03}.png"}, {"type": "text", "text": "What?"}]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": caption}]
        lines.append(json.dumps({"messages": turns}))
    (folder / "data.jsonl").write_text("\n".join(lines))


def _read_chat(folder: Path) -> Rows:
    found = [json.loads(line)["messages"] for line in (folder / "data.jsonl").read_text().split("\n") if line.strip()]
    return [(said["content"], (folder / asked["content"][0]["image"]).read_bytes()) for asked, said in found]


def _table(folder: Path, rows: Rows) -> None:
    lines = ["file_name,caption"]
    for index, (caption, content) in enumerate(rows):
        (folder / f"{index:03}.png").write_bytes(content)
        lines.append(f"{index:03}.png,{caption}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def _read_table(folder: Path) -> Rows:
    import csv

    with (folder / "metadata.csv").open(newline="") as file:
        return [(row["caption"], (folder / row["file_name"]).read_bytes()) for row in csv.DictReader(file)]


def _files(folder: Path, rows: Rows) -> None:
    for index, (caption, content) in enumerate(rows):
        (folder / f"{index:03}-{caption.replace(' ', '_')}.png").write_bytes(content)


def _read_files(folder: Path) -> Rows:
    found = sorted(folder.glob("*.png"))
    return [(path.stem[4:].replace("_", " "), path.read_bytes()) for path in found]


def _tar(folder: Path, rows: Rows) -> None:
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for index, (caption, content) in enumerate(part):
                for ending, inside in (("png", content), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number}{index:03}.{ending}")
                    member.size = len(inside)
                    archive.addfile(member, io.BytesIO(inside))


def _read_tar(folder: Path) -> Rows:
    found: Rows = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        for name in sorted(content):
            if name.endswith(".png"):
                found.append((content[name[:-3] + "txt"].decode(), content[name]))
    return found


def _as_table(rows: Rows) -> pa.Table:
    pictures = [{"bytes": content, "path": None} for _, content in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(pictures, kind), "caption": [caption for caption, _ in rows]})


def _rows_of(table: pa.Table) -> Rows:
    return [(row["caption"], row["image"]["bytes"]) for row in table.to_pylist()]


def _parquet(folder: Path, rows: Rows) -> None:
    # neither compressed nor by dictionary, so that a byte can be changed in the middle of the file
    pq.write_table(
        _as_table(rows), folder / "data.parquet", compression="none", use_dictionary=False, write_statistics=False
    )


def _read_parquet(folder: Path) -> Rows:
    return _rows_of(pq.read_table(folder / "data.parquet"))


def _arrow(folder: Path, rows: Rows) -> None:
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, _as_table(rows).schema) as out:
        out.write_table(_as_table(rows))


def _named(folder: Path, rows: Rows) -> None:
    (folder / "pictures").mkdir(exist_ok=True)
    pictures = []
    for index, (_, content) in enumerate(rows):
        (folder / "pictures" / f"{index:03}.png").write_bytes(content)
        pictures.append(f"pictures/{index:03}.png")
    table = pa.table({"image": pictures, "caption": [caption for caption, _ in rows]})
    pq.write_table(table, folder / "data.parquet", compression="none", use_dictionary=False, write_statistics=False)


FORMS = {
    "jsonl": Form("jsonl", {"path": "data.jsonl"}, _jsonl, _read_jsonl, "data.jsonl", False),
    "conversations": Form("jsonl", {"path": "data.jsonl"}, _chat, _read_chat, "data.jsonl", False),
    "table": Form("folder", {"path": "."}, _table, _read_table, "metadata.csv", False),
    "files": Form("folder", {"path": "."}, _files, _read_files, "", False),
    "tar": Form("webdataset", {"path": "*.tar"}, _tar, _read_tar, "*.tar", True),
    "parquet": Form("parquet", {"path": "data.parquet"}, _parquet, _read_parquet, "*.parquet", True),
    "arrow": Form(
        "arrow", {"path": "data.arrow"}, _arrow,
        lambda at: _rows_of(pa.ipc.open_stream((at / "data.arrow").read_bytes()).read_all()), "*.arrow", True,
    ),
    "parquet of paths": Form(
        "parquet", {"path": "data.parquet"}, _named,
        lambda at: [
            (row["caption"], (at / row["image"]).read_bytes())
            for row in pq.read_table(at / "data.parquet").to_pylist()
        ],
        "*.parquet", False,
    ),
    "hub": Form("hub", {"name": "../source"}, _parquet, _read_parquet, "*", True),
    "stream": Form("hub", {"name": "../source", "streaming": True}, _parquet, _read_parquet, "*", True),
}  # fmt: skip


def _in_place(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1, (path, old)
    assert len(old) == len(new)
    with path.open("r+b") as file:
        file.seek(content.index(old))
        file.write(new)


def _holding(folder: Path, what: bytes) -> Path:
    """The only file that holds some bytes."""
    [path] = [path for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]
    return path


def _caption(form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """The caption of one record by another of the same length, in place."""
    old, new = rows[at][0], rows[at][0].replace("red", "tan")
    if form.tables:
        _in_place(_holding(folder, old.encode()), old.encode(), new.encode())
    else:
        name = f"{at:03}-{old.replace(' ', '_')}.png"
        (folder / name).rename(folder / name.replace("red", "tan"))
    return {at}


def _picture(_form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """One picture by another of the same size, in place."""
    _in_place(_holding(folder, rows[at][1]), rows[at][1], bytes(byte ^ 1 for byte in rows[at][1]))
    return {at}


def _one_bit(_form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """One bit in the middle of a picture."""
    old = rows[at][1]
    _in_place(
        _holding(folder, old),
        old,
        old[: len(old) // 2] + bytes([old[len(old) // 2] ^ 1]) + old[len(old) // 2 + 1 :],
    )
    return {at}


def _exchanged(_form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """Two pictures of the same size change their places."""
    other = (at + 11) % len(rows)
    first, second = _holding(folder, rows[at][1]), _holding(folder, rows[other][1])
    mark = b"\xa5" * len(rows[at][1])
    _in_place(first, rows[at][1], mark)
    _in_place(second, rows[other][1], rows[at][1])
    _in_place(first, mark, rows[other][1])
    return {at, other}


def _renamed(_form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """Two files of pictures change their names."""
    first, second = (_holding(folder, rows[one][1]) for one in (at, (at + 5) % len(rows)))
    aside = folder / "aside"
    shutil.move(first, aside)
    shutil.move(second, first)
    shutil.move(aside, second)
    return {at, (at + 5) % len(rows)}


def _rewritten(change: Callable[[Rows, int], Rows]) -> Callable[[Form, Path, Rows, int], set[int] | None]:
    def edit(form: Form, folder: Path, rows: Rows, at: int) -> set[int] | None:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
        now = change(list(rows), at)
        form.write(folder, now)
        if form.reader == "webdataset":
            return None  # the second half of the records moves between archives
        return {index for index in range(max(len(rows), len(now))) if rows[index : index + 1] != now[index : index + 1]}

    return edit


def _replaced(_form: Form, folder: Path, rows: Rows, at: int) -> set[int]:
    """The file of a picture replaced by another file of the same size and time."""
    path = _holding(folder, rows[at][1])
    aside = folder / "aside"
    aside.write_bytes(path.read_bytes().replace(rows[at][1], rows[at][1][::-1]))
    os.utime(aside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    aside.replace(path)
    return {at}


def _nothing(form: Form, folder: Path, rows: Rows, at: int) -> set[int]:  # noqa: ARG001
    """New times, the same content."""
    for path in folder.rglob("*"):
        os.utime(path)
    return set()


EDITS: dict[str, Callable[[Form, Path, Rows, int], set[int] | None]] = {
    "a caption of the same length": _caption,
    "a picture of the same size": _picture,
    "one bit of a picture": _one_bit,
    "two pictures exchanged": _exchanged,
    "a picture replaced, same size and time": _replaced,
    "two files renamed": _renamed,
    "a record appended": _rewritten(lambda rows, _: [*rows, ("a red new one", b"new picture" * 40)]),
    "a record removed": _rewritten(lambda rows, at: rows[:at] + rows[at + 1 :]),
    "cut to half": _rewritten(lambda rows, _: rows[: len(rows) // 2]),
    "two records reordered": _rewritten(lambda rows, at: [*rows[:at], rows[at + 1], rows[at], *rows[at + 2 :]]),
    "nothing but times": _nothing,
}


def variants(folder: Path, random: randomness.Random) -> Iterator[Variant]:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    made = [
        (name, edit, restore)
        for edit in EDITS
        for name in FORMS
        for restore in (True, False)
        if not (edit == "two files renamed" and FORMS[name].inside)
        and not (edit == "a picture replaced, same size and time" and name in ("parquet", "hub", "stream", "arrow"))
    ]
    random.shuffle(made)
    for number, (name, edit, restore) in enumerate(made):
        yield _variant(folder / str(number), FORMS[name], name, edit, restore, random)


def _variant(folder: Path, form: Form, name: str, edit: str, restore: bool, random: randomness.Random) -> Variant:
    size = random.choice([200, 2_000, 70_000])
    rows = [(f"a red picture {index:03} {random.random():.9f}", random.randbytes(size)) for index in range(RECORDS)]
    at = random.randrange(RECORDS - 2)

    def replay() -> tuple[Any, Any, set[str] | None, bool]:
        source = folder / "source"
        source.mkdir(parents=True)
        form.write(source, rows)
        with contextlib.chdir(source):
            if restore:
                time.sleep(0.12)  # so that hashes are remembered
            tokens = Path("../tokens")
            tokenise(tokens, form.reader, form.options, SHARD)
            times = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
            touched = EDITS[edit](form, source, rows, at)
            if restore:
                for path, then in times.items():
                    if path.exists():
                        os.utime(path, ns=(then, then))
            try:
                read(tokens, form.reader, form.options)
                refused = False
            except DataError as error:
                refused = "changed" in str(error)
            place, remade = tokenise(tokens, form.reader, form.options, SHARD)
            fresh, _ = tokenise(Path("../fresh"), form.reader, form.options, SHARD)
            if shards_of(place) != shards_of(fresh):
                return "shards differ from those of a fresh folder", None, None, refused
            if touched is not None and remade != {f"{index // SHARD:06}.shard" for index in touched} & set(
                shards_of(place)
            ):
                return f"made again: {sorted(remade)}, edited: {sorted(touched)}", None, None, refused
            return read(tokens, form.reader, form.options), form.oracle(source), remade, refused

    def right(answer: tuple[Any, Any, set[str] | None, bool]) -> str:
        found, wanted, _, refused = answer
        if isinstance(found, str):
            return found
        if refused != (edit != "nothing but times"):
            return "a run takes the old shards" if not refused else "a run refuses what has not changed"
        told = [_told(record) for record in found]
        expected = [(caption, codes_of(content)) for caption, content in wanted]
        return "" if told == expected else "a record differs from its source"

    return Variant(f"{name}: {edit}{', time restored' if restore else ''}, {size} bytes", replay, right)


def _told(record: dict[str, Any]) -> tuple[str, list[int]]:
    if "messages" in record:
        asked, said = record["messages"]
        return said["content"][0] if isinstance(said["content"], list) else said["content"], asked["content"][0]
    caption = record.get("caption") or record.get("txt") or record["name"][4:].replace("_", " ")
    return caption, record["image"]
