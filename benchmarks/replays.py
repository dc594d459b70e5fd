"""Inputs that were silently wrong somewhere, varied, each compared with an independent program that reads it.

    python benchmarks/replays.py [KIND...] [--variants 50] [--seed 0] [--verbose]

Each module of `benchmarks/replay_kinds/` is a kind of input. Its `variants` make inputs in a folder and say what mio
has to make of each, by a reader that is not mio's. Printed per kind: how many variants there were, how many were read
right, how many were refused with a clear message (and how many of these although they could be read), and what was
neither. The last line sums them up. Exit code 1 if one was silently wrong or ended in a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

from mio.core.errors import UserError

T = TypeVar("T")
KINDS = Path(__file__).parent / "replay_kinds"


@dataclass
class Variant:
    """One input."""

    name: str
    """What is special about it, in a few words: size, mode, encoding, placement."""
    read: Callable[[], Any]
    """What mio makes of it. A `UserError` is a refusal."""
    right: Callable[[Any], str]
    """What is wrong with the answer of `read`, or the empty string. Never asked where `read` refuses."""
    readable: bool | None = True
    """Whether the oracle can read it: then a refusal is counted as `refused_readable`. False: nothing but a refusal is
    right. None: either will do, as long as what is read is right."""


def in_turn(scenarios: Sequence[T], folder: Path) -> Iterator[tuple[int, T, Path]]:
    """Endless rounds over all scenarios: number, scenario, and a folder of its own, which is removed behind it."""
    for number, scenario in enumerate(cycle(scenarios)):
        place = folder / f"{number}"
        place.mkdir()
        yield number, scenario, place
        shutil.rmtree(place)


def judge(variant: Variant) -> tuple[str, str]:
    """(verdict, reason). Verdicts: `right`, `refused`, `refused_readable`, `silent`, `traceback`."""
    try:
        answer = variant.read()
    except UserError as error:
        if not str(error).strip() or "\n" in str(error).strip():
            return "traceback", f"a refusal without one clear line: {error!r}"
        return ("refused_readable" if variant.readable else "refused"), str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    if variant.readable is False:
        return "silent", f"was read as {answer!r:.200}"
    wrong = variant.right(answer)
    return ("silent", wrong) if wrong else ("right", "")


def run_kind(name: str, variants: int, seed: int, verbose: bool) -> Counter[str]:
    """Judges the first `variants` variants of a kind; prints what is wrong with them."""
    module: Any = importlib.import_module(f"replay_kinds.{name}")
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix=f"mio-{name}-") as folder:
        made: Iterator[Variant] = module.variants(Path(folder), random.Random(seed))
        for variant in islice(made, variants):
            verdict, reason = judge(variant)
            count["variants"] += 1
            count[verdict] += 1
            if verdict in ("silent", "traceback") or (verbose and reason):
                print(f"{name}: {verdict}: {variant.name}: {reason}", flush=True)
    return count


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    known = sorted(module.name for module in pkgutil.iter_modules([str(KINDS)]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(known)}; all by default")
    parser.add_argument("--variants", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print refusals too")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(known):
        parser.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    total: Counter[str] = Counter()
    for name in options.kinds or known:
        count = run_kind(name, options.variants, options.seed, options.verbose)
        total += count
        print(f"{name}: {json.dumps(dict(count))}", flush=True)
    told = {
        "variants": total["variants"],
        "refused_readable": total["refused_readable"],
        "silent": total["silent"],
        "tracebacks": total["traceback"],
    }
    print(json.dumps(told))
    return 1 if total["silent"] or total["traceback"] else 0


if __name__ == "__main__":
    # the kinds import `Variant` from `replays`, which has to be this very module
    sys.modules["replays"] = sys.modules["__main__"]
    sys.exit(main())
