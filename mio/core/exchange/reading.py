"""`mio import`: a folder in the Hugging Face layout becomes a run folder.

Three kinds of folder. An export of mio holds recipe, vocabulary and tokenizers, and is restored. A plain backbone
becomes a run whose vocabulary is text, which grows when a stage starts from it. A foreign any-to-any model is read with
a recipe whose plugins declare its tokens: rows of embedding and head are selected by token string, wherever they are.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import TEXT, Modality
from mio.core.errors import RecipeError, UserError
from mio.core.exchange.huggingface_config import (
    config_from_huggingface,
    config_to_huggingface,
    unread_keys,
)
from mio.core.exchange.huggingface_keys import FAMILIES
from mio.core.exchange.layouts import BoundLayout
from mio.core.exchange.matching import Renamed, beyond_the_rows, match, text_size, with_codes
from mio.core.exchange.model_files import AGAIN
from mio.core.exchange.networks import exported_networks
from mio.core.exchange.peft import adapter_file, restore_adapter, trained_names
from mio.core.exchange.text import text_tokenizer
from mio.core.exchange.tokens import FolderTokens
from mio.core.exchange.weights import KEEP, FolderModel, chosen_dtype
from mio.core.exchange.writing import OWN, STAGE_FILES
from mio.core.files import new_folder, read_json, write_json
from mio.core.model.networks import initial_states
from mio.core.model.vocabulary_rows import migrate_rows
from mio.core.recipe.compose import compose
from mio.core.recipe.model import EMBEDDING, transformer_config
from mio.core.recipe.places import BASE, LOCK, RECIPE, SUMMARY, TOKENIZERS, VOCABULARY, WEIGHTS
from mio.core.recipe.resolved import load_resolved, to_yaml
from mio.core.recipe.schema import Recipe, RuntimeConfig
from mio.core.runs.adapters import known_ids, known_note
from mio.core.runs.lock import check_run, lock_run, same_declarations
from mio.core.runs.run import Run
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.tokenizer_files import save_record, tokenizer_record
from mio.core.tokens.vocabulary import Vocabulary

IMPORTED = "imported"
"""Value of a text plugin's option `tokenizer`: the tokenizer's files lie in the run folder."""


@dataclass(frozen=True)
class Imported:
    """The run that an import made, and what became of the model's tokens and keys."""

    folder: Path
    restored: bool
    """Whether it was an export of mio."""
    parameters: int
    vocabulary: Vocabulary
    new: tuple[str, ...] = ()
    """Tokens that the model did not have: their rows were drawn around the mean of the others."""
    unmapped: tuple[str, ...] = ()
    """Tokens of the model that nothing in the recipe declares: their rows were left out."""
    unnamed: int = 0
    """Rows of the model that belong to no token: left out."""
    overruled: tuple[str, ...] = ()
    """Keys of the recipe's `model` that differ from config.json, which wins."""
    unread: tuple[str, ...] = ()
    """Keys of config.json that the family does not read, neither here nor in transformers."""
    ignored: tuple[str, ...] = ()
    """Indexes that are not read, as a whole file of weights lies beside them."""
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Networks beside the transformer, each with its number of tensors, by what becomes of them."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Codes by modality whose rows the model has beside those of its tokens."""
    undeclared: tuple[str, ...] = ()
    """Modalities whose codes the model has, and no plugin of the recipe: their rows were left out."""
    untied: bool = False
    """config.json ties head and embedding, which differ: both are kept, as transformers does."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Choices of the user's."""

    name: str = ""
    """Of the run; default: the folder's, or that of the run that was exported."""
    tokens: Sequence[str] = ()
    """`OURS=THEIRS`, where the model's names of tokens are not the plugins'."""
    text: int = 0
    """Number of ids that are text; 0 means all below the first token of another modality."""
    dtype: str = KEEP
    """`keep`, `bf16`, `fp16` or `fp32`."""


def import_folder(
    folder: Path,
    recipes: Sequence[str],
    overrides: Sequence[str],
    manager: PluginManager,
    options: ImportOptions = ImportOptions(),
) -> Imported:
    """Makes a run of a model's folder.

    Args:
        folder: Hugging Face layout.
        recipes: recipe of the run: plugins that declare the model's tokens, form and system prompts, evaluation. Empty
            for a plain backbone or an export of mio.
        overrides: `key=value` for the recipe.
        manager: the installed plugins.
        options: everything else.

    Raises:
        UserError: the folder lacks something, its parts contradict each other, or the run exists already.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no config.json; is it a model's folder in the Hugging Face layout?")
    chosen_dtype(options.dtype)
    data: Mapping[str, Any] = read_json(folder / "config.json", AGAIN)
    layout = BoundLayout.of(data, manager)
    data = data if layout is None else layout.language
    try:
        config = config_from_huggingface(data)
    except UserError as error:
        others = ", ".join(sorted(manager.layouts())) if data.get("model_type") not in FAMILIES else ""
        raise UserError(f"{folder}/{error}{others and f', or, by plugins, of {others}'}") from None
    size = data.get("vocab_size")
    if (folder / OWN).is_dir():
        if recipes or overrides or options.tokens or options.text:
            raise UserError(f"{folder}: is an export of mio and brings its own recipe; give nothing but `--name`")
        return _restore(folder, config, size, manager, options)
    if overrides and not recipes:
        raise UserError(f"`{overrides[0]}` changes a recipe, and none is given; give one before it")
    if recipes:
        recipe = compose(recipes, overrides, manager)
    else:
        recipe = Recipe(plugins={TEXT: {}})
        recipe.data.packing.context = data.get("max_position_embeddings") or recipe.data.packing.context
    recipe.name = options.name or _run_name(folder)
    model = FolderModel.open(folder, config, size, layout)
    beside: dict[str, list[str]] = {}
    for (name, fate), count in model.beside.items():
        beside.setdefault(fate, []).append(f"{name} ({count} tensor{'s' if count > 1 else ''})")
    return replace(
        _import_foreign(model, recipe, manager, options),
        unread=tuple(f"`{key}`" for key in unread_keys(data)),
        ignored=model.files.ignored,
        beside=beside,
        untied=model.config.tied_embeddings != config.tied_embeddings,
    )


def _import_foreign(model: FolderModel, recipe: Recipe, manager: PluginManager, options: ImportOptions) -> Imported:
    """A model that was not exported by mio."""
    declared = manager.enable(recipe.plugins).modalities()
    owner = next((owner for owner, modality in declared if modality.text), None)
    if owner is None:
        raise RecipeError([f"no plugin under `plugins:` declares `{TEXT}`; add `{TEXT}: {{}}`"])
    modalities = [modality for _, modality in declared]
    tokens = FolderTokens.read(model.folder)
    renamed = Renamed(options.tokens, modalities)
    text = text_size(tokens, modalities, renamed, options.text)
    if text.size > model.rows:
        raise beyond_the_rows(tokens, text.size - 1, model.rows)
    codes = {name: rows for name, rows in model.code_rows.items() if _has_codes(modalities, name)}
    sizes = {name: len(rows.embedding) for name, rows in codes.items()}
    tokens = with_codes(tokens, modalities, renamed, sizes, model.rows)
    text_options: dict[str, Any] = {"tokenizer": IMPORTED}
    if text.missing_chat_tokens:
        text_options["specials"] = list(text.missing_chat_tokens)
    overruled = _overruled(recipe, model.config, manager)
    recipe.plugins = recipe.plugins | {owner: text_options}
    recipe.model = asdict(model.config)
    recipe.start_from = ""
    plugins = manager.enable(recipe.plugins)
    final = _run_folder(recipe)
    with new_folder(final) as partial:
        tokens.write_text(partial / TOKENIZERS / TEXT, text.size)
        tokenizer = text_tokenizer(plugins, partial)
        vocabulary = Vocabulary.build(tokenizer, plugins.modalities(), plugins.control_tokens())
        _check_text(tokens, vocabulary, text.size)
        matched = match(vocabulary, tokens, renamed, model.rows + sum(sizes.values()))
        index = torch.from_numpy(matched.rows)

        def move(name: str, weight: Tensor) -> Tensor:
            own = [rows.embedding if name == EMBEDDING else rows.head for rows in codes.values()]
            weight = torch.cat([weight, *(rows.to(weight.dtype) for rows in own)])
            return migrate_rows(weight.index_select(0, index), matched.known, vocabulary, recipe.seed)[0]

        known = {block.name for block in matched.known.blocks}
        of_plugins = Codecs(plugins).networks, model.config.width, model.config.layers, recipe.seed
        imported = Imported(
            folder=final,
            restored=False,
            parameters=model.store(
                vocabulary.rows, partial / WEIGHTS, options.dtype, move, more=dict(initial_states(*of_plugins))
            ),
            vocabulary=vocabulary,
            new=tuple(block.name for block in vocabulary.blocks if block.name not in known),
            unmapped=matched.unmapped,
            unnamed=matched.unnamed,
            overruled=overruled,
            codes=sizes,
            undeclared=tuple(model.code_rows.keys() - sizes.keys()),
        )
        save_record(partial / TOKENIZERS, {TEXT: tokenizer.fingerprint})
        (partial / RECIPE).write_text(to_yaml(recipe), encoding="utf-8")
        vocabulary.save(partial / VOCABULARY)
        write_json(partial / SUMMARY, _summary(imported, model.folder))
        lock_run(partial, recipe, plugins, vocabulary, {TEXT: tokenizer.fingerprint})
    return imported


def _restore(
    folder: Path, config: TransformerConfig, size: int | None, manager: PluginManager, options: ImportOptions
) -> Imported:
    """The run that was exported to the folder."""
    own = folder / OWN
    absent = [file for file in (RECIPE, VOCABULARY) if not (own / file).is_file()]
    if absent:
        raise UserError(f"{own}: {absent[0]} is missing; export the run again")
    earlier = None
    if (own / LOCK).is_file():  # an export does not hold all of the run's records
        earlier = check_run(own, weights=False, tell=lambda line: None)  # noqa: ARG005
    recipe = load_resolved(own / RECIPE, manager)
    recipe.name = options.name or recipe.name
    recipe.evaluate.average = recipe.validate.average = False  # an export holds one of both
    here = RuntimeConfig()  # where others wrote is theirs
    recipe.runtime.runs, recipe.runtime.tokens = here.runs, here.tokens
    saved = Vocabulary.load(own / VOCABULARY)
    _check_config(folder, config, transformer_config(recipe, manager), saved)
    model, adapter = FolderModel.open(folder, config, size), adapter_file(folder)
    if model.rows != saved.size:
        raise UserError(
            f"{folder}: embedding of {model.rows} rows, {OWN}/{VOCABULARY} {saved.size} ids: the model was changed "
            f"since its export; remove {OWN}/ to read it as a foreign model, with a recipe that declares its tokens"
        )
    final = _run_folder(recipe)
    with new_folder(final) as partial:
        for file in STAGE_FILES:
            if (own / file).is_file():
                shutil.copyfile(own / file, partial / file)
        if (own / TOKENIZERS).is_dir():
            shutil.copytree(own / TOKENIZERS, partial / TOKENIZERS)
        vocabulary = _restored_vocabulary(folder, recipe, manager, saved, partial)
        (partial / RECIPE).write_text(to_yaml(recipe), encoding="utf-8")

        def pad(_: str, weight: Tensor) -> Tensor:
            return torch.cat([weight, weight.new_zeros(vocabulary.rows - model.rows, weight.shape[1])])

        codecs = Codecs(manager.enable(recipe.plugins))
        if earlier is not None:
            same_declarations(own, codecs)
        networks = codecs.networks
        more = exported_networks(own, networks)
        if adapter is None:
            parameters = model.store(vocabulary.rows, partial / WEIGHTS, options.dtype, pad, more=more)
        else:
            known = known_ids(adapter)
            parameters = model.store(vocabulary.rows, partial / BASE, options.dtype, pad, known_note(known), more)
            names = trained_names(transformer_config(recipe, manager), recipe.train, vocabulary, known, networks)
            parameters += restore_adapter(adapter, names, partial / WEIGHTS, more)
            Run(partial, manager).saved  # noqa: B018 - opening it compares the shapes
        imported = Imported(final, restored=True, parameters=parameters, vocabulary=vocabulary)
        if not (partial / SUMMARY).is_file():
            write_json(partial / SUMMARY, _summary(imported, folder))
        plugins = manager.enable(recipe.plugins)
        record = tokenizer_record(partial / TOKENIZERS)
        if record:
            save_record(partial / TOKENIZERS, record)  # checksums: its files may have been written again
        lock_run(partial, recipe, plugins, vocabulary, record, earlier)
    return imported


def _restored_vocabulary(
    folder: Path, recipe: Recipe, manager: PluginManager, saved: Vocabulary, partial: Path
) -> Vocabulary:
    """The run's vocabulary. If the files of its text tokenizer are missing, the export's own replace them, and `recipe`
    is changed accordingly."""
    try:
        plugins = manager.enable(recipe.plugins)
        tokenizer = text_tokenizer(plugins, partial)
    except UserError:
        owner = saved.blocks[0].owner
        chat = [block.name for block in saved.blocks if block.owner == owner and block.kind == "special"]
        recipe.plugins[owner] = {"tokenizer": IMPORTED} | ({"specials": chat} if chat else {})
        plugins = manager.enable(recipe.plugins)
        shutil.rmtree(partial / TOKENIZERS / TEXT, ignore_errors=True)
        FolderTokens.read(folder).write_text(partial / TOKENIZERS / TEXT, saved.blocks[0].size)
        tokenizer = text_tokenizer(plugins, partial)
    vocabulary = Vocabulary.build(tokenizer, plugins.modalities(), plugins.control_tokens(), base=saved)
    if vocabulary.size != saved.size:
        grown = [block.name for block in vocabulary.blocks[len(saved.blocks) :]]
        raise UserError(
            f"{folder}: the installed plugins declare what the exported run did not have: {', '.join(grown[:3])}; "
            "install the versions that mio/recipe.lock names"
        )
    return vocabulary


def _check_text(tokens: FolderTokens, vocabulary: Vocabulary, size: int) -> None:
    """The text tokenizer must give every id the string that the folder gives it."""
    text, folder = vocabulary.blocks[0], tokens.folder
    if text.size != size:
        raise UserError(f"{folder}: {size} ids are text, but plugin `{text.owner}` reads {text.size} from its files")
    for index in text.ids:
        if vocabulary.token(index) != tokens.strings.get(index, vocabulary.token(index)):
            raise UserError(
                f"{folder}: the id {index} is {tokens.strings[index]!r} in its files, {vocabulary.token(index)!r} for "
                f"plugin `{text.owner}`"
            )


def _has_codes(modalities: Sequence[Modality], name: str) -> bool:
    return any(declared.name == name and declared.codebooks for declared in modalities)


def _overruled(recipe: Recipe, config: TransformerConfig, manager: PluginManager) -> tuple[str, ...]:
    if not recipe.model:
        return ()
    return _differing(transformer_config(recipe, manager).explicit, config.explicit)


def _differing(a: TransformerConfig, b: TransformerConfig) -> tuple[str, ...]:
    names = [one.name for one in fields(a)]
    return tuple(name for name in names if getattr(a, name) != getattr(b, name))


def _check_config(folder: Path, config: TransformerConfig, own: TransformerConfig, vocabulary: Vocabulary) -> None:
    """Compares what config.json can say: the recipe's model may hold more."""
    expected = config_from_huggingface(config_to_huggingface(own, vocabulary.size, 1))
    if other := _differing(config, expected):
        raise UserError(
            f"{folder}: config.json and {OWN}/{RECIPE} disagree on {', '.join(f'`{name}`' for name in other)}: one of "
            "them was changed after the export"
        )


def _summary(imported: Imported, folder: Path) -> dict[str, Any]:
    """The summary marks the run as finished; it says where the model came from."""
    return {
        "parameters": imported.parameters,
        "vocabulary": {"size": imported.vocabulary.size},
        "imported": {
            "from": folder.resolve().name,
            "new": list(imported.new),
            "unmapped": list(imported.unmapped),
            "unnamed": imported.unnamed,
        },
    }


def _run_name(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.")
    return name or IMPORTED


def _run_folder(recipe: Recipe) -> Path:
    """The folder of the new run. Raises `UserError` if it exists."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", recipe.name):
        raise UserError(f"--name {recipe.name!r} names a folder: letters, digits, `_`, `-` and `.` only")
    folder = Path(recipe.runtime.runs) / recipe.name
    if folder.exists():
        raise UserError(f"{folder} exists already; give another `--name`, or delete it")
    return folder
