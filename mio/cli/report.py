"""`mio report`: one HTML file of a run, or of several side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mio.cli.options import refuse_no_run, writable_file
from mio.cli.places import record_place
from mio.core.errors import UserError

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", parser=record_place, help="Run folders, as in runs/stage4, or bundles.", show_default=False
    ),
]


def report(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where it is written; default: RUN/report.html.")
    ] = None,
) -> None:
    """Write one HTML file of a run that opens offline: curves, samples to see and hear, figures, recipe and lock.

    mio report runs/stage4

    mio report runs/base runs/larger --out comparison.html
    """
    for run in runs:
        refuse_no_run(run)
    writable_file("--out", out)
    if out is None and not os.access(runs[0], os.W_OK):
        raise UserError(f"{runs[0]}: cannot be written; give a place for the report with `--out FILE`")
    from mio.report import write_report
    from mio.report.numbers import size

    written = write_report(runs, out)
    typer.echo(f"{written.path}: {size(written.size)}")
    if written.left_out:
        typer.echo(f"media: {written.left_out}")
