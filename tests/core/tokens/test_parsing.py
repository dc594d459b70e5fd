import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mio_world import DECLARED, FakeCodecs, FakeText, image_codes, speech_codes

from mio import Codes, DataError, Frames, Modality
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.documents import interleaved_document, plain_document
from mio.core.tokens.parsing import parse_tokens
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

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
    assert parsed.problems == ("span of `image` at 0: 4 frames, a span has 32",)


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


def grids(modality):
    return st.integers(modality.frames.minimum, modality.frames.maximum).flatmap(
        lambda frames: st.lists(
            st.lists(st.integers(0, 4), min_size=frames, max_size=frames),
            min_size=len(modality.codebooks),
            max_size=len(modality.codebooks),
        ).map(np.array)
    )


def declarations(layouts):
    books = st.integers(1, 4) if layouts != ("flat",) else st.just(1)
    views = books.flatmap(
        lambda count: st.tuples(
            st.just(count),
            *[st.sets(st.integers(0, count - 1), min_size=1).map(lambda view: tuple(sorted(view)))] * 2,
        )
    )
    return st.builds(
        lambda layout, chosen: Modality(
            name="tones", codebooks=(5,) * chosen[0], begin="<t>", end="</t>", code_token="<t{}>", layout=layout,
            views={"understand": chosen[1], "generate": chosen[2]}, frames=Frames(minimum=1, maximum=4),
        ),
        st.sampled_from(layouts),
        views,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(declarations(("flat",)), declarations(("codebook_major", "frame_major", "delayed"))), st.data())
def test_what_was_read_is_rendered_again_to_the_same_tokens(modality, data):
    """Whatever the layout, in either view: an answer can be given back in the next turn."""
    text = FakeText(size=356)
    vocabulary = Vocabulary.build(text, [("text", DECLARED[0][1]), ("made", modality)])
    renderer = Renderer(vocabulary, FakeCodecs(), LossConfig())
    codes = data.draw(grids(modality))
    for document in (plain_document, lambda given, written: plain_document(written, given)):
        tokens = renderer.render(document(["ab", Codes("tones", codes)], [])).tokens.tolist()
        parsed = parse_tokens(tokens, vocabulary, text)
        assert not parsed.problems
        assert renderer.render(document(parsed.parts, [])).tokens.tolist() == tokens
        carried = modality.view("understand" if document is plain_document else "generate")
        assert np.array_equal(parsed.parts[1].of(carried), codes[list(carried)])


def test_a_view_that_needs_codebooks_which_an_answer_lacks_is_an_error():
    (part,) = parse(RENDERER.render(plain_document([VOICE], [])).tokens).parts
    assert (part.codebooks, part.codes.shape) == ((0,), (1, 5))
    assert parse(tokens_of(VOICE)).parts[0].codebooks == ()  # all of them
    with pytest.raises(DataError, match=r"codes of `speech` hold the codebooks \[0\] alone, codebook 1 is needed"):
        RENDERER.render(plain_document([], [part]))


@pytest.mark.parametrize("codebooks", [(1, 0), (0, 0), (-1, 0)])
def test_codebooks_are_given_in_order(codebooks):
    with pytest.raises(DataError, match="not in ascending order"):
        Codes("speech", speech_codes(3)[:2], codebooks)


def test_codes_of_some_codebooks_are_checked_like_all():
    with pytest.raises(DataError, match="there is no codebook 4"):
        RENDERER.render(plain_document([Codes("speech", speech_codes(3)[:1], (4,))], []))
    with pytest.raises(DataError, match=r"integers of shape \[2, frames\]"):
        RENDERER.render(plain_document([Codes("speech", speech_codes(3)[:1], (0, 1))], []))
    with pytest.raises(DataError, match="code 1024 at frame 0 is outside codebook 2 of 1024"):
        RENDERER.render(plain_document([Codes("speech", np.array([[1], [1024]]), (0, 2))], []))
