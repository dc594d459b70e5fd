"""The corpora of the plugins in use, with the options that are given for them, and records that may be broken."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from mio.core.contract.plugins import EnabledPlugins
from mio.core.contract.values import EpochSource, Record, Source, SourceFactory
from mio.core.errors import DataError, UserError, nearest

SPLITS = ("train", "test")


class Furnished(EnabledPlugins):
    """Plugins in use whose corpora are opened with options of their own."""

    def __init__(self, plugins: EnabledPlugins, sources: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises `UserError` for options of a corpus that no plugin here ships."""
        manager = plugins.manager
        super().__init__(manager, {name: manager.candidate(name).plugin for name in plugins.names}, plugins.options)
        self.furnished = {name: dict(options) for name, options in sources.items()}
        """The options of corpora, by the corpus."""
        try:
            known = plugins.sources()
        except Exception:  # which the checks report
            return
        for name in sources.keys() - known.keys():
            raise UserError(
                f"no source `{name}`{nearest(name, known)}; these plugins ship {', '.join(known) or 'none'}: give "
                "options as `--source NAME.KEY=VALUE`"
            )

    def given(self, name: str) -> Mapping[str, Any]:
        """The options that a corpus is opened with."""
        return self.furnished.get(name, {})

    def sources(self) -> dict[str, tuple[str, SourceFactory]]:
        """Corpora that the plugins ship: name -> (plugin, factory)."""
        return {
            name: (owner, partial(_opened, factory, dict(self.given(name))))
            for name, (owner, factory) in super().sources().items()
        }


def _opened(factory: SourceFactory, own: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> Source:
    return factory(split, {**own, **options})


def open_splits(plugins: EnabledPlugins, name: str) -> tuple[dict[str, Source], str]:
    """The splits that a corpus has, and why it refuses the first of the others: a `UserError` says that there is none
    like that, or that an option is missing."""
    found, refusal = dict[str, Source](), ""
    for split in SPLITS:
        try:
            found[split] = plugins.sources()[name][1](split, {})
        except UserError as error:
            refusal = refusal or str(error)
    return found, refusal


def read(source: Source, index: int, epoch: int = 0) -> Record | None:
    """A record, of an epoch where they differ; None for one that is broken. Raises `AssertionError` where there is none
    before the end."""
    try:
        return source.at_epoch(index, epoch) if isinstance(source, EpochSource) and epoch else source[index]
    except IndexError as error:
        raise AssertionError(
            f"record {index} of {len(source)} raises IndexError ({error}), which says that the source ends before it"
        ) from error
    except Exception:
        return None


def why_broken(source: Source, index: int) -> str:
    """What reading a broken record raises."""
    try:
        source[index]
    except Exception as error:
        return f"{'' if isinstance(error, DataError) else f'{type(error).__name__}: '}{error}"
    return ""
