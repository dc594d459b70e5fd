"""A model in Python: turns, batches, control tokens, media of codes, encoders and heads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import MELODY
from parley import NOISE, QUESTION
from scripted_model import World

import mio
from mio import Codes, Control, UserError
from mio.api import Over, TextPiece, WholeMedia
from mio.api.loaded import Loaded
from mio.cli import app
from mio.core.generation.generate import Question

PLUGINS = [f"melody={MELODY / 'mio_melody.py'}"]
SCRIPT = {
    "sing": [QUESTION, (1, 2, 3), "done"],
    "and [1, 2, 3]": "heard",
    "again": [(3, 2)],
    "[7, 7]": f"{NOISE}nobody is meant to read this",
    "own": "said",
}


@pytest.fixture(scope="module")
def run(finished):
    return mio.load(finished, "cpu", "fp32", plugins=PLUGINS, rows=3)


@pytest.fixture
def scripted():
    return Loaded(World(SCRIPT).model(), rows=2)


def test_an_answer_has_parts_in_order_and_says_why_it_ends(scripted):
    answer = scripted.generate("sing")
    assert answer.parts == (("control", "state1"), ("melody", (1, 2, 3)), ("text", "done"))
    assert (answer.text, answer.controls, answer.media("melody")) == ("done", ("state1",), [(1, 2, 3)])
    assert (answer.reason, answer.silent, answer.notice) == ("stop", False, "")
    assert len(answer.tokens) == 3 + 5 + 4
    assert answer.images == []
    assert repr(answer) == "Reply([state1], melody tuple, 'done')"
    silent = scripted.generate([{"type": "melody", "melody": (7, 7)}])
    assert (silent.silent, silent.reason) == (True, "control")
    assert silent.to_json() == {"parts": [{"type": "control", "name": "state2"}], "silent": True}


def test_an_answer_is_given_again_in_the_next_turn_as_it_was_written(scripted):
    first = scripted.generate("sing")
    question = {"role": "user", "content": ["and ", first.media("melody") and {"type": "melody", "data": (1, 2, 3)}]}
    turns = [{"role": "user", "content": "sing"}, {"role": "assistant", "content": first}, question]
    assert scripted.generate(turns).text == "heard"
    script = scripted.model.transformer
    assert script.prompts[-1] == (
        "<im_start>user\nsing<im_end>\n<im_start>assistant\n<1>[1, 2, 3]done<im_end>\n"
        "<im_start>user\nand [1, 2, 3]<im_end>\n"
    )
    engine = scripted.running._engine
    held = [row for row in engine.rows.held if row.tokens]
    assert len(held) == 1  # the second prompt goes on where the first answer ended: nothing was read twice
    with pytest.raises(UserError, match="the last message is of the assistant"):
        scripted.generate(turns[:2])


def test_parts_of_an_answer_that_became_json_are_a_prompt_again(scripted, tmp_path):
    answer = scripted.generate("sing")
    for told in (answer.to_json(), answer.to_json(tmp_path)):
        [control, melody, text] = told["parts"]
        assert (control, text) == ({"type": "control", "name": "state1"}, {"type": "text", "text": "done"})
        [value] = scripted.parts.prompt([melody])
        assert scripted.model.codecs.opened(value).data == (1, 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["melody-1.txt"]


def test_many_prompts_have_the_answers_of_each_alone(run):
    prompts = ["Please play do re:", "play", {"role": "user", "content": "melody"}, ["The ", "notes"], "x" * 30] * 2
    options = {"temperature": 1.0, "media_temperature": 1.2, "max_tokens": 20}
    together = run.generate_many(prompts, "melody", seed=7, **options)
    for number, (prompt, answer) in enumerate(zip(prompts, together, strict=True)):
        alone = run.generate(prompt, "melody", seed=7 + number, **options)
        assert answer.tokens == alone.tokens
        assert answer.media("melody")[0] == alone.media("melody")[0]
    assert len({answer.tokens for answer in together}) > 2
    assert run.generate_many(prompts[:2], "melody", seed=[9, 7], **options)[1].tokens != together[1].tokens
    assert run.generate_many([]) == []


def test_a_streamed_answer_is_the_same(run):
    options = {"temperature": 1.0, "media_temperature": 1.2, "max_tokens": 40}
    for output in ("", "melody"):
        whole = run.generate("play", output, seed=3, **options)
        events = list(run.generate("play", output, stream=True, seed=3, **options))
        assert isinstance(events[-1], Over)
        assert events[-1].answer.tokens == whole.tokens
        assert events[-1].answer.parts == whole.parts
        assert "".join(event.text for event in events if isinstance(event, TextPiece)) == whole.text
        assert [event.content for event in events if isinstance(event, WholeMedia)] == whole.media("melody")


def test_streams_take_turns_and_can_be_left(run):
    options = {"temperature": 1.0, "max_tokens": 30}
    expected = [run.generate("play", seed=seed, **options).text for seed in (1, 2)]
    streams = [run.generate("play", stream=True, seed=seed, **options) for seed in (1, 2)]
    texts = ["", ""]
    while streams != [None, None]:
        for place, stream in enumerate(streams):  # one event of each in turn
            event = next(stream, None) if stream else None
            streams[place] = stream if event else None
            texts[place] += event.text if isinstance(event, TextPiece) else ""
    assert texts == expected
    left = run.generate("play", stream=True, **options)
    next(left)
    left.close()
    assert run.generate("play", seed=1, **options).text == expected[0]
    assert not run.running._engine.running
    with pytest.raises(UserError, match="prompt: is empty"):  # when it is asked, not when the first event is
        run.generate("", stream=True)


def test_mistakes_in_one_of_many_prompts_name_it(run):
    with pytest.raises(UserError, match=r"prompt 1: part 0: no modality `melod` in this run; did you mean `melody`"):
        run.generate_many(["play", [{"type": "melod", "melod": 1}]])
    with pytest.raises(UserError, match=r"prompt 1: the prompt has \d+ tokens"):
        run.generate_many(["play", "x" * 200])
    with pytest.raises(UserError, match="`seed` has 1 numbers for 2 prompts"):
        run.generate_many(["play", "play"], seed=[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temprature": 1}, "no option `temprature` of decoding; did you mean `temperature`"),
        ({"temperature": -1}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"output": "melod"}, "no modality `melod`"),
        ({"max_tokens": 2, "output": "melody"}, "2 tokens are too few"),
    ],
)
def test_options_without_a_meaning_are_refused(run, options, told):
    with pytest.raises(UserError, match=told):
        run.generate("play", **options)


def test_threads_share_the_engine(run):
    options = {"temperature": 1.0, "max_tokens": 30}
    expected = [run.generate("play", seed=seed, **options).tokens for seed in range(6)]
    found = {}

    def ask(seed):
        found[seed] = run.generate("play", seed=seed, **options).tokens

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[seed] for seed in range(6)] == expected


def test_an_interrupted_answer_leaves_the_run_usable(run, monkeypatch):
    expected = run.generate("play").tokens
    engine = run.running._engine

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.generate("play")
    assert run.generate("play").tokens == expected
    assert run.running._engine is not engine


def test_media_become_codes_and_codes_media(run):
    codes = run.encode((0, 3, 5), "melody")
    assert isinstance(codes, Codes)
    assert codes.codes.tolist() == [[0, 3, 5]]
    assert run.decode(codes) == (0, 3, 5)
    assert run.score([codes]).tokens.tolist() == run.score([{"type": "melody", "data": (0, 3, 5)}]).tokens.tolist()
    for bad, told in (
        (Codes("melody", np.array([[9, 1]])), "9"),
        (Codes("melody", np.array([[0.5, 1]])), "melody"),
        (Codes("tune", np.array([[1]])), "no modality `tune`"),
        ((0, 1), "codes are `mio.Codes`, not int"),
        (3, "codes are `mio.Codes`, not int"),
        ([codes, codes], "say of which modality"),
    ):
        with pytest.raises(UserError, match=told):
            run.decode(bad)
    with pytest.raises(UserError, match="`melody` is no modality of parts"):
        run.decode([codes], "melody")


def test_a_session_takes_the_model_as_it_is(scripted):
    session = scripted.session(history=2)
    assert session.model is scripted.model
    assert session.policy.history == 2
    session.say("sing")
    assert [event.content for event in session.finish() if event.kind == "media"] == [(1, 2, 3)]


def test_what_cannot_be_opened_is_one_line(finished, tmp_path):
    for arguments, told in (
        ((tmp_path,), "no finished run|holds no"),
        ((finished, "tpu"), "`device='tpu'` is not here"),
        ((finished, "cpu", "bf61"), "`precision` is 'bf61'; it can be bf16 or fp32; did you mean `bf16`"),
    ):
        with pytest.raises(UserError, match=told):
            mio.load(*arguments, plugins=PLUGINS)
    with pytest.raises(UserError, match="`rows` is 0"):
        mio.load(finished, "cpu", plugins=PLUGINS, rows=0)


@pytest.mark.usefixtures("beads_world")
def test_what_an_encoder_reads_and_codes_write_is_given_again():
    """A melody is read by an encoder and written as codes: in the next prompt, the encoder reads what was written."""
    assert app.run(["fit", "beads.yaml", "train.steps=2"]) == 0
    run = mio.load("runs/beads", "cpu", "fp32")
    string = np.array([1, 2, 3], np.uint8)
    answer = run.generate(["a ", {"type": "beads", "beads": string}], "melody", max_tokens=30)
    [melody] = answer.media("melody")
    codes = answer.codes[0]
    again = run.generate(["that ", answer, " end"], max_tokens=4)
    assert again.tokens == run.generate(["that ", {"type": "melody", "data": melody}, " end"], max_tokens=4).tokens
    with pytest.raises(UserError, match="is read by an encoder, which needs the media"):
        run.generate(["that ", codes])
    with pytest.raises(UserError, match="`beads` has no codes in this run"):
        run.encode(string, "beads")
    assert isinstance(run.encode(melody, "melody"), Codes)
    scored = run.score([answer], prompt=["a ", {"type": "beads", "beads": string}])
    string_part = scored.parts[1]
    assert (string_part.type, string_part.tokens) == ("beads", 1)  # the token that opens it
    [written] = [part for part in scored.parts if part.type == "melody"]
    assert (written.role, written.tokens) == ("assistant", 2 + codes.codes.size)


@pytest.mark.usefixtures("tiles_world")
def test_what_a_head_makes_is_given_again():
    assert app.run(["fit", "tiles.yaml", "train.steps=2"]) == 0
    run = mio.load("runs/tiles", "cpu", "fp32")
    tile = {"type": "tile", "tile": np.array([1, 2, 3, 4], np.uint8)}
    answers = run.generate_many([["now a", tile], ["now b", tile, tile], "x"], "tile", max_tokens=30, steps=2)
    for prompt, answer in zip((["now a", tile], ["now b", tile, tile], "x"), answers, strict=True):
        place = answers.index(answer)
        alone = run.generate(prompt, "tile", seed=place, max_tokens=30, steps=2)
        assert np.array_equal(alone.media("tile")[0], answer.media("tile")[0])
        assert alone.tokens == answer.tokens
    made = answers[0].media("tile")[0]
    later = run.generate(["now a", answers[0], "now b"], max_tokens=5)
    # text brings its tokens, as bytes that are no UTF-8 would not be the same again
    parts = [{"type": "tile", "data": one.data} if isinstance(one, mio.Media) else one for one in answers[0].values]
    assert later.tokens == run.generate(["now a", *parts, "now b"], max_tokens=5).tokens
    assert made.dtype == np.uint8
    with pytest.raises(UserError, match="`tile` has no codes in this run"):
        run.encode(made, "tile")


def test_text_that_ends_an_answer_is_no_part_of_it(scripted):
    scripted.model.transformer.answers["tell"] = "one two three"
    for stream in (False, True):
        answer = scripted.generate("tell", stream=stream, stop=["wo t", "x"])
        answer = list(answer)[-1].answer if stream else answer
        assert (answer.text, answer.reason, answer.values) == ("one t", "stop", ("one t",))
        assert answer.usage.answer_tokens == len(answer.tokens)


def test_control_tokens_in_a_prompt_stay_what_they_are(scripted):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [Control("own"), "y"]}]
    asked = scripted.ask([*turns, {"role": "user", "content": "z"}], Question(content=()))
    [own] = scripted.model.vocabulary.controls.ids["own"]
    assert asked.request.prompt.tokens.tolist().count(own) == 1
