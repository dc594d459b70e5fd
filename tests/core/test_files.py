"""Atomic writing, JSON that is read with care, and locks of folders."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mio.core.errors import DataError, UserError
from mio.core.files import locked, read_json, write_json, write_text


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "other")
    assert read_json(path, "") == {"a": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff\xfe", b'{"a":' * 100_000],
)
def test_damaged_json_is_refused_with_its_file(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"state\.json: is damaged .*; restore it"):
        read_json(path, "restore it")


def test_missing_json_is_refused_with_its_file(tmp_path):
    with pytest.raises(DataError, match=r"state\.json: no such file; restore it"):
        read_json(tmp_path / "state.json", "restore it")


def test_json_without_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_by_one_and_given_back_by_the_dead(tmp_path):
    code = (
        "import pathlib, sys, time\nfrom mio.core.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'busy'):\n print('held', flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="somebody is here"), locked(tmp_path, "somebody is here"):
            pass
        other.kill()
    with locked(tmp_path, "somebody is here"):
        pass
