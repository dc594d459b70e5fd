"""The rows of a run are a function of recipe and lock: these must be the same in every version of mio.

A change of one of them breaks the continuation of every interrupted run and the repetition of every finished one, so it
comes with a new `VERSION` of the plan's state. These digests are those of version 2, taken when fair queueing began to
keep every share within one row at any moment; those of version 1 were the same from the first rows that mio made.
"""

from __future__ import annotations

import hashlib
import json

import pytest
from made_shards import data_module, write

from mio.core.contract.plugins import PluginManager
from mio.core.data.loader import MioDataModule
from mio.core.recipe.compose import compose
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

GOLDEN = {
    ("all", "tokens", 384, 32): "5c0487fc8d4495d1",
    ("all", "rows", 384, 200): "36edd0fdc5e2d2be",
    ("pretraining", "rows", 256, 1000): "903c266614a50b6b",
    ("text", "tokens", 300, 1): "ad7d1a9b19313d18",
    ("speech", "tokens", 512, 64): "86f3e24ee87be648",
}
RATIOS = {
    "all": {"image_text": 3, "text": 1, "interleaved": 2, "speech_text": 2, "sft": 1},
    "pretraining": {"image_text": 12, "text": 2, "interleaved": 0, "speech_text": 2},
    "text": {"text": 1},
    "speech": {"image_text": 2, "text": 1, "interleaved": 1, "speech_text": 12},
}


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "tokens of texts"])
def corpora(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    write(folder, request.param)
    return folder


def digest(module):
    """Of everything that the batches of a run hold, and of the data cursor after its last step."""
    seen = hashlib.sha256()
    for batch in module.train_dataloader():
        for tensor in (batch.tokens, batch.targets, batch.weights, batch.positions, batch.stream):
            seen.update(tensor.numpy().tobytes())
        seen.update(json.dumps([batch.lengths, batch.documents, batch.digests, batch.step]).encode())
        module.commit(batch)
    state = module.state_dict()
    for name, stream in state["plan"]["identity"]["streams"].items():
        assert stream.pop("content"), name  # a fingerprint of the files, whose paths are this test's
    state["plan"]["examples"] = []
    seen.update(json.dumps(state, sort_keys=True).encode())
    return seen.hexdigest()[:16]


@pytest.mark.parametrize(
    ("ratios", "unit", "context", "window"),
    [
        ("all", "tokens", 384, 32),
        ("all", "rows", 384, 200),
        ("pretraining", "rows", 256, 1000),  # more than an epoch waits
        ("text", "tokens", 300, 1),
        ("speech", "tokens", 512, 64),
    ],
)
def test_rows_are_those_of_this_version_of_the_plan(corpora, ratios, unit, context, window):
    module = data_module(corpora, ratios=RATIOS[ratios], unit=unit, context=context, window=window)
    assert digest(module) == GOLDEN[ratios, unit, context, window]


@pytest.mark.parametrize(("window", "expected"), [(16, "5ba06179767bc6f0"), (2000, "66bb4f5bfc717a4e")])
def test_rows_of_a_recipe_on_raw_media(tunes, window, expected):  # noqa: ARG001
    """The recipe that the other tests train: a modality of somebody else's package, bytes as tokens."""
    manager = PluginManager.discover()
    recipe = compose(["tunes.yaml"], [f"data.packing.window={window}"], manager)
    plugins = manager.enable(recipe.plugins)
    codecs = Codecs(plugins)
    renderer = Renderer(
        Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens()), codecs, recipe.train.loss
    )
    assert digest(MioDataModule(recipe, plugins, renderer)) == expected
