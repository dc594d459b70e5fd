"""`skipped_steps.jsonl`, which goes on with the training."""

import io
import json
import math

import pytest
from rich.console import Console

from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError
from mio.core.recipe.schema import GuardConfig
from mio.core.training.bad_steps import BadSteps, Suspect, forget_after, to_blame
from mio.core.training.guards import STOP, Guard


def test_steps_that_are_trained_again_are_not_listed_twice(tmp_path):
    path = tmp_path / "skipped_steps.jsonl"
    forget_after(path, 0)  # there is none
    lines = [json.dumps({"step": step, "records": ["ü"]}, ensure_ascii=False) + "\n" for step in (3, 5, 6)]
    path.write_text("".join(lines) + lines[-1][:9], encoding="utf-8")  # it was ended while it wrote
    forget_after(path, 6)
    assert path.read_text(encoding="utf-8") == "".join(lines)
    forget_after(path, 5)
    assert path.read_text(encoding="utf-8") == "".join(lines[:2])
    forget_after(path, 0)  # a training that begins anew
    assert not path.exists()


def test_what_is_not_finite_is_blamed_on_whichever_rank_it_is():
    ranks = [[Suspect(float(rank + n), f"{rank}/{n}") for n in range(3)] for rank in range(3)]
    found = [suspect for of_rank in ranks for suspect in of_rank]
    assert to_blame(found) == ["2/2", "1/2", "2/1"]
    assert to_blame([*found, Suspect(math.nan, "3/0"), Suspect(math.inf, "3/1")]) == ["3/0", "3/1"]


@pytest.mark.parametrize(("skipped", "told"), [(1, "7; Records"), (2, "7, and 2 steps in a row were skipped. Records")])
def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path, skipped, told):
    guard = Guard(GuardConfig())
    guard.reason, guard.in_a_row = "the loss is 7", skipped
    console = Console(file=io.StringIO())
    steps = BadSteps(guard, lambda stream, n: f"{stream}/{n}", tmp_path / "skipped_steps.jsonl", Ranks(), console)
    with pytest.raises(UserError) as error:
        steps.report(STOP, [])
    assert told.replace(";", ".") in str(error.value)
    assert f"give another `name=` and `start_from=` one of {tmp_path / 'checkpoints'}" in str(error.value)
