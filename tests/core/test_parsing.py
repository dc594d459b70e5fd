import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mio_world import DECLARED, FakeCodecs, FakeText, image_codes, speech_codes

from mio import Codes, DataError
from mio.core.documents import interleaved_document, plain_document
from mio.core.parsing import parse_tokens
from mio.core.rendering import Renderer
from mio.core.schema import LossConfig
from mio.core.vocabulary import Vocabulary

TEXT = FakeText()
VOCABULARY = Vocabulary.build(TEXT, DECLARED)
RENDERER = Renderer(VOCABULARY, FakeCodecs(), LossConfig())
PICTURE = Codes("image", image_codes(7))
VOICE = Codes("speech", speech_codes(5))


def tokens_of(*parts):
    return RENDERER.render(interleaved_document(parts)).tokens.tolist()[1:-1]


def parse(tokens):
    return parse_tokens(tokens, VOCABULARY, TEXT)


def same(one, two):
    if isinstance(one, str) or isinstance(two, str):
        return one == two
    return one.modality == two.modality and np.array_equal(one.codes, two.codes)


contents = st.one_of(
    st.text(min_size=1, max_size=6),
    st.integers(0, 8191).map(lambda start: Codes("image", image_codes(start))),
    st.integers(1, 9).map(lambda frames: Codes("speech", speech_codes(frames, frames))),
)


@given(st.lists(contents, max_size=6))
def test_what_was_rendered_is_read_back(parts):
    parsed = parse(tokens_of(*parts) if parts else [])
    merged = []
    for part in parts:  # neighbouring texts are one text
        if merged and isinstance(part, str) and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    assert len(parsed.parts) == len(merged)
    assert all(same(one, two) for one, two in zip(parsed.parts, merged, strict=True))
    assert parsed.problems == ()
    assert parsed.unfinished == ""


def test_special_tokens_are_no_content():
    whole = RENDERER.render(plain_document(["ab"], ["cd"])).tokens
    assert parse([*whole, VOCABULARY.id("[IMG]"), VOCABULARY.specials.im_end]).parts == ("abcd",)


def test_a_span_of_the_other_view_is_read():
    tokens = RENDERER.render(plain_document([VOICE], [])).tokens
    (part,) = parse(tokens).parts
    assert np.array_equal(part.codes, VOICE.codes[:1])


@pytest.mark.parametrize("kept", [1, 2, 21])
def test_an_unfinished_span_is_told(kept):
    parsed = parse([*tokens_of("ab"), *tokens_of(VOICE)[:kept]])
    assert parsed.parts == ("ab",)
    assert parsed.unfinished == "speech"
    assert parsed.problems == ()


def test_a_span_that_is_no_grid_is_told_and_reading_goes_on():
    image = tokens_of(PICTURE)
    parsed = parse([*image[:5], image[-1], *tokens_of("ab", PICTURE)])
    assert parsed.parts[0] == "ab"
    assert len(parsed.parts) == 2
    assert parsed.problems == ("span of `image` at 0: 4 frames, a span has 32 to 32",)


def test_a_span_that_is_broken_off_is_told_and_reading_goes_on():
    parsed = parse([*tokens_of(VOICE)[:4], *tokens_of("ab"), VOCABULARY.end("speech"), *tokens_of(PICTURE)])
    assert parsed.parts[0] == "ab"
    assert same(parsed.parts[1], PICTURE)
    assert parsed.problems == ("span of `speech` at 0 is broken off at 4",)


def test_a_wrong_order_of_codebooks_is_told():
    voice = tokens_of(VOICE)
    voice[1], voice[6] = voice[6], voice[1]
    (problem,) = parse(voice).problems
    assert problem.startswith("span of `speech` at 0: code 0 of the span is of codebook 1")


def test_codes_outside_a_span_are_told():
    code = VOCABULARY.code_ids("image", 0).start
    assert parse([code, *tokens_of("ab")]).problems == ("code of `image` at 0 is outside a span",)


@given(
    st.lists(st.sampled_from([1, 2, 105, 64000, 64001, 64003, 64004, 64006, 65030, 66054, 67078, 68102]), max_size=60)
)
def test_anything_can_be_read(tokens):
    parsed = parse(tokens)
    for part in parsed.parts:
        assert part if isinstance(part, str) else part.codes.size
    ends = [index for index, token in enumerate(tokens) if token in (64000, 64003)]
    assert parsed.unfinished in ("", "image", "speech")
    assert bool(parsed.unfinished) <= bool(ends)


@pytest.mark.parametrize("token", [-1, VOCABULARY.size])
def test_an_id_outside_is_an_error(token):
    with pytest.raises(DataError, match="outside the vocabulary of 76294 ids"):
        parse([token])
