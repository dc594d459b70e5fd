"""Control tokens as ids: what they consist of, how they are told from text, what labels answers with them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import DECLARED, FakeCodecs, FakeText, speech_codes

from mio import Codes, Control, ControlToken, DataError, PluginError, Turn
from mio.core.errors import VocabularyError
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.controls import Labels
from mio.core.tokens.documents import plain_document
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

NOISE = ControlToken(name="noise", token="<2>", plain_text=True, action="silence")
QUERY = ControlToken(name="query", token="<1>", plain_text=True, action="interrupt")
THINK = ControlToken(name="think", token="<think>", anywhere=True)
HUSH = ControlToken(name="hush", token="<hush>", action="silence")
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
