"""A run folder: everything that a trained model needs, read without executing anything in it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mio.core.checkpoints.reading import latest
from mio.core.codecs import Codecs
from mio.core.errors import UserError
from mio.core.generation.grammar import Grammar
from mio.core.plugins import EnabledPlugins, PluginManager
from mio.core.recipe import load_resolved, run_of_checkpoint, transformer_config
from mio.core.rendering import Renderer
from mio.core.schema import Recipe
from mio.core.templates import CHAT
from mio.core.transformer.model import Transformer
from mio.core.vocabulary import Vocabulary
from mio.core.weights import WEIGHTS, CheckpointWeights, SavedWeights

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
    """What a training made: the result in its run folder, or one of the checkpoints there. Parts are loaded when first
    used."""

    def __init__(self, folder: Path, manager: PluginManager, checkpoint: Path | None = None) -> None:
        self.folder = folder
        self.manager = manager
        self._checkpoint = checkpoint

    @classmethod
    def open(cls, folder: str | Path, manager: PluginManager) -> Run:
        """`folder` is that of a finished run, or of a checkpoint (`runs/stage1/checkpoints/step-00000200`) of one that
        need not be finished. Raises `UserError` if it is neither."""
        path = Path(folder)
        if (of_run := run_of_checkpoint(path)) is not None:
            return cls(of_run, manager, path)
        if not path.is_dir():
            known = sorted(p.parent.name for p in path.parent.glob(f"*/{WEIGHTS}")) if path.parent.is_dir() else []
            hint = f"; finished runs beside it: {', '.join(known)}" if known else "; `mio fit RECIPE` makes one"
            raise UserError(f"{path}: no such run folder{hint}")
        if not (path / WEIGHTS).is_file():
            saved = latest(path / CHECKPOINTS)
            hint = f", and {saved} is its last checkpoint" if saved else ""
            raise UserError(f"{path}: holds no finished run ({WEIGHTS} is missing); `mio fit` goes on with it{hint}")
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
    def saved(self) -> SavedWeights | CheckpointWeights:
        """The trained weights, to be read part by part."""
        if self._checkpoint is not None:
            return CheckpointWeights(self._checkpoint)
        return SavedWeights(self.folder / WEIGHTS)

    def weights(self) -> dict[str, Any]:
        """State dict of the transformer. Raises `UserError` if a file is damaged."""
        if self._checkpoint is not None:
            return CheckpointWeights(self._checkpoint).whole()
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
