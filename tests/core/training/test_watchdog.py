"""The watchdog: which of several ranks is named, and what a rank that stands still writes."""

from __future__ import annotations

import subprocess
import sys
import time

from mio.core.training.watchdog import Position, Watchdog, describe, suspects

WAITING = [
    "/x/torch/distributed/distributed_c10d.py:4652 reduce_scatter_tensor",
    "/x/mio/core/training/loop.py:9 train",
]
READING = ["/data/corpus.py:17 __getitem__", "/x/mio/core/data/loader.py:70 __iter__"]


def position(rank, heartbeats, stack, step=7):
    return Position(rank, f"host{rank // 2}", step, "backward pass", heartbeats, 61.0, stack)


def test_the_rank_behind_the_others_is_to_blame():
    positions = [position(0, 40, WAITING), position(1, 37, READING), position(2, 40, WAITING)]
    assert suspects(positions, 3) == ([], [positions[1]])
    text = describe(positions, 3)
    assert text.startswith("rank 1 on host0 is stuck in step 7, backward pass, for 61 s, in /data/corpus.py:17")
    assert text.endswith("2 other ranks wait for it")


def test_of_ranks_that_came_equally_far_the_one_outside_a_collective_is_to_blame():
    positions = [position(0, 40, WAITING), position(1, 40, READING)]
    assert suspects(positions, 2) == ([], [positions[1]])


def test_a_rank_without_a_sign_of_life_comes_first():
    assert describe([position(0, 40, WAITING)], 2).startswith("no sign of life from rank 1")


def test_a_standstill_is_reported_once_with_the_place_and_progress_is_not(tmp_path):
    told = []
    watchdog = Watchdog(tmp_path / "places", 0, 1, patience=0.4, limit=0.0, tell=told.append)
    watchdog.on_train_start(type("T", (), {"global_step": 3}), None)
    for _ in range(8):
        time.sleep(0.1)
        watchdog.heartbeat("forward pass")
    assert not told
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    watchdog.stop()
    assert len(told) == 1
    assert "rank 0" in told[0]
    assert "forward pass" in told[0]
    assert __file__ in told[0] or "test_watchdog" in told[0]
    assert [position.step for position in watchdog.positions()] == [3]


ABORTED = """
import sys, time
from pathlib import Path
from mio.core.training.watchdog import Watchdog
watchdog = Watchdog(Path(sys.argv[1]), 0, 1, 0.0, 0.3, print)
watchdog.on_train_start(type("T", (), {"global_step": 0}), None)
time.sleep(60)
"""


def test_a_process_that_stands_still_for_too_long_ends(tmp_path):
    done = subprocess.run([sys.executable, "-c", ABORTED, str(tmp_path / "p")], capture_output=True, check=False)
    assert done.returncode == 1  # 0 after it has slept
