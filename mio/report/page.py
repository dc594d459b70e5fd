"""The page of a report: what the run folders say, put into the templates of this package.

Every text goes through the templates' escaping; styles and the script are parts of the package. A content security
policy allows that one script alone, and no request at all, whatever a recipe or an answer holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import mio
from mio.report import comparing, facts, numbers, recipes
from mio.report.charts import Section, numbers_of, sections
from mio.report.comparing import split_by_label
from mio.report.evaluation import Worst, compared, failures, figures, scale_from, task_reports, worst_items
from mio.report.media import Gallery
from mio.report.reading import ReportedRun
from mio.report.samples import Samples, completed_samples, task_samples
from mio.report.series import table_of

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shown:
    """One run with what the page shows of it."""

    run: ReportedRun
    parent: ReportedRun | None
    tasks: Sequence[Samples]
    completed: Sequence[Samples]

    @cached_property
    def figures(self) -> list[Any]:
        return figures(task_reports(self.run))

    @cached_property
    def scale(self) -> float:
        return scale_from(self.figures)

    def place(self, value: float) -> str:
        """Of a figure on the axis of the evaluation, in percent."""
        return f"{100 * (value - self.scale) / (1 - self.scale):.2f}%"

    @cached_property
    def tiles(self) -> list[tuple[str, str]]:
        return facts.tiles(self.run)

    @cached_property
    def loss(self) -> tuple[float, int] | None:
        """Held-out loss of the last validation, and its step."""
        return facts.last_of(self.run, "validation/loss")

    @cached_property
    def failures(self) -> list[str]:
        return failures(self.run)

    @cached_property
    def worst(self) -> dict[str, list[Worst]]:
        return worst_items(self.run)

    @cached_property
    def mixture(self) -> list[facts.Share]:
        return facts.mixture(self.run)

    @cached_property
    def skipped(self) -> list[str]:
        return facts.skipped(self.run)

    @cached_property
    def codebooks(self) -> list[facts.Codebook]:
        return facts.codebooks(self.run)

    @cached_property
    def recipe(self) -> list[recipes.RecipeSection]:
        return recipes.recipe_sections(self.run.recipe, self.parent.recipe if self.parent else None)

    @cached_property
    def changes(self) -> list[str]:
        return recipes.changes(self.run.recipe, self.parent.recipe if self.parent else None)

    @cached_property
    def lock(self) -> list[tuple[str, list[recipes.Fact]]]:
        return recipes.lock_facts(self.run.lock)

    @cached_property
    def vocabulary(self) -> list[recipes.Block]:
        return recipes.vocabulary_blocks(self.run)


def render(chains: Sequence[Sequence[ReportedRun]], budget: int) -> tuple[str, Gallery]:
    """The page, and the gallery that its media are in.

    Args:
        chains: of each run that was asked for, the stages that lead to it, itself the last.
        budget: bytes of media.
    """
    gallery = Gallery(budget)
    overlay = len(chains) > 1
    runs = [chain[-1] for chain in chains] if overlay else list(chains[0])
    parents = [chain[-2] if len(chain) > 1 else None for chain in chains] if overlay else [None, *runs[:-1]]
    shown = _shown(runs, parents, gallery)
    charts = sections(runs)
    if overlay:
        charts = split_by_label(charts, runs)
    script, style = _asset("page.js"), _asset("page.css")
    content = {
        "title": " and ".join(run.name for run in runs) if overlay else runs[-1].name,
        "version": mio.__version__,
        "overlay": overlay,
        "runs": shown,
        "last": shown[-1],
        "chains": chains,
        "sections": _numbered(charts, runs),
        "comparison": comparing.table(shown) if overlay else [],
        "differences": comparing.recipe_differences(runs) if overlay else [],
        "paired": [(run.name, compared(runs[0], run)) for run in runs[1:]] if overlay else [],
        "side_by_side": comparing.side_by_side(shown) if overlay else [],
        "notes": _notes(runs, gallery),
        "has_samples": any(one.tasks or one.completed for one in shown),
        "data": _data(runs, charts, overlay),
        "script": Markup(script),
        "style": Markup(style),
        "policy": _policy(script),
    }
    return _environment().get_template("page.html").render(content), gallery


def _shown(runs: Sequence[ReportedRun], parents: Sequence[ReportedRun | None], gallery: Gallery) -> list[Shown]:
    """The last run's media come first where the budget does not suffice, and tasks before completions."""
    tasks = {place: task_samples(runs[place], gallery) for place in reversed(range(len(runs)))}
    completed = {place: completed_samples(runs[place], gallery) for place in reversed(range(len(runs)))}
    return [
        Shown(run, parent, tasks[place], completed[place])
        for place, (run, parent) in enumerate(zip(runs, parents, strict=True))
    ]


def _numbered(parts: Sequence[Section], runs: Sequence[ReportedRun]) -> list[Mapping[str, Any]]:
    """Sections with the number that each chart has in the page's data."""
    place = 0
    numbered: list[Mapping[str, Any]] = []
    for part in parts:
        charts = []
        for chart in part.charts:
            charts.append({"number": place, "chart": chart, "rows": numbers_of(chart, runs)})
            place += 1
        numbered.append({"title": part.title, "charts": charts, "open": part.title != comparing.ALONE})
    return numbered


def _notes(runs: Sequence[ReportedRun], gallery: Gallery) -> list[str]:
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    notes += [
        f"{run.name} has not finished: {run.steps:,} of {run.recipe.train.steps:,} steps are in its records"
        for run in runs
        if run.state == "unfinished"
    ]
    return notes + ([f"media: {gallery.told}"] if gallery.told else [])


def _data(runs: Sequence[ReportedRun], parts: Sequence[Section], overlay: bool) -> Any:
    """JSON for the script; nothing in it ends the element that it stands in."""
    content = {
        "overlay": overlay,
        "runs": [
            {"name": run.name, "steps": run.steps, "tokens": run.trained_tokens or 0, "tables": table_of(run)}
            for run in runs
        ],
        "charts": [chart.to_json() for part in parts for chart in part.charts],
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (
        numbers.plain_number,
        numbers.fixed,
        numbers.percent,
        numbers.count,
        numbers.duration,
        numbers.p_value,
        numbers.size,
    ):
        environment.filters[filter_.__name__] = filter_
    return environment
