"""Published weights of the audio tower: VITA's, by our names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mio import UserError, networks
from mio.plugins.audio_tower.options import AudioTowerOptions
from mio.plugins.audio_tower.tower import AudioTower

NAMES = (
    (r"^encoder\.global_cmvn\.", ""),
    (r"^encoder\.enc\.0\.core\.conv\.", "convolutions."),
    (r"^encoder\.enc\.0\.core\.out\.0\.", "flatten."),
    (r"^encoder\.enc\.1\.embed\.", "embed."),
    (r"^encoder\.enc\.1\.after_norm\.", "norm."),
    (r"^encoder\.enc\.1\.encoders\.", "layers."),
    (r"\.self_attn\.linear_out\.", ".attention.out."),
    (r"\.self_attn\.linear_pos\.", ".attention.time."),
    (r"\.self_attn\.linear_q\.", ".attention.query."),
    (r"\.self_attn\.linear_k\.", ".attention.key."),
    (r"\.self_attn\.linear_v\.", ".attention.value."),
    (r"\.self_attn\.pos_bias_u$", ".attention.key_bias"),
    (r"\.self_attn\.pos_bias_v$", ".attention.time_bias"),
    (r"\.feed_forward\.w_1\.", ".up."),
    (r"\.feed_forward\.w_2\.", ".down."),
    (r"\.concat_linear\.", ".concat."),
    (r"^adpter\.conv1d2\.", "adapter.conv."),
    (r"^adpter\.bn2\.", "adapter.norm."),
    (r"^adpter\.project\.", "adapter.out."),
)
"""Names of VITA's audio encoder to ours, applied in order. `adpter` is how it is spelt there."""

PREFIXES = ("model.audio_encoder.", "audio_encoder.", "")
"""What stands before the names: in a whole VITA, and alone."""
FIRST = "encoder.enc.0.core.conv.0.weight"
STATISTICS = ("mean", "istd")
STATISTICS_OF_A_BATCH = "adpter.bn2.running_mean"


def our_name(name: str) -> str:
    """Name of a parameter or buffer of `AudioTower` by its name in VITA's audio encoder."""
    return networks.renamed(name, NAMES)


def pretrained(options: AudioTowerOptions) -> dict[str, Tensor]:
    """Weights by the names of `AudioTower`.

    The adapter's last layer has the width of the transformer it was trained for: the caller compares shapes. Raises
    `UserError` for weights that are missing, of another shape, surplus, or not there at all, and for a checkpoint with
    other global statistics than the options.
    """
    if not options.checkpoint:
        return {}
    path = Path(options.checkpoint).expanduser()
    places = networks.tensor_places(path)
    prefix = next((prefix for prefix in PREFIXES if prefix + FIRST in places), None)
    if prefix is None:
        raise UserError(
            f"plugins.audio_tower: `checkpoint`: {path} holds no audio encoder of VITA (no tensor {PREFIXES[0]}{FIRST})"
        )
    if prefix + STATISTICS_OF_A_BATCH in places:
        raise UserError(
            f"plugins.audio_tower: {path}: its adapter has a batch norm, whose statistics depend on other items; "
            "adapters with a layer norm, as published, are read"
        )
    stored = networks.read_tensors(places, [name for name in places if name.startswith(prefix)])
    tensors = {our_name(name.removeprefix(prefix)): value.float() for name, value in stored.items()}
    _check_statistics(path, options, [tensors.pop(name, None) for name in STATISTICS])
    last = tensors.get("adapter.out.weight")
    with torch.device("meta"):
        tower = AudioTower(options, 1 if last is None else len(last))
    needed = {name: value.shape for name, value in tower.state_dict().items()}
    if problems := networks.described(networks.misfits(needed, tensors)):
        raise UserError(
            f"plugins.audio_tower: {path} does not fit the options: {problems}; `width`, `layers`, `ffn_width`, "
            "`bands`, `concat` and `adapter_kernel` must be the checkpoint's"
        )
    return tensors


def _check_statistics(path: Path, options: AudioTowerOptions, stored: Sequence[Tensor | None]) -> None:
    """Raises `UserError` for a mean or inverse deviation that differs from the options'."""
    mean, std = (torch.tensor(values) for values in options.statistics)
    for name, own, theirs in zip(("mean", "std"), (mean, std), stored, strict=True):
        if theirs is None:
            continue
        due = 1 / theirs if name == "std" else theirs
        if due.shape != own.shape or not torch.allclose(due, own, rtol=0, atol=0.01):
            values = ", ".join(f"{value:.5g}" for value in due.flatten()[:3].tolist())
            raise UserError(
                f"plugins.audio_tower: {path}: its `{name}` of {due.numel()} bands, {values}, ..., is not that of "
                f"the options: write all of them as `{name}` (encoder.global_cmvn, where `istd` is 1 / `std`)"
            )
