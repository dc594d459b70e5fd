"""The lock of a recipe that has not been trained yet."""

from __future__ import annotations

from mio.core.errors import UserError
from mio.core.modality import TEXT, TextTokenizer, Trainable
from mio.core.plugins import EnabledPlugins
from mio.core.recipe import lock
from mio.core.schema import Recipe
from mio.core.vocabulary import Vocabulary


def lock_unfitted(recipe: Recipe, plugins: EnabledPlugins) -> tuple[str, str]:
    """(lock, note): the fingerprint of the vocabulary is there if no training of tokenizers decides it; the note says
    why it is not. A stage that starts from another may get another vocabulary: its parent's, grown."""
    if recipe.start_from:
        return lock(recipe, plugins), "vocabulary left open: it grows from the earlier stage's"
    try:
        text = plugins.tokenizer(TEXT)
    except UserError as error:
        return lock(recipe, plugins), f"vocabulary left open: {error}"
    if isinstance(text, Trainable):
        return lock(recipe, plugins), "vocabulary left open: the text tokenizer is trained on the recipe's data"
    assert isinstance(text, TextTokenizer)
    return lock(recipe, plugins, Vocabulary.build(text, plugins.modalities())), ""
