"""Training: the chain of stages, and one stage from its recipe to a finished run folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from rich.console import Console
from rich.text import Text

from mio.core import terminal
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.data.loader import MioDataModule
from mio.core.data.shards.store import TokenStore
from mio.core.distributed.devices import device_type
from mio.core.distributed.ranks import Ranks
from mio.core.evaluation.answering import need_of_task
from mio.core.evaluation.evaluation import Report, evaluate
from mio.core.evaluation.table import results_table
from mio.core.generation.model import Model
from mio.core.generation.replicas import PRECISIONS, decoding_copy
from mio.core.model.network_check import check_networks_run
from mio.core.model.transformer import Transformer
from mio.core.recipe.chain import starting_folder
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import (
    BASE,
    CHECKPOINTS,
    METRICS,
    SAMPLES,
    SUMMARY,
    TOKENIZERS,
    VOCABULARY,
)
from mio.core.recipe.resolved import fingerprint
from mio.core.recipe.schema import Recipe
from mio.core.runs.active import ActiveRun, explaining_errors, run_folder
from mio.core.runs.adapters import FoldedWeights, write_base
from mio.core.runs.checkpoints.format import latest
from mio.core.runs.lock import RESULTS, Lock, lock_run, same_declarations, same_vocabulary
from mio.core.runs.run import Run, weight_sums
from mio.core.stages.check_chain import CheckedStage, check_chain
from mio.core.stages.check_networks import check_networks
from mio.core.stages.claiming import FINISHED, NEW, UNFINISHED, claim_folder
from mio.core.stages.completions import CompletionLook
from mio.core.stages.drift import Reproduction, started_from
from mio.core.stages.locking import circumstances, reproductions
from mio.core.stages.provenance import check_sources, run_sources
from mio.core.stages.tokenizer_fitting import prepare_tokenizers, shared_tokenizers
from mio.core.stages.validation_tasks import TaskLook, lower_is_better
from mio.core.terminal import plain
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.rendering import Renderer
from mio.core.tokens.vocabulary import Vocabulary
from mio.core.training.loop import Training, training_device
from mio.core.training.run_log import CSV, RunLog, check_loggers, make_loggers
from mio.core.training.validation import Look, together


def fit_chain(
    recipes: Sequence[str],
    overrides: Sequence[str],
    manager: PluginManager,
    console: Console | None = None,
    stages: Sequence[CheckedStage] | None = None,
    finished: Callable[[Path], None] = lambda folder: None,  # noqa: ARG005
    drift: Sequence[str] = (),
) -> Path:
    """Trains the stage that `recipes` describe, missing earlier stages of its chain first; returns its run folder.

    A finished stage is kept, an interrupted one goes on. Raises `UserError` for a mistake in the recipes or a run
    folder that another recipe made, `Interrupted` after a signal. Under a launcher every process calls this; what is
    not training is done by the first of them. `stages` are those that the recipes describe, where this process has
    checked them already. Of a lock file, all that differs from it is an error but for the groups `drift`.
    """
    ranks = Ranks.join()
    console = (console or terminal.console()) if ranks.first else terminal.console(quiet=True)

    locked = ranks.on_first(lambda: reproductions(recipes, overrides, manager, drift, ranks.size)) or {}

    def resolve() -> Sequence[CheckedStage]:
        checked = stages or check_chain(recipes, overrides, manager, ranks.size if ranks.size > 1 else None)
        for stage in checked:
            device_type(stage.recipe.runtime.accelerator, trains=True)
        return checked

    checked = ranks.all_or_none(resolve)
    last = checked[-1].recipe
    ranks.on_first(lambda: _check_loggers(checked, manager))
    threads = torch.get_num_threads()

    for stage in checked:
        recipe = stage.recipe
        with contextlib.ExitStack() as lock:
            state = ranks.broadcast(ranks.on_first(partial(claim_folder, recipe, lock, console.print, recipe is last)))
            if state != FINISHED:
                if recipe is not last:
                    console.print(f"{last.name} builds on {recipe.name}, which is not trained yet: training it first")
                if state == NEW:
                    for note in stage.notes:
                        console.print(Text(plain(f"{recipe.name}: {note}")))
                torch.set_num_threads(recipe.runtime.threads or threads)
                Stage(recipe, manager, ranks, console, state == UNFINISHED, locked.get(recipe.name)).fit()
                if ranks.first:
                    finished(run_folder(recipe))
            elif recipe is last:
                console.print(f"{run_folder(last)} is finished; nothing to do (give another `name=` to train it again)")
    ranks.barrier()  # rank 0, which keeps the store, leaves last
    return run_folder(last)


def _check_loggers(stages: Sequence[CheckedStage], manager: PluginManager) -> None:
    """Those of all stages that are going to be trained. Raises `UserError`."""
    for stage in stages:
        if not (run_folder(stage.recipe) / SUMMARY).is_file():
            check_loggers(stage.recipe.runtime, manager)


@dataclass(frozen=True)
class Stage:
    """One stage, from its recipe to a finished run folder."""

    recipe: Recipe
    manager: PluginManager
    ranks: Ranks
    console: Console
    goes_on: bool
    """Whether the folder holds an unfinished run: its files count and stay as they are until all is checked."""
    reproduces: Reproduction | None = None
    """What a lock file says of the stage; on the first rank."""

    @cached_property
    def folder(self) -> Path:
        return run_folder(self.recipe)

    @cached_property
    def parent(self) -> Run | None:
        """The run that it starts from, compared with its lock by rank 0. A collective call, the first time."""
        start, first = starting_folder(self.recipe), self.ranks.first
        if start is None:
            return None
        return self.ranks.all_or_none(lambda: Run.open(start, self.manager, self.console.print, weights=first))

    @cached_property
    def plugins(self) -> EnabledPlugins:
        return self.manager.enable(self.recipe.plugins)

    @cached_property
    def codecs(self) -> Codecs:
        return Codecs(self.plugins)

    def fit(self) -> None:
        """Tokenizers, checks, training, evaluation, summary."""
        with contextlib.ExitStack() as stack:
            self._fit(stack)

    def _fit(self, stack: contextlib.ExitStack) -> None:
        """`stack` ends the log."""
        recipe, ranks, folder, parent = self.recipe, self.ranks, self.folder, self.parent
        start = time.perf_counter()
        self.console.rule(Text(plain(recipe.name), style="bold"))
        if torch.cuda.is_available():  # tokenizers encode on it before Lightning chooses it
            torch.cuda.set_device(ranks.local_rank)
        seed_everything(recipe.seed, verbose=False)
        ranks.all_or_none(self._check_networks)
        ranks.all_or_none(self._check_tasks)
        with explaining_errors(folder):
            tokenizers = ranks.on_first(self._prepare_tokenizers)
            if not ranks.first:
                self._prepare_tokenizers()  # loads those of rank 0
        vocabulary = self._vocabulary()
        active = ranks.on_first(lambda: self._activate(vocabulary))
        tokens = self._tokens()

        def open_data() -> tuple[MioDataModule, dict[str, Any]]:
            devices = ranks.size if ranks.size > 1 else None
            renderer = Renderer(vocabulary, self.codecs, recipe.train.loss)
            data = MioDataModule(recipe, self.plugins, renderer, vocabulary.specials.pad, tokens, devices)
            data.unreadable.tell = self.console.print
            checked = data.preflight()
            if ranks.first:
                check_networks_run(self.codecs, transformer_config(recipe, self.manager).width)
            return data, checked

        data, checked = ranks.all_or_none(open_data)
        self._report_data(data, tokens, checked)
        log = self._log(stack) if active is not None else None
        with explaining_errors(folder):
            model = partial(self._model, vocabulary)
            validate = recipe.validate
            look = self._look(model, data)
            errors = lower_is_better(self.plugins, validate.tasks)
            training = Training(
                recipe, self.manager, vocabulary, data, parent, active, log, ranks, self.console, look, errors
            )
            tasks: Report = {}

            def measure(transformer: Transformer) -> None:
                ranks.on_first(lambda: active.seal(RESULTS) if active else None)
                if recipe.evaluate.tasks:
                    tasks.update(self._evaluate(model(transformer)))

            trained = training.run(after=measure)
        summary = {
            "recipe": fingerprint(recipe),
            "steps": recipe.train.steps,
            "parameters": trained.parameters,
            **trained.metrics,
            **data.report(),
            "codebooks": trained.codebooks,
            **({"heads": {name: {"items": count} for name, count in trained.heads.items()}} if trained.heads else {}),
            "data": checked,
            "tokenizers": tokenizers,
            "vocabulary": {"size": vocabulary.size, "rows": trained.rows},
            **({"tasks": tasks} if recipe.evaluate.tasks else {}),
        }
        ranks.on_first(lambda: self._finish(active, log, summary, start))

    def _check_networks(self) -> None:
        """Before anything takes long."""
        if self.goes_on:
            same_declarations(self.folder, self.codecs)
        config, parent = transformer_config(self.recipe, self.manager), None if self.goes_on else self.parent
        check_networks(self.codecs.networks, config, self.recipe.train, parent)

    def _check_tasks(self) -> None:
        """Whether what the model is asked in its training and after it can be answered."""
        recipe, known = self.recipe, self.plugins.tasks()
        for name in dict.fromkeys((*recipe.validate.tasks, *recipe.evaluate.tasks)):
            if (task := known[name][1]).choices is None:
                need_of_task(task, self.codecs)

    def _prepare_tokenizers(self) -> dict[str, Any]:
        """Loads or trains them; returns the metrics of those that were trained."""
        if self.goes_on:
            self.codecs.attach(self.folder / TOKENIZERS)
            self.codecs.fingerprints()  # loads all of them, which compares them
            return {}
        inherited = self.parent.folder / TOKENIZERS if self.parent else None
        starts = [shared_tokenizers(self.recipe, inherited), *([inherited] if inherited else [])]
        return prepare_tokenizers(
            self.recipe, self.folder / TOKENIZERS, starts, self.plugins, self.codecs, self.console
        )

    def _vocabulary(self) -> Vocabulary:
        if self.goes_on:
            return self.ranks.all_or_none(lambda: same_vocabulary(self.folder, self.codecs.text, self.plugins))
        base = self.parent.stored_vocabulary if self.parent else None
        plugins = self.plugins
        return Vocabulary.build(self.codecs.text, plugins.modalities(), plugins.control_tokens(), base=base)

    def _activate(self, vocabulary: Vocabulary) -> ActiveRun:
        """The run in the folder; a new one is given its vocabulary and lock."""
        now = circumstances(self.manager, self.recipe, self.ranks.size if self.ranks.size > 1 else 0)
        if not self.goes_on:
            with explaining_errors(self.folder):
                vocabulary.save(self.folder / VOCABULARY)
                self._prepare_base(vocabulary)
                fingerprints = self.codecs.fingerprints()
                reproduces = self.reproduces.record() if self.reproduces else None
                start = asdict(started_from(self.parent)) if self.parent else None
                lock = lock_run(
                    self.folder,
                    self.recipe,
                    self.plugins,
                    vocabulary,
                    fingerprints,
                    versions=now,
                    reproduces=reproduces,
                    start=start,
                )
            if self.reproduces:
                self.reproduces.check_made(lock)
        return ActiveRun(self.folder, Lock.read(self.folder), now, self.console.print)

    def _prepare_base(self, vocabulary: Vocabulary) -> None:
        """Writes the frozen weights of a new run with adapters."""
        recipe, parent = self.recipe, self.parent
        (self.folder / BASE).unlink(missing_ok=True)  # of an earlier attempt
        if not recipe.train.lora.rank:
            return
        assert parent is not None, "a recipe with adapters starts from something"
        if isinstance(parent.saved, FoldedWeights):
            self.console.print(f"the adapters of {parent.folder} are folded into its weights, to which new ones belong")
        config, networks = transformer_config(recipe, self.manager), self.codecs.networks
        write_base(self.folder, config, vocabulary, parent, recipe.seed, networks)

    def _log(self, stack: contextlib.ExitStack) -> RunLog:
        loggers = make_loggers(self.recipe.runtime, self.manager)
        for name in set(self.recipe.runtime.loggers) - {*loggers, CSV}:
            self.console.print(f"no plugin brings the logger `{name}`: figures are in {self.folder / METRICS} alone")
        log = RunLog(self.recipe, self.folder, loggers, self.console.print)
        stack.callback(log.close)
        return log

    def _tokens(self) -> TokenStore:
        """The store of shards, with the fingerprints of the sources, which rank 0 compares with earlier ones."""
        tokens = TokenStore.of(self.recipe, self.plugins, self.codecs, self.console.print)
        begun = latest(self.folder / CHECKPOINTS) is not None
        with explaining_errors(self.folder):
            known = self.ranks.on_first(lambda: self._check_sources(tokens, begun))
            tokens.known |= self.ranks.broadcast(known or {})
        return tokens

    def _check_sources(self, tokens: TokenStore, begun: bool) -> dict[str, str]:
        known = check_sources(self.recipe, self.plugins, tokens, self.folder, begun)
        if self.reproduces:
            self.reproduces.check_sources(run_sources(self.folder))
        return known

    def _report_data(self, data: MioDataModule, tokens: TokenStore, checked: dict[str, Any]) -> None:
        """Prints which sources are read from shards or could be if these were complete, what the checks noticed,
        and groups that are taught by a parent that may not know them."""
        if data.tokenised:
            self.console.print(f"read from {tokens.root}: {', '.join(data.tokenised)}")
        for folder in tokens.incomplete:
            self.console.print(f"{folder} is incomplete and not read; `mio tokenize` goes on with it")
        for label, report in checked.items():
            for note in report.get("notes", ()):
                self.console.print(f"{label}: {note}")
            if report["unknown"]:
                unused = ", ".join(f"{what} ({count:,} records)" for what, count in report["unknown"].items())
                self.console.print(f"{label}: not used: {unused}")
        parent = self.parent
        if parent is None or not self.ranks.first:
            return
        recipe = parent.recipe
        trained = [group for group in recipe.data.groups if recipe.mixture.read(group)]
        anew = data.taught_anew(trained, parent.stored_vocabulary.size) if trained else ()  # an imported model has none
        for group in anew:
            self.console.print(
                f"`{group}` is learnt from what {parent.folder} says of it, whose mixture did not have it; "
                f'"!{group}" in `train.distillation.groups` has it learnt as it is'
            )

    def _model(self, vocabulary: Vocabulary, transformer: Transformer) -> Model:
        """What is trained, as a model that can be asked, in the precision and on the devices of the training."""
        recipe = self.recipe
        device = training_device(recipe.runtime.accelerator, self.ranks)
        copy = partial(decoding_copy, transformer, device, PRECISIONS[recipe.train.precision], self.ranks)
        renderer = Renderer(vocabulary, self.codecs, recipe.train.loss)
        sums = partial(weight_sums, self.folder, recipe.evaluate.average)
        return Model(recipe, self.plugins, vocabulary, self.codecs, renderer, self.folder, copy, sums)

    def _look(self, model: Callable[[Transformer], Model], data: MioDataModule) -> Look | None:
        """What validations look at beside losses."""
        validate, samples = self.recipe.validate, self.folder / SAMPLES
        looks: list[Look] = []
        if validate.tasks:
            looks.append(TaskLook(model, validate.tasks, validate.task_items, samples))
        if validate.samples and data.held_out is not None and len(data.held_out):
            steps, tell = self.recipe.train.steps, self.console.print
            looks.append(CompletionLook(model, data.held_out, validate.samples, steps, samples, tell))
        return together(looks) if looks else None

    def _evaluate(self, model: Model) -> Report:
        """Figures of the recipe's tasks, on the first rank. A collective call."""
        console = self.console
        console.print(f"evaluating on held-out data: {', '.join(self.recipe.evaluate.tasks)}")
        report = evaluate(model, progress=lambda line: console.print(f"  {line}"))
        if self.ranks.first:
            console.print(results_table(report))
            samples = sorted(path for path in (self.folder / SAMPLES).glob("*.*") if path.suffix != ".json")
            if samples:
                console.print(f"what the model made: {', '.join(str(path) for path in samples[:12])}")
        return report

    def _finish(self, active: ActiveRun | None, log: RunLog | None, summary: dict[str, Any], start: float) -> None:
        """Writes the summary of a stage, which marks the run as finished."""
        assert active is not None
        assert log is not None
        with explaining_errors(self.folder):
            summary["wall_seconds"] = round(time.perf_counter() - start, 1)
            if failures := log.failures():
                summary["logger_failures"] = failures
            if self.reproduces:
                summary["reproduces"] = self.reproduces.record() | {"weights": self.reproduces.result(self.folder)}
            active.finish(summary)
            log.finish(active.lock, summary)
        if self.reproduces:
            self.reproduces.check_result(self.folder, self.console.print)
