"""Speech read by an audio encoder inside the model: VITA's (arXiv 2408.05211, section 3.2).

Kaldi's filter bank energies, a convolution that makes one of four frames, 24 layers with relative positions, and an
adapter that makes one position of two: 12.5 positions a second.

    speech: {tokenizer: none}      # or a tokenizer, whose codes are then for speech that is written
    audio_tower: {checkpoint: VITA-MLLM/VITA}

Options are the fields of `AudioTowerOptions`; the defaults are VITA's. Rules call parameters
`encoders.speech.layers.*`, `encoders.speech.adapter.*` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mio import hookimpl, read_options
from mio.plugins.audio_tower.options import AudioTowerOptions

if TYPE_CHECKING:
    from mio import Encoder


@hookimpl
def mio_paths() -> Sequence[str]:
    return ["checkpoint"]


@hookimpl
def mio_requires() -> Sequence[str]:
    return ["speech"]


@hookimpl
def mio_encoder(modality: str, options: Mapping[str, Any]) -> Encoder | None:
    if modality != "speech":
        return None
    from mio.plugins.audio_tower.encoder import SpeechEncoder

    return SpeechEncoder(read_options(AudioTowerOptions, options, "plugins.audio_tower"))
