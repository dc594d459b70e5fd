"""Tar archives of samples, whole and damaged. What was written is known; GNU tar's and tarfile's readings are not asked
for what neither tells (both end silently at a damaged header or at the first of two archives)."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import subprocess
import tarfile
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
        "picture": Modality(name="picture", codebooks=(8,), begin="<p>", end="</p>", code_token="<p{}>"),
    },
    lambda: {"picture": (".png", ".jpg")},
)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
Samples = dict[str, dict[str, bytes]]
"""Content by ending, by key."""


def samples(chance: random.Random, number: int = 0, named: str = "{:04}") -> Samples:
    made: Samples = {}
    for index in range(number or chance.randint(3, 8)):
        key = named.format(index)
        made[key] = {"jpg": chance.randbytes(chance.choice([1, 511, 512, 513, 3000])), "txt": f"text {key}".encode()}
    return made


def files(made: Samples) -> list[tuple[str, bytes]]:
    return [(f"{key}.{ending}", content) for key, parts in made.items() for ending, content in parts.items()]


def info(name: str, content: bytes = b"", **values: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in values.items():
        setattr(member, key, value)
    return member


def write(
    path: Path, members: list[tuple[str, bytes]], form: str = "gnu", extra: list[tarfile.TarInfo] | None = None
) -> Path:
    with tarfile.open(path, "w", format=FORMATS[form]) as archive:
        for name, content in members:
            archive.addfile(info(name, content), io.BytesIO(content))
        for member in extra or ():
            archive.addfile(member)
    return path


def headers(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path, "r:") as archive:
        return archive.getmembers()


def read(path: Path | str, **options: Any) -> list[dict[str, Any]]:
    source = open_reader("webdataset", "train", {"path": str(path), **options}, KINDS)
    records = []
    for index in range(len(source)):
        record = source[index]
        for failed in notes_of(record).failed.values():
            raise DataError(failed.reason)
        records.append(
            {name: value.data.read_bytes() if isinstance(value, Media) else value for name, value in record.items()}
        )
    return records


def expected(made: Samples) -> list[dict[str, Any]]:
    names = {"jpg": "picture", "png": "picture"}
    return [
        {
            names.get(ending, ending): content if ending in names else content.decode()
            for ending, content in parts.items()
        }
        for parts in made.values()
    ]


def same(wanted: list[dict[str, Any]]) -> Callable[[Any], str]:
    return lambda found: "" if found == wanted else f"{len(found)} records, not the {len(wanted)} that were written"


def variants(folder: Path, random: random.Random) -> Iterator[Variant]:
    """Endless rounds over all scenarios, with other sizes, names and places."""
    for number, scenario, place in in_turn(SCENARIOS, folder):
        yield from scenario(place, random, list(FORMATS)[number % len(FORMATS)])


def whole(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = samples(chance)
    for name, named in (
        ("plain", "{:04}"),
        ("dot slash", "./{:04}"),
        ("folder with a dot", "v1.2/{:04}"),
        ("absolute", "/d/{:04}"),
    ):
        made = samples(chance, named=named)
        path = write(folder / "a.tar", files(made), form)
        yield Variant(f"{form}, {name}", lambda path=path: read(path), same(expected(made)))
    long = samples(chance, named="d" * 90 + "/" + "n" * 60 + "{:04}")
    path = write(folder / "long.tar", files(long), form)
    yield Variant(f"{form}, long names", lambda: read(path), same(expected(long)))
    if form != "ustar":
        longer = samples(chance, named=("d" * 200 + "/") * 3 + "ñ" * 60 + "{:04}")
        other = write(folder / "longer.tar", files(longer), form)
        yield Variant(f"{form}, names of 700 bytes", lambda: read(other), same(expected(longer)))


def damaged_header(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = samples(chance)
    path = write(folder / "a.tar", files(made), form)
    for kind in ("flipped bit", "random block", "zeroed"):
        content = bytearray(path.read_bytes())
        at = chance.choice(headers(path)).offset
        if kind == "flipped bit":
            content[at + chance.choice([0, 100, 124, 130, 148, 156])] ^= 1 << chance.randrange(7)
        else:
            content[at : at + 512] = chance.randbytes(512) if kind == "random block" else bytes(512)
        hurt = folder / f"{kind}.tar"
        hurt.write_bytes(content)
        yield Variant(f"{form}, header damaged: {kind}", lambda hurt=hurt: read(hurt), same([]), readable=False)


def concatenated(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    parts = [samples(chance) for _ in range(chance.choice([2, 2, 3]))]
    content = b"".join(write(folder / f"{n}.tar", files(made), form).read_bytes() for n, made in enumerate(parts))
    path = folder / "all.tar"
    path.write_bytes(content)
    wanted = [record for made in parts for record in expected(made)]
    yield Variant(f"{form}, {len(parts)} archives in one, the same keys", lambda: read(path), same(wanted))
    short = b"".join((folder / f"{n}.tar").read_bytes().rstrip(b"\0") for n in range(1))
    short += bytes(-len(short) % 512 + 1024) + (folder / "1.tar").read_bytes()
    tight = folder / "tight.tar"
    tight.write_bytes(short)
    wanted_two = expected(parts[0]) + expected(parts[1])
    if not any(part["jpg"].endswith(b"\0") for part in parts[0].values()):
        yield Variant(f"{form}, two archives, the first without padding", lambda: read(tight), same(wanted_two))


def cut(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    path = write(folder / "a.tar", files(samples(chance)), form)
    found, content = headers(path), path.read_bytes()
    end = found[-1].offset_data + -(-found[-1].size // 512) * 512
    places = {
        "at a border": chance.choice(found[1:]).offset,
        "before the end marker": end,
        "within a header": chance.choice(found).offset + chance.randrange(1, 511),
        "within a file": chance.choice(found).offset_data + 0,
        "within padding": end - chance.randrange(1, 20),
    }
    for name, place in places.items():
        short = folder / "cut.tar"
        short.write_bytes(content[:place])
        yield Variant(f"{form}, cut {name}", lambda short=short: read(short), same([]), readable=False)
    short = folder / "marker.tar"
    short.write_bytes(content[: end + 1024])
    yield Variant(f"{form}, two zero blocks and no padding", lambda: read(short), same(read(path)), readable=True)


def twice(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = files(samples(chance))
    name, _ = chance.choice(made)
    for kind, members in {
        "at once": [pair for pair in made for pair in ([pair, pair] if pair[0] == name else [pair])],
        "appended": [*made, (name, b"other")],
        "in capitals": [*made, (name.upper(), b"other")],
    }.items():
        path = write(folder / f"{kind}.tar", members, form)
        yield Variant(f"{form}, a member twice, {kind}", lambda path=path: read(path), same([]), readable=False)


def dots(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = samples(chance)
    masked = [(f"{key}.seg.png", b"mask of " + key.encode()) for key in made]
    members = sorted(files(made) + masked)
    path = write(folder / "masks.tar", members, form)
    yield Variant(f"{form}, 1.jpg beside 1.seg.png", lambda: read(path), same(expected(made)))
    wanted = [{**one, "mask": b"mask of " + key.encode()} for key, one in zip(made, expected(made), strict=True)]
    options = {"columns": {"picture": "picture", "txt": "txt", "seg.png": "mask"}, "fields": {"mask": "picture"}}
    yield Variant(f"{form}, 1.seg.png by its column", lambda: read(path, **options), same(wanted))
    frames = [(f"walk_1.{n}.jpg", bytes([n])) for n in range(25, 28)]
    walk = write(folder / "walk.tar", frames, form)
    yield Variant(f"{form}, walk_1.25.jpg, walk_1.26.jpg, ...", lambda: read(walk), same([]), readable=False)
    chosen = {"columns": {"26.jpg": "picture"}}
    yield Variant(f"{form}, walk_1.26.jpg chosen", lambda: read(walk, **chosen), same([{"picture": b"\x1a"}]))
    both = write(folder / "both.tar", [("1.jpg", b"a"), ("1.png", b"b")], form)
    yield Variant(f"{form}, 1.jpg beside 1.png", lambda: read(both), same([]), readable=False)


def links(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = samples(chance, 3)
    wanted = expected(made)
    first = made["0000"]["jpg"]
    for kind, type_, target in (("hard", tarfile.LNKTYPE, "0000.jpg"), ("symbolic", tarfile.SYMTYPE, "0000.jpg")):
        path = write(folder / f"{kind}.tar", files(made), form, [info("0009.jpg", type=type_, linkname=target)])
        yield Variant(f"{form}, {kind} link", lambda path=path: read(path), same([*wanted, {"picture": first}]))
    chain = [
        info("d/1.jpg", type=tarfile.SYMTYPE, linkname="../e/2.jpg"),
        info("e/2.jpg", type=tarfile.SYMTYPE, linkname="./../0000.jpg"),
    ]
    path = write(folder / "chain.tar", files(made), form, chain)
    yield Variant(
        f"{form}, link to a link", lambda: read(path), same([*wanted, {"picture": first}, {"picture": first}])
    )
    for name, target in (
        ("dangling", "nowhere.jpg"),
        ("to itself", "9.jpg"),
        ("out of the archive", "../../etc/passwd"),
    ):
        other = write(folder / "bad.tar", files(made), form, [info("9.jpg", type=tarfile.SYMTYPE, linkname=target)])
        yield Variant(f"{form}, link {name}", lambda other=other: read(other), same([]), readable=False)
    pipe = write(folder / "pipe.tar", files(made), form, [info("9.jpg", type=tarfile.FIFOTYPE)])
    yield Variant(f"{form}, a pipe", lambda: read(pipe), same([]), readable=False)


def order(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    made = samples(chance)
    members = files(made)
    by_ending = sorted(members, key=lambda pair: pair[0].rsplit(".", 1)[1])
    path = write(folder / "sorted.tar", by_ending, form)
    yield Variant(f"{form}, all pictures, then all texts", lambda: read(path), same(expected(made)))
    left = [
        ("._0000.jpg", b"x"),
        ("__MACOSX/._0000.jpg", b"x"),
        (".DS_Store", b"x"),
        ("README", b"x"),
        ("0000.npy", b"x"),
    ]
    left += [(".ipynb_checkpoints/0000-checkpoint.jpg", b"x")]
    messy = [pair for both in zip(members, left, strict=False) for pair in both] + members[len(left) :]
    other = write(folder / "messy.tar", messy, form, [info("d.ir", type=tarfile.DIRTYPE)])
    yield Variant(f"{form}, left over by macOS and Jupyter", lambda: read(other), same(expected(made)))
    empty = dict(made) | {"9999": {"jpg": b"", "txt": b"nothing"}}
    third = write(folder / "empty.tar", files(empty), form)
    yield Variant(f"{form}, an empty file", lambda: read(third), same([]), readable=False)


def packed(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    content = write(folder / "a.tar", files(samples(chance)), form).read_bytes()
    for name, made in (
        ("gzip", gzip.compress(content)),
        ("nothing", b""),
        ("noise", chance.randbytes(3000)),
        ("zeros", bytes(10240)),
    ):
        path = folder / f"{name}.tar"
        path.write_bytes(made)
        yield Variant(f"{form}, {name}", lambda path=path: read(path), same([]), readable=False)
    behind = folder / "behind.tar"
    behind.write_bytes(content + chance.randbytes(chance.choice([100, 512, 1000])))
    yield Variant(f"{form}, noise behind the end", lambda: read(behind), same([]), readable=False)


def columns_twice(folder: Path, _: random.Random, form: str) -> Iterator[Variant]:
    first, second = (json.dumps({"caption": word, word: 1}).encode() for word in ("one", "two"))
    path = write(folder / "a.tar", [("1.json", first), ("1.meta.json", second), ("1.jpg", b"a")], form)
    yield Variant(f"{form}, one column in two json files", lambda: read(path), same([]), readable=False)
    beside = write(folder / "b.tar", [("1.json", b'{"picture": "d/1.jpg", "caption": "c"}'), ("1.jpg", b"a")], form)
    yield Variant(f"{form}, json names the file", lambda: read(beside), same([{"picture": b"a", "caption": "c"}]))
    other = write(folder / "c.tar", [("1.json", b'{"txt": "other"}'), ("1.txt", b"text")], form)
    yield Variant(f"{form}, json has the column of a file", lambda: read(other), same([]), readable=False)
    marked = write(folder / "d.tar", [("1.txt", b"\xef\xbb\xbftext"), ("1.jpg", b"a")], form)
    yield Variant(f"{form}, byte order mark", lambda: read(marked), same([{"txt": "text", "picture": b"a"}]))


def from_gnu_tar(folder: Path, chance: random.Random, form: str) -> Iterator[Variant]:
    if not shutil.which("tar"):
        return
    made = samples(chance, 4)
    place = folder / "in"
    place.mkdir()
    for name, content in files(made):
        (place / name).write_bytes(content)
    holes = bytearray(200_000)
    holes[150_000:150_010] = b"0123456789"
    with (place / "0005.jpg").open("wb") as file:
        file.seek(150_000)
        file.write(b"0123456789")
        file.truncate(200_000)
    (place / "0006.jpg").symlink_to("0000.jpg")
    wanted = [*expected(made), {"picture": bytes(holes)}, {"picture": made["0000"]["jpg"]}]
    for option in ("--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0") if form == "pax" else ("",):
        name = f"{form}, GNU tar, sparse file {option}"
        path = folder / "gnu.tar"
        flags = [] if form == "ustar" else ["--sparse", *filter(None, [option])]
        command = ["tar", "--sort=name", f"--format={form}", *flags, "-C", str(place), "-cf", str(path), "."]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            yield Variant(name, lambda path=path: read(path), same(wanted))


SCENARIOS = (
    damaged_header,
    concatenated,
    cut,
    twice,
    dots,
    links,
    order,
    packed,
    columns_twice,
    from_gnu_tar,
    whole,
)
