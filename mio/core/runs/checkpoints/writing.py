"""Writes checkpoints in the background. Ranks come together through the shared file system alone."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from mio.core.checksums import write_summed
from mio.core.distributed.regions import local_region
from mio.core.errors import UserError
from mio.core.files import read_json, write_text
from mio.core.recipe.places import INDEX
from mio.core.runs.checkpoints.format import STATE, VERSION, checksum, listed, rank_file, rank_part, step_name, sync
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.tensor_files import Planned, in_file_order, write_file

_POLL = 0.02


class CheckpointWriter:
    """Writes the checkpoints of one run, one writer per rank.

    Args:
        folder: of all checkpoints, the same on every rank and seen by all.
        attempt: names this start of the ranks; the same on all of them, another after a restart, so that what an
            earlier start left half written is never taken for this one's.
        keep_last: newest checkpoints that are kept.
        keep_best: further ones that are kept, those of lowest loss.
        patience: seconds that ranks wait for each other's parts.
        run: the run that the checkpoints belong to.
    """

    def __init__(
        self,
        folder: Path,
        rank: int = 0,
        world_size: int = 1,
        *,
        attempt: str = "",
        keep_last: int = 2,
        keep_best: int = 0,
        patience: float = 1800.0,
        run: str = "",
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.world_size = world_size
        self.attempt = attempt
        self.keep_last = max(1, keep_last)
        self.keep_best = keep_best
        self.patience = patience
        self.run = run
        self.stall_seconds = 0.0
        """Seconds that training was held up by all saves."""
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
        self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, loss: float | None = None
    ) -> None:
        """Copies what this rank holds to CPU memory and writes it in the background.

        A part of a `DTensor` that several ranks hold is written by the first of them, a plain tensor by rank 0. An
        earlier save is waited for.

        Raises:
            UserError: the earlier save failed; what was saved before it is whole.
        """
        began = time.perf_counter()
        self.wait()
        self.begin()
        chunks = {name: chunk for name, tensor in tensors.items() if (chunk := self._chunk(tensor)) is not None}
        shapes = {
            name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()
        }
        content = json.dumps(state)
        self.stall_seconds += time.perf_counter() - began
        self._thread = threading.Thread(
            target=self._run, args=(step, chunks, shapes, content, loss), name="checkpoint", daemon=True
        )
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
            assert coordinate is not None
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

    def _run(self, step: int, *arguments: Any) -> None:
        partial = self.folder / f"{step_name(step)}.partial-{self.attempt}"
        try:
            self._write(partial, step, *arguments)
        except OSError as error:
            self._problem = UserError(
                f"{partial}: the checkpoint of step {step} could not be written: {error.strerror or error}; make room "
                "or mend the folder, and give the same command again: earlier checkpoints are whole"
            )
        except Exception as error:  # told by `wait`: a thread's own exceptions reach nobody
            self._problem = error
        if self._problem is not None:
            with contextlib.suppress(OSError):  # nobody has to wait for this rank
                (partial / f"{rank_part(self.rank)}.failed").touch()
            if self.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)

    def _write(
        self,
        partial: Path,
        step: int,
        chunks: Mapping[str, tuple[Tensor, tuple[int, ...]]],
        shapes: Mapping[str, Any],
        state: str,
        loss: float | None,
    ) -> None:
        final = self.folder / step_name(step)
        before = _identity(final)
        partial.mkdir(exist_ok=True)  # not its parents: where the run folder was deleted, none is made
        entries, files = {}, {}
        if chunks:
            path = partial / rank_file(self.rank)
            planned = in_file_order(Planned(name, part.dtype, tuple(part.shape)) for name, (part, _) in chunks.items())
            write_file(path, planned, ((tensor.name, chunks[tensor.name][0]) for tensor in planned))
            sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "checksum": checksum(path)}
            entries = {
                name: {"file": path.name, "offset": list(offset), "shape": list(part.shape)}
                for name, (part, offset) in chunks.items()
            }
        write_text(partial / rank_part(self.rank), json.dumps({"chunks": entries, "files": files}))
        if self.rank:
            self._wait_for(lambda: _identity(final) not in (None, before), partial, f"{final}: not completed by rank 0")
            return
        parts = [partial / rank_part(rank) for rank in range(self.world_size)]
        self._wait_for(
            lambda: all(part.exists() for part in parts),
            partial,
            f"{partial}: not all ranks have written their parts, which all of them write into this folder",
        )
        write_text(partial / STATE, state)
        files[STATE] = {"bytes": len(state.encode()), "checksum": checksum(partial / STATE)}
        tensors: dict[str, Any] = {
            name: {"shape": shape, "dtype": dtype, "chunks": []} for name, (shape, dtype) in shapes.items()
        }
        for part in parts:
            found = read_json(part, "give the same command again")
            files |= found["files"]
            for name, chunk in found["chunks"].items():
                known = tensors[name]["chunks"]
                # what tensor parallelism does not split has one mesh per neighbour, each of which writes it
                if all(chunk["offset"] != other["offset"] for other in known):
                    known.append(chunk)
            part.unlink()
        loss = loss if loss is not None and math.isfinite(loss) else None
        index = {"version": VERSION, "step": step, "loss": loss, "run": self.run, "files": files, "tensors": tensors}
        write_summed(partial / INDEX, index, compact=True)
        sync(partial)
        if final.exists():  # an earlier start of the run came this far
            _remove(final)
        partial.rename(final)
        sync(self.folder)
        self._forget()

    def _wait_for(self, ready: Callable[[], bool], partial: Path, problem: str) -> None:
        deadline = time.monotonic() + self.patience
        while not ready():
            names = _names(partial)
            failed = any(name.endswith(".failed") for name in names) if names is not None else not ready()
            if failed or time.monotonic() > deadline:
                why = "another rank failed" if failed else f"{self.patience:.0f} s are over"
                raise UserError(f"{problem} ({why}); earlier checkpoints are whole")
            time.sleep(_POLL)

    def _forget(self) -> None:
        """Deletes what is neither among the newest nor among the best."""
        found = listed(self.folder)
        losses = {path: loss for path in found if (loss := _loss(path)) is not None}
        kept = {*found[-self.keep_last :], *sorted(losses, key=lambda path: losses[path])[: self.keep_best]}
        for path in found:
            if path not in kept:
                _remove(path)

    def _clean(self) -> None:
        for path in [*self.folder.glob("step-*.partial-*"), *self.folder.glob("step-*.deleting")]:
            if not path.name.endswith(f".partial-{self.attempt}"):  # other ranks may be writing already
                shutil.rmtree(path, ignore_errors=True)


def _loss(path: Path) -> float | None:
    """Of a checkpoint; None if it has none, or cannot be read: what to do about that is told where it is needed."""
    try:
        return Checkpoint(path).loss
    except UserError:
        return None


def _remove(path: Path) -> None:
    """Deletes a checkpoint: it stops being one first, so that none is ever found half deleted."""
    doomed = path.with_name(f"{path.name}.deleting")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _names(folder: Path) -> list[str] | None:
    """What is in a folder; None if there is none. It may be renamed at any moment, which `Path.glob` does not bear."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a folder from another that takes its place; None if there is none."""
    try:
        status = (path / INDEX).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
