"""What keeps a stage near what it starts from: `train.distillation` by its probabilities, `pull` by its weights."""

from __future__ import annotations

import csv
import json
import shutil
import signal

import pytest
import torch
from conftest import ROUNDED_LOSSES, ROUNDED_WEIGHTS, fit, once, start, tunes_in
from safetensors.torch import load_file
from test_distributed import fit_on, losses
from test_resume import stop_after_a_checkpoint

from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.errors import Interrupted, UserError
from mio.core.model.untrained_rows import untrained_rows
from mio.core.recipe.data_schema import DataConfig, GroupConfig, MixtureConfig
from mio.core.recipe.distillation import distilled_groups
from mio.core.recipe.schema import DistillationConfig, Recipe
from mio.core.runs.run import Run
from mio.core.training.callbacks import StepTables

STAGE = ("start_from=base/tunes", "train.steps=12", "train.precision=fp32", "train.optimizer.kind=adamw")
NAMES = "train.distillation.groups=[names]"


@pytest.fixture
def parent(tmp_path_factory):
    """A working folder with `base/tunes`, a run that has learnt something."""

    def make(folder):
        with tunes_in(folder):
            fit("base", "train.steps=20")

    made = once(tmp_path_factory, "parent", make)
    folder = tmp_path_factory.mktemp("distillation")
    shutil.copytree(made / "base", folder / "base")
    with tunes_in(folder):
        yield folder


def first_norm(runs):
    with (runs / "tunes/metrics.csv").open() as file:
        return float(next(csv.DictReader(file))["grad_norm"])


def test_before_anything_is_learnt_the_teacher_has_no_objection(parent):
    alone = ("mixture.ratios={names: 1, melody: 0}", "runtime.log_every=1", "train.steps=1")
    fit("own", *STAGE, *alone)
    fit("taught", *STAGE, *alone, NAMES)
    assert first_norm(parent / "own") > 0.05
    assert first_norm(parent / "taught") < 1e-5


def test_the_teacher_computes_as_it_was_trained(parent):
    """A stage with narrower windows is taught by the wider ones."""
    alone = ("mixture.ratios={names: 1, melody: 0}", "runtime.log_every=1", "train.steps=1", "model.sliding_window=4")
    fit("taught", *STAGE, *alone, NAMES)
    assert first_norm(parent / "taught") > 0.05


def test_what_is_taught_stays_as_probable_as_it_was_while_other_documents_are_learnt(parent):
    """Texts of two groups that have the same letters, one of them backwards."""
    lines = [json.dumps({"text": f"melody number {index} has {index % 7} notes"[::-1]}) for index in range(40)]
    (parent / "other.jsonl").write_text("\n".join(lines))
    other = "data.groups.other={sources: {lines: {dataset: jsonl, options: {path: other.jsonl}, templates: text}}}"
    mixture = "mixture.ratios={names: 1, melody: 0, other: 9}"

    def losses(runs, steps, *more):
        every = (f"train.steps={steps}", f"validate.every={steps}", "data.held_out=0.3")
        fit(runs, *STAGE, other, mixture, *every, *more)
        figures = json.loads((parent / runs / "tunes/summary.json").read_text())["validation"]["figures"]
        return figures["loss/names"]["last"], figures["loss/other"]["last"]

    before = losses("before", 1, "train.optimizer.lr=0")
    own, taught = losses("own", 40), losses("taught", 40, NAMES, "train.distillation.weight=9")
    assert own[0] < before[0] - 1  # the tokens of the few names themselves
    assert abs(taught[0] - before[0]) < (before[0] - own[0]) / 2
    assert taught[1] < before[1] - 1


PULL = "train.optimizer.pull=5"
UNTRAINED = "train.optimizer.rules={rows: {pattern: '*', rows: [untrained]}}"


def test_a_killed_run_goes_on_exactly_from_the_same_start(parent):
    settings = (*STAGE, NAMES, PULL, UNTRAINED, "train.steps=60", "runtime.checkpoint_every=10")
    fit("whole", *settings)
    process = start("fit", "tunes.yaml", "runtime.runs=killed", *settings, start_new_session=True)
    stop_after_a_checkpoint(process, parent / "killed", signal.SIGKILL)
    assert "going on from" in fit("killed", *settings, "runtime.workers=1")
    whole, killed = (parent / runs / "tunes/model.safetensors" for runs in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("needs", [NAMES, PULL, UNTRAINED])
def test_a_run_does_not_go_on_from_another_start(parent, monkeypatch, needs):
    """Each of what needs the weights that the stage started from refuses those of a run that was trained anew."""
    settings = (*STAGE, needs)

    def interrupt(tables, entry):  # noqa: ARG001
        if entry.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(StepTables, "add", interrupt)
        with pytest.raises(Interrupted):
            fit("other", *settings)
    shutil.rmtree(parent / "base")
    fit("base", "train.steps=2", "seed=1")
    with pytest.raises(UserError, match="trained anew since"):
        fit("other", *settings)


def test_documents_with_tokens_that_are_new_are_learnt_as_they_are(parent):
    """Of the same group: with the modality's ids unknown to what teaches, nothing of it is taught."""
    whole = (parent / "tunes.yaml").read_text()
    words = whole.replace(", melody: {}}", "}").replace("melody: 3, ", "")
    (parent / "words.yaml").write_text("".join(line for line in words.splitlines(True) if "melody/tunes" not in line))
    assert app.run(["fit", "words.yaml", "runtime.runs=words", "train.steps=2"]) == 0
    alone = ("mixture.ratios={names: 0, melody: 1}", "runtime.log_every=1", "train.steps=1")
    stage = ("start_from=words/tunes", *STAGE[2:])
    fit("own", *stage, *alone)
    printed = fit("taught", *stage, *alone, 'train.distillation.groups=["*"]')
    assert first_norm(parent / "own") == first_norm(parent / "taught") > 0.05
    assert "is learnt from what" not in printed


def test_a_group_is_named_that_the_teacher_has_not_been_trained_on(parent):
    (parent / "other.jsonl").write_text("".join(f'{{"text": "notes {index}"}}\n' for index in range(9)))
    other = "data.groups.other={sources: {lines: {dataset: jsonl, options: {path: other.jsonl}, templates: text}}}"
    step, mixture = ("train.steps=1", other), "mixture.ratios={names: 1, melody: 1, other: 1}"
    printed = " ".join(fit("all", *STAGE, *step, mixture, 'train.distillation.groups=["*"]').split())
    assert printed.count("is learnt from what") == 1
    assert "`other` is learnt from what" in printed
    assert '"!other" in `train.distillation.groups`' in printed
    assert "is learnt from what" not in fit("some", *STAGE, *step, mixture, 'train.distillation.groups=["*", "!other"]')


def distances(parent, runs):
    """How far the parameters of a run have moved from what it started from."""
    before, after = (load_file(parent / one / "tunes/model.safetensors") for one in ("base", runs))
    return {name: (after[name][: len(one)] - one).norm().item() for name, one in before.items()}


def test_a_strong_pull_leaves_weights_nearly_where_they_were(parent):
    fit("free", *STAGE, "train.steps=40")
    fit("pulled", *STAGE, "train.steps=40", "train.optimizer.pull=300")  # times 3e-3: nearly the whole distance
    free, pulled = distances(parent, "free"), distances(parent, "pulled")
    for name, distance in free.items():
        assert 0 < pulled[name] < distance / 3, name


@pytest.mark.parametrize("how", ["sharding=full", "tensor_parallel=2"])
def test_ranks_pull_and_are_taught_as_one_process_is(parent, how):
    """Each pulls its parts; some of their forward passes hold documents that are taught, and others none."""
    few = ("mixture.ratios.names=0.2", "train.rows=4", "train.micro_rows=1", "runtime.log_every=1")
    taught = (NAMES, "train.distillation.share=0.8", "train.distillation.weight=3")
    settings = (*STAGE, *few, *taught, PULL, "train.optimizer.rules={rows: {pattern: '*embedding*', pull: 50}}")
    fit("one", *settings)
    fit_on(2, "two", *settings, f"runtime.{how}")
    assert losses(parent / "two") == pytest.approx(losses(parent / "one"), abs=ROUNDED_LOSSES)
    one, two = (load_file(parent / runs / "tunes/model.safetensors") for runs in ("one", "two"))
    for name in one:
        assert torch.dist(two[name], one[name]) <= ROUNDED_WEIGHTS * one[name].norm(), name
    fit("free", *STAGE, *few, *taught)
    assert distances(parent, "two")["embedding.weight"] < distances(parent, "free")["embedding.weight"] / 1.2


@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_no_stage_has_trained_learn_and_no_others(parent, tied):
    """Of bytes, those that no tune's name has; on one rank and on two that hold parts of the rows."""
    once_alike = (f"model.tied_embeddings={tied}", "model.init_std=1e-4", "train.steps=60", "train.optimizer.lr=0.02")
    fit("alike", *once_alike, "train.precision=fp32")
    before = load_file(parent / "alike/tunes/model.safetensors")
    names = [name for name in ("embedding.weight", "head.weight") if name in before]
    rows = "train.optimizer.rules={rows: {pattern: '*', rows: [untrained]}}"
    stage = ("start_from=alike/tunes", *STAGE[1:], f"model.tied_embeddings={tied}", "train.rows=4", rows)
    told = fit("one", *stage)
    fit_on(2, "two", *stage, "runtime.sharding=full" if tied else "runtime.tensor_parallel=2")
    run = Run.open("alike/tunes", PluginManager.discover())
    size = run.vocabulary.size
    untrained = untrained_rows(before[names[-1]], size)
    assert untrained.sum() > 100
    assert f"rows that no stage has trained, which learn too: {untrained.sum()}\n" in told
    assert not untrained[run.codecs.text.encode("melody number 0123456789 has notes")].any()
    for runs in ("one", "two"):
        after = load_file(parent / runs / "tunes/model.safetensors")
        assert any(not torch.equal(after[name], before[name]) for name in before if name not in names)
        for name in names:
            moved = (after[name][:size] != before[name][:size]).any(1)
            assert not moved[~untrained].any()
            # of an embedding of its own, only rows that are read have a gradient
            assert torch.equal(moved, untrained) or (not tied and name == "embedding.weight")


def test_adapters_are_taught_by_the_model_that_they_adapt(parent):
    alone = ("mixture.ratios={names: 1, melody: 0}", "runtime.log_every=1", "train.steps=2", "train.lora.rank=2")
    fit("taught", *STAGE, *alone, NAMES)
    assert first_norm(parent / "taught") < 1e-5
    assert not (parent / "taught/tunes/base.safetensors").samefile(parent / "base/tunes/model.safetensors")


@pytest.mark.parametrize(
    ("groups", "chosen"),
    [(["*"], "ab c"), (["*", "!c"], "ab"), (["!ab", "*"], "ab c"), (["a*", "!ab", "c"], "c"), ([], "")],
)
def test_a_pattern_with_a_mark_takes_groups_away(groups, chosen):
    names = {"ab": 1.0, "c": 2.0, "off": 0.0}
    recipe = Recipe(
        data=DataConfig(groups={name: GroupConfig() for name in names}), mixture=MixtureConfig(ratios=names)
    )
    recipe.train.distillation = DistillationConfig(groups=groups)
    assert distilled_groups(recipe) == chosen.split()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.distillation.groups=[nmaes]", "start_from=base/tunes"], "`nmaes` matches no group of the mixture"),
        (['train.distillation.groups=["*", "!*"]', "start_from=base/tunes"], "which leaves no group"),
        ([NAMES], "the stage starts from nothing; give `start_from`"),
        (["train.distillation.groups=[names]", "mixture.ratios.names=0", "start_from=base/tunes"], "matches no group"),
        ([NAMES, "train.distillation.weight=0", "start_from=base/tunes"], "`train.distillation.weight`"),
        (["train.optimizer.pull=1"], "it starts from nothing; give `start_from`"),
        (["train.optimizer.rules={all: {pattern: '*', pull: 1}}"], "it starts from nothing; give `start_from`"),
        (["train.optimizer.pull=900", "start_from=base/tunes"], "would overshoot the start"),
        (["train.optimizer.pull=-1", "start_from=base/tunes"], "`train.optimizer.pull`"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(parent, capsys, overrides, message):
    assert app.run(["fit", "tunes.yaml", "runtime.runs=wrong", *overrides]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (parent / "wrong").exists()
