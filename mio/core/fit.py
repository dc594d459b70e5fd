"""Training: the chain of stages, and one stage from its recipe to a finished run folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from rich.console import Console

from mio.core.checkpoints.reading import listed
from mio.core.codecs import Codecs
from mio.core.data.loader import MioDataModule
from mio.core.data.provenance import check_sources
from mio.core.data.shards.store import TokenStore, tokenizer_fingerprints
from mio.core.errors import UserError
from mio.core.evaluation import evaluate, results_table
from mio.core.plugins import PluginManager
from mio.core.ranks import Ranks
from mio.core.recipe import chain, diff, fingerprint, load_resolved, lock, starting_folder, to_yaml
from mio.core.recipe_check import check
from mio.core.rendering import Renderer
from mio.core.run import CHECKPOINTS, LOCK, RECIPE, SAMPLES, SUMMARY, TOKENIZERS, VOCABULARY, Run
from mio.core.schema import Recipe
from mio.core.tokenizer_fitting import prepare_tokenizers, shared_tokenizers
from mio.core.training import train
from mio.core.vocabulary import Vocabulary
from mio.core.weights import WEIGHTS


def fit_chain(
    recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager, console: Console | None = None
) -> Path:
    """Trains the stage that `recipes` describe, missing earlier stages of its chain first; returns its run folder.

    A finished stage is kept, an interrupted one goes on. Raises `UserError` for a mistake in the recipes or a run
    folder that another recipe made, `Interrupted` after a signal. Under a launcher every process calls this; what is
    not training is done by the first of them.
    """
    ranks = Ranks.join()
    console = (console or Console()) if ranks.first else Console(quiet=True)

    def resolve() -> list[Recipe]:
        stages = chain(recipes, overrides, manager)
        for recipe in stages:
            check(recipe, manager.for_recipe(recipe), ranks.size if ranks.size > 1 else None)
        return stages

    stages = ranks.together(resolve)
    last = stages[-1]
    for recipe in stages:
        folder = Path(recipe.runtime.runs) / recipe.name
        ranks.once(lambda recipe=recipe: claim_folder(recipe))  # type: ignore[misc]
        if not ranks.share((folder / SUMMARY).is_file()):
            if recipe is not last:
                console.print(f"{last.name} builds on {recipe.name}, which is not trained yet: training it first")
            start = starting_folder(recipe)
            fit_stage(recipe, folder, manager, Run.open(start, manager) if start else None, console, ranks)
        elif recipe is last:
            console.print(f"{folder} is finished; nothing to do (give another `name=` to train it again)")
    ranks.wait()  # whoever keeps the connection leaves last
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
        if listed(folder / CHECKPOINTS) or (folder / WEIGHTS).is_file():
            raise UserError(
                f"{folder} was made by another recipe: {'; '.join(changes[:3])}"
                f"{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}. "
                "Give this one another `name=`, or delete the folder"
            )
        shutil.rmtree(folder / TOKENIZERS, ignore_errors=True)  # trained on what the other recipe reads
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_text(to_yaml(recipe), encoding="utf-8")
    return folder


def fit_stage(
    recipe: Recipe, folder: Path, manager: PluginManager, parent: Run | None, console: Console, ranks: Ranks
) -> None:
    """Trains one stage into `folder`: tokenizers, checks, training, evaluation, summary."""
    start = time.perf_counter()
    console.rule(f"[bold]{recipe.name}")
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    seed_everything(recipe.seed, verbose=False)
    plugins = manager.for_recipe(recipe)
    codecs = Codecs(plugins)
    inherited = parent.folder / TOKENIZERS if parent else None
    starts = [shared_tokenizers(recipe, inherited), *([inherited] if inherited else [])]

    def prepare() -> dict[str, Any]:
        return prepare_tokenizers(recipe, folder / TOKENIZERS, starts, plugins, codecs, console)

    tokenizers = ranks.once(prepare)
    if not ranks.first:
        prepare()  # finds them
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), base=parent.vocabulary if parent else None)
    if ranks.first:
        vocabulary.save(folder / VOCABULARY)
        (folder / LOCK).write_text(lock(recipe, plugins, vocabulary, codecs.fingerprints()), encoding="utf-8")

    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    tokens = TokenStore(
        Path(recipe.runtime.tokens), tokenizer_fingerprints(plugins, codecs), codecs.text.fingerprint, console.print
    )
    begun = bool(listed(folder / CHECKPOINTS))
    tokens.known |= ranks.share(ranks.once(lambda: check_sources(recipe, plugins, tokens, folder, begun)) or {})

    def open_data() -> tuple[MioDataModule, dict[str, Any]]:
        devices = ranks.size if ranks.size > 1 else None
        data = MioDataModule(recipe, plugins, renderer, vocabulary.specials.pad, tokens, devices)
        return data, data.preflight()

    data, checked = ranks.together(open_data)
    tell_tokens(data, tokens, console)
    trained = train(recipe, folder, manager, vocabulary, data, parent, ranks, console)
    summary = {
        "recipe": fingerprint(recipe),
        "steps": recipe.train.steps,
        "parameters": trained.parameters,
        **trained.figures,
        **data.report(),
        "codebooks": trained.codebooks,
        "data": checked,
        "tokenizers": tokenizers,
        "vocabulary": {"size": vocabulary.size, "rows": trained.rows},
    }
    ranks.once(lambda: finish(recipe, folder, manager, summary, start, console))


def finish(
    recipe: Recipe, folder: Path, manager: PluginManager, summary: dict[str, Any], start: float, console: Console
) -> None:
    """Evaluates a trained stage and writes its summary, which marks the run as finished."""
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
    partial.replace(folder / SUMMARY)


def tell_tokens(data: MioDataModule, tokens: TokenStore, console: Console) -> None:
    """Says which sources are read from shards, and which could be if they were complete."""
    if data.tokenised:
        console.print(f"read from {tokens.root}: {', '.join(data.tokenised)}", highlight=False)
    for folder in tokens.incomplete:
        console.print(f"{folder} is incomplete and not read; `mio tokenize` goes on with it", highlight=False)
