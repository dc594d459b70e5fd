"""A process of its own, `python -m mio.testing.fresh NAME TARGET ASKED ANSWER`, that does again what checks have done.

It imports the plugin before anything else, says what that brought along and changed, and then makes declarations,
records and codes anew. Strings hash otherwise here than in the process that asks.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mio.core.contract.discovery import Candidate, importer
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import Trainable
from mio.testing.corpora import Furnished, open_splits, read
from mio.testing.digests import digest
from mio.testing.surroundings import GlobalState, no_network, package_of

HEAVY = (
    *("accelerate", "datasets", "diffusers", "jax", "keras", "librosa", "lightning", "matplotlib", "music21", "numba"),
    *("pandas", "peft", "scipy", "sklearn", "tensorflow", "timm", "tokenizers", "torch", "torchaudio", "torchvision"),
    *("transformers", "trimesh"),
)
"""Packages that take long to import: a plugin imports them inside functions."""

Facts = list[tuple[str, str]]
"""What is looked at, each with a digest of it."""


def main(name: str, target: str, asked: Path, answer: Path) -> None:
    """Writes what is found as JSON: by section its result, or `error`."""
    found: dict[str, Any] = {}
    state, start = GlobalState(package_of(target)), time.process_time()
    with no_network() as network:
        imported = Candidate(name, "", target, importer(target))
        problem = imported.problem
        found["import"] = {
            "seconds": time.process_time() - start,
            "heavy": sorted(set(HEAVY) & sys.modules.keys()),
            "changes": state.changes(),
            "problem": problem,
        }
        if not problem:
            found |= _again(imported, asked)
    found["network"] = network
    answer.write_text(json.dumps(found), encoding="utf-8")


def _again(imported: Candidate, asked: Path) -> dict[str, Any]:
    given = pickle.loads(asked.read_bytes())
    others = [Candidate(name, "", target, importer(target)) for name, target in given["targets"].items()]
    plugins = Furnished(PluginManager([imported, *others]).enable(given["options"]), given["furnished"])
    name = imported.name
    return {
        "declarations": _tried(lambda: declarations(plugins)),
        "records": _tried(lambda: {source: records(plugins, source, given["count"]) for source in given["sources"]}),
        "labels": {source: _tried(partial(labels, plugins, name, source)) for source in given["sources"]},
        "codes": {
            modality: _tried(partial(codes, plugins, modality, data, given["weights"]))
            for modality, data in given["media"].items()
        },
        "prepared": {
            modality: _tried(partial(prepared, plugins, modality, name, data))
            for modality, data in given["read"].items()
        },
    }


def _tried(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # which is told in its place
        return {"error": f"{type(error).__name__}: {error}"}


def declarations(plugins: EnabledPlugins) -> Facts:
    """Of each declaration, in vocabulary order."""
    declared = [(one.name, one) for _, one in plugins.modalities()]
    declared += [(one.name, one) for _, one in plugins.control_tokens()]  # type: ignore[misc]
    return [(f"the declaration of `{name}`", digest(one)) for name, one in declared]


def records(plugins: EnabledPlugins, source: str, count: int) -> Facts:
    """Of each split and its first records."""
    made = []
    for split, opened in open_splits(plugins, source)[0].items():
        made.append((f"the fingerprint of `{split}`", str(getattr(opened, "fingerprint", ""))))
        for index in range(min(len(opened), count)):
            made.append((f"record {index} of `{split}`", digest(read(opened, index))))
    return made


def labels(plugins: EnabledPlugins, owner: str, source: str) -> Facts:
    """Of what the first records are as documents but for their media, with the control tokens that a plugin labels them
    with; none of a plugin that has no rule for that."""
    if owner not in [one for one, _ in plugins.label_rules()]:
        return []
    from mio.testing.controls import labelled

    return [(f"what is labelled of record {index}", digest(one)) for index, one in enumerate(labelled(plugins, source))]


def codes(plugins: EnabledPlugins, modality: str, data: list[Any], weights: str) -> Facts:
    """Of a tokenizer and the codes of media."""
    tokenizer: Any = plugins.tokenizer(modality)
    if isinstance(tokenizer, Trainable):
        tokenizer.load(Path(weights) / modality)
    return coded(tokenizer, data)


def coded(tokenizer: Any, data: list[Any]) -> Facts:
    """Of a tokenizer that is ready, and the codes of media."""
    of_items = [(f"the codes of item {index}", digest(one)) for index, one in enumerate(tokenizer.encode(data))]
    return [("its fingerprint", tokenizer.fingerprint), *of_items]


def prepared(plugins: EnabledPlugins, modality: str, owner: str, data: list[Any]) -> Facts:
    """Of a plugin's encoder and head of a modality, and of what they prepare."""
    made = []
    for kind, found, prepare in (
        ("encoder", plugins.encoder(modality), "prepare"),
        ("head", plugins.head(modality), "target"),
    ):
        if found is not None and found[0] == owner:
            made.append((f"the fingerprint of its {kind}", found[1].fingerprint))
            for index, one in enumerate(data):
                content = [found[1].positions(one), getattr(found[1], prepare)(one)]
                made.append((f"what `{prepare}` makes of item {index}", digest(content)))
    return made


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
