"""`/v1/completions`: prompts of text and of token ids, token ids in the answer."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import openai
import pytest
from served import scripted, serving

from mio.core.generation.streaming import Over, TextPiece
from mio.serve.completions import _Completion
from mio.serve.protocol.completions import CompletionRequest

ANSWERS = {"one=": "two", "three=": ["four ", ("picture", (0, 1, 2, 3))], "[0, 1, 2, 3]=": "seen"}
IDS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def running():
    with serving(scripted(ANSWERS, form="plain")) as server:
        yield server


@pytest.fixture(scope="module")
def client(running):
    return running.client()


def asked(client, prompt, **options):
    return client.completions.create(model="made", prompt=prompt, **options)


def test_text(client):
    answer = asked(client, "one=", seed=1)
    [choice] = answer.choices
    assert (answer.object, choice.text, choice.finish_reason) == ("text_completion", "two", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1 + len("one="), len("two"))


def test_token_ids_in_and_out(running, client):
    vocabulary, text = running.model.vocabulary, running.model.codecs.text
    ids = [vocabulary.specials.bos, *text.encode("one=")]
    choice = asked(client, ids, extra_body=IDS).choices[0].to_dict()
    assert (choice["prompt_token_ids"], choice["token_ids"]) == (ids, text.encode("two"))
    assert choice == asked(client, "one=", extra_body=IDS).choices[0].to_dict()
    picture = running.model.transformer.tokens([("picture", (0, 1, 2, 3))])
    assert asked(client, [*ids[:1], *picture, ids[-1]]).choices[0].text == "seen"


def test_media_of_an_answer_are_its_token_ids(running, client):
    choice = asked(client, "three=", extra_body=IDS).choices[0]
    assert choice.text == "four "
    assert choice.to_dict()["token_ids"] == running.model.transformer.tokens(ANSWERS["three="])
    special = asked(client, "three=", extra_body={"skip_special_tokens": False}).choices[0]
    assert special.text == "four <pic><p0><p1><p2><p3></pic>"


def test_several_prompts_and_answers(client):
    answer = asked(client, ["one=", "three="], n=2)
    assert [choice.text for choice in answer.choices] == ["two", "two", "four ", "four "]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_a_stream_is_the_answer_in_pieces(client):
    chunks = list(asked(client, "three=", stream=True, extra_body=IDS, stream_options={"include_usage": True}))
    whole = asked(client, "three=", extra_body=IDS)
    choices = [chunk.choices[0].to_dict() for chunk in chunks if chunk.choices]
    assert "".join(choice["text"] for choice in choices) == whole.choices[0].text
    assert [token for choice in choices for token in choice["token_ids"]] == whole.choices[0].to_dict()["token_ids"]
    assert choices[0]["prompt_token_ids"] == whole.choices[0].to_dict()["prompt_token_ids"]
    assert choices[-1]["finish_reason"] == "stop"
    assert chunks[-1].usage == whole.usage


def test_a_character_is_not_cut_where_tokens_are_ahead_of_events(running):
    """The list of an answer's tokens grows while events wait to be told."""
    first, *rest = running.model.codecs.text.encode("é")
    one = SimpleNamespace(tokens=[*running.model.codecs.text.encode("a"), first])

    async def events():
        yield 0, TextPiece(0, "a")
        one.tokens += rest
        yield 0, TextPiece(0, "é")
        yield 0, Over("stop", None, None)

    async def told():
        request = CompletionRequest(prompt="one=", stream=True, skip_special_tokens=False)
        job = _Completion(running.service, request)
        job._prompts = [None]
        lines = [line async for line in job.streamed(SimpleNamespace(each=[one], events=events))]
        return [json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines[:-1]]

    assert asyncio.run(told()) == ["aé", ""]


@pytest.mark.parametrize(
    ("prompt", "options", "param", "message"),
    [
        ([1, 10**6], {}, "prompt[0]", "the vocabulary has the ids 0 to"),
        ("PICTURE", {}, "prompt[0]", "ends inside a span of `picture`"),
        ([], {}, "prompt", "which is not empty"),
        ([[1], "a", []], {}, "prompt", "number 2 is neither"),
        ("one=", {"logprobs": 2}, "logprobs", "not given"),
        ("one=", {"echo": True}, "echo", "leave it out, or give False"),
        ("one=", {"n": 9}, "n", "at most 8 answers"),
        ("x" * 20_000, {}, "prompt[0]", "cannot fit the context"),
        ("=" * 401, {}, None, "do not fit the 400 positions"),
    ],
)
def test_what_cannot_be_is_refused(running, client, prompt, options, param, message):
    if prompt == "PICTURE":
        prompt = running.model.transformer.tokens([("picture", (0, 1))])[:-1]
    with pytest.raises(openai.BadRequestError, match=message) as error:
        asked(client, prompt, **options)
    assert error.value.param == param
