"""Training: the chain of stages, and one stage from its recipe to a finished run folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from rich.console import Console
from rich.text import Text

from mio.core import terminal
from mio.core.contract.plugins import PluginManager
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore, tokenizer_fingerprints
from mio.core.distributed.ranks import Ranks
from mio.core.errors import UserError
from mio.core.files import write_text
from mio.core.generation.evaluation import evaluate, results_table
from mio.core.recipe.chain import chain, starting_folder
from mio.core.recipe.places import CHECKPOINTS, LOCK, RECIPE, SAMPLES, SUMMARY, TOKENIZERS, VOCABULARY, WEIGHTS
from mio.core.recipe.resolved import diff, fingerprint, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.folder import RunFolder, held, telling
from mio.core.runs.lock import Lock, check_run, lock_run, same_vocabulary, versions
from mio.core.runs.run import Run
from mio.core.stages.check import check
from mio.core.stages.provenance import check_sources
from mio.core.stages.tokenizer_fitting import prepare_tokenizers, shared_tokenizers
from mio.core.terminal import plain
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.loop import device_type, train

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"


def fit_chain(
    recipes: Sequence[str], overrides: Sequence[str], manager: PluginManager, console: Console | None = None
) -> Path:
    """Trains the stage that `recipes` describe, missing earlier stages of its chain first; returns its run folder.

    A finished stage is kept, an interrupted one goes on. Raises `UserError` for a mistake in the recipes or a run
    folder that another recipe made, `Interrupted` after a signal. Under a launcher every process calls this; what is
    not training is done by the first of them.
    """
    ranks = Ranks.join()
    console = (console or terminal.console()) if ranks.first else terminal.console(quiet=True)

    def resolve() -> list[Recipe]:
        stages = chain(recipes, overrides, manager)
        for recipe in stages:
            check(recipe, manager.enable(recipe.plugins), ranks.size if ranks.size > 1 else None)
            device_type(recipe.runtime.accelerator)
        return stages

    stages = ranks.together(resolve)
    last = stages[-1]

    def tell(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    for recipe in stages:
        folder = Path(recipe.runtime.runs) / recipe.name
        with contextlib.ExitStack() as holding:
            found = ranks.share(ranks.once(partial(claim_folder, recipe, holding, tell, recipe is last)))
            if found != FINISHED:
                if recipe is not last:
                    console.print(f"{last.name} builds on {recipe.name}, which is not trained yet: training it first")
                parent = open_parent(recipe, manager, tell, ranks)
                fit_stage(recipe, folder, manager, parent, console, ranks, goes_on=found == UNFINISHED)
            elif recipe is last:
                console.print(f"{folder} is finished; nothing to do (give another `name=` to train it again)")
    ranks.wait()  # whoever keeps the connection leaves last
    return folder


def open_parent(recipe: Recipe, manager: PluginManager, tell: Callable[[str], None], ranks: Ranks) -> Run | None:
    """The run that a stage starts from, compared with its lock by the first rank."""
    start = starting_folder(recipe)
    if start is None:
        return None
    quiet = tell if ranks.first else lambda line: None  # noqa: ARG005
    return ranks.together(lambda: Run.open(start, manager, quiet, weights=ranks.first))


def claim_folder(recipe: Recipe, holding: contextlib.ExitStack, tell: Callable[[str], None], whole: bool = True) -> str:
    """Takes the run folder of a recipe for this process, unless it is finished; returns what is there: nothing
    (`NEW`), a run that goes on (`UNFINISHED`) or one that is `FINISHED`.

    A folder in which no step was saved is given to the recipe as it now is: a first attempt that a mistake in the data
    ended stands in nobody's way. Nothing is written into any other.

    Args:
        holding: keeps the folder.
        tell: given a line about damage that changes no result.
        whole: whether the weights of a finished run are compared with its lock: those of a run that another starts
            from are when it does.

    Raises:
        UserError: another recipe was trained in the folder, another process trains in it, or it is not what its run
            wrote.
    """
    folder = Path(recipe.runtime.runs) / recipe.name
    if not (folder / SUMMARY).is_file():
        holding.enter_context(held(folder))
    finished = (folder / SUMMARY).is_file()
    if finished or latest(folder / CHECKPOINTS) is not None or (folder / WEIGHTS).is_file():
        check_run(folder, weights=finished and whole, tell=tell if whole else lambda line: None)  # noqa: ARG005
        if changes := diff(load_resolved(folder / RECIPE), recipe):
            raise UserError(
                f"{folder} was made by another recipe: {'; '.join(changes[:3])}"
                f"{f' and {len(changes) - 3} more' if len(changes) > 3 else ''}. "
                "Give this one another `name=`, or delete the folder"
            )
        return FINISHED if finished else UNFINISHED
    with telling(folder):
        (folder / LOCK).unlink(missing_ok=True)
        if not _same_recipe(folder, recipe):
            shutil.rmtree(folder / TOKENIZERS, ignore_errors=True)  # trained on what the other recipe reads
        write_text(folder / RECIPE, to_yaml(recipe))
    return NEW


def _same_recipe(folder: Path, recipe: Recipe) -> bool:
    try:
        return not diff(load_resolved(folder / RECIPE), recipe)
    except UserError:
        return False


def fit_stage(
    recipe: Recipe,
    folder: Path,
    manager: PluginManager,
    parent: Run | None,
    console: Console,
    ranks: Ranks,
    goes_on: bool,
) -> None:
    """Trains one stage into `folder`: tokenizers, checks, training, evaluation, summary.

    Args:
        goes_on: whether the folder holds an unfinished run: its files count and stay as they are until all is checked.
    """
    start = time.perf_counter()
    console.rule(Text(plain(recipe.name), style="bold"))
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    seed_everything(recipe.seed, verbose=False)
    plugins = manager.enable(recipe.plugins)
    codecs = Codecs(plugins)
    inherited = parent.folder / TOKENIZERS if parent else None
    starts = [shared_tokenizers(recipe, inherited), *([inherited] if inherited else [])]

    def prepare() -> dict[str, Any]:
        if goes_on:
            codecs.attach(folder / TOKENIZERS)
            codecs.fingerprints()  # makes all of them, which compares them
            return {}
        return prepare_tokenizers(recipe, folder / TOKENIZERS, starts, plugins, codecs, console)

    with telling(folder):
        tokenizers = ranks.once(prepare)
        if not ranks.first:
            prepare()  # finds them
    if goes_on:
        vocabulary = ranks.together(lambda: same_vocabulary(folder, codecs.text, plugins))
    else:
        base = parent.vocabulary if parent else None
        vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), base=base)

    def hold() -> RunFolder:
        now = versions(manager, plugins.names)
        if not goes_on:
            with telling(folder):
                vocabulary.save(folder / VOCABULARY)
                lock_run(folder, recipe, plugins, vocabulary, codecs.fingerprints())
        return RunFolder(folder, Lock.read(folder), now, lambda line: console.print(line, highlight=False))

    run_folder = ranks.once(hold)
    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    tokens = TokenStore(
        Path(recipe.runtime.tokens), tokenizer_fingerprints(plugins, codecs), codecs.text.fingerprint, console.print
    )
    begun = latest(folder / CHECKPOINTS) is not None
    with telling(folder):
        tokens.known |= ranks.share(ranks.once(lambda: check_sources(recipe, plugins, tokens, folder, begun)) or {})

    def open_data() -> tuple[MioDataModule, dict[str, Any]]:
        devices = ranks.size if ranks.size > 1 else None
        data = MioDataModule(recipe, plugins, renderer, vocabulary.specials.pad, tokens, devices)
        return data, data.preflight()

    data, checked = ranks.together(open_data)
    tell_tokens(data, tokens, console)
    for label, told in checked.items():
        for note in told.get("notes", ()):
            console.print(f"{label}: {note}", highlight=False, markup=False)
        if told["unknown"]:
            unused = ", ".join(f"{what} ({count:,} records)" for what, count in told["unknown"].items())
            console.print(f"{label}: not used: {unused}", highlight=False, markup=False)
    with telling(folder):
        trained = train(recipe, folder, manager, vocabulary, data, parent, ranks, console, run_folder)
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
    ranks.once(lambda: finish(recipe, run_folder, manager, summary, start, console))


def finish(
    recipe: Recipe,
    run_folder: RunFolder | None,
    manager: PluginManager,
    summary: dict[str, Any],
    start: float,
    console: Console,
) -> None:
    """Evaluates a trained stage and writes its summary, which marks the run as finished."""
    assert run_folder is not None
    folder = run_folder.folder
    with telling(folder):
        run_folder.seal([WEIGHTS])
        if recipe.evaluate.tasks:
            console.print(f"evaluating on held-out data: {', '.join(recipe.evaluate.tasks)}")
            run = Run(folder, manager)
            summary["tasks"] = evaluate(run, progress=lambda line: console.print(f"  {line}", highlight=False))
            console.print(results_table(summary["tasks"]))
            made = sorted(path for path in (folder / SAMPLES).iterdir() if path.suffix != ".json")
            console.print(f"what the model made: {', '.join(str(path) for path in made[:12])}", highlight=False)
        summary["wall_seconds"] = round(time.perf_counter() - start, 1)
        run_folder.finish(summary)


def tell_tokens(data: MioDataModule, tokens: TokenStore, console: Console) -> None:
    """Says which sources are read from shards, and which could be if they were complete."""
    if data.tokenised:
        console.print(f"read from {tokens.root}: {', '.join(data.tokenised)}", highlight=False)
    for folder in tokens.incomplete:
        console.print(f"{folder} is incomplete and not read; `mio tokenize` goes on with it", highlight=False)
