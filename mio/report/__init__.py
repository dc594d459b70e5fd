"""`mio report`: one HTML file of a run, which opens offline. It reads run folders, and needs neither torch nor plugins.

from mio.report import write_report

written = write_report([Path("runs/stage4")])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mio.core.errors import UserError
from mio.core.files import naming, write_text
from mio.core.recipe.places import REPORT
from mio.report.media import BUDGET

LARGEST = 5_000_000
"""Bytes that a page should not exceed."""


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    path: Path
    size: int
    """Bytes."""
    left_out: str
    """What of the media found no place, in a line; empty if all did."""


def write_report(folders: Sequence[Path], out: Path | None = None, budget: int = BUDGET) -> Written:
    """Writes the report of a run, with the stages that it builds on, or of several runs side by side.

    Args:
        folders: of runs, in any state.
        out: the file; None: `report.html` in the first of the folders.
        budget: bytes of media as they stand in the page.

    Raises:
        UserError: a folder holds no run, or two of the runs are one.
    """
    from mio.report.page import render
    from mio.report.reading import chain_of, read_run

    runs = [read_run(folder) for folder in folders]
    places = [run.folder.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise UserError("the same run is given twice; a report has each run once")
    page, gallery = render([chain_of(run) for run in runs], budget)
    path = out or runs[0].folder / REPORT
    with naming(path):
        write_text(path, page)
    return Written(path, len(page.encode()), gallery.told)
