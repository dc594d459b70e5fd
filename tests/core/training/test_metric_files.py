"""`metrics.csv`: every logged step once, whatever happened in between, and a digest that knows its figures alone."""

from __future__ import annotations

import csv

from mio.core.contract.loggers import Sample
from mio.core.training.metric_files import MetricsTable, SampleFile


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_metric_adds_a_column_and_keeps_the_lines(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.add({"loss": 2.5}, 1)
    table.add({"loss": 0.1 + 0.2, "lr": 1e-3}, 2)
    table.close()
    assert lines(table.path) == [
        {"step": "1", "loss": "2.5", "lr": ""},
        {"step": "2", "loss": "0.30000000000000004", "lr": "0.001"},
    ]


def test_a_checkpoint_knows_its_lines_but_not_the_order_of_columns(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.add({"loss": 1.0}, 1)
    table.add({"loss": 2.0, "lr": 0.5}, 2)
    state = table.state()
    assert state["rows"] == 2
    table.add({"loss": 3.0, "norm": 1.0}, 3)
    table.close()
    again = MetricsTable(table.path)
    assert again.problem(state, 2) == ""
    (tmp_path / "other.csv").write_text("lr,step,loss\n,1,1.0\n0.5,2,2.0\n")
    assert MetricsTable(tmp_path / "other.csv").problem(state, 2) == ""
    table.path.write_text(table.path.read_text().replace("2.0", "2.1"))
    assert "is not what was logged up to step 2 (2 of 2 lines are there)" in again.problem(state, 2)
    table.path.unlink()
    assert "(0 of 2 lines are there)" in again.problem(state, 2)


def test_samples_keep_every_character(tmp_path):
    file = SampleFile(tmp_path / "samples.jsonl")
    texts = ["plain", "one\u2028two", "three\u0085four\x0b"]
    for step, text in enumerate(texts, 1):
        file.add([Sample(name="a", prompt="b", answer=text)], step)
    assert [samples[0].answer for samples in file.read().values()] == texts
    file.begin(2)
    assert [samples[0].answer for samples in file.read().values()] == texts[:2]
