"""`skipped_steps.jsonl`, which goes on with the training."""

import json

from mio.core.training.bad_steps import forget_after


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
