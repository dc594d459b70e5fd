"""Answers while they are made against the same answers read as a whole."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import chimes
import numpy as np
import parley
import pytest
import tiles
import torch
from conftest import MELODY
from hypothesis import given, settings
from hypothesis import strategies as st
from test_making import DECODING, NEED, asked, made_model

from mio import Codes, DataError, Decoding, Media, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.contract.streams import joined
from mio.core.distributed.ranks import Ranks
from mio.core.generation.answer import read_answer
from mio.core.generation.grammar import Need, need_of
from mio.core.generation.growing import AnswerTokens
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.generation.requests import CANCELLED, FAILED, LENGTH, Finished, MadeMedia, Request, Token
from mio.core.generation.streaming import (
    AnswerStream,
    MediaChunk,
    MediaComponent,
    Over,
    SaidControl,
    TextPiece,
    WholeMedia,
)
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import GENERATE, plain_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.spans import SpanPlan
from mio.core.tokens.vocabulary import Vocabulary
from mio.testing.outcomes import same

LAYOUTS = ("flat", "frame_major", "delayed", "codebook_major")


@lru_cache
def model(layout="delayed"):
    """Words by byte, melodies, chimes in a layout, peals of chimes, tiles that a head makes, control tokens."""
    paths = {"melody": MELODY / "mio_melody.py", "parley": parley.__file__, "tiles": tiles.__file__,
             "chimes": chimes.__file__}  # fmt: skip
    manager = PluginManager([*discover(), *(local(f"{name}={Path(path)}") for name, path in paths.items())])
    chosen = {"text": {"tokenizer": "bytes"}, **{name: {} for name in paths}, "chimes": {"layout": layout}}
    plugins = manager.enable(chosen)
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    recipe = Recipe(name="made", data=DataConfig(form="plain", packing=PackingConfig(context=200)))
    return Model(
        recipe, plugins, vocabulary, codecs, Renderer(vocabulary, codecs, LossConfig()), Path("runs/made"),
        lambda: (transformer_of(vocabulary, codecs), Replicas(Ranks())),
    )  # fmt: skip


def transformer_of(vocabulary, codecs):
    """Of random weights."""
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=1, init_std=0.3)
    return Transformer(config, vocabulary.rows, codecs.networks).eval()


def request(of, *values):
    return Request(of.renderer.prompt(plain_document(list(values) or ["say"], [])), Decoding(), Need(), 0, 500)


@st.composite
def contents(draw, layout):
    """What an answer consists of: bytes of text, `(modality, codes)`, tiles, names of control tokens."""
    books = chimes.BOOKS[:1] if layout == "flat" else chimes.BOOKS

    def grid(sizes, most):
        frames = draw(st.integers(1, most))
        return [[draw(st.integers(0, size - 1)) for _ in range(frames)] for size in sizes]

    kinds = draw(st.lists(st.sampled_from(["text", "bytes", "melody", "chime", "chime", "tile", "own", "<1>", "<2>"]),
                          max_size=8))  # fmt: skip
    made = []
    for kind in kinds:
        if kind == "text":
            made.append(draw(st.text(min_size=1, max_size=6)).encode())
        elif kind == "bytes":
            made.append(draw(st.binary(min_size=1, max_size=6)))
        elif kind in ("melody", "chime"):
            made.append((kind, grid((8,) if kind == "melody" else books, 8)))
        elif kind == "tile":
            made.append(np.array(draw(st.lists(st.integers(0, 9), min_size=4, max_size=4)), np.uint8))
        else:
            made.append(kind)
    return made


def events_of(of, parts):
    """What the engine tells of an answer, before it is over, and its tokens."""
    vocabulary, events, tokens, made = of.vocabulary, [], [], []

    def say(ids):
        tokens.extend(map(int, ids))
        events.extend(Token(int(index)) for index in ids)

    for part in parts:
        if isinstance(part, bytes):
            say(part)
        elif isinstance(part, tuple):
            plan = SpanPlan.of(vocabulary, part[0], GENERATE)
            say(plan.span(np.array(part[1])))
        elif isinstance(part, str):
            say([vocabulary.controls.ids["own"][0]] if part == "own" else part.encode())
        else:
            say([vocabulary.begin("tile")])
            made.append(Media("tile", part, f"made/{len(made)}"))
            events.append(MadeMedia(made[-1]))
            tokens.extend([vocabulary.specials.pad] * 2)
            say([vocabulary.end("tile")])
    return events, AnswerTokens(tokens, tuple(made))


def streamed(of, events, output="", stop=()):
    stream = AnswerStream(of, request(of), output, stop)
    told = [event for one in events for event in stream.take(one)]
    assert isinstance(told[-1], Over)
    assert not any(isinstance(event, Over) for event in told[:-1])
    return told[:-1], told[-1]


def put_together(told):
    """Parts of what was told, by whoever was told."""
    parts, chunks, components = {}, {}, {}
    for event in told:
        if isinstance(event, TextPiece):
            assert event.text
            parts[event.part] = ("text", parts.get(event.part, ("text", ""))[1] + event.text)
        elif isinstance(event, SaidControl):
            parts[event.part] = ("control", event.name)
        elif isinstance(event, MediaChunk):
            chunks.setdefault(event.part, []).append(event.content)
        elif isinstance(event, MediaComponent):
            components.setdefault(event.part, []).append(event.content)
        else:
            parts[event.part] = (event.modality, event.content)
    assert list(parts) == list(range(len(parts)))
    return [parts[part] for part in range(len(parts))], chunks, components


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), output=st.sampled_from(["", "chime", "peal", "tile", "text"]))
def test_what_is_streamed_is_what_is_read_as_a_whole(layout, data, output):
    of = model(layout)
    events, tokens = events_of(of, data.draw(contents(layout)))
    whole = read_answer(tokens, of.vocabulary, of.codecs, output)
    told, over = streamed(of, [*events, Token(of.grammar.stop), Finished("stop")], output)
    assert same(list(over.answer.parts), list(whole.parts))
    assert same(list(over.answer.codes), list(whole.codes))
    assert (over.answer.silent, over.reason, over.error) == (whole.silent, "stop", None)
    parts, chunks, components = put_together(told)
    assert same(parts, list(whole.parts))
    # chunks are the media; of media whose detokenizer has no stream, and of parts of other media, there are none
    expected = {index for index, (name, _) in enumerate(whole.parts) if name == "chime"}
    assert set(chunks) == expected
    assert all(same(joined(pieces), parts[index][1]) for index, pieces in chunks.items())
    expected = {index for index, (name, _) in enumerate(whole.parts) if name == "peal"}
    assert set(components) == expected
    assert all(same(of.codecs.decode("peal", own), parts[index][1]) for index, own in components.items())
    # each can be given to the model again
    values = [event.value for event in told if isinstance(event, WholeMedia)]
    of.renderer.prompt(plain_document([one for one in values if one.modality != "tile"], []))
    assert over.usage.answer_tokens == len(tokens.tokens)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_media_come_as_soon_as_their_frames_are_whole_and_are_decoded_once(layout):
    of = model(layout)
    books, frames = (1 if layout == "flat" else 3), 8
    codes = np.arange(books * frames).reshape(books, frames) % 3
    events, _ = events_of(of, [b"a", ("chime", codes.tolist()), b"b"])
    detokenizer = of.codecs.detokenizer("chime")
    before, streams = detokenizer.decoded, len(detokenizer.streams)
    stream, when = AnswerStream(of, request(of)), {}
    for number, event in enumerate(events):
        for piece in stream.take(event):
            when.setdefault(type(piece), []).append(number)
    # text and begin are the first two; samples of a frame come with the next frame
    first = {"flat": 2, "frame_major": 2 * books, "delayed": 3 + 3 + 3, "codebook_major": 2 * frames + 2}[layout]
    assert when[MediaChunk][0] == 1 + first
    assert len(when[MediaChunk]) == frames
    assert when[WholeMedia] == [len(events) - 2]
    assert (detokenizer.decoded, len(detokenizer.streams)) == (before, streams + 1)
    assert detokenizer.streams[-1].pushed == frames


def test_text_is_given_out_by_whole_characters_and_never_as_part_of_a_control_token():
    of = model()
    stream = AnswerStream(of, request(of))
    texts = [[event.text for event in stream.take(Token(byte))] for byte in "<5né".encode()]
    assert texts == [[], [], ["<", "5", "n"], [], ["é"]]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab", "é", "own", "melody"]), max_size=9),
       st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3))  # fmt: skip
def test_text_ends_before_the_first_stop_string(parts, stop):
    """Beside text that is searched as a whole, between what is no text."""
    of = model()
    made = [("melody", [[1, 2]]) if part == "melody" else part if part == "own" else part.encode() for part in parts]
    events, tokens = events_of(of, [b"-", *made])
    expected, text, found = [], "-", False
    for part in [*parts, None]:
        if part in ("own", "melody", None):
            said = [end for end in range(len(text) + 1) if any(text[:end].endswith(string) for string in stop)]
            found = bool(said)
            if found:
                text = min((text[: said[0]].removesuffix(string) for string in stop), key=len)
            expected += [("text", text)] if text else []
            text = ""
            if found or part is None:
                break
            expected.append(("control", "own") if part == "own" else ("melody", (1, 2)))
        else:
            text += part
    stream = AnswerStream(of, request(of), "", stop)
    told = [piece for event in events for piece in stream.take(event)]
    assert stream.stopped == found
    told += stream.take(Finished(CANCELLED if found else LENGTH))
    assert put_together(told[:-1])[0] == expected == list(told[-1].answer.parts)
    assert told[-1].reason == ("stop" if found else "length")
    assert read_answer(tokens, of.vocabulary, of.codecs, "", stop).parts == told[-1].answer.parts


def test_a_span_that_is_broken_off_is_no_part_of_the_answer():
    of = model("frame_major")
    events, _ = events_of(of, [b"so", ("chime", [[1, 2, 3]] * 3)])
    told, over = streamed(of, [*events[:-2], Finished(CANCELLED)])
    assert [type(event) for event in told] == [TextPiece, TextPiece, MediaChunk]
    assert over.answer.parts == (("text", "so"),)
    assert (over.reason, over.answer.codes) == (CANCELLED, ())
    error = UserError("diverged")
    assert streamed(of, [*events[:2], Finished(FAILED, error)])[1].error is error


def test_tokens_are_counted_by_modality():
    of = model()
    tile = np.array([1, 2, 3, 4], np.uint8)
    prompt = request(of, "look ", Media("tile", tile, "t"), Codes("melody", np.array([[1, 2, 3]])))
    stream = AnswerStream(of, prompt)
    events, given = events_of(of, [b"<1>", b"abc", ("melody", [[1, 2]]), tile, ("chime", [[1], [2], [0]])])
    over = [piece for event in [*events, Finished("stop")] for piece in stream.take(event)][-1]
    assert over.usage.answer == {"text": 6, "melody": 4, "tile": 4, "chime": 5}
    assert over.usage.answer_tokens == len(given.tokens)
    assert over.usage.prompt == {"text": 1 + len("look "), "tile": 4, "melody": 5}
    assert over.usage.prompt_tokens == len(prompt.prompt.tokens)


def test_what_cannot_be_decoded_is_an_error(monkeypatch):
    of = model("flat")

    def refuse(*_):
        raise DataError("out of tune")

    monkeypatch.setattr(chimes_stream(of), "push", refuse)
    events, _ = events_of(of, [("chime", [[1, 2]])])
    with pytest.raises(DataError, match="out of tune"):
        streamed(of, [*events, Finished("stop")])


def chimes_stream(of):
    return type(of.codecs.detokenizer("chime").stream())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_answer_streamed_or_not(layout):
    of = model(layout)
    decoding = Decoding(temperature=50.0, media_temperature=50.0, max_tokens=120, steps=2)
    need = need_of("chime", of.codecs.modalities, only=False)
    prompts = [asked(of, word) for word in ("a", "bc", "def", "ghij")]
    streams = {}
    engine = of.engine(3)
    for seed, prompt in enumerate(prompts):
        stream, told = streams[seed] = AnswerStream(of, of.request(prompt, decoding, need, seed)), []
        engine.submit(
            of.request(prompt, decoding, need, seed), lambda _, event, one=stream, all=told: all.extend(one.take(event))
        )
    engine.run()
    chunked = 0
    for seed, generated in enumerate(of.answers(prompts, decoding, need, list(range(4)))):
        whole = read_answer(generated, of.vocabulary, of.codecs)
        *pieces, over = streams[seed][1]
        assert same(list(over.answer.parts), list(whole.parts))
        parts, chunks, _ = put_together(pieces)
        assert same(parts, list(whole.parts))
        assert all(same(joined(own), parts[index][1]) for index, own in chunks.items())
        chunked += len(chunks)
    assert chunked >= 4


@pytest.mark.parametrize("options", [{}, {"own": True}])
def test_answers_of_an_engine_with_media_that_a_head_makes(options):
    of = made_model(**options)
    engine, streams, told = of.engine(2), {}, {}

    def tell(ticket, event):
        stream = streams.setdefault(ticket, AnswerStream(of, ticket.request, "tile"))
        told.setdefault(ticket, []).extend(stream.take(event))

    prompts = [asked(of, "ab", "1234", "c"), asked(of, "a"), asked(of, "x" * 9, "1111")]
    tickets = [engine.submit(of.request(prompt, DECODING, NEED, seed), tell) for seed, prompt in enumerate(prompts)]
    engine.run()
    for ticket in tickets:
        whole = read_answer(ticket.answer, of.vocabulary, of.codecs, "tile")
        *pieces, over = told[ticket]
        assert same(list(over.answer.parts), list(whole.parts))
        assert same(put_together(pieces)[0], list(whole.parts))
        assert over.usage.answer_tokens == len(ticket.answer.tokens)
        assert over.usage.prompt_tokens == len(ticket.request.prompt.tokens)
        assert over.usage.answer["tile"] == 4 * len(ticket.answer.made)
