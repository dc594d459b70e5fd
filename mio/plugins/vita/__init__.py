"""VITA (arXiv 2408.05211): the state tokens that open its answers, and its backbone.

    vita: {}                  # state tokens written as text, as published
    vita: {tokens: ids}       # with ids of their own, which text never holds

An answer begins with `<1>` if it is to speech, with `<3>` if it is to text alone, and with `<2>` if what was said is
not meant for the model: noise, or speech to somebody else. Which it is follows from the record: a turn that holds
speech, and a field that marks what is not addressed. In decoding `<2>` ends the answer, and both others stop an answer
that is still being given elsewhere in the conversation.

A live conversation (`mio talk`) goes as in VITA's demo, with the options under `session`, see `session.py`.

The parts that read images and speech are the plugins `vision_tower` and `audio_tower`; recipes are `vita/stage1` and so
on. Options are the fields of `VitaOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mio import (
    Codes,
    ControlToken,
    ControlTokens,
    Media,
    ModelLayout,
    SessionPolicy,
    Turn,
    hookimpl,
    number,
    one_of,
    read_options,
)
from mio.plugins.vita.session import SessionOptions

SPOKEN, UNADDRESSED, WRITTEN = "spoken", "unaddressed", "written"
"""Names of the state tokens: of answers to speech, of what is not meant for the model, of answers to text."""

STRINGS = {SPOKEN: "<1>", UNADDRESSED: "<2>", WRITTEN: "<3>"}
ACTIONS = {SPOKEN: "interrupt", UNADDRESSED: "silence", WRITTEN: "interrupt"}
"""As in VITA's `web_demo/web_interactive_demo.py`: whatever is not `<2>` stops the other answer."""

BACKBONE: Mapping[str, Any] = {
    "width": 4096,
    "layers": 32,
    "heads": 32,
    "kv_heads": 8,
    "ffn_width": 14336,
    "norm_eps": 1e-5,
    "rope_theta": 1_000_000.0,
    "experts": 8,
    "experts_per_token": 2,
    "router_aux_weight": 0.0,
}
"""Mixtral 8x7B as VITA trains it: its configuration says 0.02 for the router's loss, but `output_router_logits` is
false, which leaves the loss out (`web_demo/vllm_tools/model_weight_file/config.json`). `model.router_aux_weight: 0.02`
has it."""


@dataclass(frozen=True, kw_only=True)
class VitaOptions:
    """Options of the plugin."""

    tokens: str = one_of("text", "text", "ids")
    """State tokens are ordinary text (`text`, as published), or have ids of their own (`ids`)."""
    negative: str = "inserted_id"
    """Field of a record that marks answers to what is not meant for the model: true for all of its answers, or VITA's
    number of the message, counted from 0 with the questions, or a list of such numbers."""
    speech: Sequence[str] = ("speech",)
    """Modalities that count as speech."""
    weight: float = number(1.0, 0, 1e6)
    """Factor on a state token's weight in the loss."""
    session: SessionOptions = field(default_factory=SessionOptions)
    """Options of a live conversation."""


@hookimpl
def mio_control_tokens(options: Mapping[str, Any]) -> ControlTokens:
    chosen = read_options(VitaOptions, options, "plugins.vita")
    return ControlTokens(
        tokens=[
            ControlToken(
                name=name,
                token=token,
                plain_text=chosen.tokens == "text",
                action=ACTIONS[name],
                weight=chosen.weight,
            )
            for name, token in STRINGS.items()
        ],
        label=partial(label, chosen),
    )


@hookimpl
def mio_session(options: Mapping[str, Any]) -> SessionPolicy:
    from mio.plugins.vita.policy import policy

    return policy(read_options(VitaOptions, options, "plugins.vita").session)


@hookimpl
def mio_backbones() -> Mapping[str, Mapping[str, Any]]:
    return {"vita-8x7b": BACKBONE}


@hookimpl
def mio_layouts() -> Mapping[str, ModelLayout]:
    """A whole VITA, in the layout of LLaVA: Mixtral's tensors and configuration with those of both towers beside."""
    layout = ModelLayout(
        config=lambda config: {**config, "model_type": "mixtral"},
        names={begin: begin for begin in ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")},
        beside={"": "left to plugins, which read them by their option `checkpoint`"},
    )
    return {"vita-mixtral": layout}


def label(options: VitaOptions, turn: Turn) -> str:
    """State token of an answer (`vita/util/data_utils_video_audio_neg_patch.py`, `preprocess_multimodal`)."""
    if marked(turn.record.get(options.negative), turn.number):
        return UNADDRESSED
    spoken = any(isinstance(value, Media | Codes) and value.modality in options.speech for value in turn.prompt)
    return SPOKEN if spoken else WRITTEN


def marked(value: Any, number: int) -> bool:
    """Whether a record's field marks its answer `number`. Files hold numbers and truth values as text too."""
    if isinstance(value, list | tuple):
        return any(marked(one, number) for one in value)
    text = str(value).strip().lower()
    # questions and answers alternate: messages 1, 3, 5 are the answers 0, 1, 2
    return text == "true" or (text.isdecimal() and int(text) // 2 == number)
