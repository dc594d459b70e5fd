"""Training: the chain of stages, and one stage from its recipe to a finished run folder."""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from safetensors.torch import save_file

from mio.core.callbacks import Checkpoints, Figures, ProgressLines
from mio.core.codecs import Codecs
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore, tokenizer_fingerprints
from mio.core.errors import Interrupted, UserError
from mio.core.evaluation import evaluate, results_table
from mio.core.metrics_csv import MetricsCSV
from mio.core.module import MioModule
from mio.core.optimizer import ROW_PARAMETERS
from mio.core.plugins import PluginManager
from mio.core.recipe import (
    chain,
    diff,
    fingerprint,
    load_resolved,
    lock,
    starting_folder,
    to_yaml,
    transformer_config,
)
from mio.core.recipe_check import check
from mio.core.rendering import Renderer
from mio.core.rows import migrate_rows
from mio.core.run import CHECKPOINT, LOCK, METRICS, RECIPE, SAMPLES, SUMMARY, TOKENIZERS, VOCABULARY, WEIGHTS, Run
from mio.core.schema import Recipe
from mio.core.tokenizer_fitting import prepare_tokenizers, shared_tokenizers
from mio.core.vocabulary import Vocabulary


def fit_chain(
    recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager, console: Console | None = None
) -> Path:
    """Trains the stage that `recipes` describe, missing earlier stages of its chain first; returns its run folder.

    A finished stage is kept, an interrupted one goes on. Raises `UserError` for a mistake in the recipes or a run
    folder that another recipe made, `Interrupted` after a signal.
    """
    console = console or Console()
    stages = chain(recipes, overrides, manager)
    last = stages[-1]
    for recipe in stages:
        check(recipe, manager.for_recipe(recipe))
    for recipe in stages:
        folder = claim_folder(recipe)
        if not (folder / SUMMARY).is_file():
            if recipe is not last:
                console.print(f"{last.name} builds on {recipe.name}, which is not trained yet: training it first")
            start = starting_folder(recipe)
            fit_stage(recipe, folder, manager, Run.open(start, manager) if start else None, console)
        elif recipe is last:
            console.print(f"{folder} is finished; nothing to do (give another `name=` to train it again)")
    return folder


def claim_folder(recipe: Recipe) -> Path:
    """The run folder of a recipe, made if it is new. Raises `UserError` if another recipe was trained in it.

    A folder in which no step was saved is given to the recipe as it now is: a first attempt that a mistake in the data
    ended stands in nobody's way.
    """
    folder = Path(recipe.runtime.runs) / recipe.name
    if (folder / RECIPE).is_file():
        changes = diff(load_resolved(folder / RECIPE), recipe)
        if not changes:
            return folder
        if (folder / CHECKPOINT).is_file() or (folder / WEIGHTS).is_file():
            raise UserError(
                f"{folder} was made by another recipe: {'; '.join(changes[:3])}"
                f"{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}. "
                "Give this one another `name=`, or delete the folder"
            )
        shutil.rmtree(folder / TOKENIZERS, ignore_errors=True)  # trained on what the other recipe reads
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_text(to_yaml(recipe), encoding="utf-8")
    return folder


def fit_stage(recipe: Recipe, folder: Path, manager: PluginManager, parent: Run | None, console: Console) -> None:
    """Trains one stage into `folder`: tokenizers, checks, training, evaluation, summary."""
    start = time.perf_counter()
    console.rule(f"[bold]{recipe.name}")
    quieten_lightning()
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    seed_everything(recipe.seed, verbose=False)
    plugins = manager.for_recipe(recipe)
    codecs = Codecs(plugins)
    inherited = parent.folder / TOKENIZERS if parent else None
    starts = [shared_tokenizers(recipe, inherited), *([inherited] if inherited else [])]
    tokenizers = prepare_tokenizers(recipe, folder / TOKENIZERS, starts, plugins, codecs, console)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), base=parent.vocabulary if parent else None)
    vocabulary.save(folder / VOCABULARY)
    (folder / LOCK).write_text(lock(recipe, plugins, vocabulary, codecs.fingerprints()), encoding="utf-8")

    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    tokens = TokenStore(Path(recipe.runtime.tokens), tokenizer_fingerprints(plugins, codecs))
    data = MioDataModule(recipe, plugins, renderer, vocabulary.specials.pad, tokens)
    tell_tokens(data, tokens, console)
    checked = data.preflight()
    module = MioModule(transformer_config(recipe, manager), vocabulary, recipe.train, data.leaf_names)
    rows = start_weights(module, parent, recipe.seed)
    parameters = sum(p.numel() for p in module.parameters())
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {vocabulary.size} ids, {recipe.train.steps} steps of "
        f"{recipe.train.rows} rows x {recipe.data.packing.context} tokens"
    )
    figures = train(recipe, folder, module, data, console)
    save_weights(module, folder)
    summary = {
        "recipe": fingerprint(recipe),
        "steps": recipe.train.steps,
        "parameters": parameters,
        **figures,
        **data.report(),
        "codebooks": module.meter.codebook_usage(),
        "data": checked,
        "tokenizers": tokenizers,
        "vocabulary": {"size": vocabulary.size, "rows": rows},
    }
    if recipe.evaluate.tasks:
        console.print(f"evaluating on held-out data: {', '.join(recipe.evaluate.tasks)}")
        run = Run(folder, manager)
        summary["tasks"] = evaluate(run, progress=lambda line: console.print(f"  {line}", highlight=False))
        console.print(results_table(summary["tasks"]))
        made = sorted(path for path in (folder / SAMPLES).iterdir() if path.suffix != ".json")
        console.print(f"what the model made: {', '.join(str(path) for path in made[:12])}", highlight=False)
    summary["wall_seconds"] = round(time.perf_counter() - start, 1)
    partial = folder / f"{SUMMARY}.partial"
    partial.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    partial.replace(folder / SUMMARY)  # the summary marks the run as finished


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


def tell_tokens(data: MioDataModule, tokens: TokenStore, console: Console) -> None:
    """Says which sources are read from shards, and which could be if they were complete."""
    if data.tokenised:
        console.print(f"read from {tokens.root}: {', '.join(data.tokenised)}", highlight=False)
    for folder in tokens.incomplete:
        console.print(f"{folder} is incomplete and not read; `mio tokenize` goes on with it", highlight=False)


def start_weights(module: MioModule, parent: Run | None, seed: int) -> dict[str, Any]:
    """Loads the parent's weights, embedding and head rows by name. Returns how many rows were kept, new and absent."""
    if parent is None:
        return {}
    state = parent.weights()
    report: dict[str, Any] = {}
    for name in [name for name in ROW_PARAMETERS if name in state]:
        state[name], rows = migrate_rows(state[name], parent.vocabulary, module.vocabulary, seed)
        report = {"kept": rows.kept, "new": rows.new, "absent": rows.absent}
    expected = module.transformer.state_dict()
    wrong = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    if wrong:
        raise UserError(
            f"{parent.folder}: its model has another shape than the recipe's: {', '.join(wrong[:3])}; "
            "give `model:` the values of the run that this stage starts from"
        )
    module.transformer.load_state_dict(state)
    return report


def train(recipe: Recipe, folder: Path, module: MioModule, data: MioDataModule, console: Console) -> dict[str, Any]:
    """Runs the optimizer steps that are left. Returns wall seconds and speed; raises `Interrupted` after a signal."""
    runtime = recipe.runtime
    checkpoint = folder / CHECKPOINT
    checkpoints = Checkpoints(checkpoint, runtime.checkpoint_every)
    figures = Figures(runtime.log_every, data.shares)
    progress = RichProgressBar() if console.is_terminal else ProgressLines(console, figures)
    try:
        trainer = Trainer(
            default_root_dir=folder,
            accelerator=runtime.accelerator,
            devices=runtime.devices,
            num_nodes=runtime.nodes,
            precision="bf16-mixed" if recipe.train.precision == "bf16" else "32-true",
            max_steps=recipe.train.steps,
            max_epochs=-1,
            accumulate_grad_batches=data.micro_batches_per_step,
            callbacks=[figures, checkpoints, progress],
            logger=[MetricsCSV(folder / METRICS), TensorBoardLogger(folder, name="", version="")],
            log_every_n_steps=runtime.log_every,
            enable_checkpointing=False,
            enable_progress_bar=console.is_terminal,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"`runtime` does not fit this machine: {error}") from error
    resumed = checkpoint if checkpoint.is_file() else None
    if resumed is not None:
        if not zipfile.is_zipfile(checkpoint):
            raise UserError(f"{checkpoint}: is damaged; delete it and the run starts anew")
        console.print(f"going on from {checkpoint}")
    with checkpoints.catching_signals():
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    if checkpoints.interrupted and trainer.global_step < recipe.train.steps:
        raise Interrupted(
            f"stopped by {checkpoints.interrupted} after step {trainer.global_step} of {recipe.train.steps}; "
            "the same command goes on from there"
        )
    return {
        "train_seconds": round(figures.seconds, 2),
        "tokens_per_second": round(figures.tokens / max(figures.seconds, 1e-9), 1),
    }


def save_weights(module: MioModule, folder: Path) -> None:
    """Writes the transformer's weights as safetensors, whole or not at all."""
    state = {name: tensor.detach().contiguous() for name, tensor in module.transformer.state_dict().items()}
    partial = folder / f"{WEIGHTS}.partial"
    save_file(state, partial)
    partial.replace(folder / WEIGHTS)
