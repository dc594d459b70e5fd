"""The shards of `mio tokenize` on a Ray cluster: Ray Data hands them out, actors make them.

The cluster's machines must see the same files and have the same plugins installed. Who makes a shard changes nothing
about its bytes, so a cluster may take up what another engine left, and the other way round.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mio.core.data.hashing import FileHashes
from mio.core.data.shards.store import HASHES
from mio.core.data.shards.work import Job, ShardWorker, make_job
from mio.core.errors import MioError, UserError
from mio.core.recipe.schema import Recipe
from mio.core.terminal import Progress


class ShardActor:
    """One process of the cluster with its tokenizers loaded. Takes and gives rows, as Ray Data does."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        weights: Path,
        local_plugins: Sequence[str],
        jobs: dict[str, int],
    ) -> None:
        """Relative paths start from `folder`; `jobs` are labels of sources with the number of records of a shard."""
        import torch

        from mio.core.contract.plugins import PluginManager
        from mio.core.data.sources import every_source
        from mio.core.tokens.codecs import Codecs

        os.chdir(folder)
        torch.set_num_threads(recipe.runtime.threads or 1)
        plugins = PluginManager.discover(local_plugins).enable(recipe.plugins)
        codecs = Codecs(plugins)
        codecs.load(weights)
        self._worker = ShardWorker(plugins, codecs)
        root = Path(recipe.runtime.tokens)
        sources = {source.label: source for source in every_source(recipe, plugins)}
        hashes = FileHashes(root / HASHES)
        kept = codecs.kept
        self._jobs = {label: make_job(root, sources[label], size, hashes, kept) for label, size in jobs.items()}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Makes the shard `number` of the source `label`; a person's mistake comes back as `problem`."""
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1

        kept: list[int] = []
        try:
            self._worker.make(self._jobs[row["label"]], int(row["number"]), tick, kept.append)
        except UserError as error:
            return {**row, "made": 0, "kept": 0, "problem": str(error)}
        return {**row, "made": done, "kept": sum(kept), "problem": ""}


def run_on_ray(
    jobs: Sequence[Job], recipe: Recipe, weights: Path, local_plugins: Sequence[str], console: Console
) -> None:
    """Makes the shards of all jobs on the cluster that `RAY_ADDRESS` names, or on this machine.

    Raises `UserError` if Ray is not installed, or a source is a stream, which has no shards to hand out.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError('engine `ray` needs Ray: `pip install "mio[ray]"`') from error
    for job in jobs:
        if job.records is None:
            raise UserError(f"{job.source.label}: is a stream, which one process reads in order: use the local engine")
    work = [{"label": job.source.label, "number": number} for job in jobs for number in range(job.shards)]
    if not work:
        return
    ours = not ray.is_initialized()
    if ours:
        environment = {name: os.environ[name] for name in ("MIO_PLUGINS", "PYTHONPATH") if name in os.environ}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": environment})
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        gpus = int(ray.cluster_resources().get("GPU", 0))
        actors = min(len(work), gpus or max(1, int(ray.cluster_resources().get("CPU", 1))))
        rows = ray.data.from_items(work, override_num_blocks=len(work)).map(
            ShardActor,  # type: ignore[arg-type, unused-ignore]  # Ray takes classes too
            fn_constructor_args=(
                Path.cwd(),
                recipe,
                weights,
                tuple(local_plugins),
                {job.source.label: job.shard_records for job in jobs},
            ),
            num_cpus=0 if gpus else 1,
            num_gpus=1 if gpus else 0,
            concurrency=(1, actors),
        )
        with Progress(console, "shards", sum(job.records or 0 for job in jobs)) as progress:
            for row in rows.iter_rows():
                if row["problem"]:
                    raise UserError(row["problem"])
                progress.skip(row["kept"])
                for _ in range(row["made"]):
                    progress.tick()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, MioError) else error from None
    finally:
        if ours:
            ray.shutdown()
