"""Tokenizers that learn their weights from the data."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mio.core.contract.values import Media
from mio.core.errors import DataError
from mio.core.tokens.codecs import Codecs


def train_tokenizers(
    codecs: Codecs, names: Sequence[str], items: Mapping[str, Sequence[Any]], folder: Path, seed: int
) -> dict[str, Mapping[str, float]]:
    """Trains the tokenizers `names` on `items` of their modalities, saves them under `folder` and loads them all.

    Items are strings for text and `Media` otherwise; files that cannot be read are left out, the checks before
    training report them. Returns the figures that each tokenizer reports.
    """
    figures: dict[str, Mapping[str, float]] = {}
    for name in names:
        examples = items.get(name, ())
        if not codecs.modalities[name].text:
            examples = _readable(codecs, examples)
        if not examples:
            raise DataError(
                f"the tokenizer of `{name}` has to be trained, but the recipe's sources hold no `{name}` that can "
                "be read"
            )
        tokenizer = codecs.tokenizer(name)
        try:
            figures[name] = tokenizer.fit(examples, seed)
        except (ArithmeticError, ValueError) as error:
            reason = (f"{error}".splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"the tokenizer of `{name}` cannot be trained on {len(examples)} items of the recipe's sources: "
                f"{reason} Look for items that are empty or extreme"
            ) from error
        partial = folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tokenizer.save_weights(partial)
        shutil.rmtree(folder / name, ignore_errors=True)  # without a record: whoever made it was ended
        partial.rename(folder / name)
    codecs.load(folder)
    return figures


def _readable(codecs: Codecs, items: Iterable[Media]) -> list[Media]:
    readable = []
    for item in items:
        with contextlib.suppress(DataError):
            readable.append(codecs.opened(item))
    return readable
