"""The grammar of answers: whatever its masks let through parses completely, keeps the budget and meets the need."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import IMAGE, MUSIC, SPEECH, TEXT, VIDEO, FakeText

from mio import Codes, Control, ControlToken, Frames, Modality, UserError
from mio.core.generation.grammar import AnswerGrammar, Grammar, Need, need_of
from mio.core.generation.states import Between
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.vocabulary import Vocabulary

TONES = Modality(
    name="tones",
    codebooks=(4, 4, 4),
    begin="<t>",
    end="</t>",
    code_token="<t{}>",
    layout="delayed",
    views={"generate": (0, 2)},
    frames=Frames(minimum=2, maximum=5),
)
DECLARED = [("made", modality) for modality in (TEXT, SPEECH, IMAGE, VIDEO, MUSIC, TONES)]
TEXTS = FakeText(size=356)
VOCABULARY = Vocabulary.build(TEXTS, DECLARED)
MODALITIES = {modality.name: modality for _, modality in DECLARED}
GRAMMAR = Grammar(VOCABULARY, MODALITIES, VOCABULARY.specials.im_end)


@lru_cache
def ids(grammar, state):
    return np.array(grammar.allowed(state))


def allowed(grammar, answer):
    return ids(grammar, answer.state())


SAID = (
    ControlToken(name="noise", token="<2>", plain_text=True, action="silence"),
    ControlToken(name="query", token="<1>", plain_text=True, action="interrupt"),
    ControlToken(name="hum", token="<3>", plain_text=True, action="insert", insert="Hm."),
    ControlToken(name="think", token="<think>", anywhere=True, action="insert", insert="So: "),
    ControlToken(name="over", token="<over>", anywhere=True, action="stop"),
    ControlToken(name="aside", token="<aside>"),
)
SAYING = Vocabulary.build(TEXTS, DECLARED, [("said", token) for token in SAID])
SPEAKING = Grammar(SAYING, MODALITIES, SAYING.specials.im_end)


def walk(answer, seed, grammar=GRAMMAR, stop_share=0.02):
    """Tokens of a random answer, uniform among those allowed; kinds of tokens are drawn first, so that all occur."""
    draw = np.random.default_rng(seed)
    tokens = []
    while not answer.done:
        choices = allowed(grammar, answer)
        assert len(choices), "nothing may come next"
        if len(choices) > 1 and grammar.stop in choices and draw.random() > stop_share:
            choices = choices[choices != grammar.stop]
        blocks = grammar.vocabulary.block_of[choices]
        block = draw.choice(np.unique(blocks))
        token = int(draw.choice(choices[blocks == block]))
        answer.advance(token)
        if token != grammar.stop:
            tokens.append(token)
    return tokens


needs = st.one_of(
    st.just(Need()),
    st.builds(need_of, st.sampled_from(["text", "speech", "image", "video", "music", "tones"]),
              st.just(MODALITIES), st.booleans()),
    st.builds(Need, st.just("tones"), st.integers(0, 3), st.sampled_from([0, 3, 4])),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(need=needs, budget=st.integers(80, 220), seed=st.integers(0, 10**6))
def test_a_random_answer_parses_completely_keeps_its_budget_and_meets_its_need(need, budget, seed):
    tokens = walk(AnswerGrammar(GRAMMAR, need, budget), seed)
    assert len(tokens) + 1 <= budget
    parsed = parse_tokens(tokens, VOCABULARY, TEXTS)
    assert parsed.problems == ()
    assert parsed.unfinished == ""
    assert not set(tokens) & {
        getattr(VOCABULARY.specials, name) for name in ("pad", "bos", "eos", "im_start", "im_end")
    }
    spans = [part for part in parsed.parts if isinstance(part, Codes)]
    for span in spans:
        declared = MODALITIES[span.modality]
        assert len(span.codes) == len(declared.view("generate"))  # a grid: every codebook has as many codes
        assert declared.frames.minimum <= span.codes.shape[1] <= declared.frames.maximum
    counted = sum(span.modality == need.modality for span in spans)
    if need.modality:
        assert counted >= need.least
        assert not need.most or counted <= need.most
    if need.only:
        assert {span.modality for span in spans} <= {need.modality}


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_one_item_have_nothing_between_them(seed):
    need = need_of("video", MODALITIES, only=True)
    tokens = walk(AnswerGrammar(GRAMMAR, need, 34 * 8 + 60), seed)
    kinds = [
        "text" if isinstance(part, str) else part.modality for part in parse_tokens(tokens, VOCABULARY, TEXTS).parts
    ]
    assert 2 <= kinds.count("image") <= 8
    first = kinds.index("image")
    assert kinds[first : first + kinds.count("image")] == ["image"] * kinds.count("image")


@pytest.mark.parametrize("seed", range(5))
def test_spans_of_fixed_frames_have_exactly_these(seed):
    tokens = walk(AnswerGrammar(GRAMMAR, need_of("image", MODALITIES, only=True), 60), seed)
    [span] = [part for part in parse_tokens(tokens, VOCABULARY, TEXTS).parts if isinstance(part, Codes)]
    assert span.codes.shape == (1, 32)


@pytest.mark.parametrize(
    ("output", "least"), [("image", 1 + 34), ("speech", 1 + 6), ("video", 1 + 68), ("tones", 1 + 6), ("text", 1)]
)
def test_the_smallest_budget_is_just_enough(output, least):
    need = need_of(output, MODALITIES, only=True)
    with pytest.raises(UserError, match=f"{least - 1} tokens are too few.*take {least}"):
        AnswerGrammar(GRAMMAR, need, least - 1)
    tokens = walk(AnswerGrammar(GRAMMAR, need, least), 0)
    assert len(tokens) + 1 <= least
    assert parse_tokens(tokens, VOCABULARY, TEXTS).problems == ()


def test_an_unknown_output_is_named_with_what_there_is():
    with pytest.raises(UserError, match="no modality `smell` in this run; it has image, music, speech"):
        need_of("smell", MODALITIES, only=False)


def test_ids_of_an_absent_plugin_padding_and_special_tokens_are_never_allowed():
    """The vocabulary knows music from an earlier run; the recipe does not use its plugin any more."""
    declared = [pair for pair in DECLARED if pair[1].name != "music"]
    vocabulary = Vocabulary.build(TEXTS, declared, base=VOCABULARY)
    grammar = Grammar(vocabulary, {modality.name: modality for _, modality in declared}, vocabulary.specials.eos)
    answer = AnswerGrammar(grammar, Need(), 200)
    choices = {int(token) for token in allowed(grammar, answer)}
    absent = {index for block in vocabulary.blocks if block.absent for index in block.ids}
    assert len(absent) == 2 + sum(MUSIC.codebooks)
    assert not choices & absent
    assert max(choices) < vocabulary.size
    specials = {vocabulary.specials.pad, vocabulary.specials.bos, vocabulary.specials.im_start}
    assert not choices & specials
    assert vocabulary.specials.eos in choices
    assert vocabulary.begin("image") in choices
    assert vocabulary.end("image") not in choices


def test_the_codebooks_of_a_span_are_those_that_are_written():
    """`tones` is written with its codebooks 0 and 2, step by step (delayed layout)."""
    answer = AnswerGrammar(GRAMMAR, need_of("tones", MODALITIES, only=True), 60)
    answer.advance(VOCABULARY.begin("tones"))
    blocks = []
    while answer.in_span:
        choices = allowed(GRAMMAR, answer)
        token = int(choices[-1])
        blocks.append(VOCABULARY.blocks[VOCABULARY.block_of[token]].name)
        answer.advance(token)
    assert set(blocks) <= {"tones/codebook0", "tones/codebook2", "</t>"}
    assert blocks.count("tones/codebook0") == blocks.count("tones/codebook2")


def spoken(seed, need, budget):
    """A random answer that is likely to begin with control tokens of plain text: its tokens, content and grammar."""
    draw = np.random.default_rng(seed)
    answer, tokens = AnswerGrammar(SPEAKING, need, budget), []
    wanted = [token for name in draw.choice(["noise", "query", "hum"], draw.integers(3)) for token in
              SAYING.controls.ids[name]]  # fmt: skip
    while wanted and not answer.done:
        token = wanted.pop(0) if wanted[0] in (choices := allowed(SPEAKING, answer)) else int(choices[0])
        answer.advance(token)
        tokens.append(token)
    if not answer.done:
        tokens += walk(answer, seed, SPEAKING)
    return tokens, parse_tokens(tokens, SAYING, TEXTS), answer


@settings(max_examples=200, deadline=None)
@given(need=needs, budget=st.integers(80, 160), seed=st.integers(0, 10**6))
def test_control_tokens_come_where_they_may_and_do_what_they_are_declared_to_do(need, budget, seed):
    tokens, parsed, answer = spoken(seed, need, budget)
    parts, declared = parsed.parts, {token.name: token for token in SAID}
    said = [part.name for part in parts if isinstance(part, Control)]
    assert parsed.problems == ()
    assert len(tokens) <= budget
    assert answer.controls == said  # two readers, one of single tokens, one of the whole
    if need.modality:
        assert sum(isinstance(part, Codes) and part.modality == need.modality for part in parts) >= need.least
    begins = True
    for place, part in enumerate(parts):
        if not isinstance(part, Control):
            begins = False
            continue
        token = declared[part.name]
        assert begins or token.anywhere
        if token.insert:
            assert parts[place + 1].startswith(token.insert)
        assert (token.action in ("silence", "stop")) <= (place == len(parts) - 1)


def test_an_answer_ends_with_silence_and_what_it_says_is_no_stop_token():
    for name, rest in (("noise", 0), ("over", 0), ("query", 1), ("aside", 1)):
        answer = AnswerGrammar(SPEAKING, Need(), 40)
        *first, last = SAYING.controls.ids[name]
        for token in first:
            assert answer.advance(token) is None
            assert not answer.done
        assert answer.advance(last).name == name
        assert answer.done == (rest == 0)


def test_what_would_end_an_answer_waits_for_what_it_has_to_hold():
    answer = AnswerGrammar(SPEAKING, need_of("image", MODALITIES, only=True), 60)
    for token in SAYING.controls.ids["noise"][:-1]:
        answer.advance(token)
    choices = allowed(SPEAKING, answer)
    assert SAYING.controls.ids["noise"][-1] not in choices
    assert SAYING.id("<over>") not in choices
    assert SAYING.id("<think>") in choices


def test_what_is_inserted_comes_as_it_is_and_only_where_there_is_room():
    text = TEXTS.encode("So: ")
    answer = AnswerGrammar(SPEAKING, Need(), 1 + len(text) + 1)
    assert answer.advance(SAYING.id("<think>")).insert == "So: "
    for token in text:
        assert allowed(SPEAKING, answer).tolist() == [token]
        answer.advance(token)
    assert allowed(SPEAKING, answer).tolist() == [SPEAKING.stop, SAYING.id("<over>")]
    assert SAYING.id("<think>") not in allowed(SPEAKING, AnswerGrammar(SPEAKING, Need(), len(text) + 1))


def test_control_tokens_of_a_plugin_that_is_not_in_use_are_never_allowed():
    without = Vocabulary.build(TEXTS, DECLARED, base=SAYING)
    grammar = Grammar(without, MODALITIES, without.specials.im_end)
    assert not {SAYING.id("<think>"), SAYING.id("<over>")} & set(allowed(grammar, AnswerGrammar(grammar, Need(), 9)))


@settings(max_examples=60, deadline=None)
@given(need=needs, budget=st.integers(80, 160), seed=st.integers(0, 10**6))
def test_a_state_does_not_depend_on_having_been_asked_for_before(need, budget, seed):
    """Between spans states are kept as long as nothing changes: the same answer, never asked, has the same ones."""
    tokens, _, _ = spoken(seed, need, budget)
    asked, states = AnswerGrammar(SPEAKING, need, budget), []
    for token in tokens:
        states.append(asked.state())
        asked.advance(token)
    for count in range(0, len(tokens), 7):
        fresh = AnswerGrammar(SPEAKING, need, budget)
        for token in tokens[:count]:
            fresh.advance(token)
        assert fresh.state() == states[count]


def test_what_may_come_is_kept_for_a_bounded_number_of_states():
    grammar = Grammar(VOCABULARY, MODALITIES, VOCABULARY.specials.im_end)
    for bar in range(3000):
        grammar.place(Between(("text",), may_stop=True, barred=(10 + bar % 300, 10 + bar // 300)))
    assert sys.getsizeof(grammar._places.kept) < 10**5


def test_the_grammar_needs_no_torch():
    """Other programs that follow an answer need nothing else of mio."""
    code = "import sys, mio.core.generation.grammar; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_an_answer_of_a_model_that_knows_text_alone():
    vocabulary = Vocabulary.build(TEXTS, [("made", TEXT)])
    grammar = Grammar(vocabulary, {"text": TEXT}, vocabulary.specials.im_end)
    specials = {vocabulary.specials.pad, vocabulary.specials.bos, vocabulary.specials.eos, vocabulary.specials.im_start}
    answer = AnswerGrammar(grammar, Need(), 2)
    assert set(allowed(grammar, answer)) == set(range(TEXTS.size)) - specials
    answer.advance(100)
    assert allowed(grammar, answer).tolist() == [grammar.stop]
