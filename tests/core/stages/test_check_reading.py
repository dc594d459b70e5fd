import pytest
import tiles
from recipe_files import problems

from mio import Modality, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.generation.grammar import Need, need_of
from mio.core.recipe.compose import compose
from mio.core.stages.check import check


def checked(*overrides, recipe="beads.yaml"):
    manager = PluginManager.discover()
    recipe = compose([recipe], list(overrides), manager)
    check(recipe, manager.enable(recipe.plugins))


@pytest.mark.usefixtures("beads_world")
def test_a_recipe_whose_beads_are_read_passes():
    checked()


@pytest.mark.usefixtures("beads_world")
def test_what_nothing_reads_is_told_with_everything_else():
    found = problems(lambda: checked("plugins.beads={encodes: nothing}", "mixture.ratios.nobody=1"))
    assert len(found) == 2
    assert any("unknown group `nobody`" in problem for problem in found)
    assert any(
        "`beads`, which plugin `beads` declares, has no codes, and no plugin of the recipe supplies an encoder that "
        "reads it; add one under `plugins:`" in problem
        for problem in found
    )


def test_what_is_only_read_cannot_be_answered(beads_world):
    recipe = beads_world / "beads.yaml"
    text = recipe.read_text()
    for field, told in (("beads", True), ("string", True), ("melody", False)):
        recipe.write_text(text.replace('prompt: "{beads} end with", response: " {last}"', f'response: "{{{field}}}"'))
        if not told:
            checked()
            continue
        [problem] = problems(checked)
        assert (
            "`data.groups.beads.sources.lines`: the direction `read` of the templates `beads` answers with "
            f"`{{{field}}}`, which is only read, by an encoder; leave it out (`directions`), or give other templates"
        ) in problem


def test_what_a_head_makes_can_be_answered(tmp_path, monkeypatch):
    tiles.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIO_PLUGINS", f"tiles={tiles.__file__}")
    source = "{dataset: jsonl, options: {path: tiles.jsonl}, templates: made}"
    template = "data.templates.made=[{direction: make, prompt: 'make', response: '{tile}'}]"
    checked(f"data.groups.tiles.sources.lines={source}", template, recipe="tiles.yaml")


@pytest.mark.usefixtures("beads_world")
def test_tasks_whose_answers_are_only_read_are_refused():
    checked("evaluate.tasks=[play]")
    found = problems(
        lambda: checked(
            "plugins.beads={task: string}", "evaluate.tasks=[thread]", "validate={every: 2, tasks: [thread]}"
        )
    )
    for where in ("evaluate", "validate"):
        words = f"`{where}.tasks` names `thread`, whose answers are of `string`, which is only read, by an encoder"
        assert any(words in problem for problem in found)


def test_answers_of_what_is_only_read_are_refused():
    modalities = {
        one.name: one
        for one in (
            Modality(name="text", text=True),
            Modality(name="beads"),
            Modality(name="string", parts="beads"),
            Modality(name="tones", codebooks=(8,)),
            Modality(name="song", parts="tones"),
        )
    }
    for name in ("beads", "string"):
        with pytest.raises(UserError, match=f"`{name}` is only read, by an encoder: no answer can be of it"):
            need_of(name, modalities, only=True)
    assert need_of("text", modalities, only=True) == Need(only=True)
    assert (
        need_of("song", modalities, only=True).modality == need_of("tones", modalities, only=True).modality == "tones"
    )
