"""Documents, seen through the ids and loss weights that come of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mio_world import DECLARED, FakeCodecs, FakeText, image_codes, speech_codes

from mio import Media
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.documents import interleaved_document, plain_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

BOS, EOS, FRAMES = 1, 2, 5
PICTURE, VOICE = Media("image", image_codes(), key="a"), Media("speech", speech_codes(FRAMES), key="b")
VOCABULARY = Vocabulary.build(FakeText(), DECLARED)
PROMPTS = LossConfig(prompt_text=1, prompt_media=1, response_text=0, response_media=0)
RESPONSES = LossConfig(prompt_text=0, prompt_media=0, response_text=1, response_media=1)
CONTENTS = st.lists(st.one_of(st.text(min_size=1, max_size=9), st.sampled_from([PICTURE, VOICE])), max_size=4)


def render(document, loss=RESPONSES):
    return Renderer(VOCABULARY, FakeCodecs(), loss).render(document)


def length(contents, books):
    """Ids of text in bytes, of a picture's 32 codes, and of a voice's codebooks that are shown; media have borders."""
    sizes = {id(PICTURE): 2 + 32, id(VOICE): 2 + books * FRAMES}
    return sum(len(part.encode()) if isinstance(part, str) else sizes[id(part)] for part in contents)


@given(CONTENTS, CONTENTS)
def test_a_prompt_is_the_beginning_of_what_training_shows_and_an_answer_is_the_rest(prompt, response):
    whole = plain_document(prompt, response)
    asked = Renderer(VOCABULARY, FakeCodecs(), RESPONSES).prompt(plain_document(prompt, ())).tokens.tolist()
    shown = render(whole).tokens.tolist()
    # a voice is read by its first codebook and written with all four
    assert (len(asked), len(shown)) == (1 + length(prompt, 1), 1 + length(prompt, 1) + length(response, 4) + 1)
    assert shown[: len(asked)] == asked
    assert (shown[0], shown[-1]) == (BOS, EOS)
    # every token but the first is a target, by the weight of its side
    rest = len(shown) - len(asked)
    assert render(whole, RESPONSES).weights.tolist() == [0] * len(asked) + [1] * rest
    assert render(whole, PROMPTS).weights.tolist() == [0] + [1] * (len(asked) - 1) + [0] * rest


@given(CONTENTS)
def test_an_interleaved_document_is_all_written(parts):
    document = interleaved_document(parts)
    assert render(document, RESPONSES).weights.tolist() == [0] + [1] * (length(parts, 4) + 1)
    assert not render(document, PROMPTS).weights.any()
