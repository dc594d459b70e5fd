"""Recipes from Git and from the Hub at a pinned revision: what is fetched, once, and that nothing of it is executed."""

import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from mio.cli import app
from mio.cli.places import recipe_place, refuse_foreign_folders
from mio.core.contract.plugins import PluginManager
from mio.core.errors import RecipeError, UserError
from mio.core.recipe import origins
from mio.core.recipe.chain import links
from mio.core.recipe.origins import fetched, inside, is_elsewhere, root_of
from mio.core.recipe.schema import RuntimeConfig

MANAGER = PluginManager.discover()
BASE = (
    "{name: base, plugins: {text: {tokenizer: bytes}}, "
    "data: {groups: {a: {sources: {b: {dataset: jsonl, options: {path: DATA}}}}}}}"
)
HOOK = "#!/bin/sh\ntouch {canary}\n"


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with a cache of its own, and nothing that reaches a network."""
    monkeypatch.setenv("MIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def repository(folder, files):
    """A Git repository with a commit of these files; its name up to the file."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")
    return f"git+file://{folder}@{git(folder, 'rev-parse', 'HEAD')}"


def snapshot(cache, files, commit="a" * 40, name="models--someone--recipes"):
    """The Hub's cache as `huggingface_hub` lays it out, links to blobs included."""
    folder = cache / name / "snapshots" / commit
    (cache / name / "blobs").mkdir(parents=True)
    (cache / name / "refs").mkdir()
    (cache / name / "refs" / "main").write_text(commit)
    for index, (file, content) in enumerate(files.items()):
        blob = cache / name / "blobs" / f"{index:040x}"
        blob.write_text(content)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).symlink_to(os.path.relpath(blob, (folder / file).parent))
    return f"hf:someone/recipes@{commit}"


FILES = {
    "recipes/base.yaml": BASE.replace("DATA", "../data/a.jsonl"),
    "recipes/next.yaml": "{name: next, start_from: base.yaml, include: [parts/more.yaml]}",
    "recipes/parts/more.yaml": "{seed: 5}",
    "data/a.jsonl": '{"text": "x"}\n',
}


@pytest.mark.parametrize("kind", ["git", "hub"])
def test_a_recipe_runs_from_where_it_is_pinned(work, kind, capsys):
    place = repository(work / "remote", FILES) if kind == "git" else snapshot(work / "hub", FILES)
    name = f"{place}:recipes/next.yaml"
    made = links([recipe_place(name)], ["train.steps=7"], MANAGER)
    assert [(link.recipe.name, link.recipe.seed, link.recipe.train.steps) for link in made] == [
        ("base", 0, 7),
        ("next", 5, 7),
    ]
    data = Path(made[0].recipe.data.groups["a"].sources["b"].options["path"])
    assert data.read_text() == FILES["data/a.jsonl"]
    if kind == "git":
        shutil.rmtree(work / "remote")  # it is fetched once
    assert app.run(["recipe", "show", name]) == 0
    assert "seed: 5" in capsys.readouterr().out
    assert app.run(["recipe", "diff", f"{place}:recipes/base.yaml", name]) == 0
    assert "starts from" in capsys.readouterr().out


def test_a_snapshot_that_was_begun_is_not_whole_where_the_hub_does_not_answer(work, monkeypatch):
    place = snapshot(work / "hub", {"recipes/base.yaml": FILES["recipes/base.yaml"]})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for _ in range(2):
        with pytest.raises(UserError, match=r"cannot be fetched from the Hub: .*; with HF_HUB_OFFLINE=1"):
            fetched(place)
    assert not list((work / "cache").rglob("*"))


class Nothing(BaseHTTPRequestHandler):
    """A server that has nothing."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_what_the_hub_does_not_have_is_not_looked_for_in_its_cache(work, monkeypatch):
    place = snapshot(work / "hub", {"recipes/base.yaml": FILES["recipes/base.yaml"]})
    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(UserError, match="cannot be fetched from the Hub: ") as told:
            fetched(place)
        server.shutdown()
    assert "404" in str(told.value)
    assert "HF_HUB_OFFLINE" not in str(told.value)


def test_a_snapshot_that_is_no_longer_in_the_cache_is_fetched_again(work, monkeypatch):
    asked, files = [], {"recipes/base.yaml": FILES["recipes/base.yaml"]}
    hub = work / "hub"

    def get(*_, revision, local_files_only=False, **__):
        folder = hub / "models--someone--recipes" / "snapshots" / revision
        if local_files_only and not folder.is_dir():
            raise LocalEntryNotFoundError("not there")
        if not local_files_only:
            shutil.rmtree(hub, ignore_errors=True)
            snapshot(hub, files)
        return str(folder)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(origins, "_ask_hub", asked.append)
    monkeypatch.setattr("huggingface_hub.snapshot_download", get)
    place = f"{snapshot(hub, files).partition('@')[0]}@{'a' * 40}:recipes/base.yaml"
    for times in (1, 1):
        assert fetched(place).read_text() == files["recipes/base.yaml"]
        assert len(asked) == times
    shutil.rmtree(hub)
    fetched(place)
    assert len(asked) == 2
    next(hub.rglob("base.yaml")).unlink()
    assert fetched(place).is_file()
    assert len(asked) == 3


def test_a_lock_says_which_paths_another_machine_may_not_have(work, capsys):
    place = repository(work / "remote", FILES)
    assert app.run(["recipe", "lock", f"{place}:recipes/base.yaml"]) == 0
    told = capsys.readouterr().out
    assert f"`data.groups.a.sources.b.options.path` is {work / 'cache'}" in told
    assert "to pass the lock on, make it in a clone of what was fetched" in told
    # in a clone the paths are relative, and hold wherever the working folder is one
    os.chdir(work / "remote")
    assert app.run(["recipe", "lock", "recipes/base.yaml"]) == 0
    assert "options.path" not in capsys.readouterr().out
    assert "path: data/a.jsonl" in Path("base.lock").read_text()


def test_a_name_that_says_no_commit_or_no_file_is_refused(work):
    place = repository(work / "remote", FILES)
    url = place.rpartition("@")[0]
    for name, said in (
        (f"{url}@main:recipes/base.yaml", "`main` is no commit"),
        (f"{place[:-3]}:recipes/base.yaml", "is no commit"),
        (f"{url}:recipes/base.yaml", "is no `git"),
        (f"{url}:recipes/base.yaml", "it says no revision; put `@COMMIT` behind it"),
        ("git+https://host/a b@" + "a" * 40, "it holds a space, which an address has as `%20`"),
        ("git+ext::sh -c touch% canary@" + "a" * 40, "is no `git"),
        ("git+http://host/x@" + "a" * 40, "is no `git"),
        ("hf:someone/recipes", "says no revision"),
        ("hf:someone/recipes@main:x.yaml", "is no commit"),
        ("hf:recipes@" + "a" * 40, "is no `hf:OWNER/NAME@COMMIT`"),
        (f"{place}:nope.yaml", "has no file `nope.yaml` at this commit; it has recipes/base.yaml"),
        (f"{place}:../../x", "leads out of the repository"),
        (f"{place}:/etc/passwd", "leads out of the repository"),
        (f"{place}:{'n' * 5000}", "has no file"),
        (place, "holds no bundle; name a recipe in it"),
        (f"git+file://{work}/gone@{'a' * 40}:x.yaml", "cannot be fetched"),
        (f"{url}@{'a' * 40}:x.yaml", "cannot be fetched"),
    ):
        with pytest.raises(UserError) as error:
            recipe_place(name)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    assert not list((work / "cache").rglob(".objects"))


def test_nothing_of_a_repository_is_executed(work, monkeypatch):
    """Hooks, filters, a file-system monitor, submodules and links: none of them has an effect."""
    canary = work / "canary"
    inner = repository(work / "inner", {"x": "x"})
    remote = work / "remote"
    repository(remote, {**FILES, ".gitattributes": "* filter=evil diff=evil merge=evil\n*.yaml export-subst ident\n"})
    (remote / "link.yaml").symlink_to("/etc/passwd")
    (remote / "out").symlink_to("../..")
    git(remote, "submodule", "--quiet", "add", inner.removeprefix("git+").rpartition("@")[0], "inner")
    git(remote, "add", "--all")
    git(remote, "commit", "--quiet", "--message", "traps")
    commit = git(remote, "rev-parse", "HEAD")
    for key in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor", "uploadpack.packObjectsHook"):
        git(remote, "config", key, f"touch {canary}")
    for hook in ("post-checkout", "pre-receive", "post-merge", "reference-transaction", "post-index-change"):
        path = remote / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(HOOK.format(canary=canary))
        path.chmod(0o755)
    folder = fetched(f"git+file://{remote}@{commit}")
    assert not canary.exists()
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert here == {*FILES, ".gitattributes", ".gitmodules"}
    assert not any(path.is_symlink() or os.access(path, os.X_OK) for path in folder.rglob("*") if path.is_file())
    monkeypatch.setattr(origins, "_LARGEST", 100)
    shutil.rmtree(work / "cache")
    with pytest.raises(UserError, match="is larger than a repository of recipes may be"):
        fetched(f"git+file://{remote}@{commit}")
    assert not list((work / "cache").rglob("*.yaml"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../x.jsonl", "~/x.jsonl", "mine.jsonl", "../../*/a.jsonl"])
def test_data_of_a_fetched_recipe_lies_in_what_was_fetched(work, path):
    (work / "work" / "mine.jsonl").touch()
    name = f"{repository(work / 'remote', {'recipes/base.yaml': BASE.replace('DATA', path)})}:recipes/base.yaml"
    with pytest.raises(RecipeError, match=r"`data.groups.a.sources.b.options.path`: .* is not in what was fetched"):
        links([recipe_place(name)], [], MANAGER)
    own = ["data.groups.a.sources.b.options.path=mine.jsonl"]
    assert (
        links([recipe_place(name)], own, MANAGER)[0].recipe.data.groups["a"].sources["b"].options["path"]
        == "mine.jsonl"
    )


@pytest.mark.parametrize("start", ["/SOMEWHERE/base.yaml", "../../../../base.yaml", "base.yaml", "git+https://h/r@c:f"])
@pytest.mark.parametrize("key", ["start_from", "include"])
def test_what_a_fetched_recipe_builds_on_lies_in_what_was_fetched(work, start, key):
    for folder in (work, work / "work"):
        (folder / "base.yaml").write_text("{name: base}")
    said = start.replace("/SOMEWHERE", str(work))
    text = f"{{name: next, {key}: {said!r}}}" if key == "start_from" else f"{{name: next, include: [{said!r}]}}"
    name = f"{repository(work / 'remote', {'next.yaml': text})}:next.yaml"
    with pytest.raises(RecipeError, match="in what was fetched"):
        links([recipe_place(name)], [], MANAGER)
    if key == "start_from":
        assert len(links([recipe_place(name)], ["start_from=base.yaml"], MANAGER)) == 2


def test_no_place_that_a_recipe_names_is_fetched(work, write, monkeypatch):
    place = f"{repository(work / 'remote', FILES)}:recipes/base.yaml"
    monkeypatch.setattr(subprocess, "run", None)
    for text in (f"{{start_from: '{place}'}}", f"{{include: ['{place}']}}", "{start_from: 'hf:a/b@" + "a" * 40 + "'}"):
        with pytest.raises(UserError):
            links([write("own.yaml", text)], [], MANAGER)
    assert not (work / "cache").exists()


def test_where_a_path_leads(work):
    cache = work / "cache"
    assert root_of(cache / "git" / "k" / "c" / "a" / "b.yaml") == cache / "git" / "k" / "c"
    assert root_of(cache / "git" / "k" / "c") == cache / "git" / "k" / "c"
    assert root_of(cache / "bundles" / "h" / "training.lock") == cache / "bundles" / "h"
    hub = work / "hub" / "models--a--b" / "snapshots" / "c"
    assert root_of(hub / "x.yaml") == hub
    assert root_of(work / "work" / "x.yaml") is None
    assert root_of(Path()) is None
    assert inside(hub, hub / "r", "../x")
    assert not inside(hub, hub / "r", "../../x")
    assert not inside(hub, hub, "../cc")
    assert not inside(hub, hub, "~/x")
    assert not is_elsewhere("recipes/git+x.yaml")


def test_a_fetched_recipe_writes_its_runs_below_the_working_folder(work, capsys):
    text = "{name: x, runtime: {runs: /SOMEWHERE}, plugins: {text: {tokenizer: bytes}}}".replace(
        "/SOMEWHERE", str(work)
    )
    name = f"{repository(work / 'remote', {'x.yaml': text})}:x.yaml"
    for changed in ({"runs": str(work)}, {"runs": "../x"}, {"runs": "~/x"}, {"tokens": "/x"}):
        said = partial(RuntimeConfig, **changed)
        with pytest.raises(UserError, match="out of the working folder"):
            refuse_foreign_folders([recipe_place(name)], [], said)
        refuse_foreign_folders([recipe_place(name)], [f"runtime.{key}=/x" for key in changed], said)
        refuse_foreign_folders(["own.yaml"], [], said)
    refuse_foreign_folders([recipe_place(name)], [], RuntimeConfig)
    assert app.run(["fit", name]) == 2
    assert "out of the working folder" in capsys.readouterr().err
