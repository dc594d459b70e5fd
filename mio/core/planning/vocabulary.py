"""The vocabulary that a recipe will have, from declarations alone: no tokenizer's files are needed."""

from __future__ import annotations

from collections.abc import Sequence

from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.values import TEXT, TextTokenizer
from mio.core.errors import UserError
from mio.core.recipe.chain import starting_folder
from mio.core.recipe.places import VOCABULARY, run_of_checkpoint
from mio.core.recipe.schema import Recipe
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.vocabulary import Vocabulary


def expected_vocabulary(stages: Sequence[Recipe], manager: PluginManager, text_tokens: int = 0) -> Vocabulary:
    """Vocabulary of the last of a chain's `stages`, which grows from stage to stage.

    The text tokenizer's size is `text_tokens`, or that of the tokenizer where it is at hand, or the recipe's
    option `size`. Raises `UserError` where none of these is known.
    """
    start = starting_folder(stages[0])
    base = Vocabulary.load((run_of_checkpoint(start) or start) / VOCABULARY) if start is not None else None
    for recipe in stages:
        plugins = manager.enable(recipe.plugins)
        if base is not None:
            text = SizedText(base.blocks[0].size, base.text_fingerprint)
        else:
            text = SizedText(text_tokens or _text_size(recipe, plugins))
        base = Vocabulary.build(text, plugins.modalities(), plugins.control_tokens(), base=base)
    assert base is not None
    return base


def known_ids(stages: Sequence[Recipe], manager: PluginManager, text_tokens: int = 0) -> int:
    """Ids that the last of a chain's stages starts with; 0 if it starts from nothing."""
    if len(stages) > 1:
        return expected_vocabulary(stages[:-1], manager, text_tokens).size
    start = starting_folder(stages[0])
    if start is None:
        return 0
    return Vocabulary.load((run_of_checkpoint(start) or start) / VOCABULARY).size


def _text_size(recipe: Recipe, plugins: EnabledPlugins) -> int:
    owner = next((owner for owner, declared in plugins.modalities() if declared.text), "")
    if not owner:
        raise UserError(f"no plugin under `plugins:` declares `{TEXT}`; add the plugin `{TEXT}`")
    size = recipe.plugins.get(owner, {}).get("size", 0)
    if isinstance(size, int) and size > 0:
        return size
    try:
        tokenizer = plugins.tokenizer(TEXT)
    except UserError as error:
        raise UserError(f"{error}. Without its files, give its number of tokens: `text_tokens=64000`") from error
    assert isinstance(tokenizer, TextTokenizer)
    return tokenizer.size
