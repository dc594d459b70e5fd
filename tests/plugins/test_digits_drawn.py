"""Drawings of the digits world: their records, their judges on true and on wrong pictures, their tasks."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from conftest import once
from rich.console import Console
from safetensors.torch import load_file

from mio import Answer, DataError, Media
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import chain
from mio.core.stages.check import check
from mio.core.stages.fit import fit_chain
from mio.plugins.digits import drawing_tasks, drawings, scans, tasks
from mio.plugins.digits.corpora import SOURCES
from mio.plugins.digits.drawing_judges import Seen, overlap, see_drawings
from mio.plugins.digits.drawings import COLOURS, PLACES, STYLES, Look
from mio.plugins.digits.voices import DIGITS

RECIPES = Path(__file__).parents[2] / "recipes/mm-interleaved/digits"
SPLITS = ("train", "test")
LOOKS = re.compile("|".join((*STYLES, *COLOURS, *PLACES, "left", "right")))
WHITE = np.full((32, 32, 3), 255, np.uint8)


def records(name: str, split: str, count: int = 100):
    source = SOURCES[f"digits/{name}"](split, {})
    return [source[index] for index in range(count)]


def pictures(parts) -> list[Media]:
    return [part for part in parts if isinstance(part, Media)]


def words(parts) -> str:
    return "".join(part for part in parts if isinstance(part, str))


def look_of(media: Media) -> str:
    return media.key.rsplit("/", 1)[-1]


# ---- records


def test_records_are_the_same_in_every_version():
    """Golden values of the first release: a run is a function of its recipe."""
    story = records("picture_stories", "train", 1)[0]
    assert words(story["parts"]) == "Eve draws five digits: five, eight, nine, four and six."
    assert story["next"].key == "drawing/967/v0/dotted-blue-top-right+15"
    assert records("drawings", "train", 1)[0]["caption"] == "thin blue zero, bottom left"
    assert records("segmentation_maps", "train", 1)[0]["words"] == "outline blue"


@pytest.mark.parametrize("split", SPLITS)
def test_a_story_says_how_many_pictures_and_which_digits_and_never_how_they_look(split):
    looks, counts = set(), set()
    for story in records("picture_stories", split, 200):
        shown = pictures(story["parts"])
        assert [item.label for item in shown] == [word for word in re.findall(r"\w+", words(story["rest"]))
                                                  if word in DIGITS]  # fmt: skip
        assert story["opening"].split()[2] == DIGITS[len(shown)]
        assert not LOOKS.search(words(story["parts"]))
        assert len({look_of(item) for item in shown}) == 1
        assert story["parts"] == [story["opening"], *story["rest"]] == [*story["told"], story["next"], "."]
        assert look_of(story["next"]).startswith(
            f"{story['style']}-{story['colour']}-{story['place'].replace(' ', '-')}"
        )
        looks.add(look_of(shown[0]))
        counts.add(len(shown))
    assert counts == {2, 3, 4, 5}
    assert len(looks) > 80  # of 192


@pytest.mark.parametrize("name", ["picture_stories", "drawings", "segmentation_maps"])
def test_pictures_are_of_their_split(name):
    for split in SPLITS:
        allowed = set(scans.indices(split))
        for record in records(name, split, 40):
            media = [item for value in record.values() for item in (value if isinstance(value, list) else [value])]
            for item in pictures(media):
                assert int(item.key.split("/")[1]) in allowed
                assert (item.data.shape, item.data.dtype) == ((32, 32, 3), np.uint8)


def test_a_map_is_the_region_of_its_drawing_in_the_colour_of_its_class():
    for record in records("segmentation_maps", "test", 60):
        region, image = record["map"].data, record["image"].data
        inside = region.any(2)
        assert (region[inside] == drawings.CLASSES[DIGITS.index(record["digit"])]).all()
        inked = image.min(2) < 128
        assert (inked & inside).sum() >= 0.95 * inked.sum()
        assert record["image"].key.split("/")[1:] == record["map"].key.split("/")[1:]


def test_looks_differ_in_what_they_name_alone():
    look, index = Look("bold", "red", "top left", 0), scans.by_digit("test")[3][0]
    red = drawings.drawing(index, 0, look)
    blue = drawings.drawing(index, 0, replace(look, colour="blue"))
    moved = drawings.drawing(index, 0, replace(look, place="bottom right"))
    np.testing.assert_array_equal((red < 255).any(2), (blue < 255).any(2))
    np.testing.assert_array_equal(np.roll(red, (12, 12), (0, 1)), moved)
    assert not np.array_equal(red, drawings.drawing(index, 0, replace(look, tilt=15)))


# ---- judges


def test_judges_are_right_about_nearly_all_held_out_drawings():
    draw, digits = Random(1), scans.scans()[1]
    shown, expected = [], []
    for number, index in enumerate(scans.indices("test")):
        look = replace(Look.of(draw), style=STYLES[number % 4])
        shown.append(drawings.drawing(index, 0, look))
        expected.append(Seen(DIGITS[digits[index]], look.style, look.colour, look.place))
    right = np.mean([np.equal(one, other) for one, other in zip(see_drawings(shown), expected, strict=True)], 0)
    assert right[0] >= 0.97
    assert (right[1:] >= 0.995).all()


def test_judges_see_nothing_where_nothing_is_and_no_colour_without_a_name():
    assert see_drawings([WHITE]) == [Seen()]
    assert see_drawings([]) == []
    drawn = drawings.drawing(scans.by_digit("test")[3][0], 0, Look("bold", "red", "top left", 0))
    pink = np.where(drawn < 200, np.array([255, 0, 255], np.uint8), drawn).astype(np.uint8)
    (seen,) = see_drawings([pink])
    assert (seen.colour, seen.place, seen.style) == ("", "top left", "bold")
    assert overlap(drawn, pink) == 1
    assert overlap(WHITE, WHITE) == overlap(drawn, WHITE) == 0
    with pytest.raises(DataError, match="judge of drawings takes uint8"):
        see_drawings([drawn[:8]])


# ---- tasks


def task(name: str):
    return {one.name: one for one in drawing_tasks.drawing_tasks()}[name]


def verdict(name: str, record, *parts) -> bool:
    kinds = tuple(("text", part) if isinstance(part, str) else ("image", part) for part in parts)
    return bool(task(name).judge([Answer(kinds)], [record])[0])


def redrawn(record, **changed):
    """The picture of a record's next digit with another look."""
    index = int(record["next"].key.split("/")[1])
    look = replace(Look(record["style"], record["colour"], record["place"], 0), **changed)
    return drawings.drawing(index, 0, look)


def test_the_next_picture_is_judged_in_one_respect_at_a_time():
    record = next(one for one in records("picture_stories", "test") if one["style"] == "bold" and one["digit"] == "two")
    other = {
        "style": redrawn(record, style="outline"),
        "colour": redrawn(record, colour=next(name for name in COLOURS if name != record["colour"])),
        "place": redrawn(record, place=next(name for name in PLACES if name != record["place"])),
    }
    for field in ("style", "colour", "place", "digit"):
        assert verdict(f"next_{field}", record, record["next"].data)
        assert not verdict(f"next_{field}", record, "no picture")
        assert [changed for changed, picture in other.items() if not verdict(f"next_{field}", record, picture)] == (
            [field] if field in other else []
        )


def test_a_whole_story_is_right_with_as_many_pictures_of_one_look_as_it_says():
    record = next(one for one in records("picture_stories", "test", 300)
                  if one["style"] == "bold" and verdict("tell_story", one, *_shown(one["rest"])))  # fmt: skip
    told = _shown(record["rest"])
    assert not verdict("tell_story", record, *told, " and one", redrawn(record))
    assert not verdict("tell_story", record, *told[:-2], redrawn(record, style="outline"), ".")
    assert not verdict("tell_story", record, *told[:-3], *told[-2:])
    assert not verdict("tell_story", record, "nothing")


def _shown(parts):
    return [part.data if isinstance(part, Media) else part for part in parts]


def test_maps_are_followed_and_captions_are_exact():
    record, another = records("segmentation_maps", "test", 2)
    assert verdict("draw_map", record, record["image"].data)
    assert not verdict("draw_map", record, another["image"].data)
    assert not verdict("draw_map", record, "no picture")
    record = records("drawings", "test", 1)[0]
    assert verdict("caption_drawing", record, record["caption"])
    assert not verdict("caption_drawing", record, record["caption"].replace("e", "a"))
    assert verdict("draw_caption", record, record["image"].data)


def test_tasks_have_enough_different_items():
    for one in drawing_tasks.drawing_tasks():
        assert len(one.records(200)) == 200


# ---- recipes


def test_the_chain_passes_every_check_and_trains_the_prompts_of_all_tasks():
    manager = PluginManager.discover()
    stages = chain([str(RECIPES / "stage2.yaml")], [], manager)
    for stage in stages:
        check(stage, manager.enable(stage.plugins))
    assert [stage.name for stage in stages] == ["mm-interleaved-digits-1", "mm-interleaved-digits-2"]
    trained = {
        (template.prompt, template.response)
        for templates in stages[-1].data.templates.values()
        for template in templates
    }
    tasks = {one.name: one.template for one in drawing_tasks.drawing_tasks()}
    assert set(stages[-1].evaluate.tasks) == set(tasks)
    # stories are trained whole, as `parts`: what is asked there is a part of them
    asked = {(one.prompt, one.response) for name, one in tasks.items() if "story" not in name and "next" not in name}
    assert asked <= trained


def test_tasks_of_pictures_alone_need_neither_speech_nor_video():
    plugins = {"text": {"tokenizer": "bytes"}, "image": {"tokenizer": "patch_vq"}}
    drawings = [one.name for one in drawing_tasks.drawing_tasks()]
    enabled = PluginManager.discover().enable(plugins | {"digits": {"tasks": "pictures"}})
    assert set(enabled.tasks()) == {*tasks.PICTURES, *drawings}
    every = PluginManager.discover().enable(plugins | {"digits": {}}).tasks()
    assert {"caption", *drawings} <= set(every)
    assert not {"speak", "video_draw", "clone"} & set(every), "tasks of what is not there rest"


@pytest.fixture(scope="session")
def told_stories(tmp_path_factory):
    """Runs of two steps of both stages, without an evaluation."""

    def make(folder):
        small = ["train.steps=2", "train.rows=1", "runtime.log_every=1", "runtime.workers=0", "validate.every=0"]
        tokenizer = "plugins.text={_replace_: true, tokenizer: bytes}"
        stage = str(RECIPES / "stage2.yaml")
        changes = [tokenizer, "data.packing.context=512", f"runtime.runs={folder}", "evaluate.tasks=[]", *small]
        fit_chain([stage], changes, PluginManager.discover(), Console(file=io.StringIO()))

    return once(tmp_path_factory, "told_stories", make)


def test_stories_train_in_both_stages(told_stories):
    first, second = (told_stories / f"mm-interleaved-digits-{number}" for number in (1, 2))
    for folder in (first, second):
        with (folder / "metrics.csv").open() as file:
            assert all(math.isfinite(float(row["loss"])) for row in csv.DictReader(file))
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"encoders", "heads", "layers"} <= moved
