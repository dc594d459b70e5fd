"""What MM-Interleaved's feature synchroniser is for: stories whose pictures share what their words do not say.

    python benchmarks/synchroniser.py [--seeds 3] [--items 200] [--at-once 2] [--runs FOLDER] [key=value ...]

Trains the stories of `recipes/mm-interleaved/digits`, from nothing, with the synchroniser (in layers of the language
model, and on the residuals of the U-Net) and without it, with several seeds. All else is the same: in both cases the
pictures before are read as positions of the sequence. Then the next picture of held-out stories is drawn and judged.
Of what words allow, each detail is right one time in four.

The last line is one JSON object: for each seed and case the loss of held-out pictures and the judges' accuracy of
style, colour and place; `seeds`; `better_seeds`, those on which the loss and every accuracy are better with it;
`accuracy_with` and `accuracy_without`, the means of the three over all seeds; under `lowest_with` and
`highest_without` the single figures that are worst and best.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mio import Answer, Record
from mio.core.contract.plugins import PluginManager
from mio.core.data.batch import assemble
from mio.core.evaluation.answering import answer_batch
from mio.core.generation.model import Model
from mio.core.runs.run import Run
from mio.core.tokens.documents import interleaved_document

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/mm-interleaved/digits/stage2.yaml"
DETAILS = ("style", "colour", "place")
STORIES = (
    'start_from=""',
    "mixture.ratios={text: 0, seen: 0, drawn: 0, stories: 1}",
    "train.steps=600",
    "train.rows=2",
    "validate.every=0",
    "evaluate.tasks=[]",
)
BATCH = 50
"""Stories that are answered together."""
WITHOUT = ("plugins.mm_interleaved.layers.every=0", "plugins.mm_interleaved.diffusion.images=0")
CASES = {"with": (), "without": WITHOUT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=200, help="stories whose next picture is judged")
    parser.add_argument("--at-once", type=int, default=2, help="trainings at the same time, one core each")
    parser.add_argument("--runs", type=Path, help="keep the runs here")
    parser.add_argument("overrides", nargs="*", help="of the recipe, in both cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = options.runs or Path(name)
        runs.mkdir(parents=True, exist_ok=True)
        every = [(case, seed) for seed in range(options.seeds) for case in CASES]
        with ThreadPoolExecutor(options.at_once) as pool:
            seconds = list(pool.map(lambda one: trained(runs, *one, options.overrides), every))
        found = {
            f"{case}-{seed}": measured(runs, case, seed, options.items) | {"seconds": took}
            for (case, seed), took in zip(every, seconds, strict=True)
        }
    print(json.dumps(found | summary(found, options.seeds)))


def trained(runs: Path, case: str, seed: int, overrides: list[str]) -> float:
    """Trains one case with one seed; seconds that it took. What it says is in a file beside its run."""
    name = f"synchroniser-{case}-{seed}"
    settings = [*STORIES, f"runtime.runs={runs}", f"name={name}", f"seed={seed}", *CASES[case], *overrides]
    clock = time.perf_counter()
    with (runs / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", "mio", "fit", str(RECIPE), *settings]
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT)
    took = round(time.perf_counter() - clock, 1)
    print(f"{name}: trained in {took} s", flush=True)
    return took


def measured(runs: Path, case: str, seed: int, items: int) -> dict[str, Any]:
    """Figures of one case with one seed."""
    name = f"synchroniser-{case}-{seed}"
    figures = judged(Run.open(runs / name, PluginManager.discover()), items)
    print(name, figures, flush=True)
    return figures


def judged(run: Run, items: int) -> dict[str, float]:
    """Loss of held-out pictures, and the accuracies of the next picture. One answer to a story serves all judges."""
    model = Model.of(run)
    tasks = {detail: run.plugins.tasks()[f"next_{detail}"][1] for detail in DETAILS}
    stories = dict(enumerate(tasks["style"].records(items)))
    found = {"loss": image_loss(run, list(stories.values()))}
    failed: dict[int, str] = {}
    answers: dict[int, Answer] = {}
    for start in range(0, len(stories), BATCH):
        some = {item: stories[item] for item in range(start, min(start + BATCH, len(stories)))}
        answers |= answer_batch(model, tasks["style"], some, failed)
    if failed:
        print(f"{len(failed)} stories without an answer: {next(iter(failed.values()))}")
    for detail, task in tasks.items():
        right = task.judge(list(answers.values()), [stories[item] for item in answers])
        found[detail] = round(sum(right) / len(stories), 4)
    return found


def image_loss(run: Run, stories: Sequence[Record]) -> float:
    """Mean loss of the pictures of stories but the first of each, under the same noise in every run."""
    transformer, context, pad = run.transformer, run.recipe.data.packing.context, run.vocabulary.specials.pad
    losses = []
    for number, story in enumerate(stories):
        document = run.renderer.render(interleaved_document(story["parts"]))
        batch = assemble([[(0, document)]], context, pad, codecs=run.codecs, digests=[number])
        with torch.inference_mode():
            output = transformer(batch.tokens, batch.positions, batch.mask, items=batch.items, made=batch.made)
        losses.append(output.losses["image"][1:])
    return round(float(torch.cat(losses).mean()), 5)


def summary(found: dict[str, dict[str, Any]], seeds: int) -> dict[str, Any]:
    pairs = [(found[f"with-{seed}"], found[f"without-{seed}"]) for seed in range(seeds)]
    better = [one["loss"] < other["loss"] and all(one[d] > other[d] for d in DETAILS) for one, other in pairs]
    with_it, without = ([case[detail] for case in cases for detail in DETAILS] for cases in zip(*pairs, strict=True))
    return {
        "seeds": seeds,
        "better_seeds": sum(better),
        "accuracy_with": round(sum(with_it) / len(with_it), 4),
        "accuracy_without": round(sum(without) / len(without), 4),
        "lowest_with": min(with_it),
        "highest_without": max(without),
    }


if __name__ == "__main__":
    main()
