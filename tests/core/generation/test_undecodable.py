"""Media that are read and never written: their codes have no detokenizer, so no answer holds any."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scripted_model import found

from mio import Decoding, UserError
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.discovery import local
from mio.core.contract.plugins import PluginManager
from mio.core.distributed.ranks import Ranks
from mio.core.generation.engine import answer_all
from mio.core.generation.grammar import AnswerGrammar, Need
from mio.core.generation.model import Model
from mio.core.generation.replicas import Replicas
from mio.core.model.transformer import Transformer
from mio.core.recipe.data_schema import DataConfig, PackingConfig
from mio.core.recipe.schema import LossConfig, Recipe
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.documents import plain_document
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary

PLUGIN = """
import signals

import mio

mio_modalities, mio_tokenizer = signals.mio_modalities, signals.mio_tokenizer


@mio.hookimpl
def mio_detokenizer(modality):
    if modality == "frames":
        raise mio.UserError("frames are decoded with `fine: true` alone")
    return None if modality in ("flat", "delayed") else signals.mio_detokenizer(modality)
"""

SPANS = ("flat", "major", "frames", "delayed", "square")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("heard") / "heard.py"
    path.write_text(PLUGIN)
    plugins = PluginManager([*found(), local(f"heard={path}")]).enable({"text": {"tokenizer": "bytes"}, "heard": {}})
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=16, layers=1, heads=1), vocabulary.rows).eval()
    with torch.no_grad():  # it would open a span of `flat` before anything else
        transformer.head_weight[vocabulary.begin("flat")] *= 1000
    recipe = Recipe(name="heard", data=DataConfig(form="plain", packing=PackingConfig(context=64)))
    renderer = Renderer(vocabulary, codecs, LossConfig())
    place = Path("runs/heard")
    return Model(recipe, plugins, vocabulary, codecs, renderer, place, lambda: (transformer, Replicas(Ranks())))


def test_no_answer_opens_what_cannot_be_decoded(model):
    allowed = model.grammar.allowed(AnswerGrammar(model.grammar, Need(), 60).state())
    opened = {name for name in SPANS if model.vocabulary.begin(name) in allowed}
    assert opened == {"major", "frames", "square"}


def test_answers_of_any_modality_hold_others_alone(model):
    prompts = [model.renderer.prompt(plain_document(["a" * count], [])) for count in range(1, 9)]
    decoding = Decoding(temperature=2.0, max_tokens=40)
    requests = [model.request(one, decoding, Need(), seed) for seed, one in enumerate(prompts)]
    said = {token for answer in answer_all(model.engine(4), requests) for token in answer.tokens}
    opened = {name for name in SPANS if model.vocabulary.begin(name) in said}
    assert opened
    assert opened <= {"major", "frames", "square"}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("flat", "`flat` is only read: .* no plugin supplies a detokenizer for it, so no answer can be of it$"),
        ("series", "`delayed` is only read: .* no plugin supplies a detokenizer for it, .* can be of `series`$"),
    ],
)
def test_asked_for_it_is_an_error_that_says_what_is_missing(model, output, words):
    with pytest.raises(UserError, match=words):
        model.need(output, True, Decoding())
    assert model.need("major", True, Decoding()).modality == "major"


def test_what_a_plugin_objects_to_is_told_when_something_is_decoded(model):
    """And not when an answer of something else is asked for."""
    with pytest.raises(UserError, match="frames are decoded with `fine: true` alone"):
        model.codecs.detokenizer("frames")
