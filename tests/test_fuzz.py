"""Two hundred tries of the fuzzer, whose many thousands are `benchmarks/fuzz.py`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing import yaml12
from fuzzing.harness import PASSED_ON, fuzz
from fuzzing.shared import TRAPS


def test_nothing_falls_over_hangs_is_executed_or_accepted_although_it_is_wrong():
    told = []
    found = fuzz(range(200), seed=7, tell=told.append)
    assert found == {"tried": 200, "tracebacks": 0, "hangs": 0, "executed": 0, "accepted_wrong": 0}, "\n".join(told)


def test_nothing_that_is_passed_on_is_executed_or_leaves_its_folder():
    """Recipes, locks, bundles and Git repositories with traps in them."""
    told = []
    found = fuzz(range(250), seed=11, tell=told.append, tries=PASSED_ON)
    assert found == {"tried": 250, "tracebacks": 0, "hangs": 0, "executed": 0, "accepted_wrong": 0}, "\n".join(told)


def test_the_fuzzer_sees_what_it_looks_for():
    """A reader that unpickles what it finds, one that follows links, one that fails and one that never ends."""

    def seen(kind):
        found = fuzz(range(1), seed=0, tell=told.append, tries={kind: 1}, cpu_seconds=0.3)
        return [name for name, count in found.items() if count and name != "tried"]

    def unpickles(*_):
        pickle.loads(TRAPS["model.safetensors"])
        return True, ""

    def writes(_, folder, __):
        (folder / "../cache").mkdir(exist_ok=True)
        (folder / "../cache/canary").touch()
        return True, ""

    def fails(*_):
        raise KeyError("x")

    def never_ends(*_):
        while True:
            pass

    told = []
    kinds = (unpickles, writes, fails, never_ends)
    assert [seen(kind) for kind in kinds] == [["executed"], ["executed"], ["tracebacks"], ["hangs"]]


def test_the_other_reader_of_yaml_follows_the_core_schema():
    text = "[1, 0x1f, 0o17, 1e3, .5, .inf, true, on, ~, 12:30, '1', !!str 5, 1_000]"
    made = [1, 31, 15, 1000.0, 0.5, float("inf"), True, "on", None, "12:30", "1", "5", "1_000"]
    assert yaml12.same(yaml12.read(text), made)
