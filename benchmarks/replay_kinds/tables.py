"""Parquet and Arrow files, cut, mixed and of unusual types, beside what pyarrow reads of each file by itself."""

from __future__ import annotations

import datetime
import decimal
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from replays import Variant, in_turn

from mio.core.contract.values import Media, Modality
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds

KINDS = Kinds(
    {
        "text": Modality(name="text", text=True),
        "image": Modality(name="image", codebooks=(8,), begin="<p>", end="</p>", code_token="<p{}>"),
    },
    lambda: {"image": (".png",)},
)


def read(path: str, reader: str, **options: Any) -> list[dict[str, Any]]:
    source = open_reader(reader, "train", {"path": path, **options}, KINDS)
    records = []
    for index in range(len(source)):
        record = source[index]
        fields = {name: record.get(name) for name in record}
        records.append({name: v.data.read_bytes() if isinstance(v, Media) else v for name, v in fields.items()})
    return records


def same(wanted: list[dict[str, Any]]) -> Callable[[Any], str]:
    """Fields that are wanted; a field of None is not there."""

    def right(found: Any) -> str:
        if len(found) != len(wanted):
            return f"{len(found)} records, not {len(wanted)}"
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if any(one.get(name) != value for name, value in other.items()):
                return f"record {number} is {one}, not {other}"
        return ""

    return right


def words(chance: random.Random, count: int) -> list[str]:
    return [
        f"{chance.choice(['red', 'tan', 'ünï', '漢', chr(0x2028)])} {chance.randrange(10**6)}" for _ in range(count)
    ]


def parquet(path: Path, table: pa.Table, chance: random.Random) -> None:
    compression = chance.choice(["none", "snappy", "zstd"])
    dictionary, pages = chance.choice([True, False]), chance.choice(["1.0", "2.0"])
    size = chance.choice([1, 3, 1000])
    pq.write_table(
        table, path, compression=compression, use_dictionary=dictionary, data_page_version=pages, row_group_size=size
    )


def stream(table: pa.Table, batch: int) -> tuple[bytes, list[int]]:
    buffer, ends = io.BytesIO(), []
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        for part in table.to_batches(batch):
            writer.write_batch(part)
            ends.append(buffer.tell())
    return buffer.getvalue(), ends


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    """Endless rounds over all scenarios, with other sizes, texts and encodings."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    for _, scenario, place in in_turn(SCENARIOS, folder):
        yield from scenario(place, random)


def types(folder: Path, chance: random.Random) -> Iterator[Variant]:
    count = chance.randint(2, 9)
    texts = words(chance, count)
    numbers = [chance.randrange(100) for _ in range(count)]
    columns = {
        "text": pa.array(texts),
        "large text": pa.array(texts, pa.large_string()),
        "dictionary": pa.array(texts).dictionary_encode(),
        "text view": pa.array(texts, pa.string_view()),
        **{str(type_): pa.array(numbers, type_) for type_ in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())},
        "boolean": pa.array([bool(number % 2) for number in numbers]),
        "with nulls": pa.array([None if number % 3 else text for number, text in zip(numbers, texts, strict=True)]),
    }
    for name, column in columns.items():
        plain = [
            value if isinstance(value, str | None) else str(value).lower()
            for value in column.cast(pa.string() if "dict" in name else column.type).to_pylist()
        ]
        wanted = same([{"caption": value} for value in plain])
        for ending in ("parquet", "arrow"):
            path = folder / f"{name}.{ending}"
            table = pa.table({"caption": column})
            if ending == "parquet":
                parquet(path, table, chance)
            else:
                path.write_bytes(stream(table, 3)[0])
            yield Variant(f"{ending}, {name}", lambda p=path, e=ending: read(str(p), e), wanted)


def media(folder: Path, chance: random.Random) -> Iterator[Variant]:
    contents = [chance.randbytes(20) for _ in range(4)]
    cells = [{"bytes": content, "path": "a.png"} for content in contents]
    columns = {
        "bytes and path": pa.array(cells),
        "bytes alone": pa.array([{"bytes": content} for content in contents]),
        "binary": pa.array(contents),
        "large binary": pa.array(contents, pa.large_binary()),
        "path before bytes": pa.array([{"path": None, "bytes": content} for content in contents]),
    }
    for name, column in columns.items():
        parquet(folder / f"{name}.parquet", pa.table({"image": column}), chance)
        path = str(folder / f"{name}.parquet")
        yield Variant(f"media, {name}", lambda p=path: read(p, "parquet"), same([{"image": c} for c in contents]))
    for number, column in enumerate(columns.values()):
        if number in (0, 1, 4):
            parquet(folder / f"mixed-{number}.parquet", pa.table({"image": column}), chance)
    wanted = same([{"image": content} for content in contents * 3])
    yield Variant("media, three kinds of structs", lambda: read(str(folder / "mixed-*.parquet"), "parquet"), wanted)


def unusual(folder: Path, chance: random.Random) -> Iterator[Variant]:
    texts = words(chance, 1)
    far = datetime.datetime(2024, 1, 1)
    columns = {
        "a date": pa.array([far.date()]),
        "a far date": pa.array([2**30], pa.date32()),
        "a far time": pa.array([2**62], pa.timestamp("us")),
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
        "an unknown time zone": pa.array([1], pa.timestamp("us", tz="Nowhere/Else")),
        "a duration": pa.array([1], pa.duration("ns")),
        "a decimal": pa.array([decimal.Decimal("1.50")]),
        "a map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "a list of structs": pa.array([[{"a": [1]}]]),
        "no text": pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
        ),
        "nulls": pa.nulls(1),
    }
    for name, column in columns.items():
        parquet(folder / f"{name}.parquet", pa.table({"caption": texts, "x": column}), chance)
        path = str(folder / f"{name}.parquet")
        chosen = {"columns": {"caption": "caption"}}
        wanted = same([{"caption": texts[0]}])
        yield Variant(f"beside a column of {name}", lambda p=path, o=chosen: read(p, "parquet", **o), wanted)
    twice = pa.Table.from_arrays([pa.array(texts), pa.array(["other"])], names=["caption", "caption"])
    pq.write_table(twice, folder / "twice.parquet")
    yield Variant("a column twice", lambda: read(str(folder / "twice.parquet"), "parquet"), same([]), readable=False)


def mixed(folder: Path, chance: random.Random) -> Iterator[Variant]:
    texts = words(chance, 3)
    other = {
        "another width": ({"caption": texts, "n": pa.array([1, 2, 3], pa.int8())}, True),
        "a column more": ({"caption": texts, "n": [1, 2, 3], "m": ["a", "b", "c"]}, True),
        "a column less": ({"caption": texts}, True),
        "other order": ({"n": [1, 2, 3], "caption": texts}, True),
        "no rows": ({"caption": pa.array([], pa.string()), "n": pa.array([], pa.int64())}, True),
        "only nulls": ({"caption": pa.nulls(3), "n": [1, 2, 3]}, True),
        "numbers for text": ({"caption": [1, 2, 3], "n": [1, 2, 3]}, True),
        "floats for text": ({"caption": [1.5, 2.5, 3.5], "n": [1, 2, 3]}, False),
        "floats for numbers": ({"caption": texts, "n": [1.5, 2.0, 3.0]}, False),
        "lists for text": ({"caption": [["a"], ["b"], ["c"]], "n": [1, 2, 3]}, False),
    }
    for place in (0, 1):
        for name, (columns, readable) in other.items():
            here = folder / f"{name} {place}"
            here.mkdir()
            tables = [{"caption": texts, "n": [1, 2, 3]}, {"caption": texts, "n": [4, 5, 6]}]
            tables.insert(place, columns)
            wanted = []
            for number, table in enumerate(map(pa.table, tables)):
                parquet(here / f"{number}.parquet", table, chance)
                for row in pq.read_table(here / f"{number}.parquet").to_pylist():
                    wanted.append({key: v if isinstance(v, str | None) else str(v) for key, v in row.items()})
            pattern = str(here / "*.parquet")
            title = f"three files, number {place + 1} has {name}"
            yield Variant(title, lambda p=pattern: read(p, "parquet"), same(wanted), readable)


def damaged(folder: Path, chance: random.Random) -> Iterator[Variant]:
    table = pa.table({"caption": words(chance, 30)})
    whole = folder / "0.parquet"
    parquet(whole, table, chance)
    content = whole.read_bytes()
    for share in (0, 0.1, 0.5, 0.99):
        (folder / "1.parquet").write_bytes(content[: int(share * len(content))])
        pattern = str(folder / "*.parquet")
        yield Variant(f"parquet cut to {share:.0%}", lambda p=pattern: read(p, "parquet"), same([]), readable=False)
    content, ends = stream(table, 7)
    rows = [{"caption": text} for text in table["caption"].to_pylist()]
    path = folder / "a.arrow"
    cuts = {f"behind batch {number}": end for number, end in enumerate(ends)}
    cuts |= {"within a batch": chance.randrange(ends[0] + 1, ends[1]), "to nothing": 0, "within its schema": 50}
    for name, end in cuts.items():
        path.write_bytes(content[:end])
        yield Variant(f"arrow cut {name}", lambda: read(str(path), "arrow"), same([]), readable=False)
    path.write_bytes(content + content)
    yield Variant("two arrow streams in one file", lambda: read(str(path), "arrow"), same(rows * 2), readable=None)
    path.write_bytes(content)
    yield Variant("arrow stream", lambda: read(str(path), "arrow"), same(rows))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, 7)
    content = path.read_bytes()
    yield Variant("arrow file", lambda: read(str(path), "arrow"), same(rows))
    short = folder / "short.arrow"
    short.write_bytes(content[: len(content) // 2])
    yield Variant("arrow file cut in half", lambda: read(str(short), "arrow"), same([]), readable=False)
    saved = folder / "saved"
    datasets.Dataset(table).save_to_disk(saved)
    yield Variant("save_to_disk", lambda: read(str(saved), "arrow"), same(rows))
    [part] = saved.glob("*.arrow")
    part.write_bytes(part.read_bytes()[:-8])
    yield Variant("save_to_disk, cut", lambda: read(str(saved), "arrow"), same([]), readable=False)


SCENARIOS = (types, damaged, unusual, mixed, media)
