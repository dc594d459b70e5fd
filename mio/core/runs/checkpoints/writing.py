"""Writes checkpoints in the background. Ranks wait for each other in the writing threads, through a gloo group of their
own: training goes on with its own collectives, and a rank that is gone is noticed at once."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from mio.core.checksums import write_summed
from mio.core.distributed.regions import local_region
from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.recipe.places import INDEX
from mio.core.runs.checkpoints.format import STATE, VERSION, checksum, listed, rank_file, step_name, sync
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.tensor_files import Planned, in_file_order, write_file


class _Snapshot(NamedTuple):
    """What a checkpoint holds, as this rank has it."""

    step: int
    partial: Path
    """Folder that it is written in."""
    chunks: Mapping[str, tuple[Tensor, tuple[int, ...]]]
    """Copies of the parts that this rank writes, and their place in the tensor, by its name."""
    tensors: dict[str, dict[str, Any]]
    """Shape, dtype and (none yet) chunks of every tensor, as in the index."""
    state: str
    loss: float | None
    figure: float | None


class Best(NamedTuple):
    """What makes a checkpoint one of the best."""

    figure: str
    """Name of a figure of validation, which checkpoints of steps with a validation note."""
    highest: bool


class CheckpointWriter:
    """Writes the checkpoints of one run, one writer per rank.

    Args:
        folder: of all checkpoints, the same on every rank and seen by all.
        group: gloo group of all ranks that nothing else uses; None where there is one process. Its timeout is how long
            ranks wait for each other.
        attempt: names this start of the ranks; the same on all of them, another after a restart, so that what an
            earlier start left half written is never taken for this one's.
        keep_last: newest checkpoints that are kept.
        keep_best: further ones that are kept, the best ones.
        best: by which figure; None: those of lowest training loss. Checkpoints without it are none of them.
        run: the run that the checkpoints belong to.
    """

    def __init__(
        self,
        folder: Path,
        group: dist.ProcessGroup | None = None,
        *,
        attempt: str = "",
        keep_last: int = 2,
        keep_best: int = 0,
        best: Best | None = None,
        run: str = "",
    ) -> None:
        self.folder = folder
        self.group = group
        self.rank = dist.get_rank(group) if group is not None else 0
        self.attempt = attempt
        self.keep_last = max(1, keep_last)
        self.keep_best = keep_best
        self.best = best
        self.run = run
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None
        self._begun = False

    def begin(self) -> None:
        """Makes the folder and deletes what an earlier start left half written there. `save` does it where it was not
        done before: until then nothing is changed."""
        if self._begun:
            return
        self._begun = True
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            self._clean()

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        loss: float | None = None,
        figure: float | None = None,
    ) -> None:
        """Copies what this rank holds to CPU memory and writes it in the background.

        A part of a `DTensor` that several ranks hold is written by the first of them, a plain tensor by rank 0. An
        earlier save is waited for.

        Raises:
            UserError: the earlier save failed; what was saved before it is whole.
        """
        self.wait()
        self.begin()
        snapshot = _Snapshot(
            step,
            self.folder / f"{step_name(step)}.partial-{self.attempt}",
            {name: chunk for name, tensor in tensors.items() if (chunk := self._chunk(tensor)) is not None},
            {
                name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "chunks": []}
                for name, tensor in tensors.items()
            },
            json.dumps(state),
            loss if loss is not None and math.isfinite(loss) else None,
            figure if figure is not None and math.isfinite(figure) else None,
        )
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the last save is whole, on every rank. Raises `UserError` if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def _chunk(self, tensor: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
        """A copy of this rank's part of a tensor and its place; None if another rank writes it, or it is empty."""
        part = tensor.detach()
        if isinstance(part, DTensor):
            coordinate = part.device_mesh.get_coordinate()
            if coordinate is None:  # others have it
                return None
            copies = (at for at, placement in zip(coordinate, part.placements, strict=True) if placement == Replicate())
            if any(copies):
                return None
            shape, offset = local_region(part)
            part = part.to_local()
            assert tuple(part.shape) == shape, f"a part of shape {tuple(part.shape)} is no box of {shape}"
        else:
            if self.rank:
                return None
            offset = (0,) * part.dim()
        if not math.prod(part.shape):
            return None
        return part.to("cpu", copy=True).contiguous(), offset

    def _write(self, snapshot: _Snapshot) -> None:
        """The writing thread: what ends it is raised by `wait`."""
        try:
            parts = self._on_every_rank(snapshot, lambda: self._write_part(snapshot))
            self._on_every_rank(snapshot, lambda: self._complete(snapshot, parts) if self.rank == 0 else None)
        except Exception as error:
            self._problem = error
            if self.rank == 0:
                shutil.rmtree(snapshot.partial, ignore_errors=True)

    def _on_every_rank(self, snapshot: _Snapshot, work: Callable[[], Any]) -> list[Any]:
        """Does `work`; returns, on rank 0, what it returned on all ranks once all have done it.

        Where it fails on one rank, every rank raises a `UserError` with the same message. A defect is raised as it is.
        """
        result, problem, defect = None, "", None
        try:
            result = work()
        except Exception as error:
            if isinstance(error, OSError):
                reason = error.strerror or str(error)
            else:
                reason, defect = f"{type(error).__name__}: {error}", error
            problem = (
                f"{snapshot.partial}: the checkpoint of step {snapshot.step} could not be written: {reason}; make room "
                "or mend the folder, and give the same command again: earlier checkpoints are whole"
            )
        results, outcome = [(result, problem)], [problem]  # the problem that all ranks raise
        if self.group is not None:
            results *= self.group.size()
            try:
                dist.gather_object((result, problem), results if self.rank == 0 else None, 0, self.group)
                outcome = [next((problem for _, problem in results if problem), "")]
                dist.broadcast_object_list(outcome, 0, self.group)
            except RuntimeError as error:
                if "imed out" not in str(error):
                    raise  # a rank is gone
                outcome = [f"{snapshot.partial}: not all ranks have written their parts in time; the last one is whole"]
        if defect:
            raise defect
        if outcome[0]:
            raise UserError(outcome[0])
        return [result for result, _ in results]

    def _write_part(self, snapshot: _Snapshot) -> dict[str, Any]:
        """Returns the chunks and files that this rank has written, as in the index."""
        snapshot.partial.mkdir(exist_ok=True)  # not its parents: where the run folder was deleted, none is made
        chunks = snapshot.chunks
        if not chunks:
            return {"chunks": {}, "files": {}}
        path = snapshot.partial / rank_file(self.rank)
        planned = in_file_order(Planned(name, part.dtype, tuple(part.shape)) for name, (part, _) in chunks.items())
        write_file(path, planned, ((tensor.name, chunks[tensor.name][0]) for tensor in planned))
        sync(path)
        entries = {
            name: {"file": path.name, "offset": list(offset), "shape": list(part.shape)}
            for name, (part, offset) in chunks.items()
        }
        return {"chunks": entries, "files": {path.name: {"bytes": path.stat().st_size, "checksum": checksum(path)}}}

    def _complete(self, snapshot: _Snapshot, parts: list[dict[str, Any]]) -> None:
        """Rank 0 writes what the parts have in common and makes a checkpoint of them."""
        partial, final = snapshot.partial, self.folder / step_name(snapshot.step)
        write_text(partial / STATE, snapshot.state)
        state = {"bytes": len(snapshot.state.encode()), "checksum": checksum(partial / STATE)}
        files = {**parts[0]["files"], STATE: state}
        for part in parts:
            files |= part["files"]
            for name, chunk in part["chunks"].items():
                known = snapshot.tensors[name]["chunks"]
                # what tensor parallelism does not split has one mesh per neighbour, each of which writes it
                if all(chunk["offset"] != other["offset"] for other in known):
                    known.append(chunk)
        index = {
            "version": VERSION,
            "step": snapshot.step,
            "loss": snapshot.loss,
            **({"figures": {self.best.figure: snapshot.figure}} if self.best else {}),
            "run": self.run,
            "files": files,
            "tensors": snapshot.tensors,
        }
        write_summed(partial / INDEX, index, compact=True)
        sync(partial)
        if final.exists():  # an earlier start of the run came this far
            _remove(final)
        partial.rename(final)
        sync(self.folder)
        self._forget()

    def _forget(self) -> None:
        """Deletes what is neither among the newest nor among the best."""
        checkpoints = listed(self.folder)
        losses = {path: loss for path in checkpoints if (loss := self._loss(path)) is not None}
        kept = {*checkpoints[-self.keep_last :], *sorted(losses, key=lambda path: losses[path])[: self.keep_best]}
        for path in checkpoints:
            if path not in kept:
                _remove(path)

    def _loss(self, path: Path) -> float | None:
        """What is low where a checkpoint is good; None if it has none, or cannot be read."""
        try:
            checkpoint = Checkpoint(path)
        except UserError:
            return None
        if self.best is None:
            return checkpoint.loss
        figure = checkpoint.figures.get(self.best.figure)
        return -figure if figure is not None and self.best.highest else figure

    def _clean(self) -> None:
        for path in [*self.folder.glob("step-*.partial-*"), *self.folder.glob("step-*.deleting")]:
            if not path.name.endswith(f".partial-{self.attempt}"):  # other ranks may be writing already
                shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Deletes a checkpoint: it stops being one first, so that none is ever found half deleted."""
    doomed = path.with_name(f"{path.name}.deleting")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
