"""From the plan to batches: the data set that builds a rank's rows, and the one LightningDataModule of a run."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mio.core.contract.plugins import EnabledPlugins
from mio.core.data.batch import Batch, assemble
from mio.core.data.drafts import RowRenderer
from mio.core.data.journal import JournalEntry, planned, row_digest
from mio.core.data.ledger import group_shares, ledger
from mio.core.data.plan import Changes, Plan
from mio.core.data.preflight import preflight
from mio.core.data.shards.store import TokenStore
from mio.core.data.sources import build_streams
from mio.core.data.streams import RecordStream
from mio.core.data.taught import can_be_taught, taught_documents
from mio.core.data.unreadable import Unreadable
from mio.core.data.validation import HeldOutSources
from mio.core.errors import DataError, UserError
from mio.core.recipe.distillation import distilled_groups
from mio.core.recipe.schema import Recipe
from mio.core.recipe.steps import StepShape
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer

__all__ = ["Batch", "MioDataModule", "StepBatches"]


def as_raised(error: UserError) -> UserError:
    """An error in its own words: torch gives one of a data worker the whole text of its traceback for a message."""
    text = str(error)
    begin = f"\n{type(error).__module__}.{type(error).__qualname__}: "
    if not text.startswith("Caught ") or begin not in text:
        return error
    return type(error)(text.rpartition(begin)[2].split("\n")[0])


def _keep_inherited(worker: int) -> None:  # noqa: ARG001
    """A forked worker leaves alone what it inherited: destroying it may wait for threads that are not here."""
    gc.freeze()


@dataclass(eq=False)
class StepBatches(IterableDataset[Batch]):
    """The micro batches of one rank, from a cursor to the end of the run.

    Worker j of w builds micro batches j, j + w, ... so that the round robin of `DataLoader` restores their order. All
    workers follow the whole plan; a batch that ends a step carries what the step changed about it.
    """

    plan: Callable[[], Plan]
    """Makes the plan of the run, from its beginning."""
    streams: Sequence[RecordStream]
    shape: StepShape
    steps: int
    pad: int
    rank: int = 0
    cursor: dict[str, Any] | None = None
    windows: Sequence[int] = ()
    """Of attention, where it runs on CUDA."""
    taught: frozenset[int] = frozenset()
    """Indices of the streams that are learnt from another model's probabilities."""
    taught_weight: float = 1.0
    """Factor on their losses."""
    known: int | None = None
    """Ids that the other model knows; None: all."""

    def __len__(self) -> int:
        """Micro batches of the whole run, those before the cursor included: Lightning counts from the run's beginning.

        Without a length Lightning would read a batch ahead of the one that it trains on.
        """
        return self.steps * self.shape.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker else (0, 1)
        plan, first = self.plan(), 0
        if self.cursor is not None:
            plan.restore(self.cursor["plan"])
            first = self.cursor["step"]
        shape, renderer = self.shape, RowRenderer(self.streams, self.pad)
        count = 0
        for step in range(first, self.steps):
            before, plan.changes = plan.rows, Changes()
            rows = [plan.next_row() for _ in range(shape.rows)]
            mine = list(enumerate(rows, before))[self.rank * shape.share : (self.rank + 1) * shape.share]
            for start in range(0, shape.share, shape.micro_rows):
                if count % turns == turn:
                    chosen = mine[start : start + shape.micro_rows]
                    made = renderer.render([row for _, row in chosen])
                    codecs = self.streams[0].renderer.codecs
                    digests = [row_digest(index, row) for index, row in chosen]
                    batch = assemble(made.rows, plan.packing.context, self.pad, self.windows, codecs, digests)
                    batch.waiting, batch.lost = made.slots, made.lost
                    batch.documents = [[(entry.stream, entry.n) for entry in row] for _, row in chosen]
                    batch.digests = digests
                    batch.step = step
                    if self.taught:
                        taught = [
                            [stream in self.taught and can_be_taught(document, self.known) for stream, document in row]
                            for row in made.rows
                        ]
                        context = plan.packing.context
                        batch.taught = taught_documents(taught, batch.lengths, context, self.windows)
                        batch.weights[batch.taught.place >= 0] *= self.taught_weight
                        batch.weight = batch.summed_weight()
                    if start + shape.micro_rows == shape.share:
                        batch.changes = plan.changes
                    yield batch
                count += 1


class Batches(DataLoader[Batch]):
    """A data loader whose batches pass through `finish` in the process that trains on them."""

    finish: Callable[[Batch], Batch]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(self.finish, super().__iter__())


class MioDataModule(LightningDataModule):
    """All sources of a recipe as one sequence of batches.

    Whoever drives the training calls `commit` with every batch that was trained on, before a checkpoint is saved. What
    is saved is the position in the global sequence, so a run may go on with another number of ranks or workers. `pad`
    fills what documents leave of a row; it belongs to no document and has no weight, so any id will do. `tokens` says
    where shards are found, which are read in place of the sources. `devices` are those of all nodes, where they are not
    the recipe's.

    Raises:
        RecipeError: unknown names, wrong options, or rows that do not divide among the devices.
        DataError: a source is empty or its file is missing.
    """

    def __init__(
        self,
        recipe: Recipe,
        plugins: EnabledPlugins,
        renderer: Renderer,
        pad: int = 0,
        tokens: TokenStore | None = None,
        devices: int | None = None,
    ) -> None:
        super().__init__()
        self._recipe = recipe
        self.pad = pad
        self.windows: Sequence[int] = ()
        """Windows of attention (see `DocumentMask.from_lengths`), where it runs on CUDA."""
        self.known: int | None = None
        """Ids that the model knows that teaches, where there is one."""
        self.streams, self._sources = build_streams(recipe, plugins, renderer, tokens)
        self.held_out = HeldOutSources(recipe, plugins, self.streams, tokens) if recipe.validate.every else None
        """What validates."""
        devices = devices or recipe.runtime.devices * recipe.runtime.nodes
        self.shape = StepShape.of(recipe.train, devices // recipe.runtime.tensor_parallel)
        """How the rows of a step are shared out."""
        self._step = 0
        self._committed = self._plan()
        self._rows = RowRenderer(self.streams, pad)
        self.unreadable = Unreadable(self.stream_names)
        """Documents trained on as padding, as their media are damaged."""

    @property
    def codecs(self) -> Codecs:
        """What makes tokens of media, or prepares them for encoders."""
        return self.streams[0].renderer.codecs

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Name of each stream, by the index that `Batch.stream` holds."""
        return tuple(stream.name for stream in self.streams)

    @property
    def _taught(self) -> frozenset[int]:
        """Streams of the groups that are learnt from the parent's probabilities."""
        groups = set(distilled_groups(self._recipe))
        return frozenset(number for number, stream in enumerate(self.streams) if stream.share[0] in groups)

    def taught_anew(self, trained: Collection[str], known: int) -> list[str]:
        """Groups that are learnt from the probabilities of a parent that was not trained on them, as far as the records
        tell whose media were encoded when they were checked.

        Args:
            trained: the groups that it was trained on.
            known: ids that it knows.
        """
        streams = [self.streams[number] for number in sorted(self._taught)]
        return list(
            dict.fromkeys(
                stream.share[0]
                for stream in streams
                if stream.share[0] not in trained
                and any(
                    can_be_taught(stream.document_of(record), known)
                    for record in sorted(stream.sample.encoded)
                    if not stream.reason_of(record)
                )
            )
        )

    @property
    def tokenised(self) -> list[str]:
        """`group/source` of the sources that are read from shards."""
        return [source.label for source in self._sources if source.tokenised]

    def _plan(self) -> Plan:
        train = self._recipe.train
        return Plan(self.streams, self._recipe.mixture, self._recipe.data.packing, train.steps * train.rows)

    def preflight(self) -> dict[str, Any]:
        """Checks the sources (see `mio.core.data.preflight`). Raises `DataError` if too much is broken."""
        return preflight(self._sources, self.streams, self._recipe.data.max_skipped)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Copies from pinned memory do not wait for the work that is queued on the GPU; Lightning's would."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def train_dataloader(self) -> DataLoader[Batch]:
        """This rank's micro batches from the committed cursor on."""
        workers = self._recipe.runtime.workers
        # neighbours of one tensor-parallel group see the same rows
        rank = self.trainer.global_rank // self._recipe.runtime.tensor_parallel if self.trainer else 0
        batches = StepBatches(
            plan=self._plan,
            streams=self.streams,
            shape=self.shape,
            steps=self._recipe.train.steps,
            pad=self.pad,
            rank=rank,
            cursor=self._cursor(),
            windows=self.windows,
            taught=self._taught,
            taught_weight=self._recipe.train.distillation.weight,
            known=self.known,
        )
        loader = Batches(
            batches,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_keep_inherited,
            pin_memory=torch.cuda.is_available(),
        )
        loader.finish = self._finish
        return loader

    def _finish(self, batch: Batch) -> Batch:
        batch = self._rows.fill(batch)
        self.unreadable.take(batch.lost)
        return batch

    def commit(self, batch: Batch) -> None:
        """Notes that `batch` was trained on. Only the last batch of a step moves the cursor."""
        if batch.changes is not None:
            assert batch.step == self._step, "steps are committed one after the other"
            self._committed.follow(batch.changes)
            self._step = batch.step + 1
            self.unreadable.commit()

    def describe(self, stream: int, n: int) -> str:
        """Names the record behind the n-th document of a stream, for messages."""
        return f"{self.streams[stream].name}: {self.streams[stream].describe(n)}"

    def journal(self) -> Iterator[JournalEntry]:
        """What each step of the run has to consist of, by the plan alone, from the first step on."""
        return planned(self._plan(), self.shape.rows, self._recipe.train.steps)

    def report(self) -> dict[str, Any]:
        """What the committed steps were trained on (see `mio.core.data.ledger`)."""
        return ledger(self._committed.counters()) | self.unreadable.report()

    def shares(self) -> dict[str, tuple[float, float]]:
        """(target, achieved) share of each group over the committed steps, in the mixture's unit."""
        return group_shares(self._committed.counters())

    @property
    def _counts_rows(self) -> bool:
        """Whether this rank's rows are counted: of those that see the same ones, one rank's are."""
        return not self.trainer or self.trainer.global_rank % self._recipe.runtime.tensor_parallel == 0

    def _cursor(self) -> dict[str, Any]:
        return {"step": self._step, "plan": self._committed.state()}

    def state_dict(self) -> dict[str, Any]:
        """The committed cursor. Raises `DataError` if the ranks' plans have come apart."""
        cursor = self._cursor()
        own: Any = self.unreadable.own if self._counts_rows else {}
        found = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            position = {**cursor["plan"], "examples": []}  # error messages may differ between machines
            digest = hashlib.sha256(json.dumps(position).encode()).hexdigest()
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, (digest, own))
            found = [own for _, own in gathered]
            if len({digest for digest, _ in gathered}) > 1:
                raise DataError(
                    f"the ranks disagree about the data after step {self._step}: some of them read records "
                    "that others could not. Check that every machine sees the same files, and go on from the last "
                    "checkpoint"
                )
        self.unreadable.add(found)
        return cursor | self.unreadable.report()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a saved cursor. Raises `DataError` if it belongs to other data, shares or packing."""
        self._committed.restore(state_dict["plan"])
        self._step = state_dict["step"]
        self.unreadable.restore(state_dict)
