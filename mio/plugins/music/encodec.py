"""EnCodec as mio calls it: music -> codes `[4, F]`, F = ceil(T / 640) frames of 20 ms at 32 kHz, and back.

The networks are `EncodecModel` of transformers, the checkpoint facebook/encodec_32khz in its own layout.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils import parametrize

from mio import UserError, media, networks
from mio.plugins.music import BOOKS, FRAME_RATE, MusicOptions

CodeGrid = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

RATE = 32_000
"""Samples per second of the codec."""

VERSION = 2
"""Version of the preprocessing, reading files included; part of the fingerprint."""

EXPECTED = {
    "model_type": "encodec",
    "sampling_rate": RATE,
    "hop_length": RATE // FRAME_RATE,
    "audio_channels": 1,
    "codebook_size": BOOKS[0],
    "num_quantizers": len(BOOKS),
    "normalize": False,
    "norm_type": "weight_norm",
    "chunk_length_s": None,
}
"""Properties of the published configuration that codes depend on. Widths and depths may differ."""


class EncodecTokenizer:
    """Tokenizer (`Tokenizer`): music `(samples, rate)` -> codes int64 `[4, F]`.

    The fingerprint is of weights, configuration, dtype, and where clips are cut.
    """

    def __init__(self, options: MusicOptions) -> None:
        self.options = options
        self.device = networks.device(options.device, "plugins.music")
        self._model = _loaded(options)
        longest = options.frames.maximum if options.too_long == "truncate" else None
        settings = json.dumps([VERSION, options.dtype, longest])
        weights = _fingerprint(self._model)
        self.fingerprint = f"encodec-{hashlib.sha256(f'{weights} {settings}'.encode()).hexdigest()[:16]}"
        del self._model.decoder

    def __reduce__(self) -> tuple[type[EncodecTokenizer], tuple[MusicOptions]]:
        # convolutions with weight norm cannot be pickled: the other process reads them itself
        return type(self), (self.options,)

    @cached_property
    def _network(self) -> Any:
        return _ready(self._model, self.device, self.options)

    def frames(self, media: Any) -> int:
        """`ceil(T / 640)` after resampling. Raises `DataError` for anything but music, or too much of it."""
        return self.options.sounds.frames(media, RATE)

    def encode(self, media: Sequence[Any]) -> list[CodeGrid]:
        """One clip at a time: padding would change the last codes, and a kernel for several clips may round
        differently."""
        grids = []
        for item in media:
            samples = self.options.sounds.mono(item, RATE)
            network = self._network
            with networks.exact(self.device):
                signal = torch.from_numpy(samples).to(self.device, networks.dtype(self.options.dtype))
                features = network.encoder(signal[None, None]).float()
                codes = network.quantizer.encode(features, network.config.target_bandwidths[-1])
            grids.append(codes[:, 0].cpu().numpy())
        return grids


class EncodecDetokenizer:
    """Detokenizer: codes `[q, F]` of the first q codebooks -> `(samples float32 [640 F] in [-1, 1], 32000)`, and WAV
    files. Codes do not tell how much of their last frame was music, so whole frames are returned."""

    def __init__(self, options: MusicOptions) -> None:
        self.options = options
        self._device = networks.device(options.device, "plugins.music")
        self._model = _loaded(options)
        del self._model.encoder

    @cached_property
    def _network(self) -> Any:
        return _ready(self._model, self._device, self.options)

    def decode(self, codes: CodeGrid) -> tuple[Floats, int]:
        """Raises `DataError` for more than 4 codebooks, no frames, or codes outside their codebook."""
        return self.stream().whole(codes)

    def stream(self) -> media.SampleStream:
        """Decodes a span in blocks of frames; samples are less than two blocks behind."""
        network, dtype = self._network, networks.dtype(self.options.dtype)
        decoder = networks.seanet.SeanetDecoder(network, network.decoder.layers, self._device, dtype)
        return media.SampleStream(decoder, RATE, self._checked)

    def _checked(self, codes: CodeGrid) -> CodeGrid:
        return self.options.sounds.checked_codes(codes, len(BOOKS), BOOKS[0])

    def save(self, media: tuple[Floats, int], stem: Path) -> Path:
        return self.options.sounds.write(media, stem)


def _loaded(options: MusicOptions) -> Any:
    """The model on the CPU in float32.

    Raises `UserError` without transformers, for files that are missing or damaged, for another configuration, and, by
    name, for keys that are missing, of another shape, or surplus.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError('plugins.music: EnCodec needs transformers: pip install "mio[music]"')
    from safetensors.torch import load_file
    from transformers import EncodecConfig, EncodecModel

    config_file, weights_file = options.files()
    try:
        written = json.loads(config_file.read_text(encoding="utf-8"))
        config = EncodecConfig(**written)
        saved = {name: getattr(config, name) for name in EXPECTED} | {"model_type": written.get("model_type")}
    # transformers raises errors of many kinds for wrong values
    except Exception as error:
        raise UserError(f"{config_file}: not a configuration of EnCodec: {networks.one_line(error)}") from error
    wrong = [f"`{name}` is {saved[name]!r} instead of {due!r}" for name, due in EXPECTED.items() if saved[name] != due]
    if wrong:
        raise UserError(f"{config_file}: {', '.join(wrong)}; the plugin's codes are those of facebook/encodec_32khz")
    # the caller's random state stays as it was
    with torch.random.fork_rng(devices=[]):
        model = EncodecModel(config)
    try:
        tensors = load_file(weights_file)
    except Exception as error:
        reason = networks.one_line(error)
        raise UserError(f"{weights_file}: not a file of tensors that can be read: {reason}") from error
    try:
        # torch takes the names of weight normalisation before and after 2.0, `weight_g` and `original0`
        missing, surplus = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{weights_file}: does not fit {config_file}: {networks.one_line(error)}") from error
    if problems := networks.described({"missing": missing, "surplus": surplus}):
        raise UserError(f"{weights_file}: does not fit {config_file}: {problems}")
    return model


def _ready(model: Any, device: torch.device, options: MusicOptions) -> Any:
    """The model for inference: weight normalisation folded in, codebooks in float32."""
    networks.check_worker(device, "plugins.music")
    for module in list(model.modules()):
        # computed once instead of at each call, bit by bit the same
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    model.to(device, networks.dtype(options.dtype))
    model.quantizer.to(torch.float32)
    return model.eval().requires_grad_(False)


def _fingerprint(model: Any) -> str:
    """SHA-256 in hexadecimal of everything that codes depend on."""
    # the codec's own settings, not who saved it and when
    settings = {name: getattr(model.config, name) for name in type(model.config).__annotations__}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("encoder.") or name.endswith(".embed"):
            digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode() + value.numpy().tobytes())
    return digest.hexdigest()
