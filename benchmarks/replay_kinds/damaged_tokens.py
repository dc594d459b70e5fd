"""Files of the tokens folder that were cut, flipped, swapped or taken from elsewhere.

Each variant tokenises two sources, damages one file and reads the shards as a run does, with the source at hand or
without. Right is what was stored, or a refusal that names the file; then `mio tokenize` must bring back every shard as
it was. The oracle is what the records were made of.
"""

from __future__ import annotations

import contextlib
import json
import os
import random as randomness
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from replays import Variant
from token_world import codes_of, read, shards_of, tokenise

from mio.core.errors import UserError

RECORDS, SHARD = 24, 8
READER = "jsonl"
NAMES = (
    "source.json", "files.json", "index.json", "failed.jsonl", "000000.shard", "000001.shard", "000002.shard",
    "000000.ids", "000001.ids", "hashes.sqlite",
)  # fmt: skip


def _cut(path: Path, random: randomness.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content) or 1)])


def _longer(path: Path, random: randomness.Random) -> None:
    path.write_bytes(path.read_bytes() + random.randbytes(random.choice([1, 64, 5000])))


def _empty(path: Path, random: randomness.Random) -> None:  # noqa: ARG001
    path.write_bytes(b"")


def _flip(path: Path, random: randomness.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _flip_quietly(path: Path, random: randomness.Random) -> None:
    """One bit in the second half, with size, inode and time of modification as they were."""
    state = path.stat()
    with path.open("r+b") as file:
        content = file.read()
        if content:
            at = random.randrange(len(content) // 2, len(content))
            file.seek(at)
            file.write(bytes([content[at] ^ (1 << random.randrange(8))]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _zeros(path: Path, random: randomness.Random) -> None:
    content = bytearray(path.read_bytes())
    start = random.randrange(len(content) or 1)
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def _noise(path: Path, random: randomness.Random) -> None:
    path.write_bytes(random.randbytes(path.stat().st_size))


def _gone(path: Path, random: randomness.Random) -> None:  # noqa: ARG001
    path.unlink()


def _folder(path: Path, random: randomness.Random) -> None:  # noqa: ARG001
    path.unlink()
    path.mkdir()


def _link(path: Path, random: randomness.Random) -> None:  # noqa: ARG001
    path.unlink()
    path.symlink_to("nowhere")


def _pipe(path: Path, random: randomness.Random) -> None:  # noqa: ARG001
    path.unlink()
    os.mkfifo(path)


def _number(path: Path, random: randomness.Random) -> None:
    """Another digit somewhere, which leaves JSON whole."""
    content = bytearray(path.read_bytes())
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    if digits:
        at = random.choice(digits)
        content[at] = ord("0") + (content[at] - ord("0") + random.randrange(1, 10)) % 10
    path.write_bytes(content)


def _neighbour(path: Path, random: randomness.Random) -> None:
    """The file of the same kind beside it, or any other."""
    others = [one for one in path.parent.iterdir() if one.suffix == path.suffix and one != path and one.is_file()]
    others = others or [one for one in path.parent.glob("**/*") if one != path and one.is_file()]
    shutil.copyfile(random.choice(sorted(others)), path)


def _any_other(path: Path, random: randomness.Random) -> None:
    others = [one for one in path.parent.glob("**/*") if one != path and one.is_file()]
    shutil.copyfile(random.choice(sorted(others)), path)


DAMAGES: dict[str, Callable[[Path, randomness.Random], None]] = {
    "cut": _cut,
    "longer": _longer,
    "empty": _empty,
    "flipped": _flip,
    "flipped, same times": _flip_quietly,
    "zeros": _zeros,
    "noise": _noise,
    "gone": _gone,
    "a folder": _folder,
    "a dead link": _link,
    "a pipe": _pipe,
    "a digit": _number,
    "its neighbour": _neighbour,
    "another file": _any_other,
}
TAKEN = ("of another source", "of an older state")


def variants(folder: Path, random: randomness.Random) -> Iterator[Variant]:
    made = [(name, damage, raw) for damage in (*DAMAGES, *TAKEN) for name in NAMES for raw in (True, False)]
    made = [one for one in made if one[:2] != ("hashes.sqlite", TAKEN[0])]  # all sources share it
    random.shuffle(made)
    for number, (name, damage, raw) in enumerate(made):
        yield _variant(folder / str(number), name, damage, raw, randomness.Random(random.getrandbits(32)))


def _write(folder: Path, name: str, seed: int) -> list[tuple[str, list[int]]]:
    random = randomness.Random(seed)
    rows, told = [], []
    for index in range(RECORDS):
        content = random.randbytes(300)
        (folder / f"{name}{index}.png").write_bytes(content)
        rows.append({"image": f"{name}{index}.png", "caption": f"{name} {index} {random.random()}"})
        told.append((str(rows[-1]["caption"]), codes_of(content)))
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return told


def _variant(folder: Path, name: str, damage: str, raw: bool, random: randomness.Random) -> Variant:
    folder.mkdir()
    told: list[tuple[str, list[int]]] = []

    def place(tokens: Path, source: Path) -> Path:
        if name == "hashes.sqlite":
            return tokens / name
        found = sorted(source.glob(name.replace(".ids", "-*.ids")))
        return found[0]

    def replay() -> Any:
        with contextlib.chdir(folder):
            tokens, options = Path("tokens"), {"path": "one.jsonl"}
            if damage == "of an older state":
                _write(folder, "one", 2)
                tokenise(tokens, READER, options, SHARD)
                shutil.copytree(tokens, "older")
            told[:] = _write(folder, "one", 1)
            source, _ = tokenise(tokens, READER, options, SHARD)
            _write(folder, "two", 3)
            other, _ = tokenise(tokens, READER, {"path": "two.jsonl"}, SHARD)
            whole = shards_of(source)
            read(tokens, READER, options)  # a run that remembers which shards are whole
            path = place(tokens, source)
            if damage == "of another source":
                shutil.copyfile(place(tokens, other), path)
            elif damage == "of an older state":
                shutil.copyfile(place(Path("older"), "older" / source.relative_to(tokens)), path)
            else:
                DAMAGES[damage](path, random)
            problem: UserError | None = None
            found: Any = None
            try:
                found = read(tokens, READER, options, raw)
            except LookupError:
                pass
            except UserError as error:
                problem = error
                if source.name not in str(error):
                    return f"the refusal does not name the place: {error}"
            if path.is_dir() and name != "hashes.sqlite":
                tokenise(tokens, READER, options, SHARD)  # refuses: it deletes no folder
                return "a folder in the place of a file is gone"
            again, _ = tokenise(tokens, READER, options, SHARD)
            if shards_of(again) != whole:
                return "`mio tokenize` does not bring back the shards"
            if [_told(record) for record in read(tokens, READER, options)] != told:
                return "after `mio tokenize` a record differs"
            if problem is not None:
                raise problem
            return found

    def right(found: Any) -> str:
        if isinstance(found, str):
            return found
        if found is None:
            return ""  # not complete: a run says so and reads the source itself
        return "" if [_told(record) for record in found] == told else "a record differs"

    return Variant(
        f"{name}: {damage}, {'with' if raw else 'without'} the source",
        replay,
        right,
        readable=False if damage == "a folder" and name != "hashes.sqlite" else None,
    )


def _told(record: dict[str, Any]) -> tuple[str, list[int]]:
    return record["caption"], record["image"]
