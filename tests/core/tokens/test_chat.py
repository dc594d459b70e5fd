import pytest
from mio_world import DECLARED, FakeCodecs, FakeText, image_codes, speech_codes

from mio import DataError, Media
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.chat import chat_document
from mio.core.tokens.documents import Special
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

PICTURE = Media("image", image_codes(), key="a")
VOICE = Media("speech", speech_codes(3), key="b")
SYSTEM = {"default": "You are MIO.", "speech": "Respond with speech only."}


@pytest.fixture(scope="module")
def renderer():
    return Renderer(Vocabulary.build(FakeText(), DECLARED), FakeCodecs(), LossConfig(0.25, 0.5, 2.0, 4.0))


def spelled(renderer, tokens):
    """Text of tokens with the special ones in their own spelling."""
    names = {1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>", 7: "<|im_end|>"}
    vocabulary = renderer.__reduce__()[1][0]
    return "".join(
        names.get(token) or (chr(token - 100) if token < 64000 else vocabulary.token(token))
        for token in tokens.tolist()
    )


def test_chat_form_is_that_of_yi_chat(renderer):
    # the chat template in tokenizer_config.json of 01-ai/Yi-6B-Chat, with the leading bos of MIO's infer.py
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": ["Hello."]},
        {"role": "user", "content": ["What?"]},
        {"role": "assistant", "content": "That."},
    ]
    rendered = renderer.render(chat_document(messages, SYSTEM))
    assert spelled(renderer, rendered.tokens) == (
        "<|startoftext|>"
        "<|im_start|>system\nYou are MIO.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nThat.<|im_end|>\n"
    )
    supervised = rendered.tokens[rendered.weights > 0]
    assert spelled(renderer, supervised) == "Hello.<|im_end|>That.<|im_end|>"
    assert set(rendered.weights.tolist()) == {0.0, 2.0}


def test_the_prompt_ends_where_the_last_answer_begins(renderer):
    messages = [
        {"role": "user", "content": ["See: ", PICTURE]},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Say it"},
        {"role": "assistant", "content": VOICE},
    ]
    document = chat_document(messages, SYSTEM, output="speech")
    prompt = renderer.prompt(document).tokens
    assert spelled(renderer, prompt).endswith("<|im_start|>user\nSay it<|im_end|>\n<|im_start|>assistant\n")
    assert (renderer.render(document).tokens[: len(prompt)] == prompt).all()
    unanswered = chat_document([*messages[:-1], {"role": "assistant", "content": []}], SYSTEM, output="speech")
    assert (renderer.prompt(unanswered).tokens == prompt).all()


@pytest.mark.parametrize(
    ("answers", "output", "expected"),
    [
        (["word"], None, "You are MIO."),
        ([VOICE], None, "Respond with speech only."),
        ([[" ", VOICE]], None, "Respond with speech only."),
        ([["word", VOICE]], None, "You are MIO."),
        ([VOICE, "word"], None, "You are MIO."),
        ([VOICE, VOICE], None, "Respond with speech only."),
        ([PICTURE], None, "You are MIO."),
        ([[]], "speech", "Respond with speech only."),
        ([[]], "", "You are MIO."),
    ],
)
def test_the_system_prompt_follows_what_is_said(answers, output, expected):
    messages = [message for answer in answers for message in _turns(answer)]
    assert chat_document(messages, SYSTEM, output).segments[3].content == expected


def _turns(answer):
    return {"role": "user", "content": "x"}, {"role": "assistant", "content": answer}


@pytest.mark.parametrize(
    ("asked", "answer", "output", "expected"),
    [
        (["What?", PICTURE], "word", None, "You see it."),
        (["What?", VOICE, PICTURE], "word", None, "You hear it."),  # the first of the recipe
        (["What?", PICTURE], VOICE, None, "Respond with speech only."),
        (["What?", PICTURE], [], "", "You see it."),
        ("What?", PICTURE, None, "You are MIO."),
        ("What?", "word", None, "You are MIO."),
    ],
)
def test_the_system_prompt_may_follow_what_is_given(asked, answer, output, expected):
    system = {"given_video": "You watch it.", "given_speech": "You hear it.", "given_image": "You see it.", **SYSTEM}
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    assert chat_document(messages, system, output).segments[3].content == expected


def test_no_system_prompt_without_one_in_the_recipe():
    document = chat_document(_turns("y"), {"speech": "Respond with speech only."})
    assert document.segments[2].content == "user\n"


def test_a_conversation_keeps_its_own_system_prompt():
    document = chat_document([{"role": "system", "content": "Mine."}, *_turns("y")], SYSTEM)
    contents = [segment.content for segment in document.segments]
    assert contents[:6] == [Special.BOS, Special.IM_START, "system\n", "Mine.", Special.IM_END, "\n"]
    assert "You are MIO." not in contents


def test_media_of_the_assistant_are_written_and_weighted(renderer):
    messages = [{"role": "user", "content": VOICE}, {"role": "assistant", "content": VOICE}]
    document = chat_document(messages, {})
    assert [s.view for s in document.segments if s.content is VOICE] == ["understand", "generate"]
    rendered = renderer.render(document)
    assert rendered.weights.sum() == 4.0 * (4 * 3 + 2) + 2.0  # the span of the answer, and its <|im_end|>


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "tool", "content": "x"}, "role `tool`; the roles are system, user, assistant"),
        ({"role": "user"}, "needs `role` and `content`, this one has: role"),
        ({"role": "user", "content": [{"type": "text"}]}, "holds a dict"),
    ],
)
def test_broken_messages(message, words):
    with pytest.raises(DataError, match=words):
        chat_document([message], {})


def test_turns_that_are_not_learnt_and_those_that_are_learnt_in_part(renderer):
    turns = [
        {"role": "human", "content": "a"},
        {"role": "assistant", "content": "bb", "weight": 0},
        {"role": "USER", "content": "c"},
        {"role": "gpt", "content": "dd", "weight": 0.25},
        {"role": "user", "content": "e"},
        {"role": "model", "content": "ff", "weight": 0.5, "train": True, "loss": None},
        {"role": "assistant", "content": "gg", "loss": False},
    ]
    document = chat_document(turns, {})
    rendered = renderer.render(document)
    learnt = rendered.weights > 0
    assert spelled(renderer, rendered.tokens[learnt]) == "dd<|im_end|>ff<|im_end|>"
    assert rendered.weights[learnt].tolist() == [0.5] * 3 + [1.0] * 3  # the loss weighs the response by 2
    assert renderer.learns(document)
    assert not renderer.learns(chat_document(turns[:2], {}))
    assert spelled(renderer, rendered.tokens) == spelled(
        renderer, renderer.render(chat_document(_unweighted(turns), {})).tokens
    )


def _unweighted(turns):
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


@pytest.mark.parametrize(("end_tag", "learnt"), [(None, True), (True, True), (False, False), (0, False)])
def test_the_end_of_an_answer_that_is_not_learnt(renderer, end_tag, learnt):
    # VITA, vita/util/data_utils_video_audio_neg_patch.py: answers to noise are learnt without the `</s>` behind them
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bb", "end_tag": end_tag}] * 2
    turns[3] = {"role": "assistant", "content": "cc"}
    rendered = renderer.render(chat_document(turns, SYSTEM))
    supervised = spelled(renderer, rendered.tokens[rendered.weights > 0])
    assert supervised == f"bb{'<|im_end|>' if learnt else ''}cc<|im_end|>"


def test_an_end_that_is_neither_learnt_nor_not_is_refused():
    with pytest.raises(DataError, match="`end_tag` of a turn is 'no'; it must be `true` or `false`"):
        chat_document([{"role": "assistant", "content": "x", "end_tag": "no"}], {})
