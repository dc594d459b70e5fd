"""Bundles, opened: a run's recipe, lock, vocabulary, tokenizers and figures in one folder or one zip file. No torch.

A bundle is a lean run folder with three files more: `bundle.json`, which names every file with its size and SHA-256,
`training.lock`, by which the run can be trained again, and `README.md`. A zip file is unpacked into the cache, into a
folder that is named by the file's own hash, so once. Its members are compared with the manifest before any is written:
what is not named there, leaves the folder or is larger than it says is refused. Whatever a member holds is data.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mio.core.errors import DataError, UserError
from mio.core.files import new_folder_once, read_json, unique_keys, write_json
from mio.core.recipe.origins import cache_folder
from mio.core.recipe.places import BUNDLE, CHAIN, RECIPE, WEIGHTS, is_file
from mio.core.terminal import printable

FORMAT = "mio-bundle"
VERSION = 1
SUFFIX = ".zip"

_LARGEST_MANIFEST = 16 << 20
_MOST_FILES = 100_000
_LONGEST_PATH = 400
_MOST_SMALLER, _SMALL = 100, 64 << 20
"""How many times a zip file's content may be as large as the file, above so many bytes: else it might fill a disk."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20
_RESTORE = "get it again"


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    """Of the run."""
    files: dict[str, tuple[int, str]]
    """Bytes and SHA-256 (hexadecimal) by path."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        files = {path: {"bytes": size, "sha256": digest} for path, (size, digest) in sorted(self.files.items())}
        return {"format": FORMAT, "version": VERSION, "name": self.name, "files": files}

    @classmethod
    def of(cls, content: Any, where: str) -> Manifest:
        """Inverse of `to_json`. Raises `DataError` for anything else, and for paths that leave the bundle."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f"{where}: is no bundle: its {BUNDLE} has not the format `{FORMAT}`")
        if content.get("version") != VERSION:
            raise DataError(
                f"{where}: is a bundle of version {content.get('version')!s:.20}, this mio reads {VERSION}: use the "
                "mio that made it, or a newer one"
            )
        files, name = content.get("files"), content.get("name")
        if not isinstance(files, dict) or not isinstance(name, str) or len(files) > _MOST_FILES:
            raise DataError(f"{where}: its {BUNDLE} is damaged; {_RESTORE}")
        for path, one in files.items():
            sound = isinstance(one, dict) and type(one.get("bytes")) is int and isinstance(one.get("sha256"), str)
            if not sound or one["bytes"] < 0 or not _stays(path):
                raise DataError(f"{where}: its {BUNDLE} is damaged (file `{printable(path):.100}`); {_RESTORE}")
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
        if clash := sorted(folders & {*files, BUNDLE}):
            raise DataError(
                f"{where}: its {BUNDLE} is damaged (`{printable(clash[0]):.100}` is a file and a folder); {_RESTORE}"
            )
        return cls(name, {path: (one["bytes"], one["sha256"]) for path, one in files.items()})


def _stays(path: str) -> bool:
    """Whether a path is one inside a folder, on any system."""
    parts = path.split("/")
    plain_parts = all(part not in ("", ".", "..") for part in parts)
    return plain_parts and len(path) <= _LONGEST_PATH and not set(path) & {"\\", "\0", ":"}


def is_bundle(path: Path) -> bool:
    """Whether a path means a bundle."""
    return is_file(path / BUNDLE) or (path.suffix == SUFFIX and is_file(path))


def opened(path: Path) -> Path:
    """The folder of a bundle: itself, or that into which a zip file was unpacked. Raises `DataError` for a damaged
    one."""
    if is_file(path / BUNDLE):
        manifest = Manifest.of(read_json(path / BUNDLE, _RESTORE), str(path))
        for name in (CHAIN, RECIPE):  # the others are in the run's own lock, and some change as a run is evaluated
            if name in manifest.files and not (is_file(path / name) and _sums(path / name) == manifest.files[name]):
                raise DataError(f"{path / name}: is not what {BUNDLE} says of it; {_RESTORE}")
        return path
    folder = cache_folder() / "bundles" / digest(path)[:32]
    if not is_file(folder / BUNDLE):
        _unpack(path, folder)
    return folder


def refuse_unweighted(folder: Path, name: str = "") -> None:
    """Raises `UserError` for a bundle without weights."""
    if is_file(folder / BUNDLE) and not is_file(folder / WEIGHTS):
        raise UserError(f"{name or folder}: is a bundle without weights, which `mio fit {name or folder}` trains")


def digest(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sums(path: Path) -> tuple[int, str]:
    return path.stat().st_size, digest(path)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest_in(archive, path)
            members = _members(archive, manifest, path)
            with new_folder_once(folder) as new:
                for name, member in members.items():
                    _write(archive, member, new.joinpath(*PurePosixPath(name).parts), manifest.files[name], path)
                write_json(new / BUNDLE, manifest.to_json())
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: is no bundle, or a damaged one ({error!s:.200}); {_RESTORE}") from error


def _manifest_in(archive: zipfile.ZipFile, path: Path) -> Manifest:
    if len(archive.infolist()) > _MOST_FILES + 1:
        raise DataError(f"{path}: has more files than a bundle may have, {_MOST_FILES:,}")
    try:
        member = archive.getinfo(BUNDLE)
    except KeyError:
        raise DataError(f"{path}: is no bundle: it has no {BUNDLE}; `mio recipe bundle RUN` makes one") from None
    if member.file_size > _LARGEST_MANIFEST or member.compress_type not in _METHODS:
        raise DataError(f"{path}: its {BUNDLE} is larger than {_LARGEST_MANIFEST >> 20} MiB, or packed strangely")
    with archive.open(member) as file:
        text = file.read(_LARGEST_MANIFEST + 1)
    try:
        content = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: its {BUNDLE} is damaged ({error!s:.100}); {_RESTORE}") from None
    return Manifest.of(content, str(path))


def _members(archive: zipfile.ZipFile, manifest: Manifest, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members by name. Raises `DataError` unless they are exactly the plain files of the manifest."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name, mode = member.filename, member.external_attr >> 16
        if name == BUNDLE and name not in members:
            continue
        wrong = (
            "is not in its manifest" if name not in manifest.files
            else "is there twice" if name in members
            else "is no plain file" if mode and (mode & 0o170000) not in (0, 0o100000)
            else "is packed in a way that no bundle is" if member.compress_type not in _METHODS
            else "has another size than its manifest says" if member.file_size != manifest.files[name][0]
            else ""
        )  # fmt: skip
        if wrong:
            raise DataError(f"{path}: `{printable(name):.100}` {wrong}; {_RESTORE}")
        members[name] = member
    if missing := manifest.files.keys() - members.keys():
        raise DataError(f"{path}: lacks `{printable(min(missing)):.100}`; {_RESTORE}")
    packed = path.stat().st_size
    if manifest.bytes > max(_SMALL, _MOST_SMALLER * packed):
        raise DataError(f"{path}: would be {manifest.bytes:,} bytes, of {packed:,} packed; no bundle is like that")
    return members


def _write(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, expected: tuple[int, str], path: Path
) -> None:
    size, digest = 0, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        while size <= expected[0] and (chunk := source.read(_CHUNK)):
            size += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    if (size, digest.hexdigest()) != expected:
        raise DataError(f"{path}: `{printable(member.filename):.100}` is damaged (another checksum); {_RESTORE}")
