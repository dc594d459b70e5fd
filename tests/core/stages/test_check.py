"""Recipes checked against the plugins that they name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from recipe_files import problems

from mio import Frames, Modality, hookimpl
from mio.core.contract.discovery import Candidate
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.recipe.compose import compose
from mio.core.stages.check import check

SOUND = """
name: sound
plugins: {words: {}}
data:
  groups:
    pairs: {sources: {a: {dataset: jsonl, templates: own, directions: {draw: 1}, filters: {}}}}
  templates: {own: [{direction: draw, prompt: "{caption}", response: "{sketch}"}]}
  packing: {context: 68}
mixture: {ratios: {pairs: 1}}
"""


class Words:
    @hookimpl
    def mio_modalities(self):
        return [
            Modality(name="text", text=True),
            Modality(
                name="sketch", codebooks=(8, 8), layout="frame_major", begin="<s>", end="</s>", code_token="<s{}>",
                frames=Frames(minimum=16, maximum=16),
            ),
            Modality(name="strip", parts="sketch", frames=Frames(minimum=2)),
        ]  # fmt: skip


WORDS = PluginManager([Candidate("words", "test 1.0", "words", Words)])


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.yaml"
    path.write_text(SOUND)
    return str(path)


def checked(path, *overrides):
    made = compose([path], list(overrides), WORDS)
    check(made, WORDS.enable(made.plugins))


def test_a_sound_recipe_passes(sound):
    checked(sound)


def test_what_adamw_moves_is_judged_by_its_rate_and_not_by_muons(sound):
    rule = "{pattern: PATTERN, weight_decay: 100}"
    rates = "train.optimizer={kind: muon, lr: 1e-3, muon_lr: 0.02, rules: {own: RULE}}".replace("RULE", rule)
    checked(sound, rates.replace("PATTERN", "embedding.weight"))
    with pytest.raises(UserError, match=r"learning rate 0\.02 times weight decay 100 is 2"):
        checked(sound, rates.replace("PATTERN", "layers.*"))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("mixture.ratios={pears: 1}", "unknown group `pears`; did you mean `pairs`?"),
        ("mixture.ratios={pairs: 0}", "no ratio above 0"),
        ("mixture.ratios={_replace_: true}", "no ratio above 0"),
        ("mixture.ramp=[{ratios: {pears: 1, pairs: 1}}]", "`mixture.ramp[0].ratios` names an unknown group `pears`"),
        ("mixture.ramp=[{ratios: {pairs: 0}}]", "`mixture.ramp[0].ratios` has no ratio above 0"),
        ("mixture.ramp=[{at: 0, ratios: {pairs: 1}}]", "`mixture.ramp[0].at` is 0; it must be above 0"),
        ("mixture.ramp=[{at: 50, ratios: {pairs: 1}}]", "`mixture.ramp[0].at` is 50; it must be at most 1"),
        ("mixture.ramp=[{att: 0.5, ratios: {pairs: 1}}]", "did you mean `mixture.ramp[0].at`?"),
        (
            "mixture.ramp=[{at: 0.6, ratios: {pairs: 1}}, {at: 0.5, ratios: {pairs: 1}}]",
            "`mixture.ramp[1].at` is 0.5, before the 0.6 of the point before; put the points in order",
        ),
        ("mixture.ramp=[{ratios: {pairs: 1}}, {ratios: {pairs: 2}}]", "`mixture.ramp[1].at` is 1 again"),
        (
            f"mixture.ramp=[{', '.join(['{at: 0.5, ratios: {pairs: 1}}'] * 3)}]",
            "`mixture.ramp[2].at` is 0.5 again: two points of one moment are a jump, a third has no effect",
        ),
        ("mixture.ratios={pairs: -1}", "`mixture.ratios.pairs` is -1; it must be at least 0"),
        ("mixture.ratios={pairs: .nan}", "`mixture.ratios.pairs` is nan"),
        ("data.groups.pairs={_replace_: true}", "`mixture.ratios.pairs` is 1, but `data.groups.pairs` has no sources"),
        ("data.groups.pairs.sources.a.weight=0", "`data.groups.pairs` has no source with a weight above 0"),
        ("data.groups.pairs.sources.a.weight=-2", "sources.a.weight` is -2"),
        ("data.groups.pairs.sources.a.directions={draw: 0}", "sources.a.directions` has no share above 0"),
        ("data.groups.pairs.sources.a.directions={draw: -1}", "sources.a.directions.draw` is -1"),
        ("data.groups.pairs.sources.a.options={path: .inf}", "sources.a.options.path` is inf; it must be a finite"),
        (
            "data.groups.pairs.sources.a.filters={size: 3}",
            "sources.a.filters.size` must be a mapping of options, not 3",
        ),
        ("data.groups.a/b={}", "`data.groups.a/b`: the name of a group, a source or a direction has no `/`"),
        (
            "data.groups.pairs.sources={x/y: {dataset: jsonl, templates: own}}",
            "sources.x/y`: the name of",
        ),
        (
            "data.templates.own=[{direction: a/b, prompt: '{caption}', response: '{sketch}'}]",
            "direction `a/b` of the template set `own`: the name of a group, a source or a direction has no `/`",
        ),
        ("data.packing.window=0", "`data.packing.window` is 0"),
        ("mixture.unit=tokns", "did you mean `tokens`?"),
        ("data.groups.pairs.sources.a.dataset=jsnl", "unknown dataset `jsnl`; did you mean `jsonl`?"),
        ("data.groups.pairs.sources.a.templates=ownn", "unknown template set `ownn`; did you mean `own`?"),
        ("data.groups.pairs.sources.a.directions={drow: 1}", "direction `drow`"),
        ("data.groups.pairs.sources.a.filters={size: {}}", "unknown filter `size`"),
        ("data.groups.pairs.sources.a.form=chatt", "did you mean `chat`?"),
        ("data.templates.own=[{direction: draw, response: '{sketch'}]", "`data.templates.own[0]`: `response`"),
        ("data.templates.own=[]", "`data.templates.own` is empty"),
        ("data.form=chatml", "`data.form` is `chatml`"),
        ("data.system={skech: hi}", "`data.system.skech` is neither `default` nor a modality in use"),
        ("data.max_skipped=2", "`data.max_skipped` is 2"),
        ("data.packing.too_long=cut", "`data.packing.too_long` is `cut`"),
        ("data.packing.context=67", "the shortest item of `strip` takes 68 positions in its 2 spans"),
        ("data.packing.context=33", "shortest span of `sketch` takes 34 positions (2 x 16 codes and 2 borders)"),
        ("train.steps=0", "`train.steps` is 0"),
        ("train.precision=fp16", "`train.precision` is `fp16`"),
        ("train.loss={prompt_text: 0, prompt_media: 0, response_text: 0, response_media: 0}", "no weight above 0"),
        ("train.loss.prompt_text=-1", "`train.loss.prompt_text` is -1"),
        ("train.optimizer.kind=muonn", "did you mean `muon`?"),
        ("train.optimizer.lr=.inf", "`train.optimizer.lr` is inf"),
        ("train.optimizer.betas=[0.9]", "two numbers"),
        ("train.optimizer.warmup=3", "`train.optimizer.warmup` is 3; it must be at most 1"),
        ("train.optimizer.schedule=wds", "did you mean `wsd`?"),
        (
            "train.optimizer={schedule: wsd, warmup: 0.5, decay: 0.6}",
            "`train.optimizer`: `warmup` 0.5 and `decay` 0.6 are more than all steps; lower one of them",
        ),
        (
            "train.optimizer.rules.all={pattern: '*', schedule: wsd, decay: 1}",
            "`train.optimizer.rules.all`: `warmup` 0.03",
        ),
        ("train.optimizer.rules.x={}", "`train.optimizer.rules.x.pattern` is empty"),
        (
            "train.optimizer.rules.x={pattern: '*', rows: [new], weight_decay: 0.1}",
            "`train.optimizer.rules.x` has `rows` and `weight_decay`",
        ),
        ("train.optimizer.rules.x={pattern: '*', rows: [untrained]}", "it starts from nothing; give `start_from`"),
        ("train.average={decay: 0.9, start: 0.5}", "`train.average` says how weights are averaged, but"),
        ("train.distillation.weight=9", "`train.distillation` says how groups are learnt, but"),
        ("train.distillation={groups: [pairs], share: 0}", "`train.distillation.share` is 0"),
        ("runtime.devices=3", "`train.rows` is 8, which 3 devices cannot share equally; set it to 6 or 9"),
        ("train.micro_rows=3", "does not divide the 8 rows"),
        ("runtime={devices: 2, expert_parallel: 2}", "`runtime.expert_parallel` is 2, but the model has no experts"),
        ("runtime.expert_parallel=3", "does not divide the devices that parameters are split over (1)"),
        ("runtime.devices=0", "`runtime.devices` is 0"),
        (
            "evaluate.average=true",
            "`evaluate.average` asks for an average of the weights, which `train.average.kind: ema`",
        ),
        ("validate.average=true", "`validate.average` asks for an average"),
        ("train.average.kind=emma", "did you mean `ema`?"),
        ("evaluate.tasks=[draw]", "`evaluate.tasks`: no task `draw`"),
        ("data.held_out=1", "`data.held_out` is 1; it must be below 1"),
        ("data.groups.pairs.sources.a={held_out: 0.1, validation_split: test}", "has both `held_out` and `validation_"),
        ("data.groups.pairs.sources.a.validation_split=test", "reader `jsonl` reads has no splits; give a share"),
        ("data.groups.pairs.sources.a.validation_split=train", "is the split that is trained on, `train`"),
        ("data.groups.pairs.sources.a.held_out_by=[caption]", "held_out_by` says by what records are held out, but"),
        ("validate.every=5", "`validate.every` is 5, but there is nothing to validate on; hold records out"),
        ("validate.tasks=[draw]", "`validate.tasks`: no task `draw`"),
        ("validate.tasks=[draw]", "but `validate.every` is 0; say every how many steps"),
        ("model.heads=3", "no multiple of"),
    ],
)
def test_what_a_recipe_says_is_checked_against_the_plugins(sound, override, problem):
    found = problems(checked, sound, override)
    assert any(problem in one for one in found), found
    assert all(one.startswith(("recipe `sound`: ", f"`{override}`: ")) for one in found)


def test_what_keeps_the_best_checkpoints_is_checked(sound):
    on = ("data.held_out=0.1", "validate.every=50")
    checked(sound, *on, "runtime.keep_best=2")
    names = ("loss/pairs/a/draw", "loss/pairs", "modality/sketch/codebook1", "modality/special", "modality/text")
    for name in names:
        checked(sound, *on, f"validate.best={name}")
    assert problems(checked, sound, *on, "validate.best=loss/pears") == [
        "recipe `sound`: `validate.best` is no figure of this recipe, `loss/pears`; did you mean `loss/pairs`?"
    ]
    [problem] = problems(checked, sound, *on, "runtime.keep_best=2", "runtime.checkpoint_every=75")
    assert "`runtime.checkpoint_every` 75 is no multiple of `validate.every` 50; make it one" in problem
    checked(sound, *on, "runtime.checkpoint_every=75")  # nothing is kept by it


def test_all_problems_of_the_meaning_are_told_at_once(sound):
    assert len(problems(checked, sound, "train.steps=0", "data.form=x", "evaluate.items=0", "model.layers=0")) == 4


def test_planning_and_checking_need_no_torch():
    code = "import mio.core.data.plan, mio.core.stages.check, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
