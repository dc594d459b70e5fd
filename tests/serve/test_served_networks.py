"""Runs whose media networks read and make: encoders, adapters, heads, on random weights. Seeds, alone and together."""

from __future__ import annotations

import base64
import sys
import threading
from pathlib import Path

import openai
import pytest
import tiles
import torch
from served import encoded, serving, url

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.discovery import discover, local
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from serving.malformed import _png, _wav
from serving.process import random_model


def made_model(own):
    """With tiles, which are read by an encoder and adapters, and made by a head."""
    manager = PluginManager([*discover(), local(f"tiles={Path(tiles.__file__)}")])
    plugins = manager.enable({"text": {"tokenizer": "bytes"}, "tiles": {"own": own}})
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    recipe = Recipe(name="tiles", data=DataConfig(form="chat", packing=PackingConfig(context=128)))
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=3, heads=2, init_std=0.3)
    transformer = Transformer(config, vocabulary.rows, codecs.networks).eval().requires_grad_(False)
    renderer = Renderer(vocabulary, codecs, LossConfig())
    parts = recipe, plugins, vocabulary, codecs, renderer, Path("runs/tiles"), lambda: (transformer, Replicas(Ranks()))
    return Model(*parts)


def tile(digits):
    return {"type": "file", "file": {"file_data": encoded(digits.encode()), "filename": "a.tile"}}


@pytest.fixture(scope="module", params=[False, True], ids=["before", "own"])
def running(request):
    with serving(made_model(request.param), name="made") as server:
        yield server


def asked(client, seed, *digits, **options):
    content = [{"type": "text", "text": "next"}, *map(tile, digits)]
    options = {"modalities": ["tile"], "max_tokens": 24, "temperature": 1.0, **options}
    return client.chat.completions.create(
        model="made", messages=[{"role": "user", "content": content}], seed=seed, **options
    )


def drawn(message):
    return [base64.b64decode(one["file"]["file_data"].partition(",")[2]) for one in message.to_dict()["files"]]


def test_what_a_head_makes_is_a_file(running):
    message = asked(running.client(), 1, "1234").choices[0].message
    [made] = drawn(message)
    assert len(made) == tiles.SIZE
    assert made.isdigit()
    again = [
        {"role": "user", "content": "next"}, message.to_dict(), {"role": "user", "content": "and now"},
    ]  # fmt: skip
    assert running.client().chat.completions.create(model="made", messages=again, max_tokens=4).choices
    with pytest.raises(openai.BadRequestError, match="is no tile"):
        asked(running.client(), 1, "12x4")


def test_the_same_seed_is_the_same_answer_alone_together_and_streamed(running):
    client, seeds = running.client(), range(10)

    def told(seed):
        message = asked(client, seed, "1234").choices[0].message
        return message.content, drawn(message)

    alone = {seed: told(seed) for seed in seeds}
    assert len({str(answer) for answer in alone.values()}) > 5
    together = {}
    threads = [threading.Thread(target=lambda seed=seed: together.update({seed: told(seed)})) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    for seed in (0, 1):
        deltas = [chunk.choices[0].delta for chunk in asked(client, seed, "1234", stream=True)]
        text = "".join(delta.content or "" for delta in deltas)
        files = [made for delta in deltas if "files" in delta.to_dict() for made in drawn(delta)]
        assert (text or None, files) == alone[seed]


def test_what_encoders_read_has_limits_of_its_own():
    """The model of the benchmarks, whose pictures, sound and videos towers read."""
    with serving(random_model(), limits={"pixels": 100}) as server:
        client = server.client()

        def ask(kind, content):
            part = {"type": kind, kind: {"url": url(content)}}
            messages = [{"role": "user", "content": [part]}]
            return client.chat.completions.create(model="made", messages=messages, max_tokens=2)

        assert ask("image_url", _png(8, 8)).usage.prompt_tokens > 0
        sound = ask("audio_url", _wav(1)).usage
        assert sound.prompt_tokens_details.audio_tokens > 5
        assert ask("audio_url", _wav(2)).usage.prompt_tokens > sound.prompt_tokens
        with pytest.raises(openai.BadRequestError, match="it has 20 x 8 pixels; at most 100"):
            ask("image_url", _png(20, 8))
        with pytest.raises(openai.BadRequestError, match="makes no audio"):
            client.audio.speech.create(model="made", input="a", voice="a")


def test_how_answers_are_sampled():
    """By a model that has learnt nothing, so that most tokens are about as likely."""
    with serving(random_model()) as server:
        client = server.client()

        def text(**options):
            return client.completions.create(model="made", prompt="x", max_tokens=12, **options).choices[0].text

        greedy = text()
        assert text(seed=5) == greedy  # the run's default has no temperature, OpenAI's has 1
        assert text(temperature=1.0, seed=5) == text(temperature=1.0, seed=5) != text(temperature=1.0, seed=6)
        assert text(temperature=1.0) != text(temperature=1.0)
        for only_one in ({"top_k": 1}, {"min_p": 1.0}, {"by": {"text": {"temperature": 0}}}):
            assert text(temperature=2.0, extra_body=only_one) == greedy
        assert text(temperature=2.0, top_p=1e-9) == greedy
        assert text(temperature=1.0, seed=5, extra_body={"top_k": -1}) == text(temperature=1.0, seed=5)
        penalised = {"repetition_penalty": 100.0, "return_token_ids": True}
        answer = client.completions.create(model="made", prompt="x", max_tokens=12, extra_body=penalised)
        ids = answer.choices[0].to_dict()["token_ids"]
        assert len(set(ids)) == len(ids) > 5
        several = client.completions.create(model="made", prompt="x", max_tokens=12, temperature=1.0, seed=5, n=3)
        assert several.choices[0].text == text(temperature=1.0, seed=5)
        assert len({choice.text for choice in several.choices}) == 3
        with pytest.raises(openai.BadRequestError, match="no tokens of that modality are chosen"):
            text(extra_body={"by": {"image": {"temperature": 1}}})
