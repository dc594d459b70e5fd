"""The plan of the 7 B recipe on 512 simulated ranks, and the plan's memory beside runs that were measured.

    python benchmarks/plan.py [--steps 2]

Times `mio plan recipes/scale/mio-7b.yaml world=512` as a whole command. Then trains on CPUs in several settings, with
one process and with two that share the model by FSDP2 over gloo, through what `mio fit` calls. The highest number of
bytes that torch's CPU allocator had handed out at once on rank 0, from the start of the program to the first
checkpoint, is compared with the peak of the plan's simulation of the same program. The measured figure is the
allocator's own count of every request and release, kernels' temporary memory included (torch.profiler,
`profile_memory`); the plan has no part in it. The growth of the resident set is printed beside it: it also holds what
libraries allocate by themselves.

Two steps, since the second has all that later ones have, and the profiler keeps some tensors of collectives for itself,
a few more with each step.

The last line is one JSON object; `memory_error` is the largest relative error over the settings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONTEXT = 512

RECIPE = f"""
name: measured
plugins: {{text: {{tokenizer: bytes}}}}
model: {{width: 256, layers: 8, heads: 4, kv_heads: 2}}
data:
  groups: {{lines: {{sources: {{lines: {{dataset: jsonl, options: {{path: lines.jsonl}}, templates: text}}}}}}}}
  packing: {{context: {CONTEXT}}}
mixture: {{ratios: {{lines: 1}}}}
train: {{steps: 2, rows: 16, precision: bf16, optimizer: {{lr: 1e-4}}}}
runtime: {{threads: 1, accelerator: cpu, log_every: 1}}
"""

WIDE = """
import mio
import numpy as np

class Codes:
    fingerprint = "wide-1"
    def encode(self, media): return [np.zeros((1, 1), dtype=np.int64) for _ in media]
    def frames(self, media): return 1

@mio.hookimpl
def mio_modalities(options):
    return [mio.Modality(name="wide", codebooks=(30000,), begin="<wide>", end="</wide>", code_token="<wide{}>")]

@mio.hookimpl
def mio_tokenizer(modality, options):
    return Codes() if modality == "wide" else None
"""
"""A plugin whose modality has a large codebook, of which nothing is read."""


PICTURES = f"""
import mio
import numpy as np
from dense_networks import DenseAdapter, DenseEncoder, DenseHead
from small_encoder import PatchEncoder

@mio.hookimpl
def mio_modalities(options):
    return [mio.Modality(name="picture", begin="<picture>" if "head" in options else "")]

@mio.hookimpl
def mio_encoder(modality, options):
    if modality != "picture":
        return None
    kind = DenseEncoder if "head" in options else PatchEncoder
    return kind(width=256, layers=4)

@mio.hookimpl
def mio_adapters(options):
    return DenseAdapter() if "head" in options else None

@mio.hookimpl
def mio_head(modality, options):
    return DenseHead(options["head"] == "own") if modality == "picture" and "head" in options else None

@mio.hookimpl
def mio_datamodule(modality, options):
    shown = mio.Template(direction="read", prompt="{{a}}{{b}}{{c}}{{d}}", response="{{text}}")
    drawn = mio.Template(direction="write", prompt="{{text}}", response="{{a}}{{b}}{{c}}{{d}}")
    template = drawn if "head" in options else shown
    return mio.DataModule(templates={{"pictures": (template,)}}) if modality == "picture" else None

class Rows:
    def __init__(self, text):
        self.text = text
    def __len__(self):
        return 64
    def __getitem__(self, index):
        pictures = np.random.default_rng(index).integers(0, 256, (4, 16, 32), dtype=np.uint8)
        media = {{k: mio.Media("picture", p, key=f"{{index}}{{k}}") for k, p in zip("abcd", pictures)}}
        return {{**media, "text": chr(97 + index % 26) * self.text}}

@mio.hookimpl
def mio_sources(options):
    # with a token that begins it, 32 positions of the head's own or none, and 32 of the encoder
    picture = {{None: 32, "context": 33, "own": 65}}[options.get("head")]
    return {{"pictures/rows": lambda split, _: Rows({CONTEXT} - 4 * picture - 1)}}
"""
"""A plugin whose modality is read by an encoder. With the option `head` it is also made, by a head, and adapters read
its maps (`dense_networks.py`). With its first and last token, each text fills what four pictures leave of a row."""
SHARE = {"picture": 0.25}


@dataclass(frozen=True)
class Setting:
    name: str
    ranks: int
    overrides: tuple[str, ...] = ()

    @property
    def pictures(self) -> bool:
        return any("plugins.pictures" in override for override in self.overrides)

    @property
    def wide(self) -> bool:
        return any("plugins.wide" in override for override in self.overrides)


CHECKPOINTING = "runtime.activation_checkpointing"
# letters of all kinds, so that experts get about the same number of tokens, as a plan assumes
MIXTURE = ("model={experts: 4, ffn_width: 512}", "data.groups.lines.sources.lines.options.path=mixed.jsonl")
READ = (
    "plugins.pictures={}",
    "data.groups.lines.sources={_replace_: true, rows: {dataset: pictures/rows, templates: pictures}}",
)
MADE, OWN = ((f"plugins.pictures={{head: {head}}}", READ[1]) for head in ("context", "own"))
SETTINGS = (
    Setting("one process, bf16", 1),
    Setting("one process, fp32, full recomputation", 1, ("train.precision=fp32", f"{CHECKPOINTING}=full")),
    Setting("one process, bf16, selective, wide vocabulary", 1, (f"{CHECKPOINTING}=selective", "plugins.wide={}")),
    Setting("two processes, bf16", 2),
    Setting("two processes, fp32, selective", 2, ("train.precision=fp32", f"{CHECKPOINTING}=selective")),
    Setting("two processes, bf16, full, wide vocabulary", 2, (f"{CHECKPOINTING}=full", "plugins.wide={}")),
    Setting("two processes, bf16, accumulation, Muon", 2, ("train.micro_rows=4", "train.optimizer.kind=muon")),
    Setting("two processes, bf16, tensor parallel", 2, ("runtime.tensor_parallel=2",)),
    Setting("two processes, bf16, experts", 2, MIXTURE),
    Setting("two processes, bf16, experts split", 2, (*MIXTURE, "runtime.expert_parallel=2")),
    Setting("one process, bf16, encoder", 1, READ),
    Setting(
        "one process, fp32, selective, frozen encoder",
        1,
        (
            *READ,
            "train.precision=fp32",
            f"{CHECKPOINTING}=selective",
            "train.optimizer.rules.encoders={pattern: 'encoders.*', trainable: false}",
        ),
    ),
    Setting("two processes, bf16, full, encoder", 2, (*READ, f"{CHECKPOINTING}=full")),
    Setting("one process, bf16, encoder, adapters, head", 1, MADE),
    Setting(
        "one process, fp32, selective, encoder, adapters, part of a head frozen",
        1,
        (
            *MADE,
            "train.precision=fp32",
            f"{CHECKPOINTING}=selective",
            "train.optimizer.rules.heads={pattern: 'heads.picture.layers.*', trainable: false}",
        ),
    ),
    Setting("one process, bf16, encoder, adapters, head with own positions", 1, OWN),
    Setting("two processes, bf16, encoder, adapters, head", 2, MADE),
    Setting(
        "two processes, bf16, full, encoder, adapters, head with own positions", 2, (*OWN, f"{CHECKPOINTING}=full")
    ),
    Setting("two processes, bf16, accumulation, encoder, adapters, head", 2, (*MADE, "train.micro_rows=4")),
)


def measure(arguments: list[str], answer: Path) -> None:
    """Trains in this process and writes the peaks in bytes that rank 0 saw before its first checkpoint."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from mio.core.contract.plugins import PluginManager
    from mio.core.runs.checkpoints.writing import CheckpointWriter
    from mio.core.stages.fit import fit_chain

    used = [name for name in ("wide", "pictures") if any(f"plugins.{name}" in argument for argument in arguments)]
    manager = PluginManager.discover([f"{name}={name}.py" for name in used])
    names, overrides = arguments[:1], arguments[1:]
    save = CheckpointWriter.save
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def stop_before(writer: Any, *given: Any, **named: Any) -> None:
        if not answer.exists():
            grown = resident("VmHWM") - before
            profiler.stop()
            if int(os.environ.get("RANK", "0")) == 0:
                answer.write_text(json.dumps({"allocated": allocator_peak(profiler), "resident": grown}))
        save(writer, *given, **named)

    CheckpointWriter.save = stop_before
    torch.mm(torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))
    before = resident("VmRSS")
    profiler.start()
    fit_chain(names, overrides, manager)


def resident(what: str) -> int:
    """Bytes of the resident set: `VmRSS` now, `VmHWM` at its highest."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 2**10


def allocator_peak(profiler: Any) -> int:
    """Highest number of bytes at once, from the allocator's events in their order."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measured(setting: Setting, folder: Path, steps: int) -> dict[str, int]:
    """Runs a setting in processes of its own."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    arguments = ["lines.yaml", f"train.steps={steps}", f"runtime.runs={setting.name}", *setting.overrides]
    launcher = []
    if setting.ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(setting.ranks), "--standalone"]
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--measure", str(answer), "--", *arguments]
    # large blocks go back to the system when they are freed, so that the resident set follows the allocator
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if not answer.exists():
        raise SystemExit(f"{setting.name}: ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return json.loads(answer.read_text())


def planned(setting: Setting, folder: Path) -> int:
    """Peak in bytes of the simulation of the same program."""
    from simulated_cpu import simulate_cpu

    from mio.core.contract.plugins import PluginManager
    from mio.core.planning.simulate import StepLayout
    from mio.core.planning.vocabulary import expected_vocabulary
    from mio.core.recipe.chain import chain
    from mio.core.recipe.model import transformer_config
    from mio.core.recipe.steps import StepShape
    from mio.core.tokens.codecs import Codecs

    used = [name for name, uses in (("wide", setting.wide), ("pictures", setting.pictures)) if uses]
    manager = PluginManager.discover([f"{name}={folder / name}.py" for name in used])
    stages = chain([str(folder / "lines.yaml")], setting.overrides, manager)
    recipe = stages[-1]
    shape = StepShape.of(recipe.train, setting.ranks // recipe.runtime.tensor_parallel)
    media = SHARE if setting.pictures else {}
    layout = StepLayout(setting.ranks, setting.ranks, CONTEXT, shape.micro_rows, shape.micro_batches, media=media)
    vocabulary, networks = expected_vocabulary(stages, manager), Codecs(manager.enable(recipe.plugins)).networks
    model = transformer_config(recipe, manager)
    return simulate_cpu(model, vocabulary, recipe.train, recipe.runtime, layout, networks).peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of the command that is timed; 0: not at all")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.arguments, options.measure)
        return
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        command = [sys.executable, "-m", "mio", "plan", "recipes/scale/mio-7b.yaml", "world=512", "--json"]
        told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        seconds.append(time.perf_counter() - start)
        print(f"plan of mio-7b on 512 ranks: {seconds[-1]:.1f} s", flush=True)
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "lines.yaml").write_text(RECIPE)
        (folder / "wide.py").write_text(WIDE)
        (folder / "pictures.py").write_text(PICTURES)
        # with its first and last token, each text fills a row
        lines = [json.dumps({"text": chr(97 + index % 26) * (CONTEXT - 1)}) for index in range(64)]
        (folder / "lines.jsonl").write_text("\n".join(lines))
        draw = random.Random(0)
        mixed = [json.dumps({"text": "".join(draw.choices(string.printable[:94], k=CONTEXT - 1))}) for _ in range(64)]
        (folder / "mixed.jsonl").write_text("\n".join(mixed))
        for setting in SETTINGS:
            if options.only not in setting.name:
                continue
            seen, expected = measured(setting, folder, options.steps), planned(setting, folder)
            error = expected / seen["allocated"] - 1
            errors[setting.name] = error
            print(
                f"{setting.name:70} planned {expected / 2**20:7.1f} MiB, "
                f"measured {seen['allocated'] / 2**20:7.1f} MiB ({error:+.1%}), "
                f"resident set grew {seen['resident'] / 2**20:7.1f} MiB",
                flush=True,
            )
    found = {
        "memory_error": round(max(map(abs, errors.values())), 4),
        "memory_errors": {name: round(error, 4) for name, error in errors.items()},
    }
    if seconds:
        found |= {"seconds_512": round(statistics.median(seconds), 2), "peak_gib_512": told["memory"]["peak_gib"]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
