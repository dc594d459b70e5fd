"""How endpoints of bare text or sound ask: the templates that are found in recipes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from served import scripted

from mio import Media, UserError
from mio.core.contract.plugins import PluginManager
from mio.core.recipe.chain import chain
from mio.core.tokens.documents import Special
from mio.core.tokens.visitor import text_of
from mio.serve.abilities import Abilities
from mio.serve.templates import IMAGE, SPEECH, TRANSCRIPTION, Questions

MANAGER = PluginManager.discover()


def questions(recipe, **given):
    stage = chain([f"recipes/{recipe}.yaml"], [], MANAGER)[-1]
    plugins = MANAGER.enable(stage.plugins)
    names = [declared.name for _, declared in plugins.modalities() if not declared.text]
    abilities = Abilities((), (), {name: plugins.datamodule(name) for name in names})
    return Questions(SimpleNamespace(recipe=stage, plugins=plugins), abilities, given)


@pytest.mark.parametrize(
    ("recipe", "kind", "modality", "name", "form", "prompt"),
    [
        ("stage4", SPEECH, "speech", "speech_text_sft/text_to_speech", "chat",
         "Please generate a speech according to the given transcription. Start with <spch>. X"),
        ("stage4", TRANSCRIPTION, "speech", "speech_text_sft/speech_to_text", "chat",
         "Please transcribe this speech.X"),
        ("stage4", IMAGE, "image", "image_text_sft/text_to_image", "chat",
         "Please generate an image according to the given description. X"),
        ("stage2", SPEECH, "speech", "speech_text/text_to_speech", "plain", "Please generate a speech of “X”: "),
        ("mio/stage4", TRANSCRIPTION, "speech", "speech_text_sft/speech_to_text", "chat",
         "Please transcribe this speech.X"),
        ("vita/digits/stage3", TRANSCRIPTION, "speech", "transcriptions/transcribe", "chat", "Transcribe this.X"),
        ("janus/digits/stage3", IMAGE, "image", "drawings/draw", "chat",
         "Please generate an image according to the given description. X"),
        ("bagel/digits/stage2", IMAGE, "image", "captions/draw", "plain",
         "Please generate an image according to the given description. X"),
        ("mm-interleaved/digits/stage2", IMAGE, "image", "drawings/draw_caption", "plain", "X:"),
    ],
)  # fmt: skip
def test_recipes_say_how_they_are_asked(recipe, kind, modality, name, form, prompt):
    found = questions(recipe).of(kind, modality)
    assert (found.template.name, found.form) == (name, form)
    value = Media(modality, None, "x") if kind == TRANSCRIPTION else "X"
    segments = found.document(value).segments
    texts = ["X" if text_of(one.content) is None else one.content for one in segments if one.role == "prompt"]
    shown = "".join(text for text in texts if isinstance(text, str))
    assert prompt in shown.removeprefix("X")  # bos


def test_what_is_in_no_template_is_asked_bare():
    found = questions("vita/digits/stage3").of(IMAGE, "image")
    contents = [one.content for one in found.document("just this").segments]
    assert contents[-8:-3] == ["user\n", "just this", Special.IM_END, "\n", Special.IM_START]


def test_templates_can_be_given():
    asked = questions("stage4", speech="Now say: {text}", image="image_text/text_to_image")
    contents = [one.content for one in asked.of(SPEECH, "speech").document("X").segments]
    assert contents[contents.index("user\n") + 1 :][:2] == ["Now say:", " X"]
    assert asked.of(IMAGE, "image").template.name == "image_text/text_to_image"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("speach", "{a}", "did you mean `speech`"),
        ("speech", "Say this slowly.", "as a prompt it lacks a field in braces"),
        ("speech", "{a} {b}", "has 2 fields"),
        ("speech", "{a", "double a literal brace"),
        ("speech", "speech_text_sft/txt_to_speech", "did you mean `text_to_speech`"),
        ("speech", "speech_txt/text_to_speech", "no template set `speech_txt`; did you mean `speech_text`"),
        ("speech", "digits_edits_sft/edit", "has 2 fields"),
    ],
)
def test_templates_that_do_not_fit(kind, text, message):
    with pytest.raises(UserError, match=message):
        questions("stage4", **{kind: text})


def test_what_a_run_can_read_and_write():
    abilities = Abilities.of(scripted({}))
    assert abilities.reads == abilities.writes == ("picture", "tone", "clip", "melody")
    assert [abilities.media_type(name) for name in abilities.reads] == ["image", "audio", "video", ""]
