"""An export in vLLM itself, with the logits processor of `examples/vllm`, beside mio: the same greedy tokens?

    python benchmarks/vllm_answers.py runs/stage4 --vllm vllm/bin/python [--interface v1|v2] [--items 25]

`--vllm` is the Python of another environment, with vLLM or its build for CPUs (examples/vllm/README.md says how to make
one). Prompts are those of the run's tasks, on held-out records; those with media that an encoder reads are left out, as
only mio reads these. mio and vLLM answer in float32, each prompt with what its task needs. Last line: the figures; exit
code 1 if an answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mio.core.contract.plugins import PluginManager
from mio.core.contract.tasks import Task
from mio.core.errors import DataError
from mio.core.exchange.writing import export_run
from mio.core.generation.engine import answer_all
from mio.core.generation.model import Model
from mio.core.runs.run import Run
from mio.core.tokens.item_encoders import only_read
from mio.core.tokens.templates import CompiledTemplate, to_document

EXAMPLE = Path(__file__).parents[1] / "examples/vllm"
BATCH = 32
THERE = """
import json, sys, time
from vllm import LLM, SamplingParams

def main(folder, processor, asked, told, chunk, drafts):
    jobs = json.load(open(asked))
    more = {"max_num_batched_tokens": int(chunk)} if int(chunk) else {}
    if int(drafts):
        lookup = {"prompt_lookup_max": 3, "prompt_lookup_min": 1}
        more["speculative_config"] = {"method": "ngram", "num_speculative_tokens": int(drafts), **lookup}
    llm = LLM(folder, enforce_eager=True, max_num_seqs=32, dtype="float32", logits_processors=[processor], **more)
    prompts = [{"prompt_token_ids": job["prompt"]} for job in jobs]
    options = [SamplingParams(temperature=0, max_tokens=job["max_tokens"], extra_args=job["asked"]) for job in jobs]
    start = time.perf_counter()
    answers = [list(one.outputs[0].token_ids) for one in llm.generate(prompts, options, use_tqdm=False)]
    second = llm.llm_engine.vllm_config.use_v2_model_runner
    seconds = time.perf_counter() - start
    import vllm
    json.dump({"tokens": answers, "seconds": seconds, "second": second, "version": vllm.__version__}, open(told, "w"))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vllm", required=True, help="Python of the environment with vLLM")
    parser.add_argument("--interface", choices=["v1", "v2"], default="v1")
    parser.add_argument("--items", type=int, default=25, help="held-out records per task")
    parser.add_argument("--chunk", type=int, default=0, help="tokens of a step of vLLM, so that prompts come in pieces")
    parser.add_argument("--drafts", type=int, default=0, help="tokens that n-grams foretell (v2 alone)")
    options = parser.parse_args()
    run = Run.open(options.run, PluginManager.discover())
    model = Model.of(run, precision="fp32")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "exported"
        export_run(run, folder, dtype="fp32")
        jobs = [job for _, task in run.plugins.tasks().values() if usable(run, task) for job in
                asked(model, task, options.items)]  # fmt: skip
        ours, own_seconds = by_mio(model, jobs)
        theirs = by_vllm(options, folder, jobs)
    differing = 0
    for job, own, other in zip(jobs, ours, theirs["tokens"], strict=True):
        said = other[:-1] if other and other[-1] == model.grammar.stop else other
        if said != own:
            differing += 1
            print(f"{job['task']}: mio {own[:20]}, vLLM {said[:20]}")
    count, tokens = len(jobs), sum(map(len, theirs["tokens"]))
    print(f"vLLM {theirs['version']}, {'second' if theirs['second'] else 'first'} runner: {count} answers of {tokens} "
          f"tokens in {theirs['seconds']:.1f} s, mio {own_seconds:.1f} s; {differing} differ")  # fmt: skip
    found = {"answers": count, "tokens": tokens, "differing": differing, "vllm": theirs["version"]}
    print(json.dumps({**found, "interface": "v2" if theirs["second"] else "v1"}))
    return 1 if differing else 0


def usable(run: Run, task: Task) -> bool:
    """Whether the run can answer a task without a head."""
    modalities = run.codecs.modalities
    return not task.output or (task.output in modalities and not only_read(modalities, task.output))


def asked(model: Model, task: Task, items: int) -> Iterator[dict[str, Any]]:
    """What both are asked, of the prompts of a task that can be written as tokens and leave room for the answer."""
    data, template = model.recipe.data, CompiledTemplate(task.template, task.name)
    decoding = replace(task.decoding, temperature=0.0, media_temperature=0.0)
    need = model.need(task.output, only=True, decoding=decoding)
    for record in task.records(items)[:items]:
        try:
            prompt = model.renderer.prompt(to_document(record, template, data.form, data.system, asked=True))
        except DataError as error:
            print(f"{task.name}: left out: {error}")
            continue
        room = min(decoding.max_tokens, data.packing.context - len(prompt.tokens))
        if not prompt.items and room >= model.grammar.least(need):
            extra = {"mio_output": task.output, "mio_most": decoding.most}
            yield {
                "task": task.name,
                "prompt": prompt.tokens.tolist(),
                "max_tokens": room,
                "asked": {key: value for key, value in extra.items() if value},
                "request": replace(model.request(prompt, decoding, need, 0), budget=room),
            }


def by_mio(model: Model, jobs: list[dict[str, Any]]) -> tuple[list[list[int]], float]:
    """Tokens of the answers, and the seconds that they took."""
    start = time.perf_counter()
    engine = model.engine(BATCH)
    answers = answer_all(engine, [job["request"] for job in jobs])
    return [list(answer.tokens) for answer in answers], time.perf_counter() - start


def by_vllm(options: argparse.Namespace, folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The same, by the other environment's Python."""
    interface = options.interface
    script, ask, told = folder.parent / "there.py", folder.parent / "asked.json", folder.parent / "told.json"
    script.write_text(THERE)
    ask.write_text(json.dumps([{key: value for key, value in job.items() if key != "request"} for job in jobs]))
    paths = [str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MIO_GRAMMAR": str(folder / "grammar.json"),
        "VLLM_USE_V2_MODEL_RUNNER": str(int(interface == "v2")),
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    given = [folder, f"mio_vllm.{interface}:SpanGrammar", ask, told, options.chunk, options.drafts]
    command = [options.vllm, str(script), *map(str, given)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not told.is_file():
        raise SystemExit(f"vLLM has not answered:\n{printed.stderr[-3000:]}")
    return json.loads(told.read_text())


if __name__ == "__main__":
    sys.exit(main())
