"""Control tokens as ids: what they consist of, how they are told from text, what labels answers with them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import DECLARED, FakeCodecs, FakeText, speech_codes

from mio import Codes, Control, ControlToken, DataError, PluginError, Template, Turn
from mio.core.contract.claims import special_controls
from mio.core.contract.controls import special_control
from mio.core.contract.validation import control_name_problems, template_problems
from mio.core.errors import VocabularyError
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import plain_document
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.vocabulary import Vocabulary

NOISE = ControlToken(name="noise", token="<2>", plain_text=True, action="silence")
QUERY = ControlToken(name="query", token="<1>", plain_text=True, action="interrupt")
THINK = ControlToken(name="think", token="<think>", anywhere=True)
HUSH = ControlToken(name="hush", token="<hush>", action="silence")
TEXT_OF_CHAT = replace(DECLARED[0][1], specials=("<|im_start|>",))
SAID = [("states", NOISE), ("mind", THINK), ("states", QUERY), ("mind", HUSH)]
TEXTS = FakeText(size=400)
VOCABULARY = Vocabulary.build(TEXTS, DECLARED, SAID)


def ids(text):
    return TEXTS.encode(text)


def test_ids_of_their_own_follow_the_modalities_special_tokens_and_plain_text_has_none():
    without = Vocabulary.build(TEXTS, DECLARED)
    specials = [block.name for block in without.blocks if block.kind == "special"]
    names = [block.name for block in VOCABULARY.blocks]
    assert names[: len(specials) + 3] == ["text", *specials, "<think>", "<hush>"]
    assert VOCABULARY.size == without.size + 2
    assert {block.owner for block in VOCABULARY.blocks if block.name in ("<think>", "<hush>")} == {"mind"}
    assert VOCABULARY.controls.ids == {
        "noise": (160, 150, 162),  # bytes of <2> from id 100 on
        "think": (VOCABULARY.id("<think>"),),
        "query": (160, 149, 162),
        "hush": (VOCABULARY.id("<hush>"),),
    }


def test_special_tokens_of_modalities_are_written_in_templates_and_read_in_answers():
    shared = ("speech", replace(DECLARED[1][1], name="other"))
    said = special_controls([("late", TEXT_OF_CHAT), *DECLARED[1:], shared])
    assert [(owner, token.name, token.action) for owner, token in said] == [
        ("speech", "[SPCH]", "go_on"),
        ("image", "[IMG]", "go_on"),
    ]
    vocabulary = Vocabulary.build(TEXTS, DECLARED, said)
    assert vocabulary.size == Vocabulary.build(TEXTS, DECLARED).size
    template = compiled("{control:[IMG]} {word}", "ok{control:[IMG]}")
    assert control_name_problems(Template(direction="d", response="{control:[IMX]}"), ["[IMG]"]) == [
        "no control token `[IMX]`; did you mean `[IMG]`? (there are [IMG])"
    ]
    rendered = Renderer(vocabulary, FakeCodecs(TEXTS), LossConfig()).render(to_document({"word": "[IMG]"}, template))
    index = vocabulary.id("[IMG]")
    text = [*ids("[IMG]"), vocabulary.id("[IMG]")]
    assert [token for token in rendered.tokens.tolist() if token == index or token >= 400] == [index, index]
    assert rendered.tokens.tolist().count(text[0]) == 1  # what a field says stays text
    assert parse_tokens([*ids("a"), index, *ids("b")], vocabulary, TEXTS).parts == ("a", Control("[IMG]"), "b")


def test_they_grow_by_name_and_come_back():
    base = Vocabulary.build(TEXTS, DECLARED, SAID[:2])
    grown = Vocabulary.build(TEXTS, DECLARED, SAID, base=base)
    assert grown.id("<think>") == base.id("<think>")
    assert grown.id("<hush>") == base.size
    without = Vocabulary.build(TEXTS, DECLARED, base=grown)
    assert [block.name for block in without.blocks if block.absent] == ["<think>", "<hush>"]
    assert not without.controls
    assert parse_tokens([grown.id("<think>")], without, TEXTS).parts == ()
    back = Vocabulary.build(TEXTS, DECLARED, SAID, base=Vocabulary.from_json(without.to_json()))
    assert back.controls.ids == grown.controls.ids


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (replace(THINK, token="t17"), "token `t17` of plugin `mine` is already a token of the text tokenizer"),
        (replace(THINK, token="<image>"), "`<image>` is claimed by plugin `image` and by plugin `mine`"),
        (replace(QUERY, name="more", token="<1>b"), "`more` of plugin `mine`: `<1>b` begins with the tokens of `<1>`"),
        (
            ControlToken(name="again", token="[a]", action="insert", insert="<2> says who"),
            "`again` of plugin `mine`: its `insert` begins with `<2>`, which is a control token itself",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_its_plugin(declared, message):
    with pytest.raises(VocabularyError, match=re.escape(message)):
        Vocabulary.build(TEXTS, DECLARED, [*SAID, ("mine", declared)])


def test_plain_text_that_the_tokenizer_does_not_keep_is_refused():
    class Lossy(FakeText):
        def encode(self, text):
            return [100 + ord("?")] * len(text)

    with pytest.raises(
        VocabularyError, match=r"`noise` of plugin `states`: the text tokenizer makes '\?\?\?' of `<2>`"
    ):
        Vocabulary.build(Lossy(), DECLARED, SAID)


def test_answers_are_read_with_their_control_tokens():
    think, hush = VOCABULARY.id("<think>"), VOCABULARY.id("<hush>")
    parts = parse_tokens([*ids("<1>"), think, *ids("so <2> is"), think, *ids("text")], VOCABULARY, TEXTS).parts
    assert parts == (Control("query"), Control("think"), "so <2> is", Control("think"), "text")
    assert parse_tokens([*ids("<2>")], VOCABULARY, TEXTS).parts == (Control("noise"),)
    assert parse_tokens([*ids("<2")], VOCABULARY, TEXTS).parts == ("<2",)
    assert parse_tokens([*ids("<"), hush, *ids("1>")], VOCABULARY, TEXTS).parts == ("<", Control("hush"), "1>")
    assert parse_tokens([*ids(" <1>")], VOCABULARY, TEXTS).parts == (" <1>",)


pieces = st.lists(st.one_of(st.sampled_from([Control("noise"), Control("query"), Control("think"), Control("hush")]),
                            st.text("ab<12>", min_size=1, max_size=4),
                            st.just(Codes("speech", speech_codes(2)))), max_size=6)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_reading_inverts_writing(content):
    """Where plain text control tokens come first, as in all training data, and no text looks like one."""
    order = sorted(content, key=lambda item: not (isinstance(item, Control) and item.name in ("noise", "query")))
    text = "".join(item if isinstance(item, str) else "|" for item in order if not isinstance(item, Control))
    if text.startswith(("<1>", "<2>")):
        return
    renderer = Renderer(VOCABULARY, FakeCodecs(TEXTS), LossConfig())
    tokens = renderer.render(plain_document([], order)).tokens[1:-1]
    found = parse_tokens(tokens, VOCABULARY, TEXTS)
    assert found.problems == ()
    assert [part.name for part in found.parts if isinstance(part, Control)] == [
        item.name for item in order if isinstance(item, Control)
    ]
    assert "".join(part for part in found.parts if isinstance(part, str)) == "".join(
        item for item in order if isinstance(item, str)
    )
    spans = [part.codes for part in found.parts if isinstance(part, Codes)]
    assert all(np.array_equal(codes, speech_codes(2)) for codes in spans)


def labels(*rules):
    return Labels(SAID, [(f"plugin{number}", rule) for number, rule in enumerate(rules)])


def begun(of, content, prompt=("hm",), record=None):
    return list(of.begun(content, lambda: Turn(record or {}, 3, prompt), "field `word`"))


def test_the_first_rule_that_names_a_token_counts():
    turns = []
    first = labels(lambda turn: turns.append(turn) or "", lambda _: "query", lambda _: "noise")
    assert begun(first, ["yes"], ("what?",), {"a": 1}) == [Control("query"), "yes"]
    assert turns == [Turn({"a": 1}, 3, ("what?",))]
    assert begun(labels(lambda _: ""), ["yes"]) == ["yes"]
    assert begun(labels(), ["yes"]) == ["yes"]


@pytest.mark.parametrize("content", [[Control("noise")], ["", Control("think"), "well"], [Control("noise"), "<", "3>"]])
def test_an_answer_that_says_itself_what_it_begins_with_is_not_asked_about(content):
    assert begun(labels(lambda _: 1 / 0), content) == content


def test_a_special_token_of_a_modality_says_nothing_of_the_answer():
    bar = ("tune", special_control("<bar>"))
    of = Labels([*SAID, bar], [("mind", lambda _: "noise")])
    for content in ([Control("<bar>"), "la"], ["", Control("<bar>"), Control("<bar>")]):
        assert begun(of, content) == [Control("noise"), *content]
    for content in ([Control("<bar>"), Control("query"), "la"], [Control("think"), Control("<bar>")]):
        assert begun(of, content) == content
    document = to_document({"word": "la"}, compiled("Sing", "{control:<bar>} {word}"), labels=of)
    assert answer_of(document)[:2] == [Control("noise"), Control("<bar>")]
    with pytest.raises(DataError, match="begins with the text `<2>`"):
        begun(of, [Control("<bar>"), "<2>la"])


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda _: "nois", PluginError, "plugin `plugin0`, hook `mio_control_tokens`: `label` returned `nois`, no "
                                       "control token; did you mean `noise`?"),
        (lambda _: None, PluginError, "`label` returned nothing, not the name of a control token or an empty string"),
        (lambda turn: turn.record["where"], DataError, "`label` raised KeyError: 'where'"),
    ],
)  # fmt: skip
def test_a_rule_that_names_nothing_is_told_with_its_plugin(rule, error, message):
    with pytest.raises(error, match=re.escape(message)):
        begun(labels(rule), ["yes"])


@pytest.mark.parametrize("content", [["<1> she said"], [" ", "<", "1>"], [Control("think"), "<1>"]])
def test_text_that_would_be_read_as_a_control_token_is_refused(content):
    message = (
        "field `word` begins with the text `<1>`, which would be read as the control token `query` of plugin `states`"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        begun(labels(), content)
    assert begun(labels(), ["She said <1>"]) == ["She said <1>"]


def test_control_tokens_weigh_what_they_are_declared_to_in_answers_alone():
    half = replace(THINK, weight=0.5)
    vocabulary = Vocabulary.build(TEXTS, DECLARED, [("states", NOISE), ("mind", half)])
    renderer = Renderer(vocabulary, FakeCodecs(TEXTS), LossConfig(response_text=3, control=4))
    document = plain_document([Control("noise"), "a"], [Control("noise"), "b", Control("think")])
    rendered = renderer.render(document)
    assert rendered.weights.tolist() == [0, 0, 0, 0, 1, 4, 4, 4, 3, 2, 3]
    assert renderer.measure(document) == len(rendered) == 11
    assert rendered.control_numbers().tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0, 2, 0]
    assert renderer.prompt(document).tokens.tolist() == rendered.tokens[:5].tolist()
    assert rendered.truncate(7).control_numbers().tolist() == [0, 1, 1, 1, 0, 1, 1]
    with pytest.raises(DataError, match=r"no control token `nois`; did you mean `noise`\? \(there are noise, think\)"):
        renderer.render(plain_document([], [Control("nois")]))


def test_what_is_worth_nothing_is_nothing_to_learn():
    idle = Vocabulary.build(TEXTS, DECLARED, [("mind", replace(THINK, weight=0))])
    renderer = Renderer(idle, FakeCodecs(TEXTS), LossConfig(0, 0, 0, 0))
    assert not renderer.learns(plain_document([], [Control("think")]))
    assert Renderer(VOCABULARY, FakeCodecs(TEXTS), LossConfig(0, 0, 0, 0)).learns(
        plain_document([], [Control("think")])
    )


def compiled(prompt, response):
    return CompiledTemplate(Template(direction="there", prompt=prompt, response=response), "set")


def answer_of(document):
    return [segment.content for segment in document.segments[document.answer : -1]]


def test_templates_name_control_tokens():
    template = compiled("{word}", "{control:noise} {word} {{control:noise}}")
    assert template.fields == ("word",)
    assert answer_of(to_document({"word": "x"}, template)) == [Control("noise"), " x", " {control:noise}"]
    assert answer_of(to_document({"word": "x", "control": "y"}, compiled("{word}", "{control}"))) == ["y"]
    silent = compiled("{word}", "{control:noise}{word?}")
    assert answer_of(to_document({"word": "x"}, silent)) == [Control("noise"), "x"]
    assert control_name_problems(Template(direction="d", response="{control:nois}"), ["noise"]) == [
        "no control token `nois`; did you mean `noise`? (there are noise)"
    ]
    assert template_problems(Template(direction="d", response="{control:Noise}"))
    assert template_problems(Template(direction="d", response="{word:noise}"))


def test_rules_label_every_answer_once():
    seen = []

    def rule(turn):
        seen.append((turn.number, list(turn.prompt)))
        return turn.record["is"]

    record = {"is": "query", "word": "x"}
    plain = to_document(record, compiled("What?", " {word}"), labels=labels(rule))
    assert answer_of(plain) == [Control("query"), " x"]
    chat = to_document(record, compiled("What?", "{word}"), "chat", labels=labels(rule))
    assert chat.segments[chat.answer].content == Control("query")
    assert answer_of(to_document(record, compiled("", "{word}"), labels=labels(rule))) == ["x"]  # answers nothing
    assert seen == [(0, ["What?"])] * 2
    turns = [
        {"role": "user", "content": ["a", "b"]},
        {"role": "gpt", "content": "c"},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": [Control("noise"), "e"]},
        {"role": "user", "content": "f"},
        {"role": "assistant", "content": ""},
    ]
    document = to_document({"is": "noise", "messages": turns}, form="chat", labels=labels(rule))
    said = [one.content for one in document.segments if isinstance(one.content, Control)]
    assert said == [Control("noise")] * 3
    assert seen[2:] == [(0, ["a", "b"]), (2, ["f"])]
    with pytest.raises(DataError, match=r"`messages\[5\]`: the turn of the assistant is empty"):
        to_document({"is": "", "messages": turns}, form="chat", labels=labels(rule))


def test_text_that_would_be_read_as_a_control_token_is_told_with_its_field():
    record = {"word": "<2> or not", "messages": [{"role": "user", "content": "<2>"},
                                                {"role": "assistant", "content": "<2> it is"}]}  # fmt: skip
    with pytest.raises(DataError, match=r"template `set/there`: field `word` begins with the text `<2>`"):
        to_document(record, compiled("What?", " {word}"), labels=labels())
    with pytest.raises(DataError, match=r"template `set/there`: its response begins with the text `<2>`"):
        to_document(record, compiled("What?", "<2>"), labels=labels())
    with pytest.raises(DataError, match=r"`messages\[1\]`: the turn of the assistant begins with the text `<2>`"):
        to_document({"messages": record["messages"]}, form="chat", labels=labels())
    to_document(record, compiled("{word}", "yes"), labels=labels())
