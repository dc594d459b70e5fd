"""SpeechTokenizer (arXiv 2308.16692) as mio calls it: speech -> codes `[Q, F]` of its first Q levels, and back.

The first level is distilled from HuBERT and holds what is said, the others refine the voice. Shapes: T samples at the
checkpoint's rate, F = ceil(T / 320) frames of 20 ms, Q levels of 1024 codes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from mio import DataError, UserError
from mio.plugins.speech.options import CODES, PretrainedOptions
from mio.plugins.speech.speechtokenizer_checkpoint import Checkpoint

CodeGrid = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TORCH_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

VERSION = 2
"""Of what is done to speech before the network, its reading from files included; part of the fingerprint."""


class PretrainedTokenizer:
    """Tokenizer (`Tokenizer`): speech `(samples, rate)` -> codes int64 `[Q, F]`.

    The files are opened and checked at once, which also gives the fingerprint: weights, the levels that are kept,
    dtype, and where items are cut. The network is loaded at the first `encode`.
    """

    def __init__(self, options: PretrainedOptions) -> None:
        self.options = options
        self._device = _device(options.device)
        checkpoint = Checkpoint.open(options)
        self.rate = checkpoint.rate
        longest = options.frames.maximum if options.too_long == "truncate" else None
        settings = json.dumps([VERSION, options.codebooks, options.dtype, longest])
        weights = checkpoint.fingerprint(options.codebooks)
        self.fingerprint = f"speechtokenizer-{hashlib.sha256(f'{weights} {settings}'.encode()).hexdigest()[:16]}"

    @cached_property
    def _network(self) -> Any:
        _refuse_in_workers(self._device)
        return Checkpoint.open(self.options).encoder(self._device, TORCH_DTYPES[self.options.dtype])

    def frames(self, media: Any) -> int:
        """`ceil(T / 320)` after resampling. Raises `DataError` for no speech, or for more than may be."""
        return self.options.sounds.frames(media, self.rate)

    def encode(self, media: Sequence[Any]) -> list[CodeGrid]:
        """One item at a time: the encoder reads an item from both ends, so padding would change its codes, and a
        kernel for several items may round differently."""
        found = []
        for item in media:
            samples = self.options.sounds.mono(item, self.rate)
            network = self._network
            with _exact(self._device):
                signal = torch.from_numpy(samples).to(self._device, TORCH_DTYPES[self.options.dtype])
                features = network.encoder(signal[None, None]).float()
                codes = network.quantizer.encode(features, n_q=self.options.codebooks)
            found.append(codes[:, 0].cpu().numpy())
        return found


class PretrainedDetokenizer:
    """Detokenizer: codes `[q, F]` of the first q levels -> `(samples float32 [320 F] in [-1, 1], rate)`, and WAV files.

    Codes do not tell how much of their last frame was speech, so whole frames are returned. Where the model writes
    fewer levels than speech needs, a plugin with a decoder of its own answers `mio_detokenizer` before this one
    (`@mio.hookimpl(tryfirst=True)`) and is given the levels that were written.
    """

    def __init__(self, options: PretrainedOptions) -> None:
        self.options = options
        self._device = _device(options.device)
        self.rate = Checkpoint.open(options).rate

    @cached_property
    def _network(self) -> Any:
        _refuse_in_workers(self._device)
        return Checkpoint.open(self.options).decoder(self._device, TORCH_DTYPES[self.options.dtype])

    def decode(self, codes: CodeGrid) -> tuple[Floats, int]:
        """Raises `DataError` for more levels than are kept, no frames, or codes outside their codebook."""
        codes = np.asarray(codes)
        books = self.options.codebooks
        if codes.ndim != 2 or not 1 <= codes.shape[0] <= books or not codes.shape[1]:
            raise DataError(f"speech has codes [1..{books}, frames], these are {list(codes.shape)}")
        if codes.min() < 0 or codes.max() >= CODES:
            raise DataError(f"speech codes must lie in 0..{CODES - 1}, these reach {codes.min()}..{codes.max()}")
        network = self._network
        with _exact(self._device):
            levels = torch.from_numpy(codes.astype(np.int64)).to(self._device)
            features = network.quantizer.decode(levels[:, None])
            samples = network.decoder(features.to(TORCH_DTYPES[self.options.dtype]))[0, 0].float().clamp(-1, 1)
        return samples.cpu().numpy(), self.rate

    def save(self, media: tuple[Floats, int], stem: Path) -> Path:
        return self.options.sounds.write(media, stem)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"plugins.speech: `device` is {name!r}, which torch does not know") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"plugins.speech: `device` is {name}, but torch sees no GPU")
    return device


def _refuse_in_workers(device: torch.device) -> None:
    if device.type != "cpu" and get_worker_info() is not None:
        raise UserError(
            f"plugins.speech: `device: {device}` cannot be used by data workers; set `device: cpu`, or "
            "`runtime.workers` to 0"
        )


@contextlib.contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """No gradients, and the same arithmetic at every call, whatever a surrounding training run has switched on."""
    precision = torch.get_float32_matmul_precision()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        # Snake is a script, which torch may otherwise fuse once it has run a few times
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
