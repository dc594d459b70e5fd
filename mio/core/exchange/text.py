"""The text tokenizer of a run, without the tokenizers of media: their weights may be missing."""

from __future__ import annotations

from pathlib import Path

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, TextTokenizer, Trainable
from mio.core.recipe.places import TOKENIZERS


def text_tokenizer(plugins: EnabledPlugins, run: Path) -> TextTokenizer:
    """Text tokenizer of the enabled plugins, with its files in the run folder if it has any."""
    tokenizer = plugins.tokenizer(TEXT)
    if isinstance(tokenizer, Trainable):
        tokenizer.load(run / TOKENIZERS / TEXT)
    assert isinstance(tokenizer, TextTokenizer)
    return tokenizer
