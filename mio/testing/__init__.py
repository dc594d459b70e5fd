"""Conformance checks for plugins: for `mio plugins check NAME`, and for a plugin's own tests.

import mio.testing

def test_conformance():
    mio.testing.check_plugin("sketch", {"size": 8}, samples={"sketch": [...]})
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mio.core.contract.plugins import EnabledPlugins, PluginManager
from mio.core.contract.requires import completed
from mio.core.contract.sessions import Segmenter
from mio.core.contract.validation import VIEWS
from mio.core.contract.values import File, Media, Modality, Source, Trainable
from mio.core.errors import MioError, PluginError, UserError
from mio.core.tokens.layouts import layout
from mio.core.tokens.templates import CompiledTemplate
from mio.testing.adapters import AdapterChecks
from mio.testing.codecs import Codec
from mio.testing.controls import ControlChecks
from mio.testing.encoders import EncoderChecks
from mio.testing.heads import HeadChecks
from mio.testing.outcomes import RECORDS, SkippedCheckError, media_in, same

FITTED_ON = 512
"""Most media that a tokenizer is trained on before it is checked."""


@dataclass(frozen=True)
class Result:
    """Outcome of one check."""

    check: str
    outcome: str
    """`passed`, `failed`, or `skipped`."""
    detail: str = ""


def check_plugin(
    name: str,
    options: Mapping[str, Any] | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
    beside: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    manager: PluginManager | None = None,
) -> list[Result]:
    """Runs every check (see `conformance`). Raises `AssertionError` that lists the failed ones."""
    results = conformance(name, options, samples, beside, manager)
    failed = [f"{result.check}: {result.detail}" for result in results if result.outcome == "failed"]
    assert not failed, f"plugin `{name}` does not conform:\n" + "\n".join(failed)
    return results


def conformance(
    name: str,
    options: Mapping[str, Any] | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
    beside: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    manager: PluginManager | None = None,
) -> list[Result]:
    """Checks a plugin against the contract.

    Args:
        name: the plugin, installed or known to `manager`.
        options: what a recipe would give it.
        samples: for each modality, media as its tokenizer takes them (text: strings). Without, those of the
            plugins' sources are taken; a check that finds no media is skipped.
        beside: plugins that this one needs beside it, with options where they need some.
        manager: default: everything that is installed.
    """
    manager = manager or PluginManager.discover()
    results = [_result("loads", lambda: manager.candidate(name).plugin)]
    if results[0].outcome == "failed":
        return results
    results.append(_result("imports without torch", lambda: _imports_without_torch(manager, name)))
    others = beside if isinstance(beside, Mapping) else {other: {} for other in beside}
    enabled: list[EnabledPlugins] = []

    def declares() -> None:
        plugins = manager.enable(completed(manager, {**others, name: options or {}}))
        plugins.modalities()
        enabled.append(plugins)

    results.append(_result("declarations are valid", declares))
    if enabled:
        checks = _Checks(name, enabled[0], dict(samples or {}))
        results += [_result(check, function) for check, function in checks.all()]
    return results


def _result(check: str, function: Callable[[], Any]) -> Result:
    try:
        function()
    except SkippedCheckError as reason:
        return Result(check, "skipped", str(reason))
    except (AssertionError, MioError) as error:
        return Result(check, "failed", " ".join(str(error).split()))
    except Exception as error:  # whatever a plugin's code raises is a finding about the plugin
        return Result(check, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Result(check, "passed")


def _imports_without_torch(manager: PluginManager, name: str) -> None:
    target = manager.candidate(name).target
    script = (
        "import sys; from mio.core.contract.discovery import Candidate, importer; "
        f"Candidate({name!r}, '', {target!r}, importer({target!r})).plugin; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1:] or "importing the plugin imports torch"


class _Checks:
    """The checks of a plugin whose declarations are valid."""

    def __init__(self, name: str, plugins: EnabledPlugins, samples: dict[str, Sequence[Any]]) -> None:
        self.name = name
        self.plugins = plugins
        self.samples = samples
        self.declared = [modality for owner, modality in plugins.modalities() if owner == name]

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Name and function of every check."""
        for modality in self.declared:
            yield f"{modality.name}: declaration can be pickled", partial(_pickles, modality)
            yield f"{modality.name}: data module is valid", partial(self.plugins.datamodule, modality.name)
            if modality.text:
                yield f"{modality.name}: text tokenizer returns the text", partial(self._text, modality)
            elif modality.codebooks:
                yield f"{modality.name}: layout is invertible", partial(_layout, modality)
                yield from self._tokenizer_checks(modality)
            elif modality.parts:
                yield f"{modality.name}: splits into parts", partial(self._parts, modality)
        for name in self._encoded():
            yield from EncoderChecks(self.plugins, name, partial(self._media, name)).all()
        for name in self._made():
            yield from HeadChecks(self.plugins, name, partial(self._media, name)).all()
        if self._adapts():
            yield from AdapterChecks(self.plugins, self.name).all()
        yield from ControlChecks(self.name, self.plugins).all()
        yield "sources give the same records again", self._sources
        yield "tasks' prompts can be filled", self._tasks
        yield "the policy of conversations is valid", self._conversations
        yield "recipes and presets are valid", self._shipped

    def _encoded(self) -> Iterator[str]:
        """Modalities that an encoder of the plugin reads, or that it declares for one."""
        for owner, modality in self.plugins.modalities():
            if modality.text or modality.parts:
                continue
            try:
                found = self.plugins.encoder(modality.name)
                supplies = found is not None and found[0] == self.name
            except UserError:  # which the checks report
                supplies = True
            if supplies or (owner == self.name and not modality.codebooks and not self._is_made(modality)):
                yield modality.name

    def _made(self) -> Iterator[str]:
        """Modalities that a head of the plugin makes."""
        for _, modality in self.plugins.modalities():
            if not (modality.text or modality.parts) and self._is_made(modality):
                yield modality.name

    def _is_made(self, modality: Modality) -> bool:
        try:
            found = self.plugins.head(modality.name)
        except UserError as error:  # which the checks report
            return f"plugin `{self.name}`" in str(error)
        return found is not None and found[0] == self.name

    def _adapts(self) -> bool:
        """Whether the plugin has adapters."""
        if "mio_adapters" not in self.plugins.manager.candidate(self.name).hooks:
            return False
        try:
            return self.name in self.plugins.adapters()
        except UserError:  # which the checks report
            return True

    def _tokenizer_checks(self, modality: Modality) -> Iterator[tuple[str, Callable[[], None]]]:
        with tempfile.TemporaryDirectory() as folder:
            codec = Codec(self.plugins, modality, Path(folder), partial(self._media, modality.name))
            yield f"{modality.name}: codes fit the declaration", codec.codes_fit
            yield f"{modality.name}: codes are the same again", codec.deterministic
            yield f"{modality.name}: a fresh tokenizer gives the same codes", codec.fresh
            yield f"{modality.name}: `frames` foretells `encode`", codec.frames
            yield f"{modality.name}: codes decode, and are written as a file", codec.round_trip
            yield f"{modality.name}: pieces of a stream are what `decode` gives", codec.streams
            yield f"{modality.name}: what is written is read again, as long as its file says", codec.files

    def _media(self, modality: str) -> list[Media]:
        """Media of a modality: the samples, else those of the sources of the plugins."""
        if modality in self.samples:
            return [
                item if isinstance(item, Media) else Media(modality, item, key=f"sample-{index}")
                for index, item in enumerate(self.samples[modality])
            ]
        media: list[Media] = []
        for _, factory in self.plugins.sources().values():
            source = factory("train", {})
            for index in range(min(len(source), FITTED_ON)):
                media += [item for item in media_in(source[index]) if item.modality == modality]
                if len(media) >= FITTED_ON:
                    break
        read = self.plugins.datamodule(modality).read
        media = [
            replace(item, data=read(item.data)) if isinstance(item.data, File) and read else item for item in media
        ]
        if not media:
            raise SkippedCheckError(
                f"no media of `{modality}`; give `samples`, or a plugin with sources (`--with NAME`)"
            )
        return media[:FITTED_ON]

    def _text(self, modality: Modality) -> None:
        tokenizer: Any = self.plugins.tokenizer(modality.name)
        samples = [
            str(item) for item in self.samples.get(modality.name, ["Hello, world", "Füße and 数字 1234\n\ttabs"])
        ]
        if isinstance(tokenizer, Trainable):
            tokenizer.fit(samples * 20, seed=0)
        for name in ("pad", "bos", "eos", "im_start", "im_end"):
            assert name in tokenizer.specials or modality.specials, f"`specials` lacks `{name}`"
        for text in samples:
            ids = tokenizer.encode(text)
            assert all(0 <= index < tokenizer.size for index in ids), f"ids of {text!r} leave [0, {tokenizer.size})"
            assert not set(ids) & set(tokenizer.specials.values()), f"{text!r} becomes a special token"
            assert tokenizer.decode(ids) == text, f"{text!r} comes back as {tokenizer.decode(ids)!r}"

    def _parts(self, modality: Modality) -> None:
        splitter: Any = self.plugins.tokenizer(modality.name)
        for media in self._media(modality.name)[:RECORDS]:
            parts = splitter.split(media)
            least, most = modality.frames.minimum, modality.frames.maximum
            assert least <= len(parts) <= most, f"{len(parts)} parts, declared are {least} to {most}"
            assert all(part.modality == modality.parts for part in parts), f"parts are not all `{modality.parts}`"
            assert len({part.key for part in parts}) == len(parts), "parts share a `key`"
            again = [part.key for part in splitter.split(media)]
            assert again == [part.key for part in parts], "the parts differ at the second time"

    def _sources(self) -> None:
        own = [(name, factory) for name, (owner, factory) in self.plugins.sources().items() if owner == self.name]
        if not own:
            raise SkippedCheckError("the plugin ships no sources")
        for name, factory in own:
            for split in ("train", "test"):
                first, second = factory(split, {}), factory(split, {})
                assert len(first) == len(second) > 0, f"`{name}` ({split}): lengths {len(first)} and {len(second)}"
                _past_the_end(first, f"`{name}` ({split})")
                for index in range(min(len(first), RECORDS)):
                    assert same(first[index], second[index]), (
                        f"`{name}` ({split}): record {index} differs when read again"
                    )

    def _tasks(self) -> None:
        own = [task for owner, task in self.plugins.tasks().values() if owner == self.name]
        if not own:
            raise SkippedCheckError("the plugin has no tasks")
        for task in own:
            records = task.records(RECORDS)
            assert 0 < len(records) <= RECORDS, f"`{task.name}`: asked for {RECORDS} records, got {len(records)}"
            template = CompiledTemplate(task.template, task.name)
            for record in records:
                template.prompt(record), template.response(record)
            again = task.records(RECORDS)
            assert all(same(a, b) for a, b in zip(records, again, strict=True)), f"`{task.name}`: records differ"

    def _conversations(self) -> None:
        if "mio_session" not in self.plugins.manager.candidate(self.name).hooks:
            raise SkippedCheckError("the plugin has no policy of conversations")
        answer = self.plugins.session({}, self.name)
        if answer is None or answer[1].stream is None:
            return
        segmenter = answer[1].stream.segmenter()
        assert isinstance(segmenter, Segmenter), f"`stream.segmenter` makes a {type(segmenter).__name__}, no Segmenter"
        for _ in range(2):
            assert list(segmenter.close()) == [], "`close` of a stream in which nothing was said gives utterances"

    def _shipped(self) -> None:
        manager = PluginManager([self.plugins.manager.candidate(self.name)])
        manager.backbones()
        manager.recipes()
        manager.loggers()
        manager.layouts()
        assert not manager.unanswered, manager.unanswered[self.name]


def _pickles(modality: Modality) -> None:
    assert pickle.loads(pickle.dumps(modality)) == modality, "the copy differs"


def _layout(modality: Modality) -> None:
    for view in VIEWS:
        books = len(modality.view(view))
        for frames in {modality.frames.minimum, min(modality.frames.maximum, modality.frames.minimum + 3)}:
            sizes = np.array([modality.codebooks[book] for book in modality.view(view)])
            codes = np.arange(books * frames).reshape(books, frames) % sizes[:, None]
            book, code = layout(modality.layout).flatten(codes)
            back = layout(modality.layout).parse(book, code, books)
            assert np.array_equal(back, codes), f"view `{view}`, {frames} frames: the codes come back changed"


def _past_the_end(source: Source, where: str) -> None:
    try:
        source[len(source)]
    except IndexError:
        return
    raise PluginError(f"{where}: reading past the end must raise IndexError")
