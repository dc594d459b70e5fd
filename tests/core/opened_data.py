"""The data of a recipe, as a training has them."""


def open_data(file, *overrides, tokenised=False):
    """Of a recipe in the working directory, from shards where that is said; and the width of its model."""
    from mio.core.contract.plugins import PluginManager
    from mio.core.data.loader import MioDataModule
    from mio.core.data.shards.store import TokenStore
    from mio.core.recipe.compose import compose
    from mio.core.recipe.model import transformer_config
    from mio.core.tokens.codecs import Codecs
    from mio.core.tokens.rendering import Renderer
    from mio.core.tokens.vocabulary import Vocabulary

    manager = PluginManager.discover()
    recipe = compose([file], list(overrides), manager)
    plugins = manager.enable(recipe.plugins)
    codecs = Codecs(plugins)
    vocabulary = Vocabulary.build(codecs.text, plugins.modalities(), plugins.control_tokens())
    renderer = Renderer(vocabulary, codecs, recipe.train.loss)
    store = TokenStore.of(recipe, plugins, codecs) if tokenised else None
    data = MioDataModule(recipe, plugins, renderer, vocabulary.specials.pad, store)
    return data, transformer_config(recipe, manager).width
