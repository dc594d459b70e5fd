"""A run that was trained: its folder, opened. Nothing in it is executed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mio.core.checksums import file_sum
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.errors import UserError
from mio.core.files import read_json
from mio.core.model.lora import trained_ranges
from mio.core.model.networks import assign_buffers
from mio.core.model.transformer import Transformer
from mio.core.recipe.adapters import plan_adapters
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import (
    AVERAGE,
    BASE,
    CHECKPOINTS,
    INDEX,
    RECIPE,
    SUMMARY,
    TOKENIZERS,
    VOCABULARY,
    WEIGHTS,
    run_of_checkpoint,
)
from mio.core.recipe.resolved import load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.runs.adapters import FoldedWeights, known_ids
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.lock import Lock, check_run, other_versions, same_declarations, same_vocabulary, warn
from mio.core.runs.parent import check_finished
from mio.core.runs.versions import versions
from mio.core.runs.weights import CheckpointWeights, SavedWeights, stored_tensors
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary


class Run:
    """The result of a training in its run folder, or one of the checkpoints there. Parts are loaded at first use."""

    def __init__(
        self, folder: Path, manager: PluginManager, checkpoint: Path | None = None, average: bool = False
    ) -> None:
        self.folder = folder
        self.average = average
        """Whether its weights are the average that it kept of them."""
        self.manager = manager
        self._checkpoint = checkpoint

    @classmethod
    def open(
        cls,
        folder: str | Path,
        manager: PluginManager,
        tell: Callable[[str], None] = warn,
        weights: bool = True,
        average: bool | None = False,
    ) -> Run:
        """Opens `folder`, that of a finished run, or of a checkpoint (`runs/stage1/checkpoints/step-00000200`) of one
        that need not be finished, and compares it with its lock.

        Args:
            tell: called with a line about other versions of mio, plugins or packages that made the run, and about
                damage that changes no result.
            weights: whether the weights are compared too: one of several ranks that open a run does for all.
            average: whether its weights are to be the average of them; None: as its recipe evaluates it, but for a
                checkpoint from before the average begins.

        Raises:
            UserError: the folder is neither, a file of it is not what the run wrote, or it has no average.
        """
        path = Path(folder)
        of_run = run_of_checkpoint(path)
        if of_run is None:
            check_finished(path)
        run = cls(of_run or path, manager, path if of_run else None)
        lock = check_run(run.folder, weights and of_run is None, tell)
        averaged = True
        if of_run:
            checkpoint = Checkpoint(path)
            checkpoint.check_run(lock.run)
            averaged = bool(checkpoint.state.get("averaged"))
        if changed := other_versions(lock, versions(manager, run.recipe.plugins)):
            tell(f"{run.folder} was made by other versions: {', '.join(changed)}")
        run.average = run.recipe.evaluate.average if average is None else average
        if average is None and run.average and not averaged:
            tell(f"{path}: holds no average of the weights yet; taken are the weights as they are")
            run.average = False
        run._check_average()
        return run

    def with_recipe(self, recipe: Recipe) -> Run:
        """The run as if its recipe were this one, which differs in nothing that decides what was trained. Where it says
        otherwise than the run's own which weights are evaluated, these are its weights. Raises `UserError` if there is
        no average."""
        own, wanted = self.recipe.evaluate.average, recipe.evaluate.average
        run = Run(self.folder, self.manager, self._checkpoint, self.average if wanted == own else wanted)
        run.__dict__["recipe"] = recipe
        run._check_average()
        return run

    def _check_average(self) -> None:
        if self.average and self._checkpoint is None and not (self.folder / AVERAGE).is_file():
            raise UserError(
                f"{self.folder}: has no average of its weights; leave out --average. `train.average` keeps one"
            )

    @cached_property
    def recipe(self) -> Recipe:
        return load_resolved(self.folder / RECIPE, self.manager)

    @cached_property
    def plugins(self) -> EnabledPlugins:
        return self.manager.enable(self.recipe.plugins)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """As the run has it. Raises `VocabularyError` where the plugins at hand make another one."""
        return same_vocabulary(self.folder, self.codecs.text, self.plugins)

    @cached_property
    def stored_vocabulary(self) -> Vocabulary:
        """As its file has it, whatever the plugins at hand declare now: of a run that a stage starts from, which may
        declare more."""
        return Vocabulary.load(self.folder / VOCABULARY)

    @cached_property
    def codecs(self) -> Codecs:
        codecs = Codecs(self.plugins)
        codecs.attach(self.folder / TOKENIZERS)
        return codecs

    @cached_property
    def renderer(self) -> Renderer:
        same_declarations(self.folder, self.codecs)
        return Renderer(self.vocabulary, self.codecs, self.recipe.train.loss)

    @cached_property
    def transformer(self) -> Transformer:
        """The trained transformer in evaluation mode, float32. Nothing is initialised only to be overwritten: weights
        stored as float32 are the file's own memory."""
        transformer = self.blank()
        whole = stored_tensors(transformer)
        state = {
            name: tensor.float() if isinstance(whole[name], nn.Parameter) else tensor
            for name, tensor in self.weights().items()
        }
        assign_buffers(transformer, state)
        transformer.load_state_dict(state, strict=False, assign=True)  # all parameters are there, `blank` has seen
        return transformer.eval()

    def blank(self) -> Transformer:
        """The transformer on the meta device, without its weights, into which those of the run fit. Raises `UserError`
        if they do not, or a file is damaged."""
        same_declarations(self.folder, self.codecs)
        with torch.device("meta"):
            config, networks = transformer_config(self.recipe, self.manager), self.codecs.networks
            transformer = Transformer(config, self.vocabulary.rows, networks)
        expected = {name: tuple(tensor.shape) for name, tensor in stored_tensors(transformer).items()}
        actual = {name: info.shape for name, info in self.saved.infos().items()}
        wrong = [name for name in expected | actual if expected.get(name) != actual.get(name)]
        if wrong:
            raise UserError(
                f"{self._checkpoint or self.folder / WEIGHTS}: does not fit {RECIPE} and {VOCABULARY}: `{wrong[0]}` is "
                f"{_shape(actual.get(wrong[0]))} instead of {_shape(expected.get(wrong[0]))}"
                + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            )
        return transformer

    @property
    def loaded(self) -> bool:
        """Whether the transformer is in memory."""
        return "transformer" in self.__dict__

    @property
    def finished(self) -> bool:
        """Whether this is the result of the run, and not one of its checkpoints."""
        return self._checkpoint is None

    @property
    def measured(self) -> bool:
        """Whether the held-out figures of the run's summary are those of these weights."""
        return self.finished and self.average == self.recipe.evaluate.average

    @property
    def saved(self) -> SavedWeights | CheckpointWeights | FoldedWeights:
        """The trained weights, to be read part by part; adapters are folded in."""
        trained: SavedWeights | CheckpointWeights
        if self._checkpoint is not None:
            trained = CheckpointWeights(self._checkpoint, self.average)
        else:
            trained = SavedWeights(self.folder / (AVERAGE if self.average else WEIGHTS))
        if not (self.folder / BASE).is_file():
            return trained
        lora, base = self.recipe.train.lora, SavedWeights(self.folder / BASE)
        ranges = trained_ranges(Vocabulary.load(self.folder / VOCABULARY), lora.rows, known_ids(base))
        adapters = plan_adapters(transformer_config(self.recipe, self.manager), lora)
        return FoldedWeights(base, trained, adapters, ranges)

    def weight_sums(self) -> dict[str, str]:
        """Checksums of the files that its weights are made of, by name; of a checkpoint, of what names its files."""
        if self._checkpoint is not None:
            index = self._checkpoint / INDEX
            return {f"{CHECKPOINTS}/{self._checkpoint.name}{'/average' * self.average}": file_sum(index)}
        return weight_sums(self.folder, self.average)

    def weights(self) -> dict[str, Any]:
        """State dict of the transformer. Raises `UserError` if a file is damaged."""
        return self.saved.whole()

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.folder / SUMMARY, "restore it from a copy")


def weight_sums(folder: Path, average: bool) -> dict[str, str]:
    """Checksums of the files in a run folder that its weights are made of, those of their average or the last ones."""
    known = Lock.read(folder).files
    names = [name for name in (AVERAGE if average else WEIGHTS, BASE) if (folder / name).is_file()]
    return {name: known.get(name) or file_sum(folder / name) for name in names}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
