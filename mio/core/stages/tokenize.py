"""`mio tokenize`: media -> shards for every source of a recipe's chain, by one process or by ranks that share the work.

A source is cut into shards of a fixed number of records. Rank r of W makes the shards r, r + W, ...;
it does not matter which rank makes which, as a shard's bytes depend on its records and tokenizers alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from mio.core import terminal
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import EpochSource
from mio.core.data.hashing import FileHashes, State
from mio.core.data.shards.reader import TokenIndex
from mio.core.data.shards.store import HASHES
from mio.core.data.shards.work import FAILED, Job, ShardWorker, claim, finish, make_job, shards_there
from mio.core.data.sources import every_source
from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError
from mio.core.files import waiting
from mio.core.recipe.chain import starting_folder
from mio.core.recipe.places import RECIPE, TOKENIZERS, run_of_checkpoint
from mio.core.recipe.resolved import diff, load_resolved
from mio.core.recipe.schema import Recipe
from mio.core.runs.active import run_folder
from mio.core.runs.lock import check_run
from mio.core.stages.check_chain import check_chain
from mio.core.stages.tokenizer_fitting import prepare_tokenizers, shared_tokenizers
from mio.core.terminal import Progress
from mio.core.tokens.codecs import Codecs

ENGINES = ("local", "ray")
SHARD_RECORDS = 4096


def tokenize(
    recipes: Sequence[str],
    overrides: Sequence[str],
    manager: PluginManager,
    *,
    shard_records: int = SHARD_RECORDS,
    engine: str = "local",
    local_plugins: Sequence[str] = (),
    console: Console | None = None,
) -> dict[Path, TokenIndex]:
    """Tokenises what the recipe and the earlier stages of its chain read; returns the index of each folder of shards.

    Tokenizers that have to be trained are trained first. Work that was done before is kept, whatever ended it.

    Args:
        shard_records: records of a shard.
        engine: `local`: this process, or the ranks of `torchrun` or `srun`; `ray`: a Ray cluster.
        local_plugins: plugins that are not installed, as they were given to the manager; Ray's workers find them so.

    Raises:
        UserError: a mistake in the recipes, or shards of other tokenizers where these would be written.
    """
    if engine not in ENGINES:
        raise UserError(f"engine `{engine}` is not one of {', '.join(ENGINES)}")
    if shard_records < 1:
        raise UserError(f"a shard has at least 1 record, not {shard_records}")
    stages = [stage.recipe for stage in check_chain(recipes, overrides, manager, trains=False)]
    ranks = Ranks.join()
    console = (console or terminal.console()) if ranks.rank == 0 else terminal.console(quiet=True)
    indices: dict[Path, TokenIndex] = {}
    inherited = inherited_tokenizers(stages[0])
    for recipe in stages:
        # more threads would round differently, and shards must not depend on who made them
        torch.set_num_threads(recipe.runtime.threads or 1)
        if torch.cuda.is_available():
            torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        plugins = manager.enable(recipe.plugins)
        codecs = Codecs(plugins)
        root = Path(recipe.runtime.tokens)
        if ranks.rank == 0:
            with _waiting(root / "tokenizers", console):
                inherited = load_tokenizers(recipe, inherited, plugins, codecs, console)
            ranks.barrier()
        else:
            ranks.barrier()
            inherited = load_tokenizers(recipe, inherited, plugins, codecs, console)
        hashes = FileHashes(root / HASHES, lambda line: console.print(f"  {line}"))
        jobs: dict[Path, Job] = {}
        for source in every_source(recipe, plugins, streamed=True):
            if isinstance(source.records, EpochSource):
                console.print(f"{source.label}: left out, as its records differ from epoch to epoch")
                continue
            job = make_job(root, source, shard_records, hashes, codecs.kept)
            if job.folder not in indices:
                jobs.setdefault(job.folder, job)
        with contextlib.ExitStack() as stack:
            before: dict[Path, dict[str, State]] = {}
            if ranks.rank == 0:  # for all the processes of this command
                for folder in sorted(jobs):  # in one order for all commands, against deadlocks
                    stack.enter_context(_waiting(folder, console))
                for folder, job in jobs.items():
                    if note := claim(job):
                        console.print(note)
                    before[folder] = shards_there(job)
            ranks.barrier()  # the others find the hashes of the first
            if engine == "ray":
                from mio.core.stages.tokenize_ray import run_on_ray

                run_on_ray(list(jobs.values()), recipe, inherited, local_plugins, console)
                shards = [job.shards for job in jobs.values()]
            else:
                shards = _run(list(jobs.values()), ShardWorker(plugins, codecs), ranks, console)
            ranks.barrier()
            for (folder, job), count in zip(jobs.items(), shards, strict=True):
                if ranks.rank == 0:
                    indices[folder] = finish(job, count)
                    line = summary(job, indices[folder], before[folder])
                    console.print(line)
                else:
                    indices[folder] = TokenIndex(0, 0, "", {}, 0, {}, [])
    ranks.barrier()  # rank 0, which keeps the store, leaves last
    return indices


def inherited_tokenizers(first: Recipe) -> Path | None:
    """Those of the run that a chain starts from, which is compared with its lock."""
    start = starting_folder(first)
    if start is None:
        return None
    run = run_of_checkpoint(start) or start
    check_run(run, weights=False, tell=lambda line: None)  # noqa: ARG005 - no records are read here
    return run / TOKENIZERS


def load_tokenizers(
    recipe: Recipe, inherited: Path | None, plugins: EnabledPlugins, codecs: Codecs, console: Console
) -> Path:
    """Loads the tokenizers that a run of the recipe would use, training what is missing; returns their folder.

    They are those of its run folder if there is one, else those of the stage before if it has all, else those of the
    folder that runs find (see `shared_tokenizers`).
    """
    run = run_folder(recipe)
    wanted = codecs.trainable()
    same = (run / RECIPE).is_file() and not diff(load_resolved(run / RECIPE), recipe)
    for folder in ([run / TOKENIZERS] if same else []) + ([inherited] if inherited else []):
        if folder.is_dir() and all((folder / name).is_dir() for name in wanted):
            codecs.load(folder)
            return folder
    shared = shared_tokenizers(recipe, inherited)
    prepare_tokenizers(recipe, shared, [inherited] if inherited else [], plugins, codecs, console)
    return shared


@contextlib.contextmanager
def _waiting(folder: Path, console: Console) -> Iterator[None]:
    """Locks a folder against other commands, after waiting for one that is at work there."""
    folder.mkdir(parents=True, exist_ok=True)

    def tell() -> None:
        console.print(f"waiting for another `mio tokenize` that is at work in {folder}")

    with waiting(folder, tell):
        yield


def _run(jobs: Sequence[Job], worker: ShardWorker, ranks: Ranks, console: Console) -> list[int]:
    """Makes this rank's shards; returns how many shards each job has."""
    shards = []
    for job in jobs:
        total = job.records
        if total is not None and ranks.size > 1:  # this rank's part of them
            mine = range(ranks.rank, job.shards, ranks.size)
            total = sum(min(job.shard_records, total - number * job.shard_records) for number in mine)
        with Progress(console, job.source.label, total) as progress:
            shards.append(worker.run(job, ranks.rank, ranks.size, progress.tick, progress.skip))
    return shards


def summary(job: Job, index: TokenIndex, before: Mapping[str, State]) -> str:
    """What was done for a source, in one line; `before` are the shards that were there."""
    size = sum(path.stat().st_size for path in job.folder.glob("*.shard"))
    line = f"{job.source.label}: {index.records:,} records in {len(index.shards)} shards, {size / 1e6:.1f} MB"
    if index.dropped:
        line += "; dropped " + ", ".join(f"{count:,} ({reason})" for reason, count in index.dropped.items())
    if index.failed:
        line += f"; {index.failed:,} failed, listed in {job.folder / FAILED}"
    for note in getattr(job.source.records, "notes", ()):
        line += f"; {note}"
    if before:
        now = shards_there(job)
        kept = sum(before.get(name) == state for name, state in now.items())
        line += f"; kept {kept:,} of the shards, made {len(now) - kept:,}"
    return line + f" -> {job.folder}{os.sep}"
