"""`mio report` on the command line, and the report that `mio fit` ends with."""

from __future__ import annotations

import os

import pytest
from conftest import TINY
from made_run import make_run

import mio.report
from mio.cli.app import run


def test_it_says_where_the_page_is(tmp_path, capsys):
    folder = make_run(tmp_path, "one")
    assert run(["report", str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{folder / 'report.html'}: ")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    other = tmp_path / "other.html"
    assert run(["report", str(folder), "--out", str(other)]) == 0
    assert other.read_bytes() == (folder / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs/none"], "runs/none: no such run folder"),
        (["one", "one"], "given twice"),
        (["one", "--out", "missing/page.html"], "there is no folder missing"),
        (["one", "--out", "one"], "is a folder; give the name of a file in it"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    make_run(tmp_path, "one")
    monkeypatch.chdir(tmp_path)
    assert run(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_run_that_cannot_be_written_has_its_report_elsewhere(tmp_path, monkeypatch, capsys):
    folder, other = make_run(tmp_path, "one"), tmp_path / "other.html"
    allowed = os.access
    monkeypatch.setattr("os.access", lambda path, mode: path != folder and allowed(path, mode))
    assert run(["report", str(folder)]) == 2
    assert f"{folder}: cannot be written; give a place for the report with `--out FILE`" in capsys.readouterr().err
    assert not (folder / "report.html").exists()
    assert run(["report", str(folder), "--out", str(other)]) == 0
    assert other.is_file()


def test_a_stage_ends_with_its_report(tunes, capsys):
    assert run(["fit", "tunes.yaml", *TINY]) == 0
    assert "report: runs/tunes/report.html" in capsys.readouterr().out
    page = (tunes / "runs/tunes/report.html").read_text()
    assert "tunes" in page
    assert run(["fit", "tunes.yaml", *TINY]) == 0  # nothing to do, and the folder is still what the run wrote
    assert "is not what the run wrote" not in capsys.readouterr().out


def test_a_report_that_fails_ends_no_training(tunes, monkeypatch, capsys):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mio.report, "write_report", broken)
    assert run(["fit", "tunes.yaml", *TINY]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "report" in line]
    assert line == "no report was written: OSError: [Errno 28] No space left on device"
    assert (tunes / "runs/tunes/summary.json").is_file()
