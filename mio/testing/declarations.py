"""Checks of what a plugin declares: by its options alone, which are known or refused, and told in its fingerprints."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any

import typer

from mio.core.contract import checker
from mio.core.contract.discovery import discover, unnamed
from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.ranges import ALLOWED, Choice
from mio.core.contract.sessions import Segmenter
from mio.core.contract.values import TEXT, Modality, Trainable
from mio.core.errors import DataError, UserError
from mio.core.recipe.compose import compose
from mio.core.recipe.paths import path_options
from mio.core.tokens.spans import check_parts
from mio.testing.codecs import STEMS, check_saved
from mio.testing.digests import digest
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError
from mio.testing.subject import SAMPLE_TEXTS, Subject

UNKNOWN = "option_that_no_plugin_has"
_VARIED = 24
"""Most values of options that are tried."""
_SECONDS = 2.0
"""After which no further one is."""
_SAID = "one two three"
"""What synthesisers are given to say."""


class DeclarationChecks:
    """The checks of one plugin."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield "declarations follow from options alone", self._again
        yield "unknown options are refused", self._unknown
        for modality in self._subject.declared:
            yield f"{modality.name}: declaration can be pickled", partial(_pickles, modality)
            yield f"{modality.name}: data module is valid", partial(self._datamodule, modality.name)
            if modality.text:
                yield f"{modality.name}: text tokenizer returns the text", partial(self._text, modality)
            elif modality.parts:
                yield f"{modality.name}: splits into parts", partial(self._parts, modality)
        yield "the policy of conversations is valid", self._conversations
        if self._subject.has("mio_synthesiser"):
            yield "what is said is written as a file", self._synthesiser
        if self._subject.has("mio_paths"):
            yield "options that are paths are named", self._paths
        yield "recipes and presets are valid", self._shipped

    def fingerprints(self) -> Iterator[Check]:
        """The check that comes last: it makes many tokenizers."""
        if self._subject.coded() or self._subject.encoded() or self._subject.made():
            yield "fingerprints change when codes do", self._fingerprints

    def _with(self, options: Mapping[str, Any]) -> EnabledPlugins:
        """The same plugins, this one with other options."""
        name, plugins = self._subject.name, self._subject.plugins
        return plugins.manager.enable({**plugins.options, name: options})

    def _again(self) -> None:
        plugins = self._subject.plugins
        for _ in range(2):
            again = self._with(dict(plugins.options[self._subject.name]))
            assert again.modalities() == plugins.modalities(), "other modalities at the second call"
            assert again.control_tokens() == plugins.control_tokens(), "other control tokens at the second call"

    def _unknown(self) -> str:
        given = {**self._subject.plugins.options[self._subject.name], UNKNOWN: 1}
        try:
            hooks = list(_hooks(self._with(given), self._subject.name))
        except UserError as error:
            hooks = [partial(_raise, error)]
        for call in hooks:
            try:
                call()
            except UserError as error:
                if UNKNOWN in str(error):
                    return str(error)
            except Exception as error:
                raise AssertionError(
                    f"an unknown option raises {type(error).__name__}, not `mio.UserError`: {error}"
                ) from error
        raise AssertionError(f"the option `{UNKNOWN}` is taken without a word; `mio.read_options` refuses unknown ones")

    def _datamodule(self, modality: str) -> None:
        self._subject.plugins.datamodule(modality)
        self._subject.plugins.templates(), self._subject.plugins.filters()

    def _text(self, modality: Modality) -> None:
        tokenizer: Any = self._subject.codecs(TEXT).tokenizer(TEXT)
        samples = [str(item) for item in self._subject.samples.get(modality.name, SAMPLE_TEXTS)]
        for name in ("pad", "bos", "eos", "im_start", "im_end"):
            assert name in tokenizer.specials or modality.specials, f"`specials` lacks `{name}`"
        for text in samples:
            ids = tokenizer.encode(text)
            assert all(0 <= index < tokenizer.size for index in ids), f"ids of {text!r} leave [0, {tokenizer.size})"
            assert not set(ids) & set(tokenizer.specials.values()), f"{text!r} becomes a special token"
            assert tokenizer.decode(ids) == text, f"{text!r} comes back as {tokenizer.decode(ids)!r}"

    def _parts(self, modality: Modality) -> None:
        splitter: Any = self._subject.plugins.tokenizer(modality.name)
        for media in self._subject.media(modality.name)[:RECORDS]:
            parts = splitter.split(media)
            check_parts(modality, media.key, parts)
            names = modality.part_names
            assert all(part.modality in names for part in parts), f"parts are not all of {', '.join(names)}"
            assert len({part.key for part in parts}) == len(parts), "parts share a `key`"
            again = [part.key for part in splitter.split(media)]
            assert again == [part.key for part in parts], "the parts differ at the second time"

    def _conversations(self) -> None:
        if not self._subject.has("mio_session"):
            raise SkippedCheckError("the plugin has no policy of conversations")
        answer = self._subject.plugins.session({}, self._subject.name)
        if answer is None or answer[1].stream is None:
            return
        segmenter = answer[1].stream.segmenter()
        assert isinstance(segmenter, Segmenter), f"`stream.segmenter` makes a {type(segmenter).__name__}, no Segmenter"
        for _ in range(2):
            assert list(segmenter.close()) == [], "`close` of a stream in which nothing was said gives utterances"

    def _synthesiser(self) -> str:
        """A text in each modality that the plugin says texts in. What it has no words for is a `DataError`."""
        name, told = self._subject.name, list[str]()
        alone = self._subject.manager.enable({name: self._subject.plugins.options[name]})
        for _, modality in self._subject.plugins.modalities():
            if (synthesiser := alone.synthesiser(modality.name)) is None:
                continue
            try:
                media = synthesiser.say(_SAID)
            except DataError as error:
                told.append(f"{modality.name}: {error}")
                continue
            told.append(f"{modality.name}: {'something' if media is not None else 'nothing'} of {_SAID!r}")
            if media is not None:
                (place := self._subject.folder / f"{modality.name}-said").mkdir()
                for stem in STEMS:
                    check_saved(synthesiser.save, media, place / stem)
        if not told:
            raise SkippedCheckError("it says nothing in the modalities of the plugins in use")
        return "; ".join(told)

    def _paths(self) -> str:
        """Of the options that are given, and of none, as a recipe may have it."""
        name, manager = self._subject.name, self._subject.manager
        own = self._subject.plugins.options[name]
        for options, which in ((own, "these options"), ({}, "no options")):
            try:
                path_options({name: options}, manager)
            except UserError as error:
                if isinstance(error.__cause__, UserError) and options is not own:
                    continue  # an option that has to be given
                raise
            except Exception as error:
                raise AssertionError(
                    f"`mio_paths` with {which} raises {type(error).__name__}: {error}; a recipe need not give any "
                    "option: read them with `options.get`"
                ) from error
        return ", ".join(f"`{option}`" for option in path_options({name: own}, manager)[name])

    def _shipped(self) -> str:
        name = self._subject.name
        manager = PluginManager(unnamed([self._subject.manager.candidate(name)]))
        manager.backbones()
        recipes = manager.recipes()
        manager.loggers()
        manager.layouts()
        commands = manager.commands()
        assert not manager.unanswered, manager.unanswered[name]
        for recipe, (_, path) in recipes.items():
            try:
                compose([str(path)], [], self._installed())
            except UserError as error:
                raise AssertionError(f"recipe `{recipe}`: {error}") from error
            except Exception as error:
                raise AssertionError(f"recipe `{recipe}`: {type(error).__name__}: {error}") from error
        for command, function in commands.get(name, {}).items():
            try:
                typer.main.get_command(_app(function))
            except Exception as error:
                raise AssertionError(f"command `mio {name} {command}`: typer cannot read it: {error}") from error
        return f"{len(recipes)} recipes" if recipes else ""

    def _installed(self) -> PluginManager:
        """With all that is installed, also in a test that knows its own plugins alone: recipes may include theirs."""
        known = self._subject.manager.candidates
        others = [one for one in discover() if one.name not in known]
        return PluginManager(unnamed([*known.values(), *others]))

    def _fingerprints(self) -> str:
        """Other values of options, one at a time: where something else is made of the same media, the fingerprint has
        to differ too."""
        own = self._subject.plugins.options[self._subject.name]
        due, start, tried, changed = self._made(self._subject.plugins), time.monotonic(), 0, 0
        if not due:
            raise SkippedCheckError("there are no media, or the tokenizer learns its weights")
        for option, value in self._values(own):
            if tried == _VARIED or time.monotonic() - start > _SECONDS:
                break
            try:
                made = self._made(self._with({**own, option: value}))
            except Exception:  # an option need not go with these media
                continue
            tried += 1
            for what, (fingerprint, content) in made.items():
                if what in due and content != due[what][1]:
                    changed += 1
                    assert fingerprint != due[what][0], (
                        f"with `{option}` as {value!r} {what} makes something else of the same media, and has the same "
                        "fingerprint"
                    )
        return f"{tried} other values of options, {changed} of which change what is made"

    def _made(self, plugins: EnabledPlugins) -> dict[str, tuple[str, str]]:
        """Fingerprint, and digest of what is made of a few media, of all that the plugin supplies."""
        made, subject = {}, self._subject
        for modality in subject.coded():
            tokenizer: Any = plugins.tokenizer(modality.name)
            if not isinstance(tokenizer, Trainable):
                with contextlib.suppress(SkippedCheckError):
                    codes = tokenizer.encode(subject.data(modality.name))
                    made[f"the tokenizer of `{modality.name}`"] = tokenizer.fingerprint, digest(codes)
        for kind, names, find, prepare in (
            ("encoder", subject.encoded(), plugins.encoder, "prepare"),
            ("head", subject.made(), plugins.head, "target"),
        ):
            for name in names:
                if (found := find(name)) is not None:
                    with contextlib.suppress(SkippedCheckError):
                        what = [
                            (found[1].positions(one), getattr(found[1], prepare)(one)) for one in subject.data(name)
                        ]
                        made[f"the {kind} of `{name}`"] = found[1].fingerprint, digest(what)
        return made

    def _values(self, own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Options that the plugin reads, each with other values than it has."""
        for option, (present, allowed) in _options_read(self._with, own, self._subject.name).items():
            if isinstance(allowed, Choice):
                yield from ((option, word) for word in allowed.words if word != present)
            elif isinstance(present, bool):
                yield option, not present
            elif isinstance(present, int):
                yield from ((option, value) for value in (present + 1, present * 2, present // 2) if value != present)
            elif isinstance(present, float):
                yield from ((option, value) for value in (present * 2, present / 2) if value != present)


def _hooks(plugins: EnabledPlugins, name: str) -> Iterator[Callable[[], Any]]:
    """Everything that a plugin may be asked with its options, before anything is loaded."""
    yield from (plugins.modalities, plugins.control_tokens, plugins.sources, plugins.tasks, plugins.adapters)
    yield partial(plugins.session, {}, name)
    try:
        declared = plugins.modalities()
    except UserError:  # which the first of these says
        return
    for owner, modality in declared:
        if owner == name:
            yield partial(plugins.datamodule, modality.name)
        if not (modality.text or modality.parts):
            yield partial(plugins.encoder, modality.name)
            yield partial(plugins.head, modality.name)
        yield partial(plugins.synthesiser, modality.name)
    for owner, modality in declared:
        if owner == name and (modality.text or modality.parts or modality.codebooks):
            yield partial(plugins.tokenizer, modality.name)
            yield partial(plugins.detokenizer, modality.name)


def _raise(error: Exception) -> None:
    raise error


class _Watched(dict[str, Any]):
    """Options that remember what they were asked for."""

    def __init__(self, content: Mapping[str, Any], read: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(content)
        self._read = read

    def get(self, name: str, default: Any = None) -> Any:
        self._read.setdefault(name, (super().get(name, default), None))
        return super().get(name, default)


def _options_read(enable: Any, own: Mapping[str, Any], name: str) -> dict[str, tuple[Any, Any]]:
    """(value, what is allowed) of the options that a plugin reads with `get`, or as a dataclass with
    `mio.read_options`."""
    read: dict[str, tuple[Any, Any]] = {}
    original = checker.Checker.check

    def check(self: checker.Checker, kind: type, value: Any, key: Any = ()) -> Any:
        if isinstance(value, _Watched):
            for one in fields(kind):
                if one.default is not MISSING:
                    present = dict.get(value, one.name, one.default)
                    read[one.name] = present, one.metadata.get(ALLOWED)
        return original(self, kind, value, key)

    plugins = enable(own)
    plugins.options[name] = _Watched(own, read)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, checker.Checker, "check", original)
        checker.Checker.check = check  # type: ignore[method-assign]
        for call in _hooks(plugins, name):
            with contextlib.suppress(Exception):
                call()
    return read


def _app(function: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return app


def _pickles(modality: Modality) -> None:
    assert pickle.loads(pickle.dumps(modality)) == modality, "the copy differs"
