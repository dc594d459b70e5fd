"""Bundles, locks and repositories that are wrong on purpose, with traps that show what is executed or followed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.recipes import BASE, VALUES, Result, as_yaml, checked
from mio.cli.places import recipe_place
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import links
from mio.core.recipe.described import described
from mio.core.recipe.lock_file import LockFile
from mio.core.recipe.origins import cache_folder
from mio.core.runs.bundles import Manifest, opened
from mio.core.runs.lock import Lock, check_run
from mio.core.stages.locking import lock_recipe

PATHS = (
    *("../canary", "../../canary", "/tmp/mio-fuzz-canary", "a/../../canary", "..\\canary", "C:\\canary", "./x", "a//b"),
    *("recipe.yaml/x", "bundle.json", "RECIPE.YAML", "x" * 300, "a/" * 150 + "b", "\0", "\ud800", "", ".", "..", "é"),
    *("~/canary", ".git/hooks/post-checkout", "samples/../recipe.yaml", "tokenizers/text/x.pt", "recipe.yaml\n", "a:b"),
)
"""Names of members and files, most of them ways out."""
SIZES = (0, 1, -1, 2**31, 2**32 - 1, 2**63, 10**40, 1.5, True, None, "1", [], {})
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MODES = (0o100644, 0o100755, 0o120777, 0o040755, 0o010644, 0o020644, 0o060644, 0o140644, 0)
TAGS = (
    "!!python/object/apply:os.system ['touch canary']", "!!python/object/new:os.system ['touch canary']",
    "!!python/name:os.system", "!!python/module:os", "!!python/object:mio.Modality {}", "${oc.env:MIO_FUZZ_SECRET}",
    "${hydra:runtime.cwd}", "{_target_: os.system, command: touch canary}", "*a", "&a {<<: *a}", "../canary",
)  # fmt: skip
_SCRIPT = "#!/bin/sh\ntouch {canary}\n"


class _Touches:
    """Unpickled, it leaves a canary in the working folder."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


TRAPS: dict[str, bytes] = {
    "tokenizers/text/weights.pt": pickle.dumps(_Touches()),
    "model.safetensors": pickle.dumps(_Touches()),
    "conftest.py": b"open('canary', 'w')",
    "mio.py": b"open('canary', 'w')",
    ".git/hooks/post-checkout": _SCRIPT.format(canary="canary").encode(),
    "sitecustomize.py": b"open('canary', 'w')",
}
"""Files that do something where they are unpickled, imported or run."""


@cache
def lock_text() -> str:
    """The lock of a recipe of two stages that reads nothing."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    base = {**BASE, "data": {"packing": {"context": 96, "window": 16}}, "mixture": {}}
    (folder / "one.yaml").write_text(as_yaml({**base, "name": "one", "plugins": {"text": {"tokenizer": "bytes"}}}, {}))
    (folder / "two.yaml").write_text("{name: two, start_from: one.yaml, train: {steps: 3}}")
    made, _ = lock_recipe([str(folder / "two.yaml")], [], PluginManager.discover())
    made.save(folder / "two.lock")
    return (folder / "two.lock").read_text(encoding="utf-8")


def _bytes_changed(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        kind = random.randrange(4)
        if kind == 0:
            del changed[at : at + random.choice((1, 4, 50, 10_000))]
        elif kind == 1 and at < len(changed):
            changed[at] = random.randrange(256)
        elif kind == 2:
            changed[at:at] = random.choice((*VALUES, *TAGS)).encode("utf-8", "surrogatepass")
        else:
            changed[at:at] = changed[random.randrange(len(changed) + 1) :][:40]
    return bytes(changed)


def _value_changed(random: Random, content: Any) -> Any:
    """JSON-like content in which a key or value, at any place, is another, is gone or is there twice."""
    if isinstance(content, dict) and content and random.random() < 0.85:
        key = random.choice(sorted(content))
        kind = random.random()
        if kind < 0.1:
            return {name: item for name, item in content.items() if name != key}
        if kind < 0.2:
            return {**content, random.choice((*PATHS, "zzyzx", "_replace_", "1", key.upper())): content[key]}
        return {**content, key: _value_changed(random, content[key])}
    if isinstance(content, list) and content and random.random() < 0.85:
        at = random.randrange(len(content))
        return [
            *content[:at],
            *([] if random.random() < 0.1 else [_value_changed(random, content[at])]),
            *content[at + 1 :],
        ]
    strange = (*PATHS, *SIZES, *TAGS, "x" * 5000, [[]] * 50, {"a": {"b": {}}}, float("nan"), -0.0, "\x1b[31m")
    return random.choice(strange)


def lock(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A lock file whose bytes, keys or values are others, read as all commands read it."""
    import yaml

    text = lock_text()
    path = folder / "x.lock"
    if random.random() < 0.5:
        content: Any = yaml.safe_load(text)
        for _ in range(random.randint(1, 3)):
            content = _value_changed(random, content)
        path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(_bytes_changed(random, text.encode()))
    described(str(path), [], manager)
    for link in links([str(path)], [], manager):
        if "/" in link.recipe.name or link.recipe.name.startswith("."):
            return True, f"the name {link.recipe.name!r} leaves the folder of runs"
    LockFile.read(path, manager).save(folder / "again.lock")
    return True, ""


def run_lock(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A run's own record, with files that are traps beside it."""
    del manager
    for name, content in TRAPS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "recipe.yaml").write_text("name: x\n")
    versions = {"mio": "1", "python": "3", "packages": {}, "plugins": {}}
    files = dict.fromkeys(("recipe.yaml", "vocabulary.json", "tokenizers/tokenizers.json", *TRAPS), "0" * 32)
    known: Any = {"recipe": "f", "seed": 0, **versions, "vocabulary": "v", "tokenizers": {}, "run": "r", "files": files}
    for _ in range(random.randint(0, 3)):
        known = _value_changed(random, known)
    text = json.dumps(known).encode("utf-8", "surrogatepass")
    (folder / "recipe.lock").write_bytes(text if random.random() < 0.7 else _bytes_changed(random, text))
    Lock.read(folder)
    check_run(folder, weights=True, tell=lambda line: None)  # noqa: ARG005
    return True, ""


def bundle(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A zip file whose manifest, members, sizes, modes, ways of packing, paths or bytes are others, with traps."""
    text = lock_text().encode()
    if random.random() < 0.2:
        text = _bytes_changed(random, text)
    files = {"recipe.yaml": as_yaml(BASE, {}).encode(), "training.lock": text, "samples/a.json": b"{}"}
    for name in random.sample(sorted(TRAPS), random.randrange(3)):
        files[name] = TRAPS[name]
    if random.random() < 0.2:
        files[random.choice(PATHS)] = b"x"
    listed = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    manifest: Any = Manifest("x", listed).to_json()
    if random.random() < 0.4:
        manifest = _value_changed(random, manifest)
    path = folder / "x.zip"
    path.write_bytes(_packed(random, manifest, files))
    if random.random() < 0.35:
        path.write_bytes(_bytes_changed(random, path.read_bytes()))
    shutil.rmtree(cache_folder() / "bundles", ignore_errors=True)
    place = Path(recipe_place(str(path)))
    unpacked = opened(path)
    wrong = _wrong(unpacked, path)
    if not wrong:
        links([str(place)], [], manager)
        described(str(unpacked), [], manager)
    return True, wrong


def _packed(random: Random, manifest: Any, files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    members = [("bundle.json", json.dumps(manifest).encode("utf-8", "surrogatepass")), *files.items()]
    kind = random.randrange(8)
    if kind == 0:
        members.append(random.choice(members))
    elif kind == 1:
        members.append((random.choice(PATHS), b"x"))
    elif kind == 2:
        del members[random.randrange(len(members))]
    elif kind == 3:
        members.append(("zeros", bytes(random.choice((1, 1 << 20)))))
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members:
            member = zipfile.ZipInfo("x")
            member.filename = name.replace("\ud800", "\ufffd")
            member.compress_type = zipfile.ZIP_DEFLATED if random.random() < 0.95 else random.choice(METHODS)
            mode = 0o100644 if random.random() < 0.95 else random.choice(MODES)
            member.external_attr = mode << 16
            with warnings.catch_warnings(action="ignore"):  # of names that are there twice
                archive.writestr(member, content)
        if kind == 4:  # what the central directory says is not what is there
            for member in archive.infolist():
                if random.random() < 0.5:
                    member.file_size = random.choice((0, 1, 1 << 31, zlib.crc32(member.filename.encode())))
        if kind == 5:
            archive.comment = random.choice((b"PK\5\6" * 8, b"x" * 60_000))
    return made.getvalue()


def _wrong(unpacked: Path, path: Path) -> str:
    """What is not as it has to be in the folder of a bundle that was accepted."""
    root = cache_folder()
    if not unpacked.resolve().is_relative_to(root.resolve()):
        return f"{path}: was unpacked into {unpacked}"
    manifest = Manifest.of(json.loads((unpacked / "bundle.json").read_text()), "x")
    here = {one.relative_to(unpacked).as_posix() for one in unpacked.rglob("*") if not one.is_dir() or one.is_symlink()}
    if here != {*manifest.files, "bundle.json"}:
        return f"{path}: holds {sorted(here ^ {*manifest.files, 'bundle.json'})}"
    for name, (size, digest) in manifest.files.items():
        content = (unpacked / name).read_bytes()
        if (unpacked / name).is_symlink() or (len(content), hashlib.sha256(content).hexdigest()) != (size, digest):
            return f"{path}: `{name}` is not what its manifest says"
    outside = [one for one in (path.parent, path.parent.parent, Path("/tmp")) if (one / "canary").exists()]
    return f"{path}: left a file in {outside[0]}" if outside else ""


def fetched_recipe(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A recipe as it lies in the cache after it was fetched, which names what is outside in one of many ways."""
    root = cache_folder() / "git" / "k" / "c"
    shutil.rmtree(root, ignore_errors=True)
    (root / "recipes").mkdir(parents=True)
    outside = [folder / "secret.yaml", folder / "secret.jsonl", root.parent / "secret.yaml"]
    for one in outside:
        one.write_text("{name: secret, seed: 77}")
    (root / "data.jsonl").write_text('{"caption": "x", "image": "x.png"}\n')
    (root / "inner.yaml").write_text("{seed: 5}")
    named = random.choice(
        (
            *PATHS, *TAGS, *map(str, outside), "../../secret.yaml", "../../../secret.yaml", "secret.jsonl",
            "~/secret.yaml", "secret.yaml", "../recipes/../../secret.yaml", "../inner.yaml", "../data.jsonl",
            "*.jsonl", "/*/*", "../**",
            "git+file:///x@" + "a" * 40 + ":x.yaml", "hf:a/b@" + "a" * 40, "file:///etc/passwd", "https://host/x.yaml",
        )
    )  # fmt: skip
    key = random.choice(
        (("start_from",), ("include",), ("data", "groups", "pairs", "sources", "lines", "options", "path"))
    )
    said = json.dumps(named)
    content: Any = {**BASE, key[0]: None} if len(key) == 1 else BASE
    put = {key: f"[{said}]" if key == ("include",) else said}
    path = root / "recipes" / "base.yaml"
    path.write_bytes(as_yaml(content, put).encode("utf-8", "surrogatepass"))
    made = links([str(path)], [], manager)
    options = made[-1].recipe.data.groups["pairs"].sources["lines"].options
    if any(link.recipe.seed == 77 or link.recipe.name == "secret" for link in made):
        return True, f"{'.'.join(key)}: {named!r} led out of what was fetched"
    reached = str(options["path"])
    if reached and Path(reached).exists() and not Path(os.path.normpath(reached)).is_relative_to(root):
        return True, f"{'.'.join(key)}: {named!r} became {reached!r}, which is outside"
    return True, ""


def repository(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A Git repository with hooks, filters and links, whose objects may be damaged, at a commit or something else."""
    shutil.rmtree(cache_folder() / "git", ignore_errors=True)
    remote, place = _remote(folder)
    if random.random() < 0.4:
        objects = [one for one in (remote / ".git" / "objects").rglob("*") if one.is_file()]
        target = random.choice(sorted(objects))
        target.chmod(0o644)
        target.write_bytes(_bytes_changed(random, target.read_bytes()))
    commit = (
        place if random.random() < 0.7 else random.choice(("main", "HEAD", "-x", "a" * 40, "--upload-pack=touch", ""))
    )
    file = random.choice(("base.yaml", "base.yaml", "link.yaml", "out/canary", *PATHS)).replace("\ud800", "?")
    name = recipe_place(f"git+file://{remote}@{commit}:{file}")
    links([name], [], manager)
    checked_in = [
        one for one in Path(name).parent.rglob("*") if one.is_symlink() or os.access(one, os.X_OK) > one.is_dir()
    ]
    return True, f"{checked_in} are more than plain files" if checked_in else ""


def _remote(folder: Path) -> tuple[Path, str]:
    """A copy of a repository of traps, whose scripts would leave a canary in `folder`, and its commit."""
    made = cache_folder() / "remote"
    run = ["git", "-C", str(made), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null"]
    if not made.exists():
        made.mkdir(parents=True)
        (made / "base.yaml").write_text(as_yaml(BASE, {}))
        (made / ".gitattributes").write_text("* filter=evil\n")
        (made / "link.yaml").symlink_to("/etc/passwd")
        (made / "out").symlink_to("..")
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
            subprocess.run([*run, *words], check=True, capture_output=True)
    commit = subprocess.run([*run, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    remote = folder / "remote"
    shutil.copytree(made, remote, symlinks=True)
    with (remote / ".git" / "config").open("a") as config:
        config.write(
            f'[filter "evil"]\n\tsmudge = touch {folder}/canary\n[core]\n\tfsmonitor = touch {folder}/canary\n'
        )
    for hook in ("post-checkout", "post-merge", "pre-receive", "reference-transaction"):
        path = remote / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(_SCRIPT.format(canary=folder / "canary"))
        path.chmod(0o755)
    return remote, commit


def several_values(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A recipe in which keys and values, several at once, are others, at any place."""
    content: Any = BASE
    for _ in range(random.randint(1, 4)):
        content = _value_changed(random, content)
    path = folder / "base.yaml"
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
    checked(path, [], manager)
    return True, ""
