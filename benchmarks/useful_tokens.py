"""Useful tokens per second of a training step on documents of mixed lengths: mio's packed rows, a padded batch in
transformers, and documents one after the other in rows of litgpt; bf16 on a CPU.

    python benchmarks/useful_tokens.py [--rounds 8] [--stage 2] [--rows 2] [--documents 8] [--folder DIR]

Documents are those of `data_path.py` in the ratios of a stage of MIO, by tokens, drawn by mio's own data module with
its packing (context 2,800, window 4,096). The model is the 13 M one of `train_step.py` with the vocabulary of these
documents; the peers have the configurations that are best there, without compilation.

- mio trains on `--rows` packed rows a step. Useful are the positions of documents, not the padding.
- transformers is given the same documents in the same order, `--documents` a step, padded to the longest of them, with
  an attention mask and without loss on padding. Useful are the positions of documents.
- litgpt is given rows of 2,800 tokens cut out of the same documents joined, as its data loader makes them: attention
  goes across documents, and a document that a row's end cuts loses its context. All of its positions count as useful,
  those that predict the first token of a document from the last of another included.

Each side is a process of its own and does its steps while the others wait. Ratios are medians over the rounds.
`loss_difference` is between mio's packed rows in float32 and the same documents one by one, each without padding: the
largest over the documents' mean losses and the whole batch's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from mio_side import made_module, settle, train_on
from peer_sides import litgpt_step, transformers_step
from train_step import BEST, SHAPES
from workers import LITGPT, Worker, environment, serve

SHAPE = {name: value for name, value in SHAPES["13m"].items() if name != "vocabulary"}
CONTEXT = 2800
STEPS = 12
"""Different steps that are made; after them the first one comes again."""
SIZES = {"captions": 4000, "pictures": 2000, "readings": 3000, "pages": 2000, "articles": 1000}
Documents = list[np.ndarray]


def build(spec: dict[str, Any]) -> Callable[[], float]:
    """One training step of `spec["side"]`, a function that returns the loss."""
    return {"mio": build_mio, "litgpt": build_litgpt, "transformers": build_transformers}[spec["side"]](spec)


def documents_of(spec: dict[str, Any]) -> Documents:
    stored = np.load(spec["documents"])
    return np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])


def batches_of(spec: dict[str, Any]) -> list[Any]:
    """The batches of mio's data module, as they were drawn."""
    import torch

    from mio.core.data.batch import Batch
    from mio.core.data.document_mask import DocumentMask

    stored = torch.load(spec["batches"], weights_only=True)
    return [Batch(**made, mask=DocumentMask.from_lengths(made["lengths"], CONTEXT)) for made in stored]


def build_mio(spec: dict[str, Any]) -> Callable[[], float]:
    """What `mio fit` does in a step: float32 weights, bf16 products."""
    settle()
    made = batches_of(spec)
    streams = 1 + max(int(batch.stream.max()) for batch in made)
    module = made_module({**SHAPE, "vocabulary": spec["vocabulary"]}, streams)
    optimizer = module.configure_optimizers()["optimizer"]
    batches = cycle(made)
    return lambda: train_on(module, optimizer, next(batches))


def build_litgpt(spec: dict[str, Any]) -> Callable[[], float]:
    """litgpt on rows of `TokensLoader`'s kind."""
    import torch

    stream = torch.from_numpy(np.concatenate(documents_of(spec)).astype(np.int64))
    rows = stream[: len(stream) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    steps = cycle(rows[: len(rows) // spec["rows"] * spec["rows"]].split(spec["rows"]))
    return litgpt_step({**SHAPE, **spec}, CONTEXT, steps)


def build_transformers(spec: dict[str, Any]) -> Callable[[], float]:
    """transformers on padded batches."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def batches() -> Iterator[dict[str, Any]]:
        for documents in cycle(padded_groups(documents_of(spec), spec["group"])):
            group = [torch.from_numpy(document.astype(np.int64)) for document in documents]
            inputs = pad_sequence([tokens[:-1] for tokens in group], batch_first=True)
            targets = pad_sequence([tokens[1:] for tokens in group], batch_first=True, padding_value=-100)
            mask = (targets != -100).long()
            yield {"input_ids": inputs, "attention_mask": mask, "shift_labels": targets, "labels": targets}

    return transformers_step({**SHAPE, **spec}, CONTEXT, batches())


def padded_groups(documents: Documents, size: int) -> list[Documents]:
    return [documents[at : at + size] for at in range(0, len(documents) - size + 1, size)]


def draw(folder: Path, stage: int, rows: int, group: int) -> dict[str, Any]:
    """Writes what the workers read: mio's batches, and their documents. Returns the part of a spec that they share."""
    import torch
    from data_path import World

    world = World(folder, SIZES)
    world.recipe.mixture.unit = "tokens"
    world.recipe.train.rows = world.recipe.train.micro_rows = rows
    world.recipe.runtime.workers = 0
    loader = iter(world.open(stage).train_dataloader())
    batches = [next(loader) for _ in range(STEPS)]
    names = ("tokens", "targets", "weights", "positions", "stream", "lengths", "weight")
    torch.save([{name: getattr(batch, name) for name in names} for batch in batches], folder / "batches.pt")
    documents = [document for batch in batches for document in taken_apart(batch)]
    lengths = [len(document) for document in documents]
    full = sum(map(useful_of, batches)) / sum(batch.tokens.numel() for batch in batches)
    np.savez(folder / "documents.npz", tokens=np.concatenate(documents), lengths=lengths)
    print(
        f"{len(documents)} documents, of {statistics.mean(lengths):.0f} tokens in the mean, at most {max(lengths)}; "
        f"vocabulary {world.vocabulary.size}; {full:.2%} of mio's rows used",
        flush=True,
    )
    return {
        "vocabulary": world.vocabulary.size,
        "batches": str(folder / "batches.pt"),
        "documents": str(folder / "documents.npz"),
        "rows": rows,
        "group": group,
    }


def useful_of(batch: Any) -> int:
    return sum(map(sum, batch.lengths))


def taken_apart(batch: Any) -> Documents:
    """The documents of a batch, whole."""
    found = []
    for row, lengths in enumerate(batch.lengths):
        start = 0
        for length in lengths:
            stop = start + length
            found.append(np.append(batch.tokens[row, start:stop], batch.targets[row, stop - 1]).astype(np.int32))
            start = stop
    return found


def loss_difference(spec: dict[str, Any]) -> float:
    """Between the float32 losses of packed rows and those of their documents one by one."""
    import torch

    from mio.core.data.batch import Batch
    from mio.core.data.document_mask import DocumentMask

    module = made_module({**SHAPE, "vocabulary": spec["vocabulary"]})
    batch = batches_of(spec)[0]
    differences = []
    total = alone = 0.0
    with torch.no_grad():
        nll = module.loss_sum(batch)[1]
        for row, lengths in enumerate(batch.lengths):
            start = 0
            for length in lengths:
                place = (slice(row, row + 1), slice(start, start + length))
                start += length
                single = Batch(
                    tokens=batch.tokens[place].contiguous(),
                    targets=batch.targets[place].contiguous(),
                    weights=torch.ones(1, length),
                    positions=torch.arange(length)[None],
                    stream=batch.stream[place],
                    mask=DocumentMask.from_lengths([[length]], length),
                    lengths=[[length]],
                    weight=float(length),
                )
                ours, theirs = nll[place].double().sum(), module.loss_sum(single)[1].double().sum()
                differences.append(float((ours - theirs).abs()) / length)
                total, alone = total + float(ours), alone + float(theirs)
    return max(*differences, abs(total - alone) / useful_of(batch))


def useful_per_step(spec: dict[str, Any], side: str) -> list[int]:
    """Useful tokens of each of the steps that a side repeats."""
    if side == "mio":
        return [useful_of(batch) for batch in batches_of(spec)]
    if side == "litgpt":
        return [spec["rows"] * CONTEXT]
    groups = padded_groups(documents_of(spec), spec["group"])
    return [sum(len(document) - 1 for document in group) for group in groups]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--rows", type=int, default=2, help="rows of a step of mio and litgpt")
    parser.add_argument("--documents", type=int, default=8, help="documents of a step of transformers")
    parser.add_argument("--folder", type=Path, help="where files are written; default: a temporary folder")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        serve(build)
        return
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        spec = draw(folder, given.stage, given.rows, given.documents)
        difference = loss_difference(spec)
        workers, useful = {}, {}
        for side, configuration in BEST["13m"].items():
            python = environment("litgpt", LITGPT) if side == "litgpt" else sys.executable
            workers[side] = Worker(python, __file__, {"side": side, **spec, **configuration, "compile": False})
            useful[side] = cycle(useful_per_step(spec, side))
        speeds: dict[str, list[float]] = {side: [] for side in workers}
        for count in range(given.rounds + 1):
            for side, worker in workers.items():
                [seconds] = worker.run(1)["seconds"]
                tokens = next(useful[side])
                if count:  # the first round allocates and loads kernels
                    speeds[side].append(tokens / seconds)
            told = ", ".join(f"{side} {found[-1]:.0f}" for side, found in speeds.items() if found)
            print(f"round {count}: {told or 'not counted'}", flush=True)
        for worker in workers.values():
            worker.close()
    finally:
        shutil.rmtree(folder)
    ratios = {
        side: statistics.median(ours / theirs for ours, theirs in zip(speeds["mio"], speeds[side], strict=True))
        for side in speeds
    }
    for side, found in speeds.items():
        print(f"{side:12} {statistics.median(found):8.0f} useful tokens/s  mio is {ratios[side]:5.2f}x", flush=True)
    figures = {
        "ratio_vs_padded": round(ratios["transformers"], 2),
        "ratio_vs_concatenated": round(ratios["litgpt"], 3),
        "loss_difference": difference,
        "stage": given.stage,
        "useful_tokens_per_second": {side: round(statistics.median(found)) for side, found in speeds.items()},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
