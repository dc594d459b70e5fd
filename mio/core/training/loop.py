"""The training of one stage: devices, checkpoints, guards and watchdog around Lightning's loop."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from torch import Tensor

from mio.core.data.batch import Batch
from mio.core.data.journal import Journal
from mio.core.data.loader import MioDataModule, as_raised
from mio.core.distributed.ranks import Ranks
from mio.core.errors import Interrupted, UserError
from mio.core.model.parallel import compile_blocks, compiles, data_parallel, device_mesh, parallelise, recompute
from mio.core.model.transformer import Transformer
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import CHECKPOINTS, JOURNAL, METRICS, PLACES, SKIPPED
from mio.core.recipe.schema import Recipe
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.checkpoints.reading import Checkpoint
from mio.core.runs.checkpoints.writing import CheckpointWriter
from mio.core.runs.folder import RunFolder
from mio.core.runs.run import Run
from mio.core.runs.weights import save_weights, start_weights
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.callbacks import RECORDS, Checkpoints, Figures, ProgressLines, Records
from mio.core.training.events import Events
from mio.core.training.guards import STOP
from mio.core.training.heap import keep_freed_memory
from mio.core.training.metrics_csv import MetricsCSV
from mio.core.training.module import MioModule
from mio.core.training.strategy import ManyDevices, OneDevice
from mio.core.training.watchdog import Watchdog

_NAMED = 8
"""Records that are named of a bad step."""


@dataclass
class Trained:
    """What a training leaves behind, beside the weights in the run folder."""

    parameters: int
    rows: dict[str, Any]
    """Of embedding and head: how many were kept from the parent, new and absent."""
    figures: dict[str, Any]
    codebooks: dict[str, Any]


def train(
    recipe: Recipe,
    folder: Path,
    plugins: Any,
    vocabulary: Vocabulary,
    data: MioDataModule,
    parent: Run | None,
    ranks: Ranks,
    console: Console,
    held: RunFolder | None,
) -> Trained:
    """Runs the optimizer steps that are left and writes the weights. Raises `Interrupted` after a signal.

    `held` is the run folder on rank 0, None on the others.
    """
    quieten_lightning()
    kind = device_type(recipe.runtime.accelerator)
    if kind == "cpu":
        keep_freed_memory()
    with ranks.training(recipe.name, kind):
        return _train(recipe, folder, plugins, vocabulary, data, parent, ranks, console, held, kind)


def device_type(accelerator: str) -> str:
    """`cuda`, `mps` or `cpu`: what a recipe's `runtime.accelerator` means on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "cpu"):
        return "cpu"
    raise UserError(
        f"`runtime` does not fit this machine: `accelerator: {accelerator}` is not here; `auto` takes what is"
    )


def _train(
    recipe: Recipe,
    folder: Path,
    plugins: Any,
    vocabulary: Vocabulary,
    data: MioDataModule,
    parent: Run | None,
    ranks: Ranks,
    console: Console,
    held: RunFolder | None,
    kind: str,
) -> Trained:
    runtime = recipe.runtime
    many = ranks.size > 1 or kind == "cuda"
    device = torch.device(kind, ranks.local_rank) if kind == "cuda" else torch.device(kind)
    mesh = device_mesh(runtime, ranks.size, ranks.local_size, kind) if many else None
    rows: dict[str, Any] = {}

    def spread(transformer: Transformer) -> None:
        if mesh is not None:
            parallelise(transformer, mesh, runtime, recipe.train.precision)
        else:
            recompute(transformer, runtime.activation_checkpointing)
            if compiles(runtime, kind):
                compile_blocks(transformer, kind)
        transformer.to_empty(device=device)
        if parent is not None:
            rows.update(start_weights(transformer, vocabulary, parent, recipe.seed))
        else:
            transformer.reset_parameters(recipe.seed)

    with torch.device("meta"):
        module = MioModule(transformer_config(recipe, plugins), vocabulary, recipe.train, data.stream_names, spread)
    data.windows = module.transformer.windows if kind == "cuda" else ()
    if mesh is not None:
        module.replicas = data_parallel(mesh)[1]
        module.tally.counts = module.meter.counts = mesh["tensor"].get_local_rank() == 0
    parameters = sum(p.numel() for p in module.parameters())
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {vocabulary.size} ids, {recipe.train.steps} steps of "
        f"{recipe.train.rows} rows x {recipe.data.packing.context} tokens"
        + (f" on {ranks.size} devices" if ranks.size > 1 else "")
    )
    module.on_bad_step = _bad_step(module, data, folder, ranks, console)
    strategy = ManyDevices(ranks.size) if many else OneDevice(device=device)
    strategy.writer = CheckpointWriter(
        folder / CHECKPOINTS,
        ranks.rank,
        ranks.size,
        attempt=ranks.attempt,
        keep_last=runtime.keep_last,
        keep_best=runtime.keep_best,
        run=held.lock.run if held else "",
    )
    metrics = MetricsCSV(folder / METRICS)
    records = Records(held, Journal(folder / JOURNAL), metrics) if held else None
    checkpoints = Checkpoints(folder / CHECKPOINTS, runtime.checkpoint_every, records)
    figures = Figures(runtime.log_every, data.shares)
    progress = RichProgressBar() if console.is_terminal else ProgressLines(console, figures)
    watchdog = Watchdog(
        folder / PLACES,
        ranks.rank,
        ranks.size,
        runtime.stalled_after,
        runtime.abort_after,
        lambda text: console.print(text, highlight=False),
    )
    try:
        trainer = Trainer(
            default_root_dir=folder,
            accelerator=kind,
            strategy=strategy,
            devices=ranks.local_size,
            num_nodes=ranks.nodes,
            precision="bf16-mixed" if recipe.train.precision == "bf16" else "32-true",
            max_steps=recipe.train.steps,
            max_epochs=-1,
            accumulate_grad_batches=data.shape.micro_batches,
            callbacks=[figures, checkpoints, watchdog, *([progress] if ranks.first else [])],
            logger=[metrics, Events(folder)],
            log_every_n_steps=runtime.log_every,
            enable_checkpointing=False,
            enable_progress_bar=ranks.first and console.is_terminal,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"`runtime` does not fit this machine: {error}") from error
    # Lightning would answer SIGTERM with a collective from inside the handler, wherever the program is: ranks then wait
    # for each other for ever. `Checkpoints` has the signals.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    resumed = latest(folder / CHECKPOINTS)
    if resumed is not None:
        ranks.once(lambda: check_records(resumed, records, console))
        console.print(f"going on from {resumed}", highlight=False)
    with checkpoints.catching_signals():
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        except UserError as error:
            raise as_raised(error) from error
        finally:
            watchdog.stop()
        strategy.writer.begin()  # where no step was left
        strategy.writer.wait()
    if checkpoints.interrupted and trainer.global_step < recipe.train.steps:
        raise Interrupted(
            f"stopped by {checkpoints.interrupted} after step {trainer.global_step} of {recipe.train.steps}; "
            "the same command goes on from there"
        )
    module.meter.gather()
    if held is not None:
        held.check()
    save_weights(module.transformer, folder, ranks.first)
    told = {
        "train_seconds": round(figures.seconds, 2),
        "tokens_per_second": round(figures.tokens / max(figures.seconds, 1e-9), 1),
        "skipped_steps": module.guard.report(),
    }
    return Trained(parameters, rows, told, module.meter.codebook_usage())


def check_records(checkpoint: Path, records: Records | None, console: Console) -> None:
    """Compares the records in a run folder with the checkpoint that the run goes on from. Raises `UserError`."""
    opened = Checkpoint(checkpoint)
    state = opened.state.get(RECORDS)
    if records is None:
        return
    opened.check_run(records.folder.lock.run)
    if state is not None:
        records.check(state, opened.step, lambda line: console.print(line, highlight=False, soft_wrap=True))


def quieten_lightning() -> None:
    """Silences what Lightning says about things that mio decides: devices, data sets and how they are resumed."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "Your `IterableDataset` has `__len__`",
        "The '.*dataloader' does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")


def _bad_step(
    module: MioModule, data: MioDataModule, folder: Path, ranks: Ranks, console: Console
) -> Callable[[str, list[tuple[Batch, Tensor]]], None]:
    """Tells of a step that was no ordinary one, with the records to blame; ends the run where the guard says so."""
    recent: list[str] = []

    def bad_step(verdict: str, passes: list[tuple[Batch, Tensor]]) -> None:
        named: Any = blamed(data.describe, passes)
        if ranks.size > 1:
            gathered: list[Any] = [None] * ranks.size
            torch.distributed.all_gather_object(gathered, named)
            named = [text for texts in gathered for text in texts]
        named = list(dict.fromkeys(named))[:_NAMED]
        step = passes[0][0].step + 1 if passes else 0
        if module.guard.in_a_row == 1:
            recent.clear()
        recent.extend(text for text in named if text not in recent)
        if ranks.first:
            entry = {"step": step, "verdict": verdict, "reason": module.guard.reason, "records": named}
            with (folder / SKIPPED).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            console.print(f"step {step} ({verdict}): {module.guard.reason}: {'; '.join(named[:3])}", highlight=False)
        if verdict == STOP:
            raise UserError(
                f"stopped at step {step}: {module.guard.reason}, and {module.guard.in_a_row} steps in a row were "
                f"skipped. Their records: {'; '.join(recent[:_NAMED])} (all: {folder / SKIPPED}). Look at these, or "
                "lower `train.optimizer.lr`; the run goes on from its last checkpoint"
            )

    return bad_step


def blamed(describe: Callable[[int, int], str], passes: list[tuple[Batch, Tensor]]) -> list[str]:
    """Records of documents whose loss is not finite; where all are finite, those of the highest mean loss."""
    means: list[tuple[float, int, int]] = []
    for batch, nll in passes:
        for row, (lengths, documents) in enumerate(zip(batch.lengths, batch.documents, strict=True)):
            start = 0
            for length, (leaf, n) in zip(lengths, documents, strict=True):
                means.append((float(nll[row, start : start + length].mean()), leaf, n))
                start += length
    bad = [found for found in means if not abs(found[0]) < float("inf")]
    worst = bad or sorted(means, reverse=True)[:3]
    return [describe(leaf, n) for _, leaf, n in worst[:_NAMED]]
