"""English that is at hand: prose of the docstrings of installed packages, which mio needs in any case."""

from __future__ import annotations

import ast
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

from mio_smollm2.perplexity import prose

PACKAGES = ("numpy", "scipy", "sklearn", "torch")
_MARKS = ("--", "::", ">>>", "Args:", "http", "` of shape", "|", "_array_like")
"""What stands in lists of arguments and in examples, which are no prose."""


def docstring_texts(count: int, packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Paragraphs that begin and end like sentences, each once, in an order that is the same for the same packages."""
    found = dict.fromkeys(text for package in packages for text in _paragraphs(package))
    texts = [text for text in found if text[0].isupper() and not any(mark in text for mark in _MARKS)]
    Random(0).shuffle(texts)
    return texts[:count]


def _paragraphs(package: str) -> Iterator[str]:
    """Read without importing anything."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue  # of another Python, or a template
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from prose(ast.get_docstring(node) or "")
