"""A run folder: everything that a trained model needs, read without executing anything in it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mio.core.codecs import Codecs
from mio.core.errors import UserError
from mio.core.generation.grammar import Grammar
from mio.core.plugins import EnabledPlugins, PluginManager
from mio.core.recipe import load_resolved, transformer_config
from mio.core.rendering import Renderer
from mio.core.schema import Recipe
from mio.core.templates import CHAT
from mio.core.transformer.model import Transformer
from mio.core.vocabulary import Vocabulary
from mio.core.weights import WEIGHTS, SavedWeights

RECIPE = "recipe.yaml"
LOCK = "recipe.lock"
VOCABULARY = "vocabulary.json"
TOKENIZERS = "tokenizers"
SUMMARY = "summary.json"
METRICS = "metrics.csv"
JOURNAL = "journal.csv"
CHECKPOINTS = "checkpoints"
SKIPPED = "skipped_steps.jsonl"
PLACES = "places"
SAMPLES = "samples"


class Run:
    """A run folder whose training is finished. Parts are loaded when first used."""

    def __init__(self, folder: Path, manager: PluginManager) -> None:
        self.folder = folder
        self.manager = manager

    @classmethod
    def open(cls, folder: str | Path, manager: PluginManager) -> Run:
        """Raises `UserError` if the folder holds no finished run."""
        path = Path(folder)
        if not path.is_dir():
            known = sorted(p.parent.name for p in path.parent.glob(f"*/{WEIGHTS}")) if path.parent.is_dir() else []
            hint = f"; finished runs beside it: {', '.join(known)}" if known else "; `mio fit RECIPE` makes one"
            raise UserError(f"{path}: no such run folder{hint}")
        if not (path / WEIGHTS).is_file():
            raise UserError(f"{path}: holds no finished run ({WEIGHTS} is missing); `mio fit` goes on with it")
        return cls(path, manager)

    @cached_property
    def recipe(self) -> Recipe:
        return load_resolved(self.folder / RECIPE)

    @cached_property
    def plugins(self) -> EnabledPlugins:
        return self.manager.for_recipe(self.recipe)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        saved = Vocabulary.load(self.folder / VOCABULARY)
        return Vocabulary.build(self.codecs.text, self.plugins.modalities(), base=saved)

    @cached_property
    def codecs(self) -> Codecs:
        codecs = Codecs(self.plugins)
        codecs.attach(self.folder / TOKENIZERS)
        return codecs

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.vocabulary, self.codecs, self.recipe.train.loss)

    @cached_property
    def grammar(self) -> Grammar:
        """Grammar of the run's answers, which stop as its training documents do."""
        specials = self.vocabulary.specials
        stop = specials.im_end if self.recipe.data.form == CHAT else specials.eos
        return Grammar(self.vocabulary, self.codecs.modalities, stop)

    @cached_property
    def transformer(self) -> Transformer:
        """The trained transformer in evaluation mode, float32. Nothing is initialised only to be overwritten: weights
        stored as float32 are the file's own memory."""
        with torch.device("meta"):
            transformer = Transformer(transformer_config(self.recipe, self.manager), self.vocabulary.rows)
        state = {name: tensor.float() for name, tensor in self.weights().items()}
        transformer.load_state_dict(state, assign=True)
        return transformer.eval()

    @property
    def saved(self) -> SavedWeights:
        """The trained weights, to be read part by part."""
        return SavedWeights(self.folder / WEIGHTS)

    def weights(self) -> dict[str, Any]:
        """State dict of the transformer. Raises `UserError` if the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.folder / WEIGHTS)
        except SafetensorError as error:
            raise UserError(f"{self.folder / WEIGHTS}: is damaged ({error}); restore it from a copy") from error

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
        return content
