"""Recipes, commands, options that are paths, synthesisers, files: wrong ones are found, and right ones are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conforming import DATA, Detokenizer, Plugin, Written, changed, outcomes
from test_seeded_faults import GOOD, JUDGES, READ, checked, in_memory

import mio.testing
from mio import DataError, DataModule, UserError, hookimpl
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager

SHIPPED, PATHS, SAID = (
    "recipes and presets are valid",
    "options that are paths are named",
    "what is said is written as a file",
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("train: {steps: 3}\nstart_from: runs/nowhere\nplugins: {acme: {}}\n", ""),
        ("include: [stage1]\n", ""),
        ("train: {stepz: 3}\n", "recipe `acme/one`: {path}:1: unknown key `train.stepz`; did you mean `train.steps`?"),
        ("name: [unclosed\n  - : {\n", "not valid YAML"),
        ("include: [gone.yaml]\n", "{path}:1: no recipe gone.yaml"),
    ],
)
def test_recipes_are_composed(content, problem, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(content, encoding="utf-8")
    result = outcomes(changed(mio_recipes=hookimpl(lambda _: {"acme/one": str(path)})))[SHIPPED]
    assert result.outcome == ("failed" if problem else "passed"), result.detail
    assert (problem.format(path=path) or "1 recipes") in result.detail


def shown(first: str, count: int = 1):
    """Shows something."""


def unreadable(values: int | str):
    """Takes what no command line holds."""


@pytest.mark.parametrize(
    ("commands", "problem"),
    [
        ({"show": shown}, ""),
        ([shown], "hook `mio_commands`, answer: list must be a mapping by name"),
        ({"show": unreadable}, "command `mio acme show`: typer cannot read it"),
    ],
)
def test_commands_are_looked_at(commands, problem):
    result = outcomes(changed(mio_commands=hookimpl(lambda _: commands)))[SHIPPED]
    assert (result.outcome, problem in result.detail) == ("failed" if problem else "passed", True), result.detail


def test_a_report_says_why_it_lists_no_more():
    plugin = changed(mio_commands=hookimpl(lambda _: [shown]))
    manager = PluginManager([Candidate("acme", "test 1.0", "", lambda: plugin)])
    report = mio.testing.conformance("acme", manager=manager)
    assert report.declarations[0][:2] == ("modality", "curve")
    assert report.declarations[-1][1] == "cannot be listed"
    assert "`mio_commands`" in report.declarations[-1][2]
    assert "must be a mapping by name" in report.markdown() + json.dumps(report.to_json())


def needed(options):
    if "folder" not in options:
        raise UserError("`plugins.acme` needs `folder`")
    return ["folder"]


@pytest.mark.parametrize(
    ("paths", "options", "problem"),
    [
        (lambda options: ["folder"] if options.get("folder") else [], {}, ""),
        (needed, {"folder": "here"}, ""),
        (needed, {}, "needs `folder`"),
        (lambda options: [options["folder"]], {"folder": "here"}, "with no options raises KeyError: 'folder'"),
        (lambda _: "folder", {}, "str must be a list or tuple"),
    ],
)
def test_paths_are_asked_for_with_and_without_options(paths, options, problem):
    plugin = changed(mio_paths=hookimpl(lambda _, options: paths(options)))
    result = outcomes(plugin, options=options)[PATHS]
    assert (result.outcome, problem in result.detail) == ("failed" if problem else "passed", True), result.detail


class Voice(Written):
    def say(self, _):
        return DATA[0]


class Mute(Voice):
    def say(self, _):
        raise DataError("no word for `one`")


class Mumbling(Voice):
    def say(self, text):
        return self.words[text]


class Unwritten(Voice):
    def save(self, _, stem):
        return stem


@pytest.mark.parametrize(
    ("voice", "problem"),
    [(Voice, ""), (Mute, ""), (Mumbling, "AttributeError"), (Unwritten, "which is no file")],
)
def test_a_synthesiser_says_something_and_writes_it(voice, problem):
    plugin = changed(mio_synthesiser=hookimpl(lambda _, modality: voice() if modality == "curve" else None))
    result = outcomes(plugin)[SAID]
    assert (result.outcome, problem in result.detail) == ("failed" if problem else "passed", True), result.detail


def test_points_without_a_bound_are_marks():
    source = GOOD.read_text(encoding="utf-8")
    points = "lambda answers, records: [float(len(a.text)) * one for a, one in zip(answers, named(answers, records))]"
    source = source.replace(
        "judge=named)", f'judge={points}, measures=(mio.Measure(name="points", most=float("inf")),))'
    )
    report = checked(in_memory(source))
    assert not report.failed, report.failed
    assert "in the mean" in next(one.detail for one in report if one.check == JUDGES)


class Backwards(Detokenizer):
    def save(self, media, stem):
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text(" ".join(map(str, media[::-1])))
        return path


@pytest.mark.parametrize(
    ("detokenizer", "told"),
    [(Written, "2 of 2 codes are those of what was saved"), (Backwards, "0 of 2 codes are those of what was saved")],
)
def test_it_is_told_how_much_of_what_was_saved_is_read_again(detokenizer, told):
    module = DataModule(read=lambda file: np.array(file.read_bytes().split(), float), suffixes=(".txt",))
    plugin = changed(detokenizer=detokenizer, mio_datamodule=hookimpl(lambda _: module))
    result = outcomes(plugin, samples={"curve": DATA})[READ.replace("tally", "curve")]
    assert (result.outcome, result.detail) == ("passed", told)


def test_what_has_nothing_of_these_is_not_asked_for_it():
    assert not {PATHS, SAID} & outcomes(Plugin()).keys()
