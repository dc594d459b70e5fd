"""Folders of media with and without tables, read beside the csv module, json, and `imagefolder` of `datasets`."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from replays import Variant, in_turn

from mio.core.contract.values import Media, Modality
from mio.core.data.partial import notes_of
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.errors import DataError

KINDS = Kinds(
    {
        "text": Modality(name="text", text=True),
        "image": Modality(name="image", codebooks=(8,), begin="<p>", end="</p>", code_token="<p{}>"),
        "sound": Modality(name="sound", codebooks=(8,), begin="<s>", end="</s>", code_token="<s{}>"),
    },
    lambda: {"image": (".png",), "sound": (".wav",)},
)
_SPACES = "\u2028 \u2029 \x85 \x0b \x0c \x1c \x1d \x1e \xa0 \ufeff"
_SPECIAL = [*_SPACES.split(" "), ",", '"', "'", ";", "\t", "\\", "ünï", "漢", "😀", "#", "=", "null", "NaN"]


def words(chance: random.Random) -> str:
    made = [chance.choice(["a", "red", "dog", *_SPECIAL]) for _ in range(chance.randint(1, 9))]
    return "w " + " ".join(made) + " w"


def pictures(folder: Path, count: int, start: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03}.png" for number in range(start, start + count)]
    for name in names:
        (folder / name).write_bytes(f"{folder.name}/{name}".encode())
    return names


def read(folder: Path, split: str = "train", **options: Any) -> list[Any]:
    """Records with the files' names; for one that cannot be read, its error."""
    source = open_reader("folder", split, {"path": str(folder), **options}, KINDS)
    found: list[Any] = []
    for index in range(len(source)):
        try:
            record = source[index]
            for failed in notes_of(record).failed.values():
                raise DataError(failed.reason)
        except DataError as error:
            found.append(str(error))
            continue
        found.append({name: str(v.data.resolve()) if isinstance(v, Media) else v for name, v in record.items()})
    return found


def same(wanted: list[Any]) -> Callable[[Any], str]:
    """`wanted` holds records, and for broken ones the `file:line` that the error has to name."""

    def right(found: Any) -> str:
        if len(found) != len(wanted):
            return f"{len(found)} records, not {len(wanted)}"
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if (one != other) if isinstance(other, dict) else (not isinstance(one, str) or not one.startswith(other)):
                return f"record {number} is {one!r:.200}, not {other!r:.200}"
        return ""

    return right


def by_csv(folder: Path, content: bytes) -> list[dict[str, str]]:
    """The table as Python's csv module reads it."""
    limit = csv.field_size_limit(sys.maxsize)
    rows = list(csv.DictReader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")))
    csv.field_size_limit(limit)
    return [
        {"image": str((folder / row["file_name"]).resolve())}
        | {k: v for k, v in row.items() if k not in ("file_name", "")}
        for row in rows
    ]


def as_csv(rows: list[list[str]], end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue().encode()


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    """Endless rounds over all scenarios, with other sizes and texts."""
    for _, scenario, place in in_turn(SCENARIOS, folder):
        yield from scenario(place, random)


def csv_tables(folder: Path, chance: random.Random) -> Iterator[Variant]:
    names = pictures(folder, 5)
    rows = [["file_name", "caption", "note"], *([name, words(chance), words(chance)] for name in names)]
    long = [rows[0], [names[0], "x" * 200_000, "y"], *rows[2:]]
    broken = [rows[0], [names[0], "two\nlines, and\r\nthree", "y"], *rows[2:]]
    index = [["", *rows[0]], *([str(number), *row] for number, row in enumerate(rows[1:]))]
    forms = {
        "plain": as_csv(rows),
        "CRLF": as_csv(rows, "\r\n"),
        "old Macintosh": as_csv(rows, "\r"),
        "all quoted": as_csv(rows, quoting=csv.QUOTE_ALL),
        "byte order mark": b"\xef\xbb\xbf" + as_csv(rows),
        "quoted, with a byte order mark": b"\xef\xbb\xbf" + as_csv(rows, quoting=csv.QUOTE_ALL),
        "a long field": as_csv(long),
        "lines in fields": as_csv(broken),
        "no line break at the end": as_csv(rows)[:-1],
        "blank lines": as_csv(rows).replace(b"\n", b"\n\n"),
        "an index without a name": as_csv(index),
        "the same file twice": as_csv([*rows, rows[1]]),
        "other order of columns": as_csv([row[::-1] for row in rows]),
    }
    for name, content in forms.items():
        (folder / "metadata.csv").write_bytes(content)
        yield Variant(f"CSV, {name}", lambda: read(folder), same(by_csv(folder, content)))


def csv_broken(folder: Path, chance: random.Random) -> Iterator[Variant]:
    names = pictures(folder, 6)
    table = folder / "metadata.csv"
    rows = [[name, f"word {name}"] for name in names]
    whole = [{"image": str((folder / name).resolve()), "caption": text} for name, text in rows]
    at = chance.randrange(6)
    lines = {
        "a comma too many": f"{names[at]},word,more",
        "a comma too few": names[at],
        "an open quote": f'{names[at]},"word',
        "letters behind a quote": f'{names[at]},"word" and more',
        "no file": ",word",
        "a file that is not there": "gone.png,word",
        "a file that nothing reads": "a.xyz,word",
        "a zero byte": f"{names[at]},wo\0rd",
        "Latin-1": f"{names[at]},w\xf6rd",
        "only commas": ",",
        "the header again": "file_name,caption",
    }
    for name, line in lines.items():
        content = [b"file_name,caption", *(",".join(row).encode() for row in rows)]
        content[at + 1] = line.encode("latin-1")
        table.write_bytes(b"\n".join(content) + b"\n")
        wanted = [*whole[:at], f"{table}:{at + 2}", *whole[at + 1 :]]
        yield Variant(f"CSV, one line has {name}", lambda: read(folder), same(wanted))
    wrong = {
        "UTF-16": "file_name,caption\n000.png,x\n".encode("utf-16"),
        "UTF-16 without a mark": "file_name,caption\n000.png,x\n".encode("utf-16-le"),
        "UTF-32": "file_name,caption\n000.png,x\n".encode("utf-32"),
        "a column twice": b"file_name,caption,caption\n000.png,x,y\n",
        "no column of files": b"name,caption\n000.png,x\n",
        "semicolons": b"file_name;caption\n000.png;x\n",
        "tabs": b"file_name\tcaption\n000.png\tx\n",
        "nothing": b"",
        "a header alone": b"file_name,caption\n",
    }
    for name, content in wrong.items():
        table.write_bytes(content)
        yield Variant(f"CSV, {name}", lambda: read(folder), same([]), readable=False)


def json_tables(folder: Path, chance: random.Random) -> Iterator[Variant]:
    names = pictures(folder, 6)
    table = folder / "metadata.jsonl"
    rows = [{"file_name": name, "caption": words(chance)} for name in names]
    whole = [{"image": str((folder / row["file_name"]).resolve()), "caption": row["caption"]} for row in rows]
    raw = [json.dumps(row, ensure_ascii=False) for row in rows]
    forms = {
        "plain": "\n".join(raw),
        "CRLF": "\r\n".join(raw) + "\r\n",
        "byte order mark": "\ufeff" + "\n".join(raw),
        "blank lines": "\n\n \n".join(raw) + "\n\n",
        "spaces around": "\n".join(f"  {line}\t" for line in raw),
        "escaped": "\n".join(map(json.dumps, rows)),
    }
    for name, content in forms.items():
        table.write_bytes(content.encode())
        yield Variant(f"JSON Lines, {name}", lambda: read(folder), same(whole))
    at = chance.randrange(6)
    lines = {
        "half an object": b'{"file_name": "000.png", ',
        "a list": b'["000.png"]',
        "no file": b'{"caption": "x"}',
        "an empty file name": b'{"file_name": "", "caption": "x"}',
        "a number for a file": b'{"file_name": 3, "caption": "x"}',
        "null for a file": b'{"file_name": null, "caption": "x"}',
        "Latin-1": b'{"file_name": "000.png", "caption": "w\xf6rd"}',
        "deep nesting": b"[" * 100_000,
        "a file that is not there": b'{"file_name": "gone.png"}',
    }
    for name, line in lines.items():
        content = [line.encode() for line in raw]
        content[at] = line
        table.write_bytes(b"\n".join(content))
        wanted = [*whole[:at], f"{table}:{at + 1}", *whole[at + 1 :]]
        yield Variant(f"JSON Lines, one has {name}", lambda: read(folder), same(wanted))
    table.write_bytes("\n".join(raw).encode("utf-16"))
    yield Variant("JSON Lines, UTF-16", lambda: read(folder), same([]), readable=False)


def places(folder: Path, chance: random.Random) -> Iterator[Variant]:
    for split in ("train", "test"):
        pictures(folder / split, 3)
    lines = [
        {"file_name": f"{split}/{n:03}.png", "caption": f"{split} {n}"} for split in ("train", "test") for n in range(3)
    ]
    chance.shuffle(lines)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for split in ("train", "test"):
        wanted = [
            {"image": str((folder / line["file_name"]).resolve()), "caption": line["caption"]}
            for line in lines
            if line["file_name"].startswith(split)
        ]
        yield Variant(f"a table above `{split}`", lambda split=split: read(folder, split), same(wanted))
    yield Variant("a split that is not there", lambda: read(folder, "validation"), same([]), readable=False)
    deep = folder / "deep"
    wanted = []
    for name in ("a", "b/c"):
        pictures(deep / name, 2)
        with (deep / name / "metadata.csv").open("w") as file:
            file.write("file_name,caption\n")
            for number in range(2):
                file.write(f"{number:03}.png,{name} {number}\n")
                path = str((deep / name / f"{number:03}.png").resolve())
                wanted.append({"image": path, "caption": f"{name} {number}"})
    yield Variant("tables in subfolders", lambda: read(deep), same(wanted))
    (deep / "metadata.csv").write_text("file_name,caption\na/000.png,far\n")
    yield Variant("a table nearer to the file", lambda: read(deep), same(wanted))
    pictures(folder / "two", 1)
    for name in ("metadata.csv", "metadata.jsonl"):
        (folder / "two" / name).write_text(
            "file_name\n000.png\n" if name.endswith("csv") else '{"file_name": "000.png"}'
        )
    yield Variant("two tables for one folder", lambda: read(folder / "two"), same([]), readable=False)


def several_files(folder: Path, _: random.Random) -> Iterator[Variant]:
    one, two = (str((folder / name).resolve()) for name in pictures(folder, 2))
    (folder / "a.wav").write_bytes(b"a")
    sound = str((folder / "a.wav").resolve())
    rows = {
        "X_file_name": ({"before_file_name": "000.png", "after_file_name": "001.png"}, {"before": one, "after": two}),
        "of two modalities": ({"file_name": "000.png", "sound_file_name": "a.wav"}, {"image": one, "sound": sound}),
        "one of them null": ({"file_name": "000.png", "sound_file_name": None}, {"image": one}),
    }
    for name, (row, wanted) in rows.items():
        (folder / "metadata.jsonl").write_text(json.dumps(row))
        yield Variant(f"columns of files: {name}", lambda: read(folder), same([wanted]))
    lines = [{"x_file_name": "000.png"}, {"x_file_name": "a.wav"}, {"x_file_name": "001.png"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    wanted = [{"x": one}, f"{folder / 'metadata.jsonl'}:2", {"x": two}]
    yield Variant("a column of two modalities", lambda: read(folder), same(wanted))


def without_table(folder: Path, chance: random.Random) -> Iterator[Variant]:
    wanted = []
    for label in ("cats", "dogs"):
        for name in pictures(folder / label, chance.randint(1, 3)):
            path = folder / label / name
            wanted.append({"image": str(path.resolve()), "name": path.stem, "label": label})
    yield Variant("folders as labels", lambda: read(folder), same(wanted))
    for name in (
        ".ipynb_checkpoints/a.png",
        "__MACOSX/cats/._000.png",
        "cats/._000.png",
        "cats/.hidden.png",
        "__MACOSX/b.png",
    ):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    for name in ("Thumbs.db", "cats/.DS_Store", "desktop.ini", "README.md"):
        (folder / name).write_bytes(b"x")
    yield Variant("what programs leave behind", lambda: read(folder), same(wanted))
    pictures(folder.parent / f"{folder.name}-birds", 1)
    (folder / "birds").symlink_to(folder.parent / f"{folder.name}-birds")
    (folder / "dogs" / "again").symlink_to(folder)
    linked = {"image": str((folder / "birds/000.png").resolve()), "name": "000", "label": "birds"}
    yield Variant("a folder that is a link", lambda: read(folder), same([linked, *wanted]))
    (folder / "cats" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "cats" / "pipe.png")
    cats = sum(record["label"] == "cats" for record in wanted)
    more = [linked, *wanted[:cats], str(folder / "cats/gone.png"), str(folder / "cats/pipe.png"), *wanted[cats:]]
    yield Variant("a link to nothing and a pipe", lambda: read(folder), same(more))


def beside_datasets(folder: Path, chance: random.Random) -> Iterator[Variant]:
    import datasets
    from PIL import Image

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    place = folder / "in"
    place.mkdir()
    names = [f"{n}.png" for n in range(4)]
    for name in names:
        Image.new("L", (2, 2)).save(place / name)
    rows = [["file_name", "caption"], *([name, f"w {chance.choice(_SPECIAL)} w"] for name in names)]
    (place / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + as_csv(rows, chance.choice(["\n", "\r\n"])))
    table = datasets.load_dataset("imagefolder", data_dir=str(place), split="train").with_format("arrow")[:]
    wanted = [
        {"image": str(Path(row["image"]["path"]).resolve()), "caption": row["caption"]} for row in table.to_pylist()
    ]
    yield Variant("as `imagefolder` reads it", lambda: read(place), same(wanted))


SCENARIOS = (csv_tables, csv_broken, json_tables, places, several_files, without_table, beside_datasets)
