import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio import Codes, DataError, Media, Template
from mio.core.contract.validation import template_problems
from mio.core.errors import RecipeError
from mio.core.tokens.documents import Special, Viewed
from mio.core.tokens.templates import CompiledTemplate, to_document

PICTURE = Media("image", None, key="a")


def compiled(prompt="", response="{text}"):
    return CompiledTemplate(Template(direction="there", prompt=prompt, response=response), "set")


def contents(document):
    return [segment.content for segment in document.segments]


def test_templates_of_mio():
    # arXiv 2409.17692, appendix B
    understand = compiled("{image} The caption of this image is:", " {caption}")
    record = {"image": PICTURE, "caption": "a dog"}
    assert understand.prompt(record) == [PICTURE, " The caption of this image is:"]
    assert understand.response(record) == [" a dog"]
    generate = compiled("Please generate an image of “{caption}”:", " {image}")
    assert generate.prompt(record) == ["Please generate an image of “", "a dog", "”:"]
    assert generate.response(record) == [" ", PICTURE]
    assert understand.fields == ("image", "caption")


def test_the_space_before_text_goes_with_the_text():
    say = compiled("Say: {word}")
    assert say.prompt({"word": "three"}) == ["Say:", " three"]
    assert say.prompt({"word": PICTURE}) == ["Say: ", PICTURE]
    assert say.prompt({"word": ["one", "two"]}) == ["Say:", " one", "two"]
    assert say.prompt({"word": [PICTURE, "two"]}) == ["Say: ", PICTURE, "two"]
    assert say.prompt({"word": []}) == ["Say: "]
    assert compiled("Say:  {word}").prompt({"word": "three"}) == ["Say: ", " three"]
    assert compiled("{a} {b}").prompt({"a": "x", "b": "y"}) == ["x", " y"]
    assert compiled("{a}{b}").prompt({"a": "x", "b": ""}) == ["x"]


def test_braces_are_doubled():
    assert compiled("{{{word}}} {{").prompt({"word": "x"}) == ["{", "x", "} {"]


def test_numbers_are_text():
    sums = compiled("{a} + {b} =")
    assert sums.prompt({"a": 3, "b": np.int64(14)}) == ["3", " +", " 14", " ="]
    assert sums.prompt({"a": 0.5, "b": "x"})[0] == "0.5"


def test_a_field_of_a_prompt_may_ask_for_the_view_of_its_media():
    template = compiled("Say {words} like {voice?:generate}: ", "{words:generate}")
    assert template.fields == ("words", "voice")
    record = {"words": "three", "voice": [PICTURE, "and", PICTURE]}
    assert template.prompt(record) == [
        *("Say", " three", " like ", Viewed(PICTURE, "generate"), "and", Viewed(PICTURE, "generate"), ": ")
    ]
    assert contents(to_document({"words": "three"}, template)) == [
        *(Special.BOS, "Say", " three", " like ", ": ", "three", Special.EOS)
    ]
    with pytest.raises(DataError, match="field `words` is empty"):
        to_document({"words": ""}, template)
    # a rule for control tokens sees the content as it is in the record
    seen = []

    class Rule:
        def begun(self, content, turn, where):  # noqa: ARG002
            seen.extend(turn().prompt)
            return list(content)

    to_document({"words": "three", "voice": PICTURE}, template, labels=Rule())
    assert seen == ["Say", " three", " like ", PICTURE, ": "]


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        ("{a:generat}", "b", "view of its media.*did you mean `generate`"),
        ("x", "{a:understand}", "`{a:understand}`: media of a response are written.*leave the view out"),
    ],
)
def test_other_views_are_an_error(prompt, response, message):
    template = Template(direction="there", prompt=prompt, response=response)
    with pytest.raises(RecipeError, match=message):
        CompiledTemplate(template, "set")
    assert any(re.search(message, problem) for problem in template_problems(template))


@pytest.mark.parametrize("text", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}", "{ a }"])
def test_other_braces_are_an_error(text):
    with pytest.raises(RecipeError, match=r"template `set/there`.*double a literal brace"):
        compiled(f"word {text} word")


def test_a_missing_field_is_named_with_those_there_are():
    with pytest.raises(DataError) as caught:
        compiled("{image}").prompt({"picture": PICTURE, "caption": "x"})
    assert "`set/there`" in str(caught.value)
    assert "`image`" in str(caught.value)
    assert "picture, caption" in str(caught.value)


@pytest.mark.parametrize("value", [None, True, {"a": 1}, ["x", None]])
def test_a_field_of_another_type_is_an_error(value):
    with pytest.raises(DataError, match=r"field `image` holds a (NoneType|bool|dict)"):
        compiled("{image}").prompt({"image": value})


words = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.tuples(words, words), max_size=5), words)
def test_nothing_of_a_text_is_lost_or_added(pairs, end):
    def escape(text):
        return text.replace("{", "{{").replace("}", "}}")

    template = "".join(f"{escape(literal)}{{f{index}}}" for index, (literal, _) in enumerate(pairs)) + escape(end)
    record = {f"f{index}": value for index, (_, value) in enumerate(pairs)}
    expected = "".join(literal + value for literal, value in pairs) + end
    assert "".join(compiled(template).prompt(record)) == expected


def test_a_record_becomes_a_plain_document():
    template = compiled("{image} is", " {word}")
    document = to_document({"image": PICTURE, "word": "three"}, template)
    assert contents(document) == [Special.BOS, PICTURE, " is", " three", Special.EOS]
    assert [s.role for s in document.segments] == ["prompt", "prompt", "prompt", "response", "response"]
    assert [s.supervised for s in document.segments] == [False, True, True, True, True]
    assert document.segments[1].view == "understand"
    assert document.answer == 3


def test_a_record_becomes_a_conversation():
    template = compiled("{image} is", " {word}")
    document = to_document({"image": PICTURE, "word": "three"}, template, "chat", {"default": "Help."})
    said = [content for content in contents(document) if not isinstance(content, Special)]
    assert said == ["system\n", "Help.", "\n", "user\n", PICTURE, " is", "\n", "assistant\n", " three", "\n"]


def test_parts_are_all_response():
    codes = Codes("image", np.zeros((1, 32), dtype=np.int64))
    document = to_document({"parts": ["one", codes, "two"]})
    assert contents(document) == [Special.BOS, "one", codes, "two", Special.EOS]
    assert [s.role for s in document.segments[1:]] == ["response"] * 4
    assert document.segments[2].view == "generate"


@pytest.mark.parametrize(
    ("record", "form", "message"),
    [
        ({"messages": []}, "plain", "set `form: chat`"),
        ({"messages": [{"role": "user", "content": "x"}]}, "chat", "no turn of the assistant"),
        ({"parts": ["x"]}, "chat", "set `form: plain`"),
        ({"image": "x"}, "plain", "fields image needs a template"),
    ],
)
def test_records_that_do_not_fit(record, form, message):
    with pytest.raises(DataError, match=message):
        to_document(record, None, form)


@pytest.mark.parametrize("value", ["", " \n", "\u00a0\u3000", [], ["", " "], ()], ids=repr)
@pytest.mark.parametrize("field", ["image", "word"])
def test_an_empty_field_costs_the_record_unless_the_template_allows_for_it(field, value):
    record = {"image": PICTURE, "word": "three", field: value}
    with pytest.raises(DataError, match=f"`set/there`: field `{field}` is empty; .*`{{{field}\\?}}`"):
        to_document(record, compiled("Look: {image}", " {word}"))
    optional = compiled("Look: {image?}", "It is {word?}")
    document = to_document(record, optional)
    lacking = to_document({name: kept for name, kept in record.items() if name != field}, optional)
    assert document == lacking
    assert ("Look: " if field == "image" else "It is ") in contents(lacking)
    assert optional.fields == ("image", "word")


def test_nothing_is_learnt_from_nothing():
    with pytest.raises(DataError, match="its response is empty"):
        to_document({"image": PICTURE}, compiled("{image}", "{word?}"))
    with pytest.raises(DataError, match="its prompt is empty"):
        to_document({"word": "x", "image": []}, compiled("{image?}", "{word}"))
    assert to_document({"word": "x"}, compiled("", "{word}")).answer == 1
    for parts in ([], [""], [" ", "\n"]):
        with pytest.raises(DataError, match="`parts` is empty"):
            to_document({"parts": parts})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), [1.0, float("-inf")]], ids=repr)
def test_numbers_that_are_none_are_an_error(value):
    with pytest.raises(DataError, match=r"field `word` is (nan|-?inf), which cannot be learnt"):
        to_document({"word": value}, compiled("", "{word}"))
