"""The state machine of a live conversation, token by token, with a model whose answers are written down."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley import ASIDE, NOISE, QUESTION, TYPED
from scripted_model import World, shown

import mio
from mio.core.live.clock import RealClock, SimulatedClock
from mio.core.live.events import SessionEvent

ANSWERS = {
    "[0, 1]": f"{QUESTION}first, second, third",
    "[2, 3]": f"{QUESTION}other",
    "[7, 7]": f"{NOISE}nobody is meant to read this",
    "hello": f"{TYPED}you too",
    "wait": f"{ASIDE}later",
    "sing": [QUESTION, (1, 2, 3), "done"],
}


def session(script=ANSWERS, world=None, step=0.1, **options):
    return mio.Session((world or World(script)).model(), options=options, clock=SimulatedClock(step))


def play(one, *chunks, start=0.1, every=0.1):
    """Chunks of a stream, one after the other."""
    for place, chunk in enumerate(chunks):
        one.push(chunk, start + place * every)


def test_an_utterance_is_answered():
    one = session()
    play(one, [0], [1], [])
    events = one.finish()
    assert shown(events) == [
        ("heard", 0), ("control", 0, "state1"), ("text", 0, "first, second, third"), ("done", 0),
    ]  # fmt: skip
    heard = events[0]
    assert (heard.start, heard.end, heard.time) == (0.0, pytest.approx(0.3), pytest.approx(0.3))
    # one token a step: three of the control token, then the text, then the stop token
    assert [event.step for event in events if event.kind in ("control", "done")] == [3, 3 + 20 + 1]
    assert events[-1].time == pytest.approx(0.3 + 24 * 0.1)


def test_silence_says_nothing_and_leaves_the_answer_alone():
    alone, beside = session(), session()
    for one in (alone, beside):
        play(one, [0], [1], [])
    play(beside, [7], [7], [], start=0.7)
    undisturbed, events = alone.finish(), beside.finish()
    assert [event for event in events if event.query == 0] == undisturbed
    assert shown([event for event in events if event.query == 1]) == [
        ("heard", 1), ("control", 1, "state2"), ("silence", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("moment", [0.45, 0.7, 1.0, 1.6, 2.2])
def test_an_effective_query_stops_the_answer_in_the_step_of_its_state_token(moment):
    one = session()
    play(one, [0], [1], [])
    play(one, [2], [3], [], start=moment)
    events = one.finish()
    control = next(event for event in events if event.kind == "control" and event.query == 1)
    interrupted = next(event for event in events if event.kind == "interrupted")
    assert (interrupted.query, interrupted.by, interrupted.step) == (0, 1, control.step)
    old = [event for event in events if event.query == 0 and event.kind in ("text", "done", "media")]
    assert all(event.kind == "text" and event.step < control.step for event in old)
    assert ANSWERS["[0, 1]"][3:].startswith("".join(event.text for event in old))
    assert shown(events)[-2:] == [("text", 1, "other"), ("done", 1)]


def test_the_roles_swap_as_often_as_there_are_queries():
    one = session()
    for turn in range(6):
        play(one, [2 * (turn % 2)], [2 * (turn % 2) + 1], [], start=0.1 + 0.6 * turn)
    events = one.finish()
    assert [(event.query, event.by) for event in events if event.kind == "interrupted"] == [
        (turn, turn + 1) for turn in range(5)
    ]
    assert [event.query for event in events if event.kind == "done"] == [5]


def test_both_sequences_are_computed_in_one_batch_over_one_copy():
    one = session()
    play(one, [0], [1], [])
    play(one, [7], [7], [], start=0.7)
    one.finish()
    passes = one.model.transformer.passes
    assert sum(rows == 2 for rows, _ in passes) == 2, "two tokens of the control token; with the third it ends"
    assert all(rows == 1 for rows, length in passes if length > 1), "a prompt is read on its own row"


def test_a_query_that_can_wait_is_answered_when_the_answer_is_over():
    one = session()
    one.say("hello")
    one.say("wait", time=0.35)
    assert shown(one.finish()) == [
        ("control", 0, "state3"), ("text", 0, "you"), ("control", 1, "state4"), ("text", 0, " too"), ("done", 0),
        ("text", 1, "later"), ("done", 1),
    ]  # fmt: skip


def test_queries_queue_while_a_sequence_decides():
    one = session()
    for text in ("hello", "hello", "wait", "hello"):
        one.say(text)
    assert [event[:2] for event in shown(one.finish()) if event[0] in ("interrupted", "done")] == [
        ("interrupted", 0), ("done", 1), ("interrupted", 2), ("done", 3),
    ]  # fmt: skip


def test_an_answer_is_a_state_of_its_own_and_everything_else_is_silent():
    """`stop`: the answer is over with that; a model that says nothing at all is silent."""
    answers = {"a": "<5>never said", "b": "", "c": f"{TYPED}words <2> are not read there"}
    for query, expected in (
        ("a", [("control", 0, "state5"), ("done", 0)]),
        ("b", [("silence", 0)]),
        ("c", [("control", 0, "state3"), ("text", 0, "words <2> are not read there"), ("done", 0)]),
    ):
        one = session(answers)
        one.say(query)
        assert shown(one.finish()) == expected


def test_without_control_tokens_everything_can_be_answered():
    one = session({"hello": "you too", "[0, 1]": "<nothing"}, answers="all")
    one.say("hello")
    play(one, [0], [1], [], start=0.15)
    events = one.finish()
    assert shown(events) == [
        ("text", 0, "you "), ("heard", 1), ("interrupted", 0, 1), ("text", 1, "<nothing"), ("done", 1),
    ]  # fmt: skip


# --- what a query is asked with


def test_history_is_what_was_said_and_heard_and_its_keys_and_values_are_used_again():
    one = session(ANSWERS | {"wait": f"{TYPED}gone on"}, control_in_history=False)
    play(one, [0], [1], [])
    one.say("hello", time=0.85)  # step 6 of the first answer, whose text is "fir" by then
    one.finish()
    one.say("wait")
    one.finish()
    first, second, third = one.model.transformer.prompts
    assert first == "<im_start>user\n[0, 1]<im_end>\n"
    assert second == "<im_start>user\n[0, 1]<im_end>\n<im_start>assistant\nfir<im_end>\n<im_start>user\nhello<im_end>\n"
    assert (
        third == "<im_start>user\nhello<im_end>\n<im_start>assistant\nyou too<im_end>\n<im_start>user\nwait<im_end>\n"
    )
    prompts = [length for rows, length in one.model.transformer.passes if length > 1]
    assert sum(prompts) == one.engine.rows.read_tokens
    # the second prompt begins as the first row does, up to the control token that history leaves out
    shared = len("_user\n[010]_\n_assistant\n") + 1
    assert prompts[1] < prompts[0] + 40 - shared
    assert one.engine.rows.reused_tokens >= shared


def test_control_tokens_are_part_of_the_history_unless_the_policy_takes_them_out():
    for keeps, answer in ((True, "<3>you too"), (False, "you too")):
        one = session(ANSWERS | {"wait": f"{TYPED}gone on"}, control_in_history=keeps)
        one.say("hello")
        one.finish()
        one.say("wait")
        one.finish()
        assert one.model.transformer.prompts[-1].split("assistant\n")[-1].startswith(f"{answer}<im_end>")
        whole = len("_user\nhello_\n_assistant\n") + 1 + len("<3>you too")
        assert (one.engine.rows.reused_tokens == whole) is keeps, "all of the first turn is there already"


def test_a_history_that_the_context_does_not_hold_is_left_out():
    answers = {str(turn): f"{TYPED}{'x' * 12}" for turn in range(4)}
    roomy, tight = (session(world=World(answers, context=context), history=4) for context in (400, 120))
    for one in (roomy, tight):
        for turn in range(4):
            one.say(str(turn))
            one.finish()
    assert roomy.model.transformer.prompts[-1].count("x" * 12) == 3
    assert tight.model.transformer.prompts[-1].count("x" * 12) == 1
    assert session(world=World(answers, form="chat"), history=0)


def test_a_query_that_cannot_be_asked_is_told_and_the_conversation_goes_on():
    one = session(world=World(ANSWERS, context=60))
    one.say("x" * 100)
    one.say("hello")
    one.push("no notes")
    play(one, [4], [])
    events = one.finish()
    reasons = [event.reason for event in events if event.kind == "ignored"]
    assert reasons == ["a chunk is a str", pytest.approx(reasons[1]), "one note alone"]
    assert "do not fit the 60 positions" in reasons[1]
    assert shown(events)[-2:] == [("text", 1, "you too"), ("done", 1)]


def test_what_is_shown_is_asked_about_until_something_else_is():
    answers = {"[3]what": f"{TYPED}a", "[4][5]what": f"{TYPED}b", "what": f"{TYPED}c"}
    for stays, expected in ((True, ["[3]what"] * 2), (False, ["[3]what", "what"])):
        one = session(answers, shown_stays=stays, history=0)
        one.show("melody", (3,))
        for _ in range(2):
            one.say("what")
            one.finish()
        one.show("melody", (4,))
        one.show("melody", (5,))
        one.say("what")
        one.finish()
        asked = [prompt.split("user\n")[-1].removesuffix("<im_end>\n") for prompt in one.model.transformer.prompts]
        assert asked == [*expected, "[4][5]what"]


def test_earlier_queries_lose_what_was_shown_and_keep_what_was_said():
    answers = {"[3][0, 1]": f"{QUESTION}a", "[4][0, 1]": f"{QUESTION}b"}
    for keeps, earlier in ((False, "[0, 1]"), (True, "[3][0, 1]")):
        one = session(answers, older_media=keeps)
        for note, start in ((3, 0.1), (4, 2.0)):
            one.show("melody", (note,), time=start)
            play(one, [0], [1], [], start=start)
            one.finish()
        assert one.model.transformer.prompts[-1].startswith(f"<im_start>user\n{earlier}<im_end>")


# --- media of answers


def test_spans_are_decoded_and_text_is_said_piece_by_piece():
    one = session({"sing": [TYPED, (1, 2, 3), "one, two, three? four. 5.5, six"]}, speaks="melody", least=5)
    one.say("sing")
    assert [entry for entry in shown(one.finish()) if entry[0] in ("media", "ignored")] == [
        ("media", 0, (1, 2, 3)),
        ("media", 0, (len("one, two,"),)),
        ("ignored", 0, "nobody can sing ' three?'"),
        ("media", 0, (len("four."),)),
        ("media", 0, (len("5.5,"),)),
        ("media", 0, (len("six"),)),
    ]


def test_an_answer_that_is_made_can_still_be_interrupted_while_it_plays():
    answers = {"sing": [TYPED, (1, 2, 3)], "hello": f"{TYPED}you"}
    for seconds, interrupted in ((1.0, True), (0.1, False)):
        one = session(answers, seconds_per_note=seconds)
        one.say("sing")
        one.say("hello", time=1.5)
        assert (("interrupted", 0, 1) in shown(one.finish())) is interrupted


def test_what_is_asked_after_the_end_interrupts_nothing():
    one = session({"sing": [TYPED, (1, 2, 3)]}, seconds_per_note=1.0)
    for _ in range(2):
        one.say("sing")
        assert [event.kind for event in one.finish()] == ["control", "media", "done"]
    assert one.clock.now() == pytest.approx(2 * (9 * 0.1 + 3.0), abs=0.3)


def test_an_answer_that_waits_begins_when_the_one_before_has_been_played():
    one = session({"sing": [TYPED, (1, 2, 3)], "wait": f"{ASIDE}you"}, seconds_per_note=1.0)
    one.say("sing")
    one.say("wait")
    events = one.finish()
    made = next(event.time for event in events if event.kind == "media")
    assert next(event.time for event in events if event.kind == "text") == pytest.approx(made + 3.0 + 0.1)


def test_both_sequences_can_wait_while_an_answer_plays():
    one = session({"sing": [TYPED, (1, 2, 3)], "wait": f"{ASIDE}you", "hello": f"{TYPED}me"}, seconds_per_note=1.0)
    for query in ("sing", "wait", "wait", "hello"):
        one.say(query)
    events = one.finish()
    assert [event[:2] for event in shown(events) if event[0] in ("done", "interrupted")] == [
        ("done", 0), ("done", 1), ("interrupted", 2), ("done", 3),
    ]  # fmt: skip


# --- time


def test_the_size_of_steps_through_time_changes_nothing():
    whole, bits = session(), session()
    for one in (whole, bits):
        play(one, [0], [1], [])
        play(one, [2], [3], [], start=1.0)
    events = [event for place in range(60) for event in bits.advance(place / 10)]
    assert events == whole.advance(6.0)
    assert bits.clock.now() == pytest.approx(5.9)
    assert whole.clock.now() == 6.0


def test_inputs_are_taken_in_the_order_of_their_times():
    one = session()
    one.say("hello", time=2.0)
    play(one, [0], [1], [])
    assert [event.query for event in one.finish() if event.kind in ("done", "interrupted")] == [0, 1]


def test_only_a_simulated_clock_is_advanced():
    one = mio.Session(World(ANSWERS).model(), clock=RealClock())
    with pytest.raises(mio.UserError, match="only a simulated clock"):
        one.advance(1.0)
    with pytest.raises(mio.UserError, match="it must be above 0"):
        SimulatedClock(0)
    with pytest.raises(mio.UserError, match="an input cannot come at nan s"):
        one.say("hello", time=float("nan"))


# --- what cannot be


@pytest.mark.parametrize(
    ("plugins", "options", "message"),
    [
        ({"melody": {}}, {}, "runs/made: no plugin of the run says how a live conversation goes; name one .* parley"),
        ({"parley": {}}, {"answers": "some"}, "plugin `parley`, hook `mio_session`, answer: `answers` is `some`"),
        ({"parley": {}}, {"speaks": "melodies"}, "`speaks`: 'melodies' is no modality .* did you mean `melody`"),
        ({"parley": {}}, {"output": "melodic"}, "`output`: 'melodic' is no modality .* did you mean `melody`"),
        ({"parley": {}}, {"speaks": "text"}, "no plugin of the run supplies a synthesiser of `text`"),
    ],
)
def test_what_forbids_a_conversation_is_said_in_one_line(plugins, options, message):
    world = World(ANSWERS, plugins={"text": {"tokenizer": "bytes"}, "melody": {}, **plugins})
    with pytest.raises(mio.UserError, match=message):
        mio.Session(world.model(), options=options)


def test_a_policy_may_be_that_of_a_plugin_that_the_run_does_not_have():
    world = World(ANSWERS, plugins={"text": {"tokenizer": "bytes"}, "melody": {}})
    with pytest.raises(mio.UserError, match=r"has no control tokens, .* `answers=all`"):
        mio.Session(world.model(), "parley")
    one = mio.Session(world.model(), "parley", {"answers": "all"})
    one.say("hello")
    assert shown(one.finish()) == [("text", 0, "<3>you too"), ("done", 0)]
    with pytest.raises(mio.UserError, match="plugin `text` does not say how a live conversation goes"):
        mio.Session(world.model(), "text")


def test_events_are_written_with_what_concerns_them():
    one = session()
    play(one, [0], [1], [])
    lines = [event.to_json() for event in one.finish()]
    assert lines[:3] == [
        {"event": "heard", "time": 0.3, "step": 0, "query": 0, "start": 0.0, "end": 0.3},
        {"event": "control", "time": 0.6, "step": 3, "query": 0, "control": "state1"},
        {"event": "text", "time": 0.7, "step": 4, "query": 0, "text": "f"},
    ]
    assert SessionEvent("interrupted", 1.0, 5, 0, by=1).to_json()["by"] == 1


# --- whatever comes in


MOMENTS = st.lists(st.tuples(st.sampled_from(["hello", "wait", "sing", "[0, 1]", "[7, 7]"]), st.integers(0, 60)))


@settings(max_examples=40, deadline=None)
@given(MOMENTS, st.lists(st.integers(1, 70)), st.sampled_from([0.0, 0.2]))
def test_every_query_ends_once_and_nothing_comes_after(inputs, cuts, seconds):
    def ask(one):
        for query, moment in inputs:
            if query[0] == "[":
                one.say(one.media("melody", tuple(json.loads(query))), time=moment / 20)
            else:
                one.say(query, time=moment / 20)
        return one

    whole = ask(session(seconds_per_note=seconds)).finish()
    assert [event.time for event in whole] == sorted(event.time for event in whole)
    given_since = {}
    for place, event in enumerate(whole):
        if event.kind in ("text", "media"):
            others = [query for query, end in given_since.items() if end is None and query != event.query]
            assert not others, "one answer is given at a time"
            given_since.setdefault(event.query, None)
        if event.kind in ("done", "interrupted"):
            given_since[event.query] = place
    for query in range(len(inputs)):
        own = [event.kind for event in whole if event.query == query]
        ends = [kind for kind in own if kind in ("done", "silence", "interrupted")]
        assert ends in (["done"], ["silence"], ["interrupted"], ["done", "interrupted"]), own
        assert own[-1] == ends[-1], "nothing comes after the end"
        assert ends != ["silence"] or own == ["control", "silence"]
    sliced, bits = ask(session(seconds_per_note=seconds)), []
    for cut in sorted(cuts):
        bits += sliced.advance(cut / 10)
    assert [*bits, *sliced.finish()] == whole
