"""Bundles, opened: nothing that is not in the manifest is written, and damage is said in one line."""

import json
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from mio.core.errors import DataError, UserError
from mio.core.runs.bundles import Manifest, is_bundle, opened, refuse_unweighted

FILES = {"recipe.yaml": b"name: x\n", "samples/a.png": b"png" * 50}


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("MIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest_of(files):
    listed = {name: {"bytes": len(content), "sha256": sha256(content).hexdigest()} for name, content in files.items()}
    return {"format": "mio-bundle", "version": 1, "name": "x", "files": listed}


def packed(members=None, manifest=None, **options):
    """A zip file of members (name or `ZipInfo` -> content)."""
    members = list((FILES if members is None else members).items())
    manifest = manifest_of(FILES) if manifest is None else manifest
    with zipfile.ZipFile("x.zip", "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        if manifest is not False:
            archive.writestr("bundle.json", json.dumps(manifest))
        for name, content in members:
            archive.writestr(name, content)
    return Path("x.zip")


def refused(path=Path("x.zip")):
    with pytest.raises(DataError) as error:
        opened(path)
    assert not list(Path("cache").rglob("*.yaml")), "nothing of it stays"
    assert "\n" not in str(error.value)
    return str(error.value)


def with_mode(name, mode, method=zipfile.ZIP_DEFLATED):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = method
    return member


def test_a_zip_file_is_unpacked_once(monkeypatch):
    folder = opened(packed())
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {*FILES, "bundle.json"}
    assert (folder / "samples" / "a.png").read_bytes() == FILES["samples/a.png"]
    assert opened(folder) == folder
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert opened(Path("x.zip")) == folder


def test_what_two_processes_unpack_at_once_is_whole(monkeypatch):
    from mio.core.runs import bundles

    path, write, raced = packed(), bundles._write, []

    def while_another_does(*arguments):
        if not raced:
            raced.append(True)
            opened(path)
        write(*arguments)

    monkeypatch.setattr(bundles, "_write", while_another_does)
    folder = opened(path)
    assert (folder / "recipe.yaml").read_bytes() == FILES["recipe.yaml"]
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "name",
    ["../out", "/tmp/mio-out", "a/../../out", "C:\\out", "a\\..\\..\\out", "", ".", "a//b", "a/", "x\0y", "n" * 401],
)
def test_a_path_that_leaves_the_bundle_is_refused(name, tmp_path):
    packed(FILES, manifest_of({**FILES, name: b"x"}))
    assert "damaged" in refused()
    assert not (tmp_path.parent / "out").exists()


def test_members_are_those_of_the_manifest():
    packed({**FILES, "hook.py": b"x"})
    assert "`hook.py` is not in its manifest" in refused()
    packed({**FILES, "../out": b"x"})
    assert "`../out` is not in its manifest" in refused()
    packed({"recipe.yaml": FILES["recipe.yaml"]})
    assert "lacks `samples/a.png`" in refused()
    packed({**FILES, "recipe.yaml": b"name: y\n"})
    assert "`recipe.yaml` is damaged (another checksum)" in refused()
    packed({**FILES, "recipe.yaml": b"name: longer\n"})
    assert "`recipe.yaml` has another size than its manifest says" in refused()
    with pytest.warns(UserWarning, match="Duplicate"):
        packed({**FILES, with_mode("recipe.yaml", 0o100644): FILES["recipe.yaml"]})
    assert "`recipe.yaml` is there twice" in refused()


def test_a_link_is_no_file_of_a_bundle():
    link = {**FILES, "samples/a.png": b"/etc/passwd"}
    members = {"recipe.yaml": FILES["recipe.yaml"], with_mode("samples/a.png", 0o120777): b"/etc/passwd"}
    packed(members, manifest_of(link))
    assert "`samples/a.png` is no plain file" in refused()


def test_ways_of_packing_that_no_bundle_has():
    packed(compression=zipfile.ZIP_LZMA)
    assert "strangely" in refused()
    members = {
        with_mode("recipe.yaml", 0o100644, zipfile.ZIP_BZIP2): FILES["recipe.yaml"],
        "samples/a.png": b"png" * 50,
    }
    packed(members)
    assert "packed in a way" in refused()


def test_a_file_that_would_fill_the_disk_is_refused():
    zeros = bytes(65 << 20)
    packed({**FILES, "zeros": zeros}, manifest_of({**FILES, "zeros": zeros}))
    assert "no bundle is like that" in refused()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "is no bundle"),
        ({"version": 2}, "is a bundle of version 2, this mio reads 1"),
        ({"files": []}, "damaged"),
        ({"name": 3}, "damaged"),
        ({"files": {"a": {"bytes": True, "sha256": "0"}}}, "file `a`"),
        ({"files": {"a": {"bytes": -1, "sha256": "0"}}}, "file `a`"),
        ({"files": {"a": {"bytes": 1}}}, "file `a`"),
        ({"files": {"a": {"bytes": 1, "sha256": "0"}, "a/b": {"bytes": 1, "sha256": "0"}}}, "is a file and a folder"),
    ],
)
def test_manifests_that_are_none(change, said):
    packed(manifest={**manifest_of(FILES), **change})
    assert said in refused()


def test_files_that_are_no_bundle(tmp_path):
    packed(manifest=False)
    assert "`mio recipe bundle RUN` makes one" in refused()
    whole = packed().read_bytes()
    for content in (b"", b"PK\3\4", b"text", whole[: len(whole) // 2]):
        (tmp_path / "x.zip").write_bytes(content)
        assert "is no bundle, or a damaged one" in refused()
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("bundle.json", '{"format": "mio-bundle", "format": "mio-bundle"}')
    assert "occurs twice" in refused()


def test_a_folder_whose_lock_was_changed_is_refused(tmp_path):
    folder = opened(packed({**FILES, "training.lock": b"x"}, manifest_of({**FILES, "training.lock": b"x"})))
    (folder / "samples" / "a.png").unlink()  # a record, which says nothing of a training
    assert opened(folder) == folder
    (folder / "training.lock").write_text("y")
    with pytest.raises(DataError, match=r"training.lock: is not what bundle.json says of it"):
        opened(folder)
    assert is_bundle(folder)
    assert not is_bundle(tmp_path)
    with pytest.raises(UserError, match=r"is a bundle without weights, which `mio fit .*` trains"):
        refuse_unweighted(folder)


def test_a_manifest_is_what_it_says():
    manifest = Manifest("x", {"b": (3, "1f"), "a/c": (4, "2f")})
    assert Manifest.of(json.loads(json.dumps(manifest.to_json())), "x") == manifest
    assert manifest.bytes == 7
