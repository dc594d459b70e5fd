"""Recipes from elsewhere: Git repositories and the Hub, at a pinned revision. No torch.

    git+https://host/owner/repo@COMMIT:recipes/stage1.yaml
    hf:owner/name@COMMIT:recipes/stage1.yaml
    hf:owner/name@COMMIT                                     # a bundle

Only what a person types on the command line is fetched: no recipe can name such a place. A revision is a whole commit,
as tags and branches move. What is fetched is plain files in the cache, so that it is fetched once. Nothing in it is
executed: of a Git repository no work tree is checked out, hence no hook, filter, submodule or link of it has an effect;
its plain files are written out one by one. What a recipe there names stays inside of what was fetched (`inside`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mio.core.errors import UserError
from mio.core.files import new_folder_once, write_text
from mio.core.recipe.places import is_file
from mio.core.terminal import printable

CACHE = "MIO_CACHE"
"""Environment variable: folder in which things that are fetched or unpacked are kept; default: `~/.cache/mio`."""

_GIT = re.compile(r"git\+(?P<url>(?P<scheme>https|ssh|file)://[^\s@:]*(?:@[^\s@:/]+)?(?::\d+)?[^\s@:]*)@(?P<rest>.*)")
_HUB = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<rest>.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LARGEST_FILE, _LARGEST = 64 << 20, 512 << 20
"""Bytes of a file of a Git repository, and of all."""
_MOST_FILES = 20_000
_SECONDS = 600.0
_SAFE = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
    "-c", "fetch.fsckObjects=true", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
)  # fmt: skip


class _Place(NamedTuple):
    """A file or, without one, the root of a repository."""

    name: str
    """As it was typed, to be shown."""
    repository: str
    commit: str
    file: str


def is_elsewhere(name: str) -> bool:
    """Whether a name on the command line means a place of another machine."""
    return name.startswith(("git+", "hf:"))


def cache_folder() -> Path:
    """Where things that are fetched or unpacked are kept."""
    return Path(os.environ.get(CACHE) or "~/.cache/mio").expanduser()


def root_of(path: Path) -> Path | None:
    """The folder of what was fetched or unpacked that a path leads into; None for a path of the user's own."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links of the Hub's cache lead out of its snapshots
    for kind, depth in (("git", 2), ("bundles", 1)):
        base = Path(os.path.abspath(cache_folder() / kind))  # noqa: PTH100
        if base in whole.parents and len(within := whole.relative_to(base).parts) >= depth:
            return base.joinpath(*within[:depth])
    for index, part in enumerate(whole.parts[1:-1], 1):
        if part == "snapshots" and whole.parts[index - 1].startswith("models--"):
            return Path(*whole.parts[: index + 2])
    return None


def inside(root: Path, folder: Path, path: str) -> bool:
    """Whether a path that begins in `folder`, which lies in `root`, stays in `root`."""
    if path.startswith("~") or "\0" in path:
        return False
    whole, base = os.path.abspath(folder / path), os.path.abspath(root)  # noqa: PTH100
    return whole == base or whole.startswith(f"{base}{os.sep}")


def fetched(name: str) -> Path:
    """The path of a file or folder that a name as above means, fetched if it is not in the cache.

    Raises `UserError` for a name of another form, a revision that is no commit, and what is not there or cannot be
    reached.
    """
    if name.startswith("hf:"):
        return _from_hub(name)
    match = _GIT.fullmatch(name)
    if match is None:
        raise UserError(
            f"{printable(name):.300}: is no `git+https://HOST/REPOSITORY@COMMIT:FILE` (nor of ssh:// or file://)"
            f"{_why(name)}"
        )
    place = _place(name, match["url"], match["rest"])
    key = hashlib.sha256(place.repository.encode()).hexdigest()[:24]
    folder = cache_folder() / "git" / key / place.commit
    if not folder.is_dir():
        _fetch(place, folder)
    return _inside(folder, place)


def _why(name: str) -> str:
    """What is wrong with an address of a Git repository, where that is known."""
    address = name.removeprefix("git+")
    if re.search(r"\s", address.rpartition("@")[0] or address):
        return "; it holds a space, which an address has as `%20`"
    if not address.startswith(("https://", "ssh://", "file://")):
        return ""
    return "" if "@" in address else "; it says no revision; put `@COMMIT` behind it, the whole commit"


def _place(name: str, repository: str, rest: str) -> _Place:
    commit, _, file = rest.partition(":")
    shown = printable(name)
    if not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{shown:.300}: `{printable(commit):.60}` is no commit; give the whole one, 40 hexadecimal digits; "
            "branches and tags move"
        )
    return _Place(shown, repository, commit, file)


def _inside(folder: Path, place: _Place) -> Path:
    """A file of what was fetched. Raises `UserError` if there is none, and for a way out of it."""
    parts = PurePosixPath(place.file).parts
    path = folder.joinpath(*parts)
    if PurePosixPath(place.file).is_absolute() or ".." in parts or "\0" in place.file:
        raise UserError(f"{place.name:.300}: `{printable(place.file):.100}` leads out of the repository")
    if place.file and not is_file(path):
        there = sorted(str(one.relative_to(folder)) for one in folder.rglob("*.yaml"))[:8]
        known = f"; it has {', '.join(there)}" if there else ""
        raise UserError(
            f"{place.name:.300}: the repository has no file `{printable(place.file):.100}` at this commit{known}"
        )
    return path


# Git


def _fetch(place: _Place, folder: Path) -> None:
    """Writes the plain files of a commit into a folder."""
    if shutil.which("git") is None:
        raise UserError(f"{place.name:.300}: needs the program `git`, which is not installed")
    with new_folder_once(folder) as new:
        objects = new / ".objects"
        _git(place, None, "init", "--bare", "--quiet", "--template=", str(objects))
        url = place.repository
        try:  # servers that allow it give this commit alone
            _git(place, objects, "fetch", "--quiet", "--depth=1", "--no-tags", url, place.commit)
        except UserError:
            _git(place, objects, "fetch", "--quiet", "--no-tags", url, "+refs/*:refs/*")
        files = list(_files(place, objects))
        total = 0
        for count, (name, _, size) in enumerate(files, 1):
            total += size
            if size > _LARGEST_FILE or total > _LARGEST or count > _MOST_FILES:
                raise UserError(
                    f"{place.name:.300}: is larger than a repository of recipes may be (`{name:.100}`): "
                    f"{_LARGEST_FILE >> 20} MiB a file, {_LARGEST >> 20} MiB and {_MOST_FILES:,} files in all"
                )
        wanted = "".join(f"{blob}\n" for _, blob, _ in files).encode()
        contents = io.BytesIO(_git(place, objects, "cat-file", "--batch", given=wanted))
        for name, _, size in files:
            contents.readline()  # its name, kind and size
            path = new.joinpath(*PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents.read(size))
            contents.read(1)
        shutil.rmtree(objects)


def _files(place: _Place, objects: Path) -> Iterator[tuple[str, str, int]]:
    """(path, object, bytes) of each plain file of a commit; links and submodules are left out."""
    listed = _git(place, objects, "ls-tree", "-r", "-z", "-l", "--full-tree", place.commit)
    for entry in filter(None, listed.split(b"\0")):
        about, _, name = entry.partition(b"\t")
        mode, kind, blob, size = about.split()
        path = os.fsdecode(name)
        plain = kind == b"blob" and mode in (b"100644", b"100755")
        if plain and not path.startswith("/") and not {"..", ".git", ".objects", ""} & set(path.split("/")):
            yield path, blob.decode(), int(size)


def _git(place: _Place, objects: Path | None, *arguments: str, given: bytes = b"") -> bytes:
    """What `git` prints, with `given` on its standard input. Raises `UserError` with its last line where it fails."""
    within = ["--git-dir", str(objects)] if objects is not None else []
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:ssh:file",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    try:
        done = subprocess.run(
            ["git", *_SAFE, *within, *arguments],
            capture_output=True,
            timeout=_SECONDS,
            env=environment,
            input=given,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{place.name:.300}: no answer within {_SECONDS:.0f} seconds; try again") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["git failed"]
        raise UserError(f"{place.name:.300}: cannot be fetched: {lines[-1]:.300}")
    return done.stdout


# the Hub

_OF_RECIPES = ("*.yaml", "*.yml", "*.json", "*.jsonl", "*.lock", "*.md", "*.csv")
_REFUSED = (401, 403, 404)
"""What the Hub answers where there is no such repository or commit, or none that this token may read."""


def _ask_hub(place: _Place) -> None:
    """Raises `UserError` where the Hub does not answer: a snapshot that was only begun would pass for a whole one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(place.repository, revision=place.commit)
    except Exception as error:  # of the network, whichever library speaks to it
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in _REFUSED
        hint = "" if refused else "; with HF_HUB_OFFLINE=1 what lies in its cache is taken as it is"
        raise UserError(
            f"{place.name:.300}: cannot be fetched from the Hub: {' '.join(str(error).split()):.300}{hint}"
        ) from None


def _from_hub(name: str) -> Path:
    match = _HUB.fullmatch(name)
    if match is None:
        raise UserError(f"{printable(name):.300}: is no `hf:OWNER/NAME@COMMIT`, with `:FILE` behind it for a recipe")
    if match["rest"] is None:
        raise UserError(f"{printable(name):.300}: says no revision; put `@COMMIT` behind it, the whole commit")
    place = _place(name, match["repository"], match["rest"])
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_OF_RECIPES, place.file] if place.file else None
    key = hashlib.sha256(f"{place.repository} {patterns}".encode()).hexdigest()[:24]
    whole = cache_folder() / "hub" / key / place.commit
    get = partial(snapshot_download, place.repository, revision=place.commit, allow_patterns=patterns)
    try:  # what is there as a whole needs no network: a commit does not change
        folder = _known_snapshot(whole, get)
        if folder is None:
            if not HF_HUB_OFFLINE:
                _ask_hub(place)
            folder = Path(get())
            if not HF_HUB_OFFLINE:
                there = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if is_file(one))
                whole.parent.mkdir(parents=True, exist_ok=True)
                write_text(whole, "".join(f"{name}\n" for name in there))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place.name:.300}: cannot be fetched from the Hub, and is not in its cache: {reason:.300}"
        ) from None
    return _inside(folder, place)


def _known_snapshot(whole: Path, get: Callable[..., str]) -> Path | None:
    """The snapshot whose files `whole` names; None where one of them is no longer in the Hub's cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not whole.is_file():
        return None
    try:
        folder = Path(get(local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if all(is_file(folder / name) for name in whole.read_text().splitlines()) else None
