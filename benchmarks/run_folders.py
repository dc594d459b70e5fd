"""Run folders that were tampered with: each is refused with its name, or it changes no result.

    python benchmarks/run_folders.py [--ways 320] [--seed 0] [--verbose]

A small chain of two stages with trained tokenizers, an unfinished run with two checkpoints, and the same trained from
another seed. Every file is cut, emptied, deleted, has bytes flipped or exchanged, keys doubled, and is swapped
with that of the other run. Then the folder is used as people do: a finished run answers, is verified, and is started
from; an unfinished one goes on. What comes out is compared with what an untouched folder gives. The last line is one
JSON object: `ways`, `refused`, `harmless` (the same result; `told` of these with a line that names the file), `silent`
(another result without a word) and `tracebacks`. Exit code 1 if one of the last two is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from rich.console import Console

import mio
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.stages.fit import fit_chain
from mio.core.stages.verify import verify
from mio.core.training.callbacks import Checkpoints

RECIPE = """
name: first
plugins: {text: {tokenizer: bpe, size: 300}, image: {tokenizer: patch_vq, codebook_size: 16}}
model: {width: 32, layers: 1, heads: 2}
data:
  groups:
    pairs: {sources: {captions: {dataset: jsonl, options: {path: captions.jsonl}, templates: image_text}}}
    words: {sources: {lines: {dataset: jsonl, options: {path: lines.jsonl}, templates: text}}}
  packing: {context: 96, window: 16}
mixture: {ratios: {pairs: 2, words: 1}}
train: {steps: 6, rows: 2, precision: fp32, optimizer: {lr: 1e-2}}
runtime: {threads: 1, accelerator: cpu, log_every: 1, checkpoint_every: 2}
"""
SECOND = "include: [first.yaml]\nname: second\nstart_from: first.yaml\ntrain: {steps: 2}\n"
LAST = "checkpoints/step-00000006"
STOPPED = 5
"""Step after which the unfinished run was ended."""


@dataclass
class Attack:
    """One way to damage a file of a run folder."""

    file: Path
    kind: str
    apply: Callable[[], None]


UNREAD = re.compile(r"\.lock|hparams\.yaml|events\..*")
"""Files that nothing reads."""


def attacks(folder: Path, other: Path, draw: random.Random, times: int = 1, without: str = "") -> Iterator[Attack]:
    """Ways to damage the files of `folder`, `times` of each kind for each of its files; `other` is a run like it.
    `without` is a folder inside that is left alone."""

    def chosen(path: Path) -> bool:
        return not UNREAD.fullmatch(path.name) and without not in path.relative_to(folder).parts

    for file in sorted(path for path in folder.rglob("*") if path.is_file() and chosen(path)):
        content, twin = file.read_bytes(), other / file.relative_to(folder)
        kinds: list[tuple[str, bytes | None]] = [("emptied", b""), ("deleted", None)]
        if twin.is_file():
            kinds.append(("swapped", twin.read_bytes()))
        for _ in range(times):
            kinds += [
                ("cut", content[: draw.randrange(1, max(2, len(content)))]),
                ("flipped", _flipped(content, draw)),
                ("exchanged", _exchanged(content, file.suffix, draw)),
                ("longer", content + content[: draw.randrange(1, 40)]),
            ]
            if file.suffix in (".json", ".lock"):
                kinds.append(("doubled", _doubled(content, draw)))
            if file.suffix in (".safetensors", ".npz", ".npy"):
                kinds.append(("reversed", content[:-64] + content[-64:][::-1]))
        for kind, changed in kinds:
            if changed != content:
                yield Attack(file, kind, partial(_write, file, changed))
    for part in sorted(path for path in folder.rglob("*") if path.is_dir() and chosen(path)):
        yield Attack(part, "deleted", partial(shutil.rmtree, part))
        twin = other / part.relative_to(folder)
        if twin.is_dir():
            yield Attack(part, "swapped", partial(_swap, part, twin))


def _write(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)


def _swap(part: Path, twin: Path) -> None:
    shutil.rmtree(part)
    shutil.copytree(twin, part)


def _flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _exchanged(content: bytes, suffix: str, draw: random.Random) -> bytes:
    """Two values, lines or stretches in each other's place."""
    if suffix in (".json", ".lock"):
        with contextlib.suppress(ValueError):
            value = json.loads(content)
            places = list(_leaves(value))
            (one, here), (two, there) = draw.sample(places, 2)
            one[here], two[there] = two[there], one[here]
            return json.dumps(value, indent=1, ensure_ascii=False).encode()
    if suffix in (".yaml", ".csv", ".jsonl"):
        lines = content.splitlines(keepends=True)
        here, there = draw.sample(range(len(lines)), 2) if len(lines) > 1 else (0, 0)
        lines[here], lines[there] = lines[there], lines[here]
        return b"".join(lines)
    half = len(content) // 2
    return content[:half][::-1] + content[half:]


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item)
        else:
            yield value, key


def _doubled(content: bytes, draw: random.Random) -> bytes:
    with contextlib.suppress(ValueError):
        value = json.loads(content)
        if isinstance(value, dict) and value:
            key = draw.choice(list(value))
            return content.rstrip()[:-1] + f", {json.dumps(key)}: {json.dumps(None)}}}".encode()
    return content + content


def judge(attack: Attack, use: Callable[[], Any], truth: Any) -> tuple[str, str]:
    """(verdict, what was said): `refused`, `told`, `harmless`, `silent` or `traceback`."""
    attack.apply()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            result = use()
    except UserError as error:
        line = str(error)
        named = attack.file.name in line or any(part in line for part in ("recipe.lock", "checkpoints/step-"))
        return ("refused" if named and "\n" not in line else "silent"), line
    except Exception:
        return "traceback", traceback.format_exc()
    if result != truth:
        return "silent", f"gave {result!r:.300} instead of {truth!r:.300}"
    return ("told" if attack.file.name in said.getvalue() else "harmless"), said.getvalue()


# --- the runs, and what is done with them


def corpus(folder: Path) -> None:
    """Writes the recipes and their data."""
    draw = np.random.default_rng(0)
    captions = []
    for index in range(12):
        Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{index}.png")
        captions.append(json.dumps({"image": f"{index}.png", "caption": f"number {index}"}))
    (folder / "captions.jsonl").write_text("\n".join(captions))
    (folder / "lines.jsonl").write_text("\n".join(json.dumps({"text": f"line {i} of {i % 5}"}) for i in range(30)))
    (folder / "first.yaml").write_text(RECIPE)
    (folder / "second.yaml").write_text(SECOND)


def fit(recipe: str, runs: Path, *overrides: str) -> None:
    # stdout as it is now: what is printed is part of the verdict
    console = Console(file=sys.stdout, width=300)
    fit_chain([recipe], [f"runtime.runs={runs}", *overrides], PluginManager.discover(), console)


class _Stopped(Exception):
    pass


def fit_until(step: int, runs: Path, *overrides: str) -> None:
    """Trains the first stage and ends it after a step, as a crash does."""
    whole = Checkpoints.on_train_batch_end

    def ending(self: Checkpoints, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        whole(self, trainer, module, outputs, batch, index)
        if trainer.global_step == step:
            trainer.strategy.writer.wait()
            raise _Stopped

    with mock.patch.object(Checkpoints, "on_train_batch_end", ending), contextlib.suppress(_Stopped):
        fit("first.yaml", runs, *overrides)


def answers(run: Path, out: Path) -> Any:
    """What a finished run says and draws, and what `mio recipe verify` finds."""
    return answered(run, out), verify(run, PluginManager.discover())


def answered(run: Path, out: Path) -> Any:
    """What a finished run, or a checkpoint, says and draws."""
    shutil.rmtree(out, ignore_errors=True)
    opened = mio.load(run, "cpu")
    text = opened.generate("What is number 3?", "text", max_tokens=24).to_json()
    return text, [file.read_bytes() for file in opened.generate("number 3", "image", max_tokens=24).save(out)]


def gone_on(runs: Path) -> Any:
    """Weights and journal of an unfinished run that goes on to its end."""
    fit("first.yaml", runs)
    return _result(runs / "first")


def started_from(runs: Path) -> Any:
    """Weights of a stage that starts from a finished run."""
    fit("second.yaml", runs, "train.steps=6")  # as the first stage has them
    return _result(runs / "second")


def _result(run: Path) -> Any:
    return [(run / name).read_bytes() for name in ("model.safetensors", "vocabulary.json", "journal.csv")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print what was said about every attack")
    options = parser.parse_args()
    draw, count = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="mio-runs-") as name:
        folder = Path(name)
        os.chdir(folder)
        corpus(folder)
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            for seed in ("0", "1"):
                fit("second.yaml", folder / f"finished{seed}", f"seed={seed}", *(["train.steps=6"]))
                fit_until(STOPPED, folder / f"unfinished{seed}", f"seed={seed}")
            shutil.copytree(folder / "finished0", folder / "work")
            shutil.rmtree(folder / "work/second")
            truths = {
                "finished": answers(folder / "work/first", folder / "out"),
                "checkpoint": answered(folder / "work/first" / LAST, folder / "out"),
                "parent": started_from(folder / "work"),
            }
            shutil.rmtree(folder / "work")
            shutil.copytree(folder / "unfinished0", folder / "work")
            truths["unfinished"] = gone_on(folder / "work")
        uses: dict[str, tuple[str, int, str, Callable[[], Any]]] = {
            "finished": ("finished", 3, "checkpoints", lambda: answers(folder / "work/first", folder / "out")),
            "checkpoint": ("finished", 1, "samples", lambda: answered(folder / "work/first" / LAST, folder / "out")),
            "parent": ("finished", 1, "checkpoints", lambda: started_from(folder / "work")),
            "unfinished": ("unfinished", 2, "samples", lambda: gone_on(folder / "work")),
        }

        def made(use: str) -> list[Attack]:
            """All attacks for a use, on a new copy."""
            state, times, without, _ = uses[use]
            shutil.rmtree(folder / "work", ignore_errors=True)
            shutil.copytree(folder / f"{state}0", folder / "work")
            shutil.rmtree(folder / "work/second", ignore_errors=True)
            other = folder / f"{state}1/first"
            return list(attacks(folder / "work/first", other, random.Random(options.seed), times, without))

        tried = [(use, index) for use in uses for index in range(len(made(use)))]
        draw.shuffle(tried)
        for use, index in tried[: options.ways]:
            attack = made(use)[index]
            verdict, said = judge(attack, uses[use][3], truths[use])
            count["ways"] += 1
            count[verdict] += 1
            if options.verbose or verdict in ("silent", "traceback"):
                where = attack.file.relative_to(folder / "work")
                print(f"{use}: {where} {attack.kind}: {verdict}: {' '.join(said.split())[-600:]}", flush=True)
    told = {
        "ways": count["ways"],
        "refused": count["refused"],
        "harmless": count["harmless"] + count["told"],
        "told": count["told"],
        "silent": count["silent"],
        "tracebacks": count["traceback"],
    }
    print(json.dumps(told))
    return 1 if count["silent"] or count["traceback"] else 0


if __name__ == "__main__":
    sys.exit(main())
