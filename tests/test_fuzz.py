"""Two hundred tries of the fuzzer, whose many thousands are `benchmarks/fuzz.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing import yaml12
from fuzzing.harness import fuzz


def test_nothing_falls_over_hangs_is_executed_or_accepted_although_it_is_wrong():
    told = []
    found = fuzz(range(200), seed=7, tell=told.append)
    assert found == {"tried": 200, "tracebacks": 0, "hangs": 0, "executed": 0, "accepted_wrong": 0}, "\n".join(told)


def test_the_other_reader_of_yaml_follows_the_core_schema():
    text = "[1, 0x1f, 0o17, 1e3, .5, .inf, true, on, ~, 12:30, '1', !!str 5, 1_000]"
    made = [1, 31, 15, 1000.0, 0.5, float("inf"), True, "on", None, "12:30", "1", "5", "1_000"]
    assert yaml12.same(yaml12.read(text), made)
