"""Checks that compare this process with a fresh one (see `fresh.py`), which is started once for all of them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from mio.testing import fresh
from mio.testing.outcomes import RECORDS, Check, SkippedCheckError
from mio.testing.subject import Subject

_LONGEST = 600
"""Seconds that the other process may take."""
_SLOW = 1.0
"""Seconds of processor time that importing a plugin may take, after mio's contract: every command imports plugins."""


class ElsewhereChecks:
    """The checks of one plugin."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def all(self) -> Iterator[Check]:
        """Name and function of every check."""
        yield "importing it is quick, and changes nothing", self._imports
        yield "declarations are the same in another process", self._declarations
        for modality in self._subject.coded():
            yield f"{modality.name}: codes are the same in another process", partial(self._codes, modality.name)
        for name in self._read():
            yield f"{name}: arrays are the same in another process", partial(self._prepared, name)
        yield "records are the same in another process", self._records
        with contextlib.suppress(Exception):  # rules that are not valid are reported
            if self._subject.name in [owner for owner, _ in self._subject.plugins.label_rules()]:
                yield "labels are the same in another process", self._labels

    def network(self) -> Sequence[str]:
        """What the other process asked of the network; nothing if it was not needed."""
        found: Sequence[str] = self._found.get("network", ()) if "_found" in vars(self) else ()
        return found

    def _read(self) -> list[str]:
        return list(dict.fromkeys((*self._subject.encoded(), *self._subject.made())))

    @cached_property
    def _found(self) -> dict[str, Any]:
        subject = self._subject
        manager, options = subject.manager, dict(subject.plugins.options)
        targets = {name: manager.candidate(name).target for name in options}
        if not all(targets.values()):
            raise SkippedCheckError("the plugin is an object of this process; give the module that it is in")
        asked, answer = subject.folder / "asked.pkl", subject.folder / "answer.json"
        given = {
            "targets": {name: target for name, target in targets.items() if name != subject.name},
            "options": options,
            "count": RECORDS,
            "sources": self._own_sources(),
            "furnished": subject.plugins.furnished,
            "media": self._media([modality.name for modality in subject.coded()]),
            "read": self._media(self._read()),
            "weights": str(subject.folder / "weights"),
        }
        asked.write_bytes(pickle.dumps(given))
        # other hashes of strings than here, whatever those are
        seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-m", fresh.__name__, subject.name, targets[subject.name], str(asked), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=_LONGEST)
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        assert answer.is_file(), f"the other process ended with code {done.returncode}: {last}"
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found

    def _own_sources(self) -> list[str]:
        with contextlib.suppress(SkippedCheckError):
            return self._subject.own_sources
        return []

    def _media(self, modalities: Sequence[str]) -> dict[str, list[Any]]:
        """Data of media, of modalities that have some that can be handed to another process."""
        found = {}
        for name in modalities:
            with contextlib.suppress(Exception):  # what is wrong with them is for other checks to say
                self._subject.codecs(name)  # whose weights the other process loads
                pickle.dumps(data := self._subject.data(name))
                found[name] = data
        return found

    def _imports(self) -> str:
        found = self._found["import"]
        assert not found["problem"], f"in another process: {found['problem']}"
        heavy = ", ".join(f"`{name}`" for name in found["heavy"])
        assert not heavy, f"importing the plugin imports {heavy}; import inside functions"
        changes = ", ".join(found["changes"])
        assert not changes, f"importing the plugin changes {changes}"
        seconds = found["seconds"]
        assert seconds <= _SLOW, (
            f"importing the plugin takes {seconds:.1f} s of processor time beside what mio itself imports, and may "
            f"take {_SLOW:g} s: import and compute inside functions what takes long"
        )
        return f"{seconds:.2f} s"

    def _section(self, name: str) -> Any:
        found = self._found
        assert name in found, f"in another process: {found['import']['problem']}"
        return found[name]

    def _declarations(self) -> None:
        _compare(fresh.declarations(self._subject.plugins), self._section("declarations"))

    def _records(self) -> None:
        for name in self._subject.own_sources:
            here, there = fresh.records(self._subject.plugins, name, RECORDS), self._section("records")
            _compare(here, there.get(name, there), f"`{name}`: ")

    def _labels(self) -> None:
        for name in self._subject.own_sources:
            here = fresh.labels(self._subject.plugins, self._subject.name, name)
            _compare(here, self._section("labels")[name], f"`{name}`: ")

    def _codes(self, modality: str) -> None:
        data = self._subject.data(modality)
        there = self._section("codes").get(modality)
        if there is None:
            raise SkippedCheckError("the media cannot be handed to another process")
        _compare(fresh.coded(self._subject.codecs(modality).tokenizer(modality), data), there)

    def _prepared(self, modality: str) -> None:
        data = self._subject.data(modality)
        there = self._section("prepared").get(modality)
        if there is None:
            raise SkippedCheckError("the media cannot be handed to another process")
        _compare(fresh.prepared(self._subject.plugins, modality, self._subject.name, data), there)


def _compare(here: fresh.Facts, there: Any, of: str = "") -> None:
    """Raises `AssertionError` where two processes differ."""
    assert not isinstance(there, dict), f"in another process: {there['error']}"
    assert len(here) == len(there), f"{of}{len(here)} here, {len(there)} in another process"
    differ = [what for (what, one), (_, other) in zip(here, there, strict=True) if one != other]
    assert not differ, f"{of}{differ[0]} is another in another process ({len(differ)} of {len(here)} differ)"
