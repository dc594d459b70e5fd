"""Damaged media files cost their records and nothing else: the benchmark with a few files of each kind of damage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import damaged_media


def test_damaged_files_are_counted_with_their_reason(tmp_path, capsys):
    # eight formats, each with the first eight of ten kinds of damage
    damaged_media.make(tmp_path, 64)
    assert damaged_media.measure(tmp_path, limit=60) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["files"], figures["crashed"], figures["hung"]) == (64, 0, 0)
    assert figures["readable"] + sum(figures["reasons"].values()) == 64
    assert figures["readable"] < 40
    assert figures["peak_mib"] < 1500
    assert figures["slowest_seconds"] < 30
    for reason in ("Invalid data", "not an image", "no known format", "truncated", "cut off"):
        assert any(reason in found for found in figures["reasons"]), reason
