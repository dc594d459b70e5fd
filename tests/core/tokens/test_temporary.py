"""Media that come as bytes: files that go with whoever holds them, and with their process."""

import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mio.core.tokens import temporary


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_folders", {})
    return tmp_path


def left(folder):
    return sorted(path.name for path in folder.glob(f"{temporary.PREFIX}*/*") if path.name != ".lock")


def test_a_file_goes_with_the_last_reference(root):
    paths = [temporary.temporary_file(bytes([i]), ".bin") for i in range(3)]
    assert [path.read_bytes() for path in paths] == [b"\0", b"\1", b"\2"]
    assert {path.suffix for path in paths} == {".bin"}
    assert len({path.parent for path in paths}) == 1
    del paths[1]
    gc.collect()
    assert left(root) == ["0.bin", "2.bin"]


def test_messages_do_not_name_files_that_other_processes_would_name_otherwise():
    path = temporary.temporary_file(b"x", ".png")
    assert temporary.without_temporary_paths(f"a.jsonl:3: {path}: no image ('{path}')") == (
        "a.jsonl:3: media given as bytes: no image ('media given as bytes')"
    )
    assert temporary.without_temporary_paths("/data/mine.png: no image") == "/data/mine.png: no image"


def test_what_a_killed_process_left_goes_with_the_next_and_a_living_one_keeps_its_own(root):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from mio.core.tokens.temporary import temporary_file\n"
        "kept = temporary_file(b'x', '.bin'); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        mine = temporary.temporary_file(b"y", ".bin")
        assert left(root) == ["0.bin", "0.bin"]
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert left(root) == ["0.bin", "0.bin"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    assert left(root) == ["0.bin"]  # it has taken away what was left, and its own at its end
    assert mine.read_bytes() == b"y"


def test_a_folder_that_is_held_is_no_leftover(root):
    held = root / f"{temporary.PREFIX}x"
    held.mkdir()
    with (held / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        temporary.temporary_file(b"", "")
        assert held.is_dir()
    temporary._folders.clear()
    temporary.temporary_file(b"", "")
    assert not held.exists()


def test_a_forked_process_has_a_folder_of_its_own():
    mine = temporary.temporary_file(b"x", ".bin")
    child = os.fork()
    if not child:
        made = temporary.temporary_file(b"y", ".bin")
        os._exit(0 if made.parent != mine.parent and Path(mine).is_file() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert mine.read_bytes() == b"x"


def test_a_cleaned_temporary_folder_does_not_matter():
    first = temporary.temporary_file(b"x", ".bin")
    for path in first.parent.iterdir():
        path.unlink()
    first.parent.rmdir()
    assert temporary.temporary_file(b"y", ".bin").read_bytes() == b"y"
