"""Every command with wrong inputs: one line on standard error, exit code 2, within seconds, before torch is loaded."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from replays import Variant

from mio.cli import app
from mio.core.errors import UserError

RECIPE = """
plugins: {text: {tokenizer: bytes}}
model: {width: 64, layers: 1, heads: 2}
data:
  groups: {g: {sources: {s: {dataset: jsonl, templates: text, options: {path: x.jsonl}}}}}
  packing: {context: 64}
mixture: {ratios: {g: 1}}
"""
SECONDS = 10.0
"""Of CPU, for one mistake."""

WRONG_RECIPES = (
    ["nope.yaml"], ["pipe"], ["."], ["n" * 300], ["binary"], ["r.yaml", "train.stepz=3"], ["r.yaml", "seed=-1"],
    ["r.yaml", "train.rows=99999999999999999999999999"], ["r.yaml", "model.norm_eps=.nan"],
    ["r.yaml", "train.steps=???"],
    ["r.yaml", "model.rope_theta=0"], ["r.yaml", "model.init_std=.inf"], ["r.yaml", "plugins.text.size=many"],
    ["r.yaml", "plugins.nope={}"], ["r.yaml", "name=../x"], ["r.yaml", "runtime.accelerator=foo"],
    ["r.yaml", "runtime.devices=0"], ["r.yaml", "a\x1b[31m=1"], ["r.yaml", "train={"], ["x=1"], ["loop.yaml"],
    ["r.yaml", "data.groups.g.sources.s.filters.characters.minimum=x"], ["r.yaml", "start_from=nowhere"],
)  # fmt: skip
WRONG_RUNS = (["nope"], ["."], ["r.yaml"], ["n" * 300], ["pipe"], ["a\x1b[31mb"])
COMMANDS: tuple[tuple[list[str], tuple[list[str], ...], list[str]], ...] = (
    *((command, WRONG_RECIPES, []) for command in (["fit"], ["tokenize"], ["recipe", "check"])),
    (["plan"], WRONG_RECIPES[:-2], []),  # a plan asks nothing of the data
    (["generate"], WRONG_RUNS, ["hello"]),
    (["evaluate"], WRONG_RUNS, []),
    (["export"], WRONG_RUNS, ["out"]),
    (["recipe", "verify"], WRONG_RUNS, []),
    (["import"], (["nope"], ["r.yaml"], ["n" * 300]), []),
    (["fit"], (["r.yaml"],), ["runtime.runs=x.jsonl"]),
    (["tokenize"], (["r.yaml"],), ["runtime.tokens=x.jsonl"]),
    (["recipe", "lock"], (["r.yaml"],), ["--out", "nope/lock"]),
    (["recipe", "lock"], (["r.yaml"],), ["--out", "."]),
    (["generate", "run", "hello"], (["--temperature", "inf"], ["--temperature", "nan"], ["--seed", str(2**64)]), []),
    (["generate", "run", "hello"], (["--max-tokens", "100000000000"], ["--top-p", "2"], ["--out", "x.jsonl"]), []),
    (
        ["evaluate", "run"],
        (["--json", "nope/figures.json"], ["--json", "."], ["--items", "-1"], ["--items", "1e9"]),
        [],
    ),
    (["plan", "r.yaml"], (["text_tokens=1e17"], ["text_tokens=100000000000000000"], ["world=0"], ["gpu=x"]), []),
    (["plan", "r.yaml"], (["world=10000000"], ["price=.nan"], ["efficiency=2"], ["gpus_per_node=7", "world=8"]), []),
    (["plugins", "new"], (["My-Thing"], ["x" * 300], ["class"], ["ok", "--dir", "x.jsonl"]), []),
    (["nope"], ([],), []),
    (["fit"], ([],), ["--nope"]),
)


def variants(folder: Path, random: Random) -> Iterator[Variant]:
    """Every command with every mistake, in an order of its own."""
    (folder / "r.yaml").write_text(RECIPE)
    (folder / "x.jsonl").write_text('{"text": "a"}\n')
    (folder / "loop.yaml").write_text("include: [loop.yaml]")
    (folder / "binary").write_bytes(bytes(range(256)))
    os.mkfifo(folder / "pipe")
    made = [[*command, *wrong, *rest] for command, all_wrong, rest in COMMANDS for wrong in all_wrong]
    random.shuffle(made)
    for words in itertools.chain(made):
        shown = " ".join(words)
        yield Variant(f"mio {shown[:100]!r}", _told(folder, words), lambda _: "was not refused", readable=False)


def _told(folder: Path, words: list[str]) -> Callable[[], str]:
    def read() -> str:
        out, err = io.StringIO(), io.StringIO()
        before, heavy = Path.cwd(), "torch" in sys.modules
        clock = time.process_time()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = app.run(words)
        finally:
            os.chdir(before)
        told = err.getvalue()
        assert time.process_time() - clock < SECONDS, f"took {time.process_time() - clock:.0f} s of CPU"
        assert heavy or "torch" not in sys.modules, "loaded torch to tell it"
        assert "Traceback" not in told
        assert not set(told) & set("\x1b\x9b"), "control characters were printed"
        if code != 2:
            return f"exit code {code}: {out.getvalue()!r:.200}"
        assert told.startswith("error: "), told
        raise UserError(told.strip())

    return read
