import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mio_world import DECLARED, MUSIC, SPEECH, FakeCodecs, FakeText, image_codes, speech_codes

from mio import Codes, DataError, Media, Template
from mio.core.recipe.schema import LossConfig
from mio.core.tokens.documents import Document, Segment, interleaved_document, plain_document
from mio.core.tokens.raw_media import raw_media
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.templates import CompiledTemplate, to_document
from mio.core.tokens.tokenised import TokenisedText
from mio.core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary.build(FakeText(), [*DECLARED, ("melody", MUSIC)], base=Vocabulary.build(FakeText(), DECLARED))
LOSS = LossConfig(prompt_text=0.25, prompt_media=0.5, response_text=2.0, response_media=4.0)
RENDERER = Renderer(VOCABULARY, FakeCodecs(), LOSS)
PICTURE = Media("image", image_codes(5), key="five")
VOICE = Media("speech", np.array([[1, 2], [3, 4], [5, 6], [7, 1023]]), key="voice")


def bytes_of(text):
    return [100 + byte for byte in text.encode()]


def test_mio_reads_speech_by_content_and_writes_all_codebooks_in_turn():
    # arXiv 2409.17692, section 2.1: <spch> A... B... C... D... </spch>; ids of codebook q from 64006 + 1024 q on
    rendered = RENDERER.render(plain_document([VOICE], [VOICE]))
    read = [64000, 64007, 64008, 64001]
    written = [64000, 64007, 64008, 65033, 65034, 66059, 66060, 67085, 68101, 64001]
    assert rendered.tokens.tolist() == [1, *read, *written, 2]
    assert rendered.weights.tolist() == [0.0] + [0.5] * 4 + [4.0] * 10 + [2.0]
    assert rendered.spans.tolist() == [[1, 5], [5, 15]]
    assert (rendered.tokens.dtype, rendered.weights.dtype) == (np.int32, np.float32)
    assert len(rendered) == 16


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_a_template_gives_speech_as_it_is_written_where_it_says_so(form):
    # the repository of MIO: `tokenize_speeches(add_timbre=True)` of speech that is given; ids as above
    written = [64000, 64007, 64008, 65033, 65034, 66059, 66060, 67085, 68101, 64001]
    record = {"voice": [VOICE, Codes("speech", VOICE.data)], "heard": VOICE, "say": "ab"}
    template = Template(direction="clone", prompt="{voice:generate}{heard}Say {say:generate}", response="{heard}")
    document = to_document(record, CompiledTemplate(template), form)
    spans = RENDERER.render(document)
    read = [64000, 64007, 64008, 64001]
    assert [spans.tokens[first:end].tolist() for first, end in spans.spans] == [written, written, read, written]
    # what is only given weighs as what is read does, and a prompt is the beginning of what is trained on
    loss = {"plain": 0.5, "chat": 0.0}[form]
    assert [set(spans.weights[first:end]) for first, end in spans.spans] == [{loss}, {loss}, {loss}, {4.0}]
    assert RENDERER.measure(document) == len(spans.tokens)
    prompt = RENDERER.prompt(document).tokens
    assert len(prompt) == spans.spans[-1][0]
    assert np.array_equal(prompt, spans.tokens[: len(prompt)])


def test_anygpt_writes_music_frame_by_frame():
    # arXiv 2402.12226, section 3.1: the codebooks of frame 1, then of frame 2
    music = Codes("music", np.array([[0, 1], [2, 3], [4, 5], [6, 7]]))
    ids = [VOCABULARY.token(token) for token in RENDERER.render(interleaved_document([music])).tokens[1:-1]]
    numbers = [0, 2048 + 2, 4096 + 4, 6144 + 6, 1, 2048 + 3, 4096 + 5, 6144 + 7]
    assert ids == ["<somu>", *(f"<🎶{number}>" for number in numbers), "<eomu>"]


def test_text_and_images_by_hand():
    rendered = RENDERER.render(plain_document(["ab", PICTURE], ["c"]))
    image = [64003, *(68102 + code for code in range(5, 37)), 64004]
    assert rendered.tokens.tolist() == [1, *bytes_of("ab"), *image, *bytes_of("c"), 2]
    assert rendered.weights.tolist() == [0, 0.25, 0.25, *[0.5] * 34, 2, 2]


def test_video_is_a_sequence_of_image_spans():
    frames = [Media("image", image_codes(index), key=f"{index}") for index in (3, 9)]
    video = Media("video", frames, key="clip")
    assert RENDERER.render(plain_document([video], [video])).tokens.tolist() == (
        RENDERER.render(plain_document(frames, frames)).tokens.tolist()
    )
    assert RENDERER.render(plain_document([video], ["x"])).spans.tolist() == [[1, 35], [35, 69]]
    for count in (1, 9):
        with pytest.raises(DataError, match=f"`video` clip has {count} frames, a span has 2 to 8"):
            RENDERER.render(plain_document([Media("video", frames[:1] * count, key="clip")], []))
    with pytest.raises(DataError, match="`video` has no codes of its own: give those of each `image`"):
        RENDERER.render(plain_document([Codes("video", image_codes())], []))


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (Media("speech", speech_codes(3)[:3], "k7"), r"`speech` k7: codes are int64 \[3, 3\].*\[4, frames\]"),
        (Media("image", image_codes()[0], "k7"), r"`image` k7: codes are int64 \[32\]"),
        (Media("image", image_codes() + 0.5, "k7"), r"`image` k7: codes are float64 \[1, 32\]"),
        (Media("image", image_codes()[:, :31], "k7"), r"`image` k7 has 31 frames, a span has 32$"),
        (Codes("image", image_codes()[:, :31]), r"`image` given as codes has 31 frames"),
        (Media("image", image_codes() + 8192, "k7"), r"`image` k7: code 8192 at frame 0 .* codebook 0 of 8192 codes"),
        (
            Media("speech", np.array([[0], [0], [-1], [0]], dtype=np.int16), "k7"),
            r"`speech` k7: code -1 at frame 0 .* codebook 2 of 1024 codes",
        ),
        (Media("text", "word", "k7"), "`text` has no codes"),
    ],
)
def test_codes_that_do_not_fit_are_named(media, message):
    with pytest.raises(DataError, match=message):
        RENDERER.render(plain_document([media], []))


def test_a_code_that_is_not_carried_is_checked_too():
    wrong = VOICE.data.copy()
    wrong[3, 0] = 1024
    with pytest.raises(DataError, match="codebook 3"):
        RENDERER.render(plain_document([Media("speech", wrong, "k")], []))


def test_truncation_never_cuts_a_span():
    rendered = RENDERER.render(plain_document(["ab", PICTURE, "cd"], [VOICE]))
    tokens = rendered.tokens.tolist()
    for size in range(1, len(tokens) + 3):
        cut = rendered.truncate(size)
        expected = min(size, len(tokens))
        if 3 < size < 37:
            expected = 3
        if 39 < size < 49:
            expected = 39
        assert cut.tokens.tolist() == tokens[:expected]
        assert len(cut.weights) == expected
        assert all(end <= expected for _, end in cut.spans)
    assert rendered.truncate(len(tokens)) is rendered
    assert len(rendered.truncate(40).spans) == 1


def test_a_document_is_measured_as_it_is_rendered():
    codecs = FakeCodecs()
    renderer = Renderer(VOCABULARY, codecs, LOSS)
    long = "word " * 100
    known = TokenisedText(long, np.arange(7, dtype=np.uint16), np.arange(9, dtype=np.uint16))
    picture, voice = Codes("image", image_codes()), Codes("speech", VOICE.data)
    clip = Media("video", (picture, picture), "tokenised")
    raw = Media("video", [PICTURE] * 2, "raw")
    for contents in (["ab", picture, known], [known.spaced(), voice, ""], [clip], [voice], [raw, PICTURE, VOICE]):
        document = plain_document(contents, contents)
        assert renderer.measure(document) == len(renderer.render(document))
    assert long not in codecs.text.encoded
    document = plain_document([VOICE, long], [PICTURE])  # whose text alone is as much work as rendering it
    assert renderer.measure(document) == len(renderer.render(document))
    assert len(renderer.render(plain_document([known.spaced()], []))) == 9 + 2
    for content in (long, f" {known}"):
        assert renderer.measure(plain_document([content], [])) is None
    wide, short = Codes("image", image_codes() + 8192), Codes("image", image_codes()[:, :31])
    for wrong in (
        wide,
        short,
        Codes("video", image_codes()),
        Media("video", (picture,), "one"),
        Codes("text", VOICE.data),
    ):
        document = plain_document([wrong], [])
        with pytest.raises(DataError) as measured:
            renderer.measure(document)
        with pytest.raises(DataError) as rendered:
            renderer.render(document)
        assert str(measured.value) == str(rendered.value)


def test_a_document_without_codes_is_as_long_and_as_heavy_and_its_parts_render_as_their_whole():
    video = Media("video", [PICTURE, Media("image", image_codes(9), "nine")], "clip")
    document = plain_document(["ab", VOICE, video, "cd"], [VOICE, PICTURE])
    rendered, blank = RENDERER.render(document), RENDERER.render(document, {"speech", "image"})
    assert np.array_equal(rendered.weights, blank.weights)
    assert np.array_equal(rendered.spans, blank.spans)
    inside = np.zeros(len(rendered), bool)
    for start, end in rendered.spans:
        inside[start + 1 : end - 1] = True
    assert np.array_equal(rendered.tokens[~inside], blank.tokens[~inside])
    for (start, end), item in zip(rendered.spans, (VOICE, *video.data, VOICE, PICTURE), strict=True):
        view = "understand" if start < 60 else "generate"
        assert np.array_equal(RENDERER.span(item, view), rendered.tokens[start:end])
    one = RENDERER.render(document, {"speech"})
    assert np.array_equal(
        one.tokens[one.spans[1, 0] : one.spans[2, 1]], rendered.tokens[one.spans[1, 0] : one.spans[2, 1]]
    )
    expanded = RENDERER.expanded(document)
    assert len(expanded.segments) == len(document.segments) + 1
    assert expanded.segments[expanded.answer].content is VOICE
    assert np.array_equal(RENDERER.render(expanded).tokens, rendered.tokens)
    assert [item.key for item in raw_media(expanded, RENDERER)] == ["voice", "five", "nine", "voice", "five"]


def test_weight_is_nothing_where_not_supervised():
    document = Document(
        (Segment("a", "system", False), Segment("b", "system", True), Segment("c", "response", False)), 3
    )
    assert RENDERER.render(document).weights.tolist() == [0.0, 0.25, 0.0]


def test_repeated_text_is_tokenised_once():
    codecs = FakeCodecs()
    renderer = Renderer(VOCABULARY, codecs, LOSS)
    long = "word " * 100
    for _ in range(3):
        assert renderer.render(plain_document(["same", long], ["same"])).tokens.tolist()[1:5] == bytes_of("same")
    assert codecs.text.encoded.count("same") == 1
    assert codecs.text.encoded.count(long) == 3  # long texts do not recur and would fill the memory


def test_a_renderer_can_be_sent_to_a_worker():
    document = plain_document(["a", PICTURE], [VOICE])
    copy = pickle.loads(pickle.dumps(RENDERER))
    assert (copy.render(document).tokens == RENDERER.render(document).tokens).all()


def test_views_may_leave_out_any_codebook():
    sparse = replace(SPEECH, views={"understand": (0, 2), "generate": (1, 3)}, layout="delayed")
    vocabulary = Vocabulary.build(FakeText(), [DECLARED[0], ("speech", sparse)])
    rendered = Renderer(vocabulary, FakeCodecs(), LOSS).render(plain_document([VOICE], [VOICE]))
    books = [[vocabulary.blocks[vocabulary.block_of[token]].codebook for token in rendered.tokens]]
    assert books == [[-1, -1, 0, 0, 2, 2, -1, -1, 1, 1, 3, 3, -1, -1]]


pieces = st.one_of(
    st.text(min_size=1, max_size=6).filter(str.strip), st.sampled_from([PICTURE, VOICE]), st.integers(0, 99)
)
templates = st.lists(
    st.one_of(st.sampled_from(["Say:", " ", ": ", "{{x}} "]), st.sampled_from(["{a}", "{b}"])), max_size=5
)


@given(templates, templates, pieces, pieces, st.sampled_from(["plain", "chat"]), st.sampled_from(["x", VOICE]))
def test_a_prompt_is_the_beginning_of_its_training_document(prompt, response, a, b, form, final):
    def document(answer, output):
        template = Template(direction="d", prompt="".join(prompt), response="".join(response) + answer)
        record = {"a": a, "b": b, "c": final}
        return to_document(record, CompiledTemplate(template), form, {"speech": "Speak.", "default": "Do."}, output)

    trained = document("{c}", "speech")
    given_tokens = RENDERER.prompt(trained).tokens
    assert (RENDERER.render(trained).tokens[: len(given_tokens)] == given_tokens).all()
    assert (RENDERER.prompt(document("other", "speech")).tokens == given_tokens).all()
    weights = RENDERER.render(trained).weights
    assert weights[0] == 0
    assert (weights[len(given_tokens) :] >= 2).sum() >= 1


@given(st.lists(st.one_of(st.text(min_size=1, max_size=6), st.sampled_from([PICTURE, VOICE])), min_size=1, max_size=6))
def test_lengths_add_up(parts):
    whole = RENDERER.render(interleaved_document(parts))
    alone = [len(RENDERER.render(interleaved_document([part]))) - 2 for part in parts]
    assert len(whole) == sum(alone) + 2
