"""What the system refuses is told in one line that names the file."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from mio.cli import app
from mio.cli.failures import explained
from mio.core.evaluation import evaluation
from mio.core.files import naming


@pytest.fixture
def run(tunes, finished):
    shutil.copytree(finished, tunes / "runs/tunes")
    return tunes / "runs/tunes"


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_cannot_be_copied(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_text("")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(
            tmp_path / "a",
            tmp_path / "c",
            copy_function=full,
        )
    assert explained(caught.value) == (
        "[Errno 28] No space left on device; free some space, or give a folder on another disk"
    )


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with pytest.raises(OSError, match=r"model\.safetensors"), naming(tmp_path / "model.safetensors"):
        full()


def test_figures_are_shown_although_they_cannot_be_written_and_the_old_file_stays(run, capsys, monkeypatch):
    (run.parent / "figures.json").write_text("{}")
    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr(evaluation, "save_media", lambda *_: [])
    assert app.run(["evaluate", str(run), "--items", "4", "--json", str(run.parent / "figures.json")]) == 2
    told = capsys.readouterr()
    assert "accuracy" in told.out
    assert "figures.json: No space left on device" in told.err.splitlines()[-1]
    assert (run.parent / "figures.json").read_text() == "{}"


def test_figures_replace_what_a_link_leads_to(run, capsys):
    (run.parent / "link.json").symlink_to(run.parent / "figures.json")
    assert app.run(["evaluate", str(run), "--items", "4", "--json", str(run.parent / "link.json")]) == 0
    assert (run.parent / "link.json").is_symlink()
    assert "play" in json.loads((run.parent / "figures.json").read_text())["tasks"]
    assert app.run(["evaluate", str(run), "--items", "4", "--json", "/dev/null"]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_a_run_that_cannot_be_written_is_evaluated_without_samples(run, capsys, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system", str(run / "samples"))

    monkeypatch.setattr(evaluation, "save_media", refused)
    assert app.run(["evaluate", str(run), "--items", "4"]) == 0
    told = capsys.readouterr()
    assert "accuracy" in told.out
    assert f"no samples: {run / 'samples'}: Read-only file system" in told.err


def test_an_answer_of_text_needs_no_folder(run, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda _, mode: mode == os.R_OK)
    assert app.run(["generate", str(run), "hi", "--max-tokens", "2"]) == 0
    assert app.run(["generate", str(run), "hi", "--output", "melody"]) == 2
    assert "cannot be written" in capsys.readouterr().err
