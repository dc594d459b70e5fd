"""What the page of a report says is what the run folders say."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_run import EVIL, TASKS, add_items, make_run, metrics_of, write_json, write_metrics

from mio.core.errors import UserError
from mio.report import write_report
from mio.report.charts import numbers_of, sections
from mio.report.reading import chain_of, read_run
from mio.report.series import table_of, thinned


@pytest.fixture
def chain(tmp_path):
    """Two stages; the second builds on the first."""
    make_run(tmp_path, "one", steps=80)
    return make_run(tmp_path, "two", "../one")


def page_of(*folders, **options) -> str:
    return write_report(folders, folders[0].parent / "page.html", **options).path.read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)[1])


class Text(HTMLParser):
    """Text of a page as a reader has it, the tags that it consists of, and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes, self._raw = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):  # noqa: ARG002
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_figures_of_the_curves_are_those_of_the_files(chain):
    data = data_of(page_of(chain))
    assert [(run["name"], run["steps"], run["tokens"]) for run in data["runs"]] == [
        ("one", 80, 8000),
        ("two", 200, 20000),
    ]
    for run in data["runs"]:
        with (chain.parent / run["name"] / "metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        for name in lines[0].keys() - {"step"}:
            [table] = [table for table in run["tables"] if name in table["columns"]]
            logged = [(int(line["step"]), float(line[name])) for line in lines if line[name]]
            assert [step for step, _ in logged] == table["steps"]
            assert table["columns"][name] == pytest.approx([value for _, value in logged], rel=1e-5)
            assert table["tokens"] == [100 * step for step in table["steps"]]


def test_every_figure_that_was_logged_is_in_a_chart(chain):
    runs = chain_of(read_run(chain))
    shown = [line.metric for part in sections(runs) for chart in part.charts for line in chart.lines]
    logged = {name for line in metrics_of(200) for name in line} - {"step"}
    alone = {"validation/loss/pairs/tunes"}  # the mean of its two directions
    assert set(shown) == logged - alone
    assert len(shown) == len(set(shown))


def test_numbers_without_a_script(chain):
    runs = chain_of(read_run(chain))
    [chart] = [chart for part in sections(runs) for chart in part.charts if chart.title == "Tokens per second"]
    rows = [(row.run, row.first, row.last, row.least, row.largest) for row in numbers_of(chart, runs)]
    assert rows == [("one", "1,010", "1,080", "1,010", "1,080"), ("two", "1,010", "1,200", "1,010", "1,200")]


def test_the_head_and_the_tables_say_what_the_summary_says(chain):
    words = Text(page_of(chain)).words
    for told in (
        "200 steps", "20,000 tokens", "951,680 parameters", "3 min 10 s in all", "160 tokens per second", "386 ids",
        "stage 2 of a chain: one → two", "tunes 100.0 % 100.0 % 20,000 600", "read 50.0 % 49.8 % 9,960 300 1.25",
        "3 documents were cut to the context", "4 documents skipped: broken",
        "1 steps skipped with a gradient that is not finite", "tone/codebook0 64 500 50.0 % 12.5",
        "tone <t>, </t> special 256 to 257 2", "torch 2.11.0", "3 keys differ",
    ):  # fmt: skip
        assert told in words, told


def test_intervals_ceilings_and_failures_of_tasks(chain):
    page = page_of(chain)
    words = Text(page).words
    assert "draw 0.940 0.838 to 0.979 0.980 95.9 % 50 2.0 %" in words
    assert "hear wer 1.250 0.500 to 2.000 0.100 8 2" in words
    assert "exact 0.500 0.215 to 0.785 0.750 66.7 %" in words
    assert "item 3: " + " ".join(EVIL.split()) in words
    drawn = re.findall(r'class="dot" style="left:([\d.]+)%"', page)
    assert [float(place) for place in drawn[:2]] == pytest.approx(
        [100 * (0.94 - 0.1) / 0.9, 100 * (0.5 - 0.1) / 0.9], abs=0.01
    )


def test_without_intervals_none_are_shown(tmp_path):
    run = make_run(tmp_path, "old", tasks={"draw": {"accuracy": 0.9, "n": 10}})
    page = page_of(run)
    assert 'class="interval"' not in page
    assert "draw 0.900 10" in Text(page).words


def test_what_was_evaluated_since_counts_and_its_worst_items_are_shown(tmp_path):
    run = make_run(tmp_path, "again")
    add_items(run, [True, False, False, True], accuracy=0.5, n=4, intervals={"accuracy": [0.15, 0.85]})
    words = Text(page_of(run)).words
    assert "draw 0.500 0.150 to 0.850 4" in words
    assert "draw 1 too long the prompt has 300 tokens 2 draw image" in words
    assert "no. 2 false" in words
    assert "no. 3" not in words


def test_a_comparison_item_by_item_is_shown(tmp_path):
    first, second = make_run(tmp_path, "a"), make_run(tmp_path, "b")
    row = {"n": 200, "first": 0.9, "second": 0.95, "difference": 0.05, "interval": [0.01, 0.09], "p": 0.0124}
    path = second / "evaluation/compared/a.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"tasks": {"draw": {"accuracy": {**row, "p_holm": 0.00003, "differ": 14, "better": "higher"}}}})
    words = Text(page_of(first, second)).words
    assert "draw 0.900 0.950 +0.050 +0.010 to +0.090 0.012 < 0.0001 200 14" in words
    path.write_text("{")
    assert "item by item" not in Text(page_of(first, second)).words


def test_no_text_becomes_markup(chain):
    page = page_of(chain)
    parsed = Text(page)
    assert parsed.tags.count("script") == 2
    assert {value for name, value in parsed.attributes if name == "src" and not value.startswith("data:")} == set()
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert page.count(html.escape(EVIL, quote=False).replace("'", "&#39;")) >= 3  # prompt, answer, recipe


def test_samples_are_heard_and_seen(chain):
    parsed = Text(page_of(chain))
    kinds = [value.split(";")[0] for name, value in parsed.attributes if name == "src"]
    own = ["data:image/png", "data:image/webp", "data:audio/flac", "data:image/png"]
    assert sorted(kinds) == sorted(2 * own)  # of either stage
    assert "[spoken]" in parsed.words
    assert "pairs/tunes/read" in parsed.words


def test_the_same_folders_make_the_same_page(chain, tmp_path):
    first = page_of(chain)
    assert page_of(chain) == first
    copy = shutil.copytree(tmp_path, tmp_path.with_name("copied"))
    assert page_of(copy / "two") == first


def test_what_a_stage_has_otherwise_than_its_parent_is_marked(chain):
    words = Text(page_of(chain)).words
    assert 'name: "one" -> "two"' in words
    assert "steps: 200 # was 80" in words


def test_a_run_that_is_not_finished(tmp_path):
    run = make_run(tmp_path, "going")
    (run / "summary.json").unlink()
    with (run / "metrics.csv").open("a") as file:
        file.write("210,1.5,1.")  # half a line
    with (run / "journal.csv").open("a") as file:
        file.write("201,2,4,1")
    page = page_of(run)
    words = Text(page).words
    assert "going unfinished" in words
    assert "200 of 200 steps" in words
    assert data_of(page)["runs"][0]["tokens"] == 20000


def test_figures_that_are_not_finite_are_gaps_and_counted(tmp_path):
    run = make_run(tmp_path, "wild")
    lines = metrics_of(200)
    lines[3] |= {"loss": float("nan"), "grad_norm": float("inf")}
    write_metrics(run / "metrics.csv", lines)
    page = page_of(run)
    [table] = [table for table in data_of(page)["runs"][0]["tables"] if "loss" in table["columns"]]
    assert table["columns"]["loss"][3] is None
    assert table["notFinite"] == {"loss": 1, "grad_norm": 1}


@pytest.mark.parametrize("keep", [["recipe.yaml"], ["recipe.yaml", "summary.json"], ["recipe.yaml", "metrics.csv"]])
def test_a_folder_with_little_in_it(tmp_path, keep):
    run = make_run(tmp_path, "bare", steps=10)
    for path in run.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "bare" in Text(page_of(run)).words


def test_an_imported_run(tmp_path):
    run = make_run(tmp_path, "base")
    for name in ("metrics.csv", "journal.csv"):
        (run / name).unlink()
    write_json(run / "summary.json", {"parameters": 7_000_000_000, "imported": {"from": "elsewhere"}})
    words = Text(page_of(run)).words
    assert "base imported" in words
    assert "7.00 B parameters" in words
    assert " steps" not in words.split("Samples")[0]


@pytest.mark.parametrize("name", ["summary.json", "recipe.lock", "vocabulary.json", "samples/draw.json"])
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"tasks": 3, "mixture": [], "blocks": {}, "packages": 1}'])
def test_damaged_files_are_left_out(tmp_path, name, content):
    run = make_run(tmp_path, "hurt")
    (run / name).write_text(content)
    assert "hurt" in Text(page_of(run)).words


def test_a_missing_parent_is_said(tmp_path):
    run = make_run(tmp_path, "orphan", "../gone")
    words = Text(page_of(run)).words
    assert "orphan: starts from ../gone, which is not shown" in words


def test_two_runs_side_by_side(tmp_path):
    first, second = (
        make_run(tmp_path, "a"),
        make_run(tmp_path, "b", steps=240, tasks={"draw": {**TASKS["draw"], "accuracy": 0.9}}),
    )
    page = page_of(first, second)
    words, data = Text(page).words, data_of(page)
    assert data["overlay"]
    assert [run["name"] for run in data["runs"]] == ["a", "b"]
    labels = [{line[1] for line in chart["lines"]} for chart in data["charts"]]
    assert all(len(one) == 1 or one == {"training", "held-out"} for one in labels)
    assert "steps 200 240" in words
    assert "draw: accuracy 0.940 0.838 to 0.979 0.900 -0.040" in words
    assert "train.steps: 200 -> 240" in words
    assert "Move" in words


def test_mistakes_are_said(tmp_path):
    run = make_run(tmp_path, "a")
    with pytest.raises(UserError, match="given twice"):
        write_report([run, tmp_path / "." / "a"])
    with pytest.raises(UserError, match="holds no run"):
        write_report([tmp_path])


def test_long_runs_keep_their_extremes():
    points = [(step, 1.0) for step in range(1, 100_001)]
    points[77_777] = (77_778, 99.0)
    points[12_345] = (12_346, float("nan"))
    kept = thinned(points, 600)
    assert len(kept) <= 600
    assert (77_778, 99.0) in kept
    assert 12_346 in [step for step, _ in kept]
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {step for step, _ in kept} <= set(range(1, 100_001))
    assert thinned(points[:600], 600) == points[:600]


def test_a_long_run_makes_a_small_page(tmp_path):
    run = make_run(tmp_path, "long")
    write_metrics(run / "metrics.csv", metrics_of(50_000))
    tables = table_of(read_run(run))
    assert max(len(table["steps"]) for table in tables) <= 600
    assert write_report([run]).size < 1_500_000
    assert (run / "report.html").is_file()
    assert not list(Path(run).glob("*.partial"))
