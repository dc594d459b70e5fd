"""Damaged media files cost their records and nothing else: the benchmark with a few files of each kind of damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks/damaged_media.py"


def test_damaged_files_are_counted_with_their_reason(tmp_path):
    # eight formats, each with the first eight of ten kinds of damage; in a process of its own, since Linux hands a
    # process's peak of memory on to the programs that it starts
    command = [sys.executable, str(BENCHMARK), "--files", "64", "--limit", "60", "--folder", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["files"], figures["crashed"], figures["hung"]) == (64, 0, 0)
    assert figures["readable"] + sum(figures["reasons"].values()) == 64
    assert figures["readable"] < 40
    assert figures["peak_mib"] < 1000
    assert figures["slowest_seconds"] < 30
    for reason in ("Invalid data", "not an image", "no known format", "truncated", "cut off"):
        assert any(reason in found for found in figures["reasons"]), reason
