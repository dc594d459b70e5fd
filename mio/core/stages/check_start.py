"""A stage beside what it starts from: the model's shape, the vocabulary, the tokenizers. No torch, no weights read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mio.core.contract.backbone import FIXED, LEARNING
from mio.core.contract.declared_spans import Spans, declared_spans, span_changes
from mio.core.contract.networks import KINDS
from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import TEXT, TextTokenizer, Trainable
from mio.core.errors import PluginError, RecipeError, UserError
from mio.core.recipe.chain import Link
from mio.core.recipe.model import transformer_config
from mio.core.recipe.places import TOKENIZERS, VOCABULARY, run_of_checkpoint
from mio.core.recipe.schema import Recipe
from mio.core.runs.lock import Lock
from mio.core.runs.parent import check_parent
from mio.core.runs.versions import versions
from mio.core.tokens.codecs import Codecs
from mio.core.tokens.sized_text import SizedText
from mio.core.tokens.tokenizer_files import tokenizer_record
from mio.core.tokens.vocabulary import Vocabulary

_NETWORK_WORDS = {
    "encoders": (
        "`{}` is read by an encoder",
        "reads media",
        "no plugin of the recipe has `{}` read by one",
    ),
    "adapters": (
        "the plugin `{}` has adapters inside layers",
        "reads maps",
        "it has none with these options, or is not in the recipe",
    ),
    "heads": ("`{}` is made by a head", "makes media", "no plugin of the recipe has `{}` made by one"),
}
"""By kind of network: that there is a new one, what one does, and that there is none any more."""
MOST_IDS = 2**20
"""Ids of a vocabulary that is made for the check; the strings of a larger one take long, and the training makes it."""


@dataclass
class Start:
    """What a stage starts with, as far as it is known before anything is trained."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is possible, and may not be meant."""
    vocabulary: Vocabulary | None = None
    """None where the plugins do not fit together, or it is very large. Its text tokenizer may be a stand-in."""
    known: int = 0
    """Ids of what the stage starts from, the first ones of these; 0 where it starts from nothing."""


def check_start(link: Link, plugins: EnabledPlugins, base: Vocabulary | None, trains: bool = True) -> Start:
    """Compares a stage with its parent, and makes the vocabulary that it will have.

    Args:
        link: the stage.
        plugins: those of its recipe.
        base: vocabulary of the stage before, where that is one of the chain.
        trains: whether the parent's weights are needed.
    """
    start = Start()
    text: TextTokenizer | None = None
    tokenizers, codecs = None, Codecs(plugins)
    if not any(declared.text for _, declared in plugins.modalities()):
        return start  # which `check` reports
    if link.parent is not None:
        compared = _Comparison(link, link.parent, plugins)
        start.problems += [*compared.model_problems(), *compared.text_problems()]
        start.notes += [*compared.model_notes(), *compared.option_notes(), *compared.context_notes()]
        with contextlib.suppress(PluginError):  # which `check` reports
            start.notes += [*compared.network_notes(codecs), *compared.span_notes(codecs)]
        if link.folder is not None:
            try:
                run = check_parent(link.folder, trains)
                base = Vocabulary.load(run / VOCABULARY)
                codecs.attach(run / TOKENIZERS)
            except UserError as error:
                start.problems.append(f"{compared.placed('start_from')}{error}")
            else:
                tokenizers = run / TOKENIZERS
                text = compared.loaded_text(codecs, base, start.problems)
    start.known = base.size if base else 0
    if text is None:
        text = SizedText(base.blocks[0].size, base.text_fingerprint) if base else SizedText(1)
    ids = sum(sum(declared.codebooks) for _, declared in plugins.modalities()) + (base.size if base else text.size)
    if ids <= MOST_IDS:
        try:
            start.vocabulary = Vocabulary.build(text, plugins.modalities(), plugins.control_tokens(), base=base)
        except UserError as error:
            start.problems.append(str(error))
    if link.parent is not None and start.vocabulary is not None and base is not None:
        start.notes += _growth(link, base, start.vocabulary)
        if tokenizers is not None:
            start.problems += compared.tokenizer_problems(codecs, tokenizers)
    return start


@dataclass(frozen=True)
class _Comparison:
    """A stage and its parent."""

    link: Link
    parent: Recipe
    plugins: EnabledPlugins
    """Those of the stage."""

    def placed(self, *key: str) -> str:
        """`FILE:LINE: ` of a key that the stage's recipe sets, to begin a message with."""
        place = self.link.composed.place(*key)
        return f"{place}: " if place else ""

    @property
    def _own(self) -> Recipe:
        """What the stage's own files and overrides say."""
        return self.link.composed.recipe

    @cached_property
    def _models(self) -> dict[str, tuple[Any, Any]]:
        """Fields in which the model differs, here and there. Raises `RecipeError` for a model that is none."""
        here, there = (transformer_config(one, self.plugins.manager) for one in (self.link.recipe, self.parent))
        ours, theirs = asdict(here.explicit), asdict(there.explicit)
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}

    @cached_property
    def _wrong_sizes(self) -> dict[str, tuple[Any, Any]]:
        """The same of sizes that the stage's own recipe gives, where its model is none."""
        try:
            theirs = asdict(transformer_config(self.parent, self.plugins.manager).explicit)
        except RecipeError:
            return {}
        own = {name: value for name, value in self._own.model.items() if name in FIXED and not isinstance(value, dict)}
        return {name: (value, theirs[name]) for name, value in own.items() if value not in (theirs[name], 0)}

    def model_problems(self) -> Iterator[str]:
        """Trained weights have shapes, and a preset is a model of its own."""
        start, own = self.link.start, self._own.model
        try:
            differing = self._models
        except RecipeError:  # which `check` reports; here, whether it comes of a value that the weights do not have
            differing = self._wrong_sizes
        fixed = [name for name in differing if name in FIXED and (name in own or not own.get("preset"))]
        for name in [name for name in fixed if name in own] or fixed:
            here, there = differing[name]
            yield (
                f"{self.placed('model', name)}`model.{name}` is {shown(here)}, but {shown(there)} in the weights of "
                f"{start}; leave it out, or give {shown(there)}"
            )
        rest = {name: pair for name, pair in differing.items() if name not in own and name not in LEARNING}
        if own.get("preset") and rest:
            listed = ", ".join(
                f"`{name}` {shown(here)} instead of {shown(there)}" for name, (here, there) in rest.items()
            )
            yield (
                f"{self.placed('model', 'preset')}`model.preset` `{own['preset']}` is not the model of {start}: "
                f'{listed}; leave `preset` out (or give `model.preset=""`), and the model of {start} is taken'
            )

    def model_notes(self) -> Iterator[str]:
        try:
            differing = self._models
        except RecipeError:
            return
        for name, (here, there) in differing.items():
            if name not in FIXED and (name in self._own.model or name in LEARNING):
                yield f"`model.{name}` is {shown(here)}, in {self.link.start} {shown(there)}"

    def option_notes(self) -> Iterator[str]:
        for name, other in self._other_options.items():
            for key, here, there in other:
                yield f"`plugins.{name}.{key}` is {here}, in {self.link.start} {there}"

    @cached_property
    def _other_options(self) -> dict[str, list[tuple[str, str, str]]]:
        """What the recipe gives another value, by plugin, that of text left out."""
        both = [name for name in self._own.plugins if name in self.parent.plugins and name != self._text_plugin]
        found = {name: list(other_options(self._own.plugins[name], self.parent.plugins[name])) for name in both}
        return {name: other for name, other in found.items() if other}

    def tokenizer_problems(self, codecs: Codecs, folder: Path) -> Iterator[str]:
        """Whether another option makes another tokenizer is for its plugin to say, when it loads what was trained. One
        that learns nothing is known by its fingerprint."""
        recorded = tokenizer_record(folder)
        for owner, declared in self.plugins.modalities():
            known = declared.name in recorded and declared.name != TEXT
            if known and owner in {*self._other_versions, *self._other_options}:
                yield from self._another(owner, declared.name, recorded[declared.name])
            if owner in self._other_options and (folder / declared.name).is_dir():
                try:
                    codecs.tokenizer(declared.name)
                except UserError as error:
                    places = (self.placed("plugins", owner, key) for key, *_ in self._other_options[owner])
                    yield f"{next(filter(None, places), '')}{error}"

    @cached_property
    def _other_versions(self) -> set[str]:
        """Plugins that were others when the parent was trained. Tokenizers of the same ones are the same, and are not
        made for it: some hold gigabytes."""
        with contextlib.suppress(UserError):  # of a damaged folder, which is told elsewhere
            assert self.link.folder is not None
            lock = Lock.read(run_of_checkpoint(self.link.folder) or self.link.folder)
            had = lock.versions["plugins"]
            now = versions(self.plugins.manager, self.plugins.names)["plugins"]
            return {name for name in now if had.get(name, now[name]) != now[name]}
        return set()

    def _another(self, owner: str, modality: str, there: str) -> Iterator[str]:
        try:
            here: Any = self.plugins.tokenizer(modality)
            if isinstance(here, Trainable) or here.fingerprint == there:
                return
        except UserError:  # its files may not be at hand, where nothing is trained
            return
        yield (
            f"{self.placed('plugins', owner)}the tokenizer of `{modality}` is {here.fingerprint}, in {self.link.start} "
            f"{there}: its codes mean something else than the rows have learnt; give the plugin the version and "
            "options that it had, or call the modality otherwise"
        )

    def network_notes(self, codecs: Codecs) -> Iterator[str]:
        """What becomes of the parent's networks, and which are new. Raises `PluginError`."""
        networks, start = codecs.networks, self.link.start
        here, (there, _) = networks.fingerprints(), self._declared
        for kind, who in KINDS.items():
            now, was = here[kind], there.get(kind, {})
            new, does, nobody = _NETWORK_WORDS[kind]
            for name in now:
                if name not in was:
                    begins = "begins as its plugin makes it"
                    if hasattr(getattr(networks, kind)[name], "weights"):
                        begins = "begins with the pretrained weights that its plugin has"
                    yield f"{new.format(name)}, which {start} has not: it {begins}"
                elif now[name] != was[name]:
                    yield (
                        f"{who} `{name}` is {now[name]}, in {start} {was[name]}: it goes on with the weights from "
                        f"there, and {does} as it now does"
                    )
            for name in was.keys() - now.keys():
                yield f"{who} `{name}` of {start} is left out: {nobody.format(name)}"

    @cached_property
    def _declared(self) -> tuple[Mapping[str, Mapping[str, str]], Spans]:
        """Fingerprints of the parent's networks, and its spans."""
        with contextlib.suppress(UserError):  # of a folder or plugins that are not at hand, which is told elsewhere
            if self.link.folder is None:
                codecs = Codecs(self.plugins.manager.enable(self.parent.plugins))
                return codecs.networks.fingerprints(), declared_spans(codecs.modalities.values())
            lock = Lock.read(run_of_checkpoint(self.link.folder) or self.link.folder)
            return lock.networks, lock.spans
        return {}, {}

    def span_notes(self, codecs: Codecs) -> Iterator[str]:
        """What of a modality is declared in another way. Raises `PluginError`."""
        for name, key, old, new in span_changes(self._declared[1], declared_spans(codecs.modalities.values())):
            yield (
                f"`{name}` declares `{key}` {new}, in {self.link.start} {old}: its spans are learnt and written as is "
                "declared now"
            )

    def context_notes(self) -> Iterator[str]:
        here, there = self.link.recipe.data.packing.context, self.parent.data.packing.context
        try:
            stretched = {"rope_theta", "rope_scaling"} & self._models.keys()
        except RecipeError:
            return
        if here > there and not stretched:
            yield (
                f"`data.packing.context` is {here:,}, longer than the {there:,} positions of {self.link.start}: the "
                "model has not seen such distances; `model.rope_scaling` stretches those that it knows"
            )

    @cached_property
    def _text_plugin(self) -> str:
        return next((owner for owner, declared in self.plugins.modalities() if declared.text), "")

    @cached_property
    def _texts(self) -> tuple[TextTokenizer, TextTokenizer | None]:
        """The text tokenizers by their options, here and there, not loaded. Raises `UserError` for missing files."""
        there: Any = None
        with contextlib.suppress(UserError):  # of plugins or files that are not at hand
            there = self.plugins.manager.enable(self.parent.plugins).tokenizer(TEXT)
        here: Any = self.plugins.tokenizer(TEXT)
        return here, there

    @cached_property
    def other_text(self) -> bool:
        """Whether the options alone tell that another text tokenizer is asked for. Raises `UserError`."""
        here, there = self._texts
        if there is None:
            return False
        if isinstance(here, Trainable):  # it is the parent's, whatever it would have been
            return type(here) is not type(there) or _size(here) != _size(there)
        return self.link.folder is None and (isinstance(there, Trainable) or here.fingerprint != there.fingerprint)

    def text_problems(self) -> Iterator[str]:
        """The text tokenizer is the parent's."""
        name, start = self._text_plugin, self.link.start
        try:
            if self.other_text:
                yield from self._other_text()
        except UserError as error:
            if self.link.folder is not None:  # its files may come later where the parent has to be trained first
                yield (
                    f"{self.placed('plugins', name)}{error}; without options (`plugins.{name}={{_replace_: true}}`) "
                    f"the text tokenizer is that of {start}"
                )

    def _other_text(self) -> Iterator[str]:
        name, start = self._text_plugin, self.link.start
        advice = f"the text tokenizer is that of {start}: leave the option out"
        other = list(other_options(self._own.plugins.get(name) or {}, self.parent.plugins.get(name) or {}))
        for key, here, there in other:
            place = self.placed("plugins", name, key)
            yield f"{place}`plugins.{name}.{key}` is {here}, in {start} {there}; {advice}"
        if not other:
            yield f"{self.placed('plugins', name)}`plugins.{name}` is another text tokenizer; {advice}"

    def loaded_text(self, codecs: Codecs, base: Vocabulary, problems: list[str]) -> TextTokenizer | None:
        """The text tokenizer with the parent's files, where it is the one of its vocabulary."""
        try:
            if self.other_text:
                return None  # which `text_problems` reports
            here = self._texts[0]
            if not isinstance(here, Trainable) and here.fingerprint != base.text_fingerprint:
                problems += self._other_text()
                return None
            return codecs.text
        except UserError as error:
            if not problems:
                problems.append(str(error))
            return None


def shown(value: Any) -> str:
    """A value as a recipe has it."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else f"`{value}`"


def other_options(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(option, here, there) of what the recipe itself gives another value."""
    for key, here in own.items():
        if key not in theirs or theirs[key] != here:
            yield key, shown(here), shown(theirs[key]) if key in theirs else "not given"


def _size(text: TextTokenizer) -> int | None:
    try:
        return text.size
    except UserError:  # known once it is loaded
        return None


def _growth(link: Link, base: Vocabulary, vocabulary: Vocabulary) -> Iterator[str]:
    """What becomes of the parent's ids, and how many are new."""
    had = {block.name for block in base.blocks if not block.absent}
    left = [block for block in vocabulary.blocks if block.absent and block.name in had]
    if left:
        owners = ", ".join(f"`{owner}`" for owner in dict.fromkeys(block.owner for block in left))
        yield (
            f"{owners} of {link.start} left out: {sum(block.size for block in left):,} ids keep their places and rows "
            "and are neither read nor written"
        )
    new = vocabulary.blocks[len(base.blocks) :]
    if new and link.folder is not None:
        owners = ", ".join(f"`{owner}`" for owner in dict.fromkeys(block.owner for block in new))
        yield f"{sum(block.size for block in new):,} new ids of {owners}, after the {base.size:,} of {link.start}"
