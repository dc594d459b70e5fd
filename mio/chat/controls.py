"""What answers are to be: their modality, and how they are sampled. Defaults are those of the run's recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mio.chat.host import Host, Settings
from mio.core.errors import UserError

ANY = "anything"
"""What is shown for no choice of a modality."""
BEFORE, BEHIND = "before it", "after it"
"""Where files come that the text does not place."""


@dataclass(frozen=True)
class _Option:
    """A field of `mio.Decoding` that can be changed."""

    name: str
    label: str
    least: float
    most: float
    step: float


_OPTIONS = (
    _Option("temperature", "Temperature of text", 0, 2, 0.05),
    _Option("media_temperature", "Temperature of media", 0, 2, 0.05),
    _Option("top_p", "Top p", 0, 1, 0.01),
    _Option("top_k", "Top k (0: all)", 0, 1000, 1),
)
_GUIDANCE = _Option("guidance", "Guidance (0: the run's own, 1: none)", 0, 20, 0.1)
_STEPS = _Option("steps", "Steps of the head (0: its own)", 0, 1000, 1)


class Controls:
    """The controls, made where this is called. `inputs` are their components, in the order of `settings`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        options = list(_OPTIONS)
        if host.writes:
            options.append(_GUIDANCE)
        if host.draws:
            options.append(_STEPS)
        options.append(_Option("max_tokens", "Most tokens", 1, host.context, 1))
        self._options = options
        names = [(name or ANY, name) for name in host.outputs]
        defaults = host.run.decoding("", {})
        self.output = gr.Radio(names, value="", label="Answer with", elem_id="mio-output")
        with gr.Accordion("Settings", open=False, elem_id="mio-settings"):
            self.earlier = gr.Checkbox(host.turns, label="The model is given the turns before", interactive=host.turns)
            self.place = gr.Radio([BEHIND, BEFORE], value=BEHIND, label="Files without a place in the text")
            self.sliders = [
                gr.Slider(
                    one.least,
                    one.most,
                    min(getattr(defaults, one.name), one.most),
                    step=one.step,
                    label=one.label,
                    elem_id=f"mio-{one.name}",
                )
                for one in options
            ]
            seed = -1 if host.seed is None else host.seed
            self.seed = gr.Number(seed, label="Seed (-1: a new one for each answer)", precision=0, elem_id="mio-seed")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.output.input(lambda name: self.of_output(name)[1:], self.output, self.sliders, **quiet)

    @property
    def inputs(self) -> list[Any]:
        return [self.output, self.seed, self.earlier, *self.sliders]

    @property
    def updates(self) -> list[Any]:
        """What `of_output` sets."""
        return [self.output, *self.sliders]

    def of_output(self, output: str) -> tuple[Any, ...]:
        """Values for an answer of a modality: it, and the recipe's defaults for it."""
        defaults = self._host.run.decoding(output, {})
        return output, *(min(getattr(defaults, one.name), one.most) for one in self._options)

    def settings(self, values: Sequence[Any]) -> Settings:
        """What the values of `inputs` say. Raises `UserError` for values that no decoding takes."""
        output, seed, earlier, *numbers = values
        options: dict[str, Any] = {}
        defaults = self._host.run.decoding(output, {})
        for one, value in zip(self._options, numbers, strict=True):
            if value is None:
                raise UserError(f"{one.label}: give a number")
            kind = type(getattr(defaults, one.name))
            if value != min(getattr(defaults, one.name), one.most):
                options[one.name] = kind(value)
        return self._host.settings(output, options, None if seed is None else int(seed), not earlier)
