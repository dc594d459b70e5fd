"""Public benchmarks, read from the files that their authors publish.

A folder per data set, in its own layout, is named in the recipe or on the command line; tasks whose data set is not
named rest. Options under `plugins: {benchmarks: {...}}` are the fields of `BenchmarkOptions`; docs/benchmarks.md
has the layouts, templates, decoding and measures.

    benchmarks: {coco: /data/coco, librispeech: /data/LibriSpeech, splits: {librispeech: test-other}}

The plugin declares no modality: its records hold media of `image`, `speech` and `video` from any plugin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mio import Task, hookimpl, read_options
from mio.plugins.benchmarks import captions, choices, drawing, questions, speech
from mio.plugins.benchmarks.options import LAYOUTS, BenchmarkOptions


@hookimpl
def mio_paths() -> Sequence[str]:
    return [*LAYOUTS, "clip", "inception", "recogniser"]


@hookimpl
def mio_tasks(options: Mapping[str, Any]) -> Sequence[Task]:
    chosen = read_options(BenchmarkOptions, options, "plugins.benchmarks")
    families = (captions, drawing, questions, speech, choices)
    return [task for family in families for task in family.tasks(chosen)]
