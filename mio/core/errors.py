"""The exceptions that mio raises on purpose.

`UserError` and its children are mistakes in what a person gave (a recipe, a file, a plugin, a prompt). The command line
prints them as one line without a traceback and exits with 2. Anything else is a defect of ours and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 200

MOST_LISTED = 40
"""Problems of one recipe that its error lists."""


class MioError(Exception):
    """Root of every exception that mio raises on purpose."""


class UserError(MioError):
    """A mistake in a recipe, file, plugin or argument. The message says what is wrong, where, and what to do."""


class RecipeError(UserError):
    """One or more problems of a recipe, collected and reported at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = f"; and {len(problems) - MOST_LISTED} problems more" if len(problems) > MOST_LISTED else ""
        super().__init__("; ".join(self.problems[:MOST_LISTED]) + more)


class PluginError(UserError):
    """A plugin is missing, failed to load, or returned something that the contract does not allow."""


class VocabularyError(UserError):
    """A vocabulary does not fit: a block moved, changed its size, or two plugins claim one name."""


class DataError(UserError):
    """A record, file or source cannot be read, or too many of them were skipped."""


class Interrupted(MioError):
    """A run was stopped by a signal after it saved its state. The message says how to go on."""


class PeerFailed(MioError):
    """Another rank has reported the error; this one exits silently, with its exit code `code`."""

    def __init__(self, code: int = 2) -> None:
        self.code = code
        super().__init__("another rank failed")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no known name is close."""
    if len(name) > _LONGEST:
        return ""  # comparing takes the square of the length
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""
