"""Pretrained weights of the autoencoder, of a folder in the layout of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio import UserError, networks
from mio.plugins.flow_head.latents import Autoencoder
from mio.plugins.flow_head.options import FlowOptions

PREFIX = "autoencoder."
OLDER = (
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)
"""Names of attention in older files of diffusers, to today's."""
SAID = {
    "block_out_channels": "vae.channels",
    "layers_per_block": "vae.layers",
    "latent_channels": "vae.latents",
    "norm_num_groups": "vae.norm_groups",
    "use_quant_conv": "vae.quant_conv",
    "scaling_factor": "vae.scale",
    "shift_factor": "vae.shift",
    "in_channels": "channels",
}
"""What `config.json` says, by option."""
UNSAID = {"use_quant_conv": True, "shift_factor": 0.0, "scaling_factor": 0.18215, "norm_num_groups": 32}
"""What diffusers takes where it says nothing."""


def pretrained(options: FlowOptions) -> dict[str, Tensor]:
    """Weights by the names of `FlowNetwork`'s parameters; none without a checkpoint.

    Raises `UserError`, one line, for a configuration that is not the options', and for weights that are missing, of
    another shape, or surplus.
    """
    if options.latents != "vae" or not options.vae.checkpoint:
        return {}
    folder = Path(options.vae.checkpoint).expanduser()
    if (folder / "vae").is_dir():  # a whole FLUX or Stable Diffusion
        folder /= "vae"
    _check(folder, options)
    places = networks.tensor_places(folder)
    tensors = {_today(name): value.float() for name, value in networks.read_tensors(places, places).items()}
    with torch.device("meta"):
        needed = {name: value.shape for name, value in Autoencoder(options).named_parameters()}
    if problems := networks.described(networks.misfits(needed, tensors)):
        raise UserError(
            f"plugins.flow_head: `vae.checkpoint`: {folder} does not fit the options: {problems}; the sizes under "
            "`vae` must be the checkpoint's"
        )
    return {PREFIX + name: value for name, value in tensors.items()}


def _today(name: str) -> str:
    """Name of a parameter of `Autoencoder` by its name in a file."""
    return f"vae.{networks.renamed(name, OLDER)}"


def _check(folder: Path, options: FlowOptions) -> None:
    """Compares the folder's `config.json`, if there is one, with the options."""
    path = folder / "config.json"
    if not path.is_file():
        return
    try:
        said = {**UNSAID, **json.loads(path.read_text(encoding="utf-8"))}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a configuration: {networks.one_line(error)}") from error
    problems = []
    for name, option in SAID.items():
        part: Any = options.vae if option.startswith("vae.") else options
        chosen, value = getattr(part, option.rpartition(".")[2]), said.get(name)
        chosen = list(chosen) if isinstance(chosen, list | tuple) else chosen
        if name in said and chosen != (value or type(chosen)()):
            problems.append(f"`{option}` is {chosen}, but {value} in {path}")
    if problems:
        raise UserError("; ".join(f"plugins.flow_head: {problem}" for problem in problems))
