"""Reads a checkpoint of SpeechTokenizer: its configuration, which keys it must have, its fingerprint, its networks.

The networks are those of the package `speechtokenizer` (github.com/ZhangXInFD/SpeechTokenizer). Both published kinds
work, `activation: ELU` (166 tensors) and `Snake` (192 tensors); their codes are not interchangeable.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mio import UserError, networks
from mio.plugins.speech.options import CODES, FRAME_RATE, PretrainedOptions

KEYS = (
    "n_filters",
    "strides",
    "dimension",
    "semantic_dimension",
    "bidirectional",
    "dilation_base",
    "residual_kernel_size",
    "n_residual_layers",
    "lstm_layers",
    "activation",
    "codebook_size",
    "n_q",
    "sample_rate",
)
"""Keys of `config.json` that the networks read; the others are about training."""

ACTIVATIONS = ("ELU", "Snake")

PACKAGE = "mio.plugins.speech._speechtokenizer"


def network_class() -> type[nn.Module]:
    """The package's class `SpeechTokenizer`.

    `import speechtokenizer` also imports its trainer, and with it about 900 modules of which two are not among the
    package's dependencies. Therefore `model.py` and what it needs are imported under a name of our own.
    """
    if PACKAGE not in sys.modules:
        installed = importlib.util.find_spec("speechtokenizer")
        if installed is None or installed.submodule_search_locations is None:
            raise UserError(
                "plugins.speech: tokenizer `speechtokenizer` needs its package: pip install speechtokenizer"
            )
        spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
        spec.submodule_search_locations = list(installed.submodule_search_locations)
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # torch deprecates the package's torch.jit.script
        warnings.simplefilter("ignore")
        network: type[nn.Module] = importlib.import_module(f"{PACKAGE}.model").SpeechTokenizer
    return network


@dataclass(frozen=True)
class SpeechTokenizerWeights:
    """Configuration and weights, checked against each other. Tensors are read from the disk when they are used."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def open(cls, options: PretrainedOptions) -> SpeechTokenizerWeights:
        """Raises `UserError` for a missing or damaged file, for a configuration that does not fit the options, and, by
        name, for keys that are missing, of another shape, or surplus."""
        config_file, weights_file = options.files()
        config = _config(config_file, options.codebooks)
        tensors = networks.load_tensors(weights_file)
        needed = {name: value.shape for name, value in _blank(config).state_dict().items()}
        if problems := networks.described(networks.misfits(needed, tensors)):
            raise UserError(f"{weights_file}: does not fit {config_file}: {problems}; take both from one checkpoint")
        return cls(config, tensors)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return int(self.config["sample_rate"])

    def fingerprint(self, codebooks: int) -> str:
        """SHA-256 in hexadecimal of everything that codes of the first `codebooks` levels depend on."""
        used = {key: self.config[key] for key in KEYS}
        digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode())
        books = {f"quantizer.vq.layers.{level}._codebook.embed" for level in range(codebooks)}
        for name in sorted(self.tensors):
            if name.startswith("encoder.") or name in books:
                value = self.tensors[name].detach().contiguous()
                digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
                digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def encoder(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network without its decoder, see `_ready`."""
        return self._ready("decoder", device, dtype)

    def decoder(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network without its encoder, see `_ready`."""
        return self._ready("encoder", device, dtype)

    def _ready(self, without: str, device: torch.device, dtype: torch.dtype) -> Any:
        """The network without one part, for inference: weight normalisation folded in, codebooks in float32."""
        network = _blank(self.config)
        delattr(network, without)
        # a projection to features of HuBERT, which the distillation needs
        network.transform = nn.Identity()
        # copies, so that the file may change or go
        weights = {name: self.tensors[name].to(torch.float32, copy=True) for name in network.state_dict()}
        network.load_state_dict(weights, assign=True)
        for module in network.modules():
            # computed once instead of at each call, bit by bit the same
            if hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)
        quantizer = network.quantizer
        network.to(device, dtype)
        network.quantizer = quantizer.to(torch.float32)
        return network.eval().requires_grad_(False)


def _blank(config: Mapping[str, Any]) -> Any:
    """The network without memory for its parameters. Raises `UserError` if the package cannot build it."""
    network = network_class()
    with warnings.catch_warnings(), torch.device("meta"):
        # torch deprecates the package's torch.nn.utils.weight_norm, once per layer
        warnings.simplefilter("ignore")
        return network(dict(config))


def _config(path: Path, codebooks: int) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a configuration in JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds {type(config).__name__}, not the keys of a configuration")
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; is it the config.json of SpeechTokenizer?")
    numbers = [key for key in KEYS if key not in ("strides", "bidirectional", "activation")]
    wrong = [key for key in numbers if type(config[key]) is not int or config[key] < 1]
    strides = config["strides"]
    if not isinstance(strides, list) or not strides or not all(type(item) is int and item > 0 for item in strides):
        wrong.append("strides")
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} must be whole numbers above 0, those of `strides` in a list")
    if config["activation"] not in ACTIVATIONS:
        raise UserError(f"{path}: `activation` is {config['activation']!r}, must be one of {', '.join(ACTIVATIONS)}")
    if config["sample_rate"] != FRAME_RATE * math.prod(strides):
        raise UserError(
            f"{path}: {config['sample_rate']} samples a second in steps of {math.prod(strides)}; the plugin's codes "
            f"are {FRAME_RATE} frames a second"
        )
    if config["codebook_size"] != CODES:
        raise UserError(f"{path}: `codebook_size` is {config['codebook_size']}, the plugin's codebooks have {CODES}")
    if config["n_q"] < codebooks:
        raise UserError(f"{path}: has {config['n_q']} levels; lower `codebooks` of the plugin from {codebooks}")
    return config
