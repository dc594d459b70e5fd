"""How answers are decoded by default: what counts more, and what a recipe may say."""

from __future__ import annotations

import pytest

from mio import Decoding, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.generation.defaults import decoding_for
from mio.core.recipe.compose import compose
from mio.core.recipe.schema import Recipe
from mio.core.stages.check import check


def recipe(**sections):
    return Recipe(generate=sections)


def test_what_is_said_counts_more_than_the_modality_and_that_more_than_the_default():
    made = recipe(default={"top_p": 0.7, "top_k": 3, "max_tokens": 9}, tones={"top_k": 4, "max_tokens": 8})
    assert decoding_for(made, "tones", max_tokens=7) == Decoding(top_p=0.7, top_k=4, max_tokens=7)
    assert decoding_for(made, "", min_p=0.1) == Decoding(top_p=0.7, top_k=3, max_tokens=9, min_p=0.1)
    assert decoding_for(made, "other") == Decoding(top_p=0.7, top_k=3, max_tokens=9)
    assert decoding_for(Recipe(), "tones") == Decoding()


def test_what_is_said_of_a_modality_changes_that_alone():
    made = recipe(default={"by": {"tones": {"top_p": 0.5, "top_k": 3}}}, tones={"by": {"tones": {"top_k": 4}}})
    assert decoding_for(made, "tones").by == {"tones": {"top_p": 0.5, "top_k": 4}}
    assert decoding_for(made, "tones", by={"tones": {"top_p": 0.6}, "text": {"top_k": 1}}).by == {
        "tones": {"top_p": 0.6, "top_k": 4}, "text": {"top_k": 1},
    }  # fmt: skip


def test_what_is_said_of_all_replaces_what_the_recipe_says_by_modality():
    by = {"tones": {"temperature": 0.1, "top_p": 0.5}, "text": {"temperature": 0.2, "top_p": 0.5}}
    made = recipe(default={"by": by})
    assert decoding_for(made, "", top_p=0.9).by == {"tones": {"temperature": 0.1}, "text": {"temperature": 0.2}}
    assert decoding_for(made, "", temperature=0.9).by["text"] == {"top_p": 0.5}
    assert decoding_for(made, "", temperature=0.9).by["tones"]["temperature"] == 0.1
    assert decoding_for(made, "", media_temperature=0.9).by["tones"] == {"top_p": 0.5}
    assert made.generate["default"]["by"] == by


def test_who_asks_to_draw_gives_up_beams_and_the_other_way_round():
    beams = recipe(text={"beams": 5})
    assert decoding_for(beams, "text", temperature=0.8) == Decoding(temperature=0.8)
    assert decoding_for(beams, "text", temperature=0.0).beams == 5
    assert decoding_for(recipe(default={"temperature": 0.8}), "text", beams=4) == Decoding(beams=4)
    said = decoding_for(beams, "text", temperature=0.8, beams=2)
    assert (said.beams, said.temperature) == (2, 0.8)  # a contradiction of the caller's own, which is told


def test_an_unknown_option_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"no option `topp` of decoding; did you mean `top_p`.*there are temperature, "):
        decoding_for(Recipe(), "", topp=1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generate.imag.top_p=0.5", "`generate.imag`: there is no modality `imag`; did you mean `image`"),
        ("generate.image.topp=0.5", "unknown key `generate.image.topp`; did you mean `generate.image.top_p`"),
        ("generate.image.top_p=2", "`generate.image.top_p` is 2; it must be at most 1"),
        ("generate.image.by.image.topk=1", "unknown key `generate.image.by.image.topk`; did you mean"),
        ("generate.image.by={video: {top_k: 1}}", "`generate.image.by.video`: no tokens of that modality are chosen"),
        ("generate.image.beams=2", "`generate.image`: `beams` is 2, but beam search is for answers of text"),
        ("generate.text={beams: 2, temperature: 1}", "`generate.text`: `beams` is 2: beam search draws nothing"),
        ("generate.text.stop=[a, '']", "`generate.text`: `stop` has an empty string"),
        ("generate.text.stop=a", "`generate.text.stop` must be a list, not the text 'a'"),
        ("generate.text=3", "`generate.text` must be a mapping, not 3"),
    ],
)
def test_what_is_wrong_with_the_section_is_told(override, message):
    manager = PluginManager.discover()

    def checked():
        made = compose(["stage4"], [override], manager)
        check(made, manager.enable(made.plugins))

    with pytest.raises(UserError, match=message):
        checked()


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("mio/stage4", "text", {"beams": 5, "temperature": 0.0, "repetition_penalty": 1.0}),
        ("mio/stage4", "image", {"media_temperature": 1.0, "top_p": 0.7, "repetition_penalty": 1.0, "beams": 1}),
        ("mio/stage4", "speech", {"media_temperature": 1.0, "top_p": 0.7, "repetition_penalty": 1.15, "beams": 1}),
        ("mio/stage4", "video", {"media_temperature": 1.0, "top_p": 0.7, "repetition_penalty": 1.15}),
        ("anygpt/sft", "text", {"beams": 5, "temperature": 0.0}),
        ("anygpt/sft", "image", {"media_temperature": 1.0, "top_p": 0.7, "repetition_penalty": 1.0}),
        ("anygpt/sft", "speech", {"media_temperature": 1.0, "top_p": 0.7}),
        ("anygpt/sft", "music", {"media_temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.15}),
        ("janus/stage3", "image", {"media_temperature": 1.0, "guidance": 5.0}),
        ("mm-interleaved/pretrain", "image", {"guidance": 7.5, "steps": 30}),
        ("stage4", "image", {"temperature": 0.0, "media_temperature": 0.7}),
    ],
)
def test_published_recipes_have_the_settings_of_their_papers(name, output, expected):
    """MIO: table 11 of arXiv 2409.17692. AnyGPT: table 9 of arXiv 2402.12226. Janus and MM-Interleaved: their programs.
    The digits world has what was before the section."""
    decoding = decoding_for(compose([name], [], PluginManager.discover()), output)
    assert {key: getattr(decoding, key) for key in expected} == expected
