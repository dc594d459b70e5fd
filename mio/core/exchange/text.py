"""The text tokenizer of a run, without the tokenizers of media: those may need weights that are not at hand."""

from __future__ import annotations

from pathlib import Path

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, TextTokenizer, Trainable
from mio.core.recipe.places import TOKENIZERS


def text_tokenizer(plugins: EnabledPlugins, run: Path) -> TextTokenizer:
    """Text tokenizer of the plugins in use, with the files in the run folder where it keeps them there."""
    tokenizer = plugins.tokenizer(TEXT)
    if isinstance(tokenizer, Trainable):
        tokenizer.load(run / TOKENIZERS / TEXT)
    assert isinstance(tokenizer, TextTokenizer)
    return tokenizer
