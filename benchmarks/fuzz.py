"""Thousands of recipes, overrides, command lines, run folders, records and prompts that are wrong on purpose.

    python benchmarks/fuzz.py [--tries 10000] [--seed 0] [--passed-on]

Each is refused in one line or read right: no traceback, no hang, nothing executed, nothing accepted that the
documentation does not allow or that another reader of YAML reads otherwise. `--passed-on`: of recipes, locks, bundles
and Git repositories alone, with traps that would show what is executed or followed, two seconds of CPU each.

Findings are printed with the try's number; `--only N` makes that try alone. The last line sums them up. Exit code 1 if
there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from fuzzing.harness import CPU_SECONDS, PASSED_ON, TRIES, fuzz

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one try")
    parser.add_argument("--passed-on", action="store_true", help="recipes, locks, bundles and repositories alone")
    options = parser.parse_args()
    numbers = range(options.tries) if options.only is None else range(options.only, options.only + 1)
    tries, seconds = (PASSED_ON, 2.0) if options.passed_on else (TRIES, CPU_SECONDS)
    found = fuzz(numbers, options.seed, tries=tries, cpu_seconds=seconds)
    print(json.dumps(found))
    return 1 if any(count for name, count in found.items() if name != "tried") else 0


if __name__ == "__main__":
    sys.exit(main())
