"""Weights & Biases, online and offline.

A training is one W&B run, whose id is the training's name in `recipe.lock`. Online, a run that goes on continues where
the server has come to. Offline, every process begins a folder of its own, as W&B ignores `resume` there, and
`wandb sync` writes each from the first line on; so each holds the whole curve, and the newest is the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mio
from mio.plugins.loggers.media import AUDIO, IMAGE, VIDEO, files

_BEGINNING, _ENDING = 30.0, 100.0
"""Seconds to begin a run, and to send what is left at its end."""


@dataclass
class Options:
    """What is empty here is taken from W&B's own settings: environment variables such as WANDB_PROJECT, and files."""

    project: str = ""
    """By default `mio`."""
    entity: str = ""
    """User or team."""
    group: str = ""
    """By default the name of the chain's first stage."""
    tags: Sequence[str] = ()
    notes: str = ""
    mode: str = mio.one_of("", "", "online", "offline", "disabled")
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further ones of `wandb.Settings`. A server of one's own is WANDB_BASE_URL, which the login belongs to."""


class WeightsAndBiases:
    """Metrics and media by step, the recipe as `config`, the summary as summary."""

    remote = True

    def __init__(self, options: Options) -> None:
        if hidden := sorted(name for name in options.settings if "key" in name or "token" in name):
            raise mio.UserError(f"`settings.{hidden[0]}` is a secret, which a run folder must not hold; `wandb login`")
        if "base_url" in options.settings:
            raise mio.UserError("`settings.base_url` belongs to the login; `wandb login --host`, or set WANDB_BASE_URL")
        self._options = options
        self._run: Any = None
        self._broken = False

    def check(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise mio.UserError('wandb is not installed; `pip install "mio[wandb]"`')
        import wandb

        try:
            self._settings()
            of_machine = wandb.setup().settings
            mode = self._options.mode or of_machine.mode
        except ValueError as error:
            problem = " ".join(str(error).split())
            raise mio.UserError(f"`settings`, or a setting in the environment: {problem:.300}") from error
        if mode in ("online", "shared"):
            try:
                known = wandb.login(verify=False, prompt=False)  # with a host it would write the user's settings
            except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
                raise mio.UserError(str(error)) from error
            if not known:
                raise mio.UserError(
                    f"nobody is logged in to {of_machine.base_url}; `wandb login`, set WANDB_API_KEY, or set "
                    "`runtime.logger_options.wandb.mode: offline`"
                )

    def begin(self, run: mio.LoggedRun, earlier: Sequence[mio.LoggedStep]) -> str:
        import wandb

        options = self._options
        if self._broken:  # its service may be gone
            with contextlib.suppress(Exception):
                wandb.teardown(1)
        self._broken, self._run = True, None
        settings = self._settings()
        mode = options.mode or wandb.setup().settings.mode
        self._run = wandb.init(
            project=options.project or os.environ.get("WANDB_PROJECT") or "mio",
            entity=options.entity or None,
            id=run.id,
            name=run.name,
            group=options.group or os.environ.get("WANDB_RUN_GROUP") or run.group,
            tags=list(options.tags) or None,
            notes=options.notes or None,
            dir=os.environ.get("WANDB_DIR") or str(run.folder),
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
        self._run.config.update({**run.recipe, "versions": dict(run.tags)}, allow_val_change=True)
        for step in earlier:
            if step.step >= self._run.starting_step:
                self.log(step)
        self._broken = False
        if mode == "offline":
            place = os.path.relpath(os.path.dirname(self._run.dir))  # noqa: PTH120
            return f"offline, in {place}; `wandb sync {place}` sends it"
        return str(self._run.url or "")

    def log(self, step: mio.LoggedStep) -> None:
        self._broken = True
        content: dict[str, Any] = {name: float(value) for name, value in step.metrics.items()}
        self._run.log({**content, **_media(step.samples)}, step=step.step, commit=True)
        self._broken = False

    def end(self, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)

    def _settings(self) -> Any:
        import wandb

        given: dict[str, Any] = {"console": "off", "silent": True, "reinit": "create_new"}
        given |= {"init_timeout": _BEGINNING, "finish_timeout": _ENDING}
        if self._options.mode:
            given["mode"] = self._options.mode
        return wandb.Settings(**{**given, **self._options.settings})


def _media(samples: Sequence[mio.Sample]) -> dict[str, Any]:
    """What `log` takes: a table of texts per task, and a list per kind of media, with prompt and text as caption."""
    import wandb

    kinds = {IMAGE: wandb.Image, AUDIO: wandb.Audio, VIDEO: wandb.Video}
    media: dict[str, list[Any]] = {}
    rows: dict[str, list[list[str]]] = {}
    for sample in samples:
        caption = " -> ".join(text for text in (sample.prompt, sample.answer) if text)
        names = []
        for kind, path in files(sample):
            names.append(path.name)
            if kind in kinds:
                media.setdefault(f"{sample.name}/{kind}", []).append(kinds[kind](str(path), caption=caption))
        rows.setdefault(sample.name, []).append([sample.prompt, sample.answer, " ".join(names)])
    tables = {f"{name}/text": wandb.Table(["prompt", "answer", "files"], data=data) for name, data in rows.items()}
    return {**media, **tables}
