"""The processes that share a run's work, under `torchrun`, `srun`, `mio fit` itself, or one alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from mio.core.distributed.work import Channel, Work
from mio.core.errors import PeerFailed, UserError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""Ranks may wait for each other for as long as the work of the slowest takes; a rank that dies is noticed at once."""
_POLL = 0.5
_LEAVING = 10.0
"""Seconds that rank 0, which keeps the store, waits for the others to acknowledge a failure."""


def launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


@dataclass
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    nodes: int = 1
    attempt: str = ""
    """Names this start of the processes; the same on all of them, another after a restart."""
    _store: Any = None
    _group: Any = None
    _counts: dict[str, int] = field(default_factory=dict)
    _groups: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def join(cls) -> Ranks:
        """Finds out which rank this process is, and joins the others if there are any.

        The group stays out of `torch.distributed`'s global state: codecs look there, and would take the ranks, which
        do different work, for the ranks of one training.
        """
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                environment = kind()
                rank, size = environment.global_rank(), environment.world_size()
                if size == 1:
                    break
                store, group = _rendezvous(f"tcp://{environment.main_address}:{environment.main_port}", rank, size)
                ranks = cls(rank, size, environment.local_rank(), _nodes(size), "", store, group)
                ranks.attempt = ranks.broadcast(uuid.uuid4().hex[:12])
                return ranks
        return cls(attempt=uuid.uuid4().hex[:12])

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Processes on this node."""
        return self.size // self.nodes

    def barrier(self) -> None:
        """Returns when every rank has called it. Raises `RuntimeError` when one is gone."""
        if self._group is not None:
            self._group.barrier().wait()

    def check(self) -> None:
        """Raises what ended another rank, where nothing else does (see `ForkedRanks`). To be called between pieces."""

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, which JSON can hold, on every rank."""
        if self._store is None:
            return value
        key = self._key("broadcast")
        if self.first:
            self._store.set(key, json.dumps(value))
            return value
        received: T = json.loads(self._store.get(key))
        return received

    def least(self, number: int) -> int:
        """The least of all ranks' numbers, on every rank."""
        if self._store is None:
            return number
        key = self._key("least")
        self._store.set(f"{key}/{self.rank}", str(number))
        self.barrier()
        every = (int(self._store.get(f"{key}/{rank}")) for rank in range(self.size))
        return self.broadcast(min(every) if self.first else 0)

    def on_first(self, work: Callable[[], T]) -> T | None:
        """Does `work` on rank 0 while the others wait: its result there, None elsewhere. Fails as `all_or_none`."""
        return self.all_or_none(work if self.first else lambda: None)

    def all_or_none(self, work: Callable[[], T]) -> T:
        """Does `work` on every rank; returns when all have done it.

        Where it raises a `UserError` on any rank, rank 0 raises one with the messages of all ranks, and the others
        raise `PeerFailed`.
        """
        if self._store is None:
            return work()
        key = self._key("all_or_none")
        problem = ""
        try:
            result = work()
        except UserError as error:
            problem = str(error)
            self._store.set(f"{key}/{self.rank}", json.dumps([socket.gethostname(), problem]))
        self._store.add(f"{key}/failed", int(bool(problem)))
        self.barrier()
        failed = self._store.add(f"{key}/failed", 0)
        if not failed:
            return result
        self._acknowledge(self._store, key)
        if not self.first:
            raise PeerFailed
        problems: dict[str, str] = {}
        for rank in range(self.size):
            if self._store.check([f"{key}/{rank}"]):
                host, text = json.loads(self._store.get(f"{key}/{rank}"))
                problems.setdefault(text, f"rank {rank} on {host}")
        if failed == self.size and len(problems) == 1:
            raise UserError(*problems)
        raise UserError("; ".join(f"{where}: {text}" for text, where in problems.items()))

    def share_out(self, count: int) -> Work:
        """So many pieces of work for all ranks, which call this together."""
        return Work(self._store, self._key("work"), count)

    def channel(self, name: str) -> Channel:
        """Messages among ranks, of which some have the same `name`. All ranks call this together."""
        return Channel(self._store, f"{self._key('channel')}/{name}")

    @contextlib.contextmanager
    def process_group(self, name: str, device_type: str) -> Iterator[None]:
        """`torch.distributed` with these ranks, for the training called `name`.

        Collectives on tensors of the CPU go through gloo, on a GPU through NCCL.
        """
        import torch
        from torch._C._distributed_c10d import HashStore, PrefixStore

        store = self._store
        if store is None:
            if device_type != "cuda":
                yield
                return
            store = HashStore()
        backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
        key = self._key(f"training/{name}")
        torch.distributed.init_process_group(
            backend, store=PrefixStore(key, store), rank=self.rank, world_size=self.size
        )
        try:
            with self._failing_together(f"{key}/failed"):
                yield
        finally:
            self._groups.clear()
            torch.distributed.destroy_process_group()

    def neighbours(self, size: int) -> Any:
        """The group of `torch.distributed` with this rank, of those that cut all ranks into `size` each. A collective
        call, within a process group."""
        import torch

        if size not in self._groups:
            starts = range(0, self.size, size)
            groups = [torch.distributed.new_group(list(range(start, start + size))) for start in starts]
            self._groups[size] = groups[self.rank // size]
        return self._groups[size]

    @contextlib.contextmanager
    def _failing_together(self, key: str) -> Iterator[None]:
        """Ends all ranks when one raises a `UserError` or `OSError` in a training: that rank raises it on, the others
        raise `PeerFailed` or, where a collective does not return, exit."""
        if self._store is None:
            yield
            return
        done, peer_failed = threading.Event(), threading.Event()
        watch = threading.Thread(target=self._watch, args=(self._store.clone(), key, done, peer_failed), daemon=True)
        watch.start()
        try:
            yield
        except (UserError, OSError, RuntimeError) as error:
            lost = _lost_peer(error)
            if isinstance(error, RuntimeError) and not lost:
                raise  # a defect
            if lost:
                silent = peer_failed.wait(4 * _POLL)
            else:
                done.set()
                watch.join()
                silent = peer_failed.is_set() or self._store.add(key, 1) > 1
                if not peer_failed.is_set():
                    self._acknowledge(self._store, key)
            if silent:
                raise PeerFailed from None
            if lost:
                raise ConnectionError("another process of this training is gone; its own message says why") from None
            raise
        finally:
            done.set()

    def _watch(self, store: Any, key: str, done: threading.Event, peer_failed: threading.Event) -> None:
        """Ends this process when another one has failed; a collective may not let go of the main thread."""
        with contextlib.suppress(RuntimeError):  # rank 0 is gone
            while not done.wait(_POLL):
                if store.check([key]):
                    peer_failed.set()
                    self._acknowledge(store, key)
                    if not done.wait(_POLL):  # the one that failed has had time to print why
                        os._exit(PeerFailed().code)
                    return

    def _acknowledge(self, store: Any, key: str) -> None:
        """Notes that this rank knows of a failure. Rank 0, which keeps the store, waits until every rank does."""
        known = store.add(f"{key}/acknowledged", 1)
        until = time.monotonic() + _LEAVING
        while self.first and known < self.size and time.monotonic() < until:
            time.sleep(0.05)
            known = store.add(f"{key}/acknowledged", 0)

    def _key(self, kind: str) -> str:
        """A name that was not used before; ranks come here in the same order."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}/{count}"


@contextlib.contextmanager
def without_process_group() -> Iterator[None]:
    """Hides `torch.distributed`'s default group: codecs, judges and metrics of plugins look there, and would wait for
    ranks that do other work. Groups that are named in a call, and `Ranks`, go on working."""
    import torch

    if not torch.distributed.is_initialized():
        yield
        return
    hidden = torch.distributed.group.WORLD
    torch.distributed.group.WORLD = None
    try:
        yield
    finally:
        torch.distributed.group.WORLD = hidden


def _lost_peer(error: Exception) -> bool:
    """Whether a collective failed because a process of its group is gone."""
    import torch

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "Connection closed by peer" in str(error))


def _nodes(size: int) -> int:
    """Nodes of `size` processes, of which as many run on each."""
    local = os.environ.get("LOCAL_WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if local is not None:
        return max(1, size // int(local))
    return int(os.environ.get("SLURM_NNODES", os.environ.get("SLURM_JOB_NUM_NODES", "1")))


def _rendezvous(address: str, rank: int, size: int) -> tuple[Any, Any]:
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed import ProcessGroupGloo
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous(address, rank, size))
    store.set_timeout(_PATIENCE)
    store = PrefixStore("mio", store)
    return store, ProcessGroupGloo(PrefixStore("prepare", store), rank, size, _PATIENCE)
