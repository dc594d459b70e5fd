"""Run folders that were never trained: what a report reads of one, with figures that a test knows."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np

from mio.core.recipe.resolved import to_yaml
from mio.core.recipe.schema import Recipe

EVIL = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
"""Text that would act if it were taken for markup."""

TASKS = {
    "draw": {"accuracy": 0.94, "n": 50, "intervals": {"accuracy": [0.8378, 0.9794]}, "ceiling": 0.98, "copied": 0.02},
    "hear": {
        "wer": 1.25, "exact": 0.5, "n": 8, "intervals": {"wer": [0.5, 2.0], "exact": [0.2152, 0.7848]},
        "failed": 2, "ceiling": 0.1, "ceiling/exact": 0.75, "failures": [f"item 3: {EVIL}"],
    },
}  # fmt: skip


def metrics_of(steps: int, every: int = 10) -> list[dict[str, float]]:
    """A line per logged step, with held-out figures in every fourth."""
    lines = []
    for step in range(every, steps + 1, every):
        loss = 2 + 3 * math.exp(-step / 100)
        line = {
            "step": step, "loss": loss, "loss/pairs": loss, "modality/text": loss / 2, "modality/tone": loss * 1.5,
            "modality/tone/codebook0": loss, "modality/tone/codebook1": loss * 2, "tokens_per_second": 1000 + step,
            "mfu": 0.25, "packing/fill": 0.99, "grad_norm": 0.5, "guard/spikes": 0, "lr": 3e-4,
            "mixture/pairs/target": 1.0, "mixture/pairs/achieved": 0.999, "codebook/tone/codebook0/used": 0.5,
            "codebook/tone/codebook0/perplexity": 12.5, "my_plugin/figure": 7.25,
        }  # fmt: skip
        if step % (4 * every) == 0:
            line |= {"validation/loss": loss + 0.1, "validation/loss/pairs": loss + 0.1, "validation/seconds": 0.5}
            line |= {"validation/loss/pairs/tunes": loss + 0.1, "validation/loss/pairs/tunes/write": loss + 0.2}
            line |= {"validation/loss/pairs/tunes/read": loss, "validation/tasks/draw": 0.5}
        lines.append(line)
    return lines


def write_metrics(path: Path, lines: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


def make_run(folder: Path, name: str, start_from: str = "", steps: int = 200, **changes) -> Path:
    """A finished run of `steps` steps with 100 tokens each; `changes` are made to its summary."""
    run = folder / name
    run.mkdir(parents=True)
    recipe = Recipe(name=name, start_from=start_from, plugins={"text": {"tokenizer": "bytes", "note": EVIL}})
    recipe.train.steps = steps
    (run / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    lock = {"recipe": "f" * 64, "seed": 0, "mio": "0.1.0", "python": "3.11.7", "packages": {"torch": "2.11.0"}}
    write_json(run / "recipe.lock", {**lock, "plugins": {"text": "mio 0.1.0"}, "vocabulary": "v" * 64})
    write_metrics(run / "metrics.csv", metrics_of(steps))
    journal = "".join(f"{step},2,4,100,0123456789abcdef\n" for step in range(1, steps + 1))
    (run / "journal.csv").write_text(f"step,rows,documents,tokens,digest\n{journal}", encoding="utf-8")
    blocks = [("text", "text", "text", 0, 256), ("<t>", "tone", "special", 256, 1), ("</t>", "tone", "special", 257, 1)]
    blocks += [("tone/codebook0", "tone", "codes", 258, 64), ("tone/codebook1", "tone", "codes", 322, 64)]
    keys = ("name", "owner", "kind", "start", "size")
    write_json(run / "vocabulary.json", {"size": 386, "blocks": [dict(zip(keys, one, strict=True)) for one in blocks]})
    direction = {"target": 0.5, "achieved": 0.498, "tokens": 9960, "documents": 300, "epochs": 1.25, "skipped": 0}
    source = {"target": 1.0, "achieved": 1.0, "tokens": 20000, "documents": 600, "truncated": 3, "skipped": 4}
    source["directions"] = {"read": direction, "write": {**direction, "achieved": 0.502, "tokens": 10040}}
    group = {"target": 1.0, "achieved": 0.999, "tokens": 20000, "documents": 600, "sources": {"tunes": source}}
    summary = {
        "steps": steps, "parameters": 951680, "train_seconds": 125.0, "wall_seconds": 190.0, "tokens_per_second": 160.0,
        "tokens": 100 * steps, "rows": 2 * steps, "documents": 600, "skipped_steps": {"not_finite": 1, "spikes": 0},
        "packing": {"fill": 0.99, "truncated": 3, "skipped": {"broken": 4}}, "mixture_unit": "tokens",
        "mixture": {"pairs": group}, "vocabulary": {"size": 386}, "tasks": TASKS,
        "codebooks": {"tone/codebook0": {"tokens": 500, "used": 0.5, "perplexity": 12.5, "shares": [0.5, 0.3, 0.2]}},
        "validation": {"figures": {"loss": {"last": 2.506, "best": 2.506, "best_step": steps}}},
    }  # fmt: skip
    write_json(run / "summary.json", summary | changes)
    add_samples(run)
    return run


def add_samples(run: Path) -> None:
    """Answers of a task, and a completed record, with a picture, a sound and a moving picture."""
    from PIL import Image
    from soundfile import write

    folder = run / "samples"
    step = folder / "step-00000200"
    (step / "given").mkdir(parents=True)
    grey = Image.fromarray((np.arange(64, dtype=np.uint8) * 4).reshape(8, 8))
    grey.save(folder / "draw-0-0.png")
    frames = [grey.rotate(90 * turn) for turn in range(3)]
    frames[0].save(folder / "draw-1-0.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
    write(step / "given" / "tone-0.wav", np.sin(np.arange(4000) / 5) * 0.5, 4000)
    np.savez(step / "given" / "seen.npz", **{"0": np.full((6, 6, 3), 200, np.uint8)})
    answers = [
        {"prompt": f"Draw {EVIL} like {{tone:key/1}}", "answer": [{"type": "image", "path": "draw-0-0.png"}]},
        {"prompt": "Move", "answer": [{"type": "text", "text": EVIL}, {"type": "video", "path": "draw-1-0.gif"}]},
    ]
    write_json(folder / "draw.json", answers)
    record = {
        "stream": "pairs/tunes/read",
        "number": 0,
        "prompt": [{"type": "tone", "path": "given/tone-0.wav"}, {"type": "text", "text": "What is heard?"}],
        "expected": [{"type": "seen", "media_type": "image", "path": "given/seen.npz"}],
        "answer": [{"type": "control", "name": "spoken"}, {"type": "text", "text": "a tone"}],
    }
    (step / "completions.jsonl").write_text(json.dumps(record) + '\n{"half', encoding="utf-8")


def add_items(run: Path, verdicts: list[bool], **figures) -> None:
    """The items of an evaluation of the task `draw`, as `mio evaluate` keeps them."""
    folder = run / "evaluation"
    folder.mkdir(exist_ok=True)
    first = {"task": "draw", "n": len(verdicts), "measures": {"accuracy": "higher"}, "figures": figures}
    lines = [
        {
            "item": item,
            "prompt": f"draw {{image:key/{item}}} {EVIL}",
            "output": [{"type": "text", "text": f"no. {item}"}],
        }
        | {"verdicts": {"accuracy": right}}
        for item, right in enumerate(verdicts)
    ]
    lines[1] = {"item": 1, "prompt": "too long", "failure": "the prompt has 300 tokens"}
    (folder / "draw.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, *lines)), encoding="utf-8")


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
