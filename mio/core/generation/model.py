"""A trained model that can be asked: its transformer where it decodes, with what makes prompts and reads answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import Decoding
from mio.core.distributed.ranks import Ranks
from mio.core.generation.continuations import Branches, batches, log_likelihoods
from mio.core.generation.engine import Engine, answer_all, answer_room
from mio.core.generation.grammar import Grammar, Need, need_of
from mio.core.generation.growing import AnswerTokens
from mio.core.generation.replicas import PRECISIONS, Replicas, decoding_copy, loaded_copy
from mio.core.generation.requests import Request
from mio.core.model.packed import can_pack
from mio.core.model.transformer import Transformer
from mio.core.recipe.schema import Recipe
from mio.core.runs.run import Run
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendered import Prompt
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary


def need_from(codecs: Codecs, output: str, only: bool, decoding: Decoding) -> Need:
    """What an answer in a modality, or of any for none, needs of what plugins supply. Raises as `need_of`."""
    return need_of(output, codecs.modalities, only, codecs.makers, decoding.most, codecs.undecodable)


@dataclass(frozen=True)
class Model:
    """A model and the ranks that decode with it: of a run, or of what is being trained."""

    recipe: Recipe
    plugins: EnabledPlugins
    vocabulary: Vocabulary
    codecs: Codecs
    renderer: Renderer
    folder: Path
    """Run folder."""
    copy: Callable[[], tuple[Transformer, Replicas]]
    """Makes what decodes (see `decoding_copy`), when it is first needed."""
    weights: Callable[[], Mapping[str, str]] = dict
    """Checksums of the weights' files by name, where they are known."""

    @classmethod
    def of(
        cls,
        run: Run,
        device: torch.device | str = "cpu",
        precision: str = "",
        ranks: Ranks | None = None,
        split: int = 0,
    ) -> Model:
        """The model of a run, in the recipe's precision or another. Where there are several `ranks`, all of them make
        it, in a process group. It keeps no weights beside its own, unless the run's transformer is in use elsewhere.

        Args:
            precision: where none is given, a CPU that cannot multiply bfloat16 computes in float32.
            split: devices that hold a copy together; 0: as few as can.
        """
        place = torch.device(device)
        dtype = PRECISIONS[precision or run.recipe.train.precision]
        if not precision and place.type == "cpu" and not can_pack(place, dtype):
            dtype = torch.float32

        def copy() -> tuple[Transformer, Replicas]:
            if run.loaded:
                return decoding_copy(run.transformer, place, dtype, ranks, split)
            return loaded_copy(run, place, dtype, ranks, split)

        parts = (run.recipe, run.plugins, run.vocabulary, run.codecs, run.renderer, run.folder)
        return cls(*parts, copy, run.weight_sums)

    @cached_property
    def _copied(self) -> tuple[Transformer, Replicas]:
        return self.copy()

    @property
    def transformer(self) -> Transformer:
        """In evaluation mode. A collective call, the first time."""
        return self._copied[0]

    @property
    def replicas(self) -> Replicas:
        """How it is spread over the ranks. A collective call, the first time."""
        return self._copied[1]

    @cached_property
    def grammar(self) -> Grammar:
        """Of its answers."""
        return Grammar.of(self)

    def need(self, output: str, only: bool, decoding: Decoding) -> Need:
        """What an answer in a modality, or of any for none, needs. Raises as `need_of`."""
        return need_from(self.codecs, output, only, decoding)

    def engine(self, rows: int, capacity: int = 0) -> Engine:
        """What answers requests, so many at a time, of so many positions each with their prompts, by default those that
        were trained on. For the rank that leads a copy; the others of the copy `assist`."""
        capacity = capacity or self.recipe.data.packing.context
        followers = None
        if self.replicas.size > 1:
            followers = self.replicas.prompts
            followers.send({"rows": rows, "capacity": capacity})
        return Engine(self.transformer, self.grammar, rows, capacity, self.codecs, followers)

    def request(
        self, prompt: Prompt, decoding: Decoding, need: Need, seed: int, beyond_context: bool = False
    ) -> Request:
        """A request of an answer, within the context that was trained on unless it may go beyond. Raises `DataError`
        where that leaves no room for what is needed."""
        budget = decoding.max_tokens
        if not beyond_context:
            context = self.recipe.data.packing.context
            budget = min(budget, answer_room(len(prompt.tokens), context, self.grammar.least(need)))
        return Request(prompt, decoding, need, seed, budget)

    def answers(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        need: Need,
        seeds: Sequence[int],
        beyond_context: bool = False,
    ) -> list[AnswerTokens]:
        """The answers, made together by an engine of their own. Raises as `request` and `answer_all`."""
        asked = [
            self.request(prompt, decoding, need, seed, beyond_context)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        capacity = max(len(one.prompt.tokens) + one.budget for one in asked)
        return answer_all(self.engine(len(asked), capacity), asked)

    def log_likelihoods(self, branches: Sequence[Branches]) -> list[list[npt.NDArray[np.float32]]]:
        """Of each continuation of each of `branches`, in their order, as many together as evaluation answers prompts
        (see `mio.core.generation.continuations`). For the rank that leads a copy."""
        positions = self.recipe.evaluate.batch * self.recipe.data.packing.context
        pieces = [(number, piece) for number, one in enumerate(branches) for piece in one.pieces(positions)]
        found: dict[int, list[npt.NDArray[np.float32]]] = {}
        for batch in batches([piece for _, piece in pieces], positions):
            some = [pieces[place][1] for place in batch]
            if self.replicas.size > 1:
                self.replicas.prompts.send({"branches": [one.to_json() for one in some]})
            found |= dict(zip(batch, self._log_likelihoods(some), strict=True))
        by_branch: list[list[npt.NDArray[np.float32]]] = [[] for _ in branches]
        for place, (number, _) in enumerate(pieces):
            by_branch[number] += found[place]
        return by_branch

    def _log_likelihoods(self, branches: Sequence[Branches]) -> list[list[npt.NDArray[np.float32]]]:
        return log_likelihoods(self.transformer, self.codecs, self.vocabulary.size, branches)

    @contextmanager
    def led(self) -> Iterator[bool]:
        """Whether this rank asks. One that does not has computed all that was asked of it by then."""
        if not self.replicas.leads:
            self.assist()
            yield False
            return
        try:
            yield True
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        """Tells the ranks that assist that all is asked."""
        if self.replicas.size > 1:
            self.replicas.prompts.send(None)

    def assist(self) -> None:
        """Decodes and scores what the leading rank of this copy asks, until it has asked all."""
        engine = None
        while (message := self.replicas.prompts.receive()) is not None:
            if "branches" in message:
                self._log_likelihoods([Branches.from_json(one) for one in message["branches"]])
            elif engine is None or "rows" in message:
                engine = Engine(self.transformer, self.grammar, message["rows"], message["capacity"], self.codecs)
            else:
                engine.follow(message)
