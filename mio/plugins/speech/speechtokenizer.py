"""SpeechTokenizer (arXiv 2308.16692) as mio calls it: speech -> codes `[Q, F]` of its first Q levels, and back.

The first level is distilled from HuBERT and holds what is said, the others refine the voice. Shapes: T samples at the
checkpoint's rate, F = ceil(T / 320) frames of 20 ms, Q levels of 1024 codes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mio import media, networks
from mio.plugins.speech.options import CODES, PretrainedOptions
from mio.plugins.speech.speechtokenizer_checkpoint import SpeechTokenizerWeights

CodeGrid = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

VERSION = 2
"""Version of the preprocessing, reading files included; part of the fingerprint."""


class PretrainedTokenizer:
    """Tokenizer (`Tokenizer`): speech `(samples, rate)` -> codes int64 `[Q, F]`.

    The files are opened and checked at once, which also gives the fingerprint: weights, the levels that are kept,
    dtype, and where items are cut. The network is loaded at the first `encode`.
    """

    def __init__(self, options: PretrainedOptions) -> None:
        self.options = options
        self.device = networks.device(options.device, "plugins.speech")
        weights = SpeechTokenizerWeights.open(options)
        self.rate = weights.rate
        longest = options.frames.maximum if options.too_long == "truncate" else None
        settings = json.dumps([VERSION, options.codebooks, options.dtype, longest])
        digest = hashlib.sha256(f"{weights.fingerprint(options.codebooks)} {settings}".encode())
        self.fingerprint = f"speechtokenizer-{digest.hexdigest()[:16]}"

    @cached_property
    def _network(self) -> Any:
        networks.check_worker(self.device, "plugins.speech")
        return SpeechTokenizerWeights.open(self.options).encoder(self.device, networks.dtype(self.options.dtype))

    def frames(self, media: Any) -> int:
        """`ceil(T / 320)` after resampling. Raises `DataError` for anything but speech, or too much of it."""
        return self.options.sounds.frames(media, self.rate)

    def encode(self, media: Sequence[Any]) -> list[CodeGrid]:
        """One item at a time: the encoder reads an item from both ends, so padding would change its codes, and a
        kernel for several items may round differently."""
        grids = []
        for item in media:
            samples = self.options.sounds.mono(item, self.rate)
            network = self._network
            with networks.exact(self.device):
                signal = torch.from_numpy(samples).to(self.device, networks.dtype(self.options.dtype))
                features = network.encoder(signal[None, None]).float()
                codes = network.quantizer.encode(features, n_q=self.options.codebooks)
            grids.append(codes[:, 0].cpu().numpy())
        return grids


class PretrainedDetokenizer:
    """Detokenizer: codes `[q, F]` of the first q levels -> `(samples float32 [320 F] in [-1, 1], rate)`, and WAV files.

    Codes do not tell how much of their last frame was speech, so whole frames are returned. Where the model writes
    fewer levels than speech needs, a plugin with a decoder of its own answers `mio_detokenizer` before this one
    (`@mio.hookimpl(tryfirst=True)`) and is given the levels that were written.
    """

    def __init__(self, options: PretrainedOptions) -> None:
        self.options = options
        self._device = networks.device(options.device, "plugins.speech")
        self.rate = SpeechTokenizerWeights.open(options).rate

    @cached_property
    def _network(self) -> Any:
        networks.check_worker(self._device, "plugins.speech")
        return SpeechTokenizerWeights.open(self.options).decoder(self._device, networks.dtype(self.options.dtype))

    def decode(self, codes: CodeGrid) -> tuple[Floats, int]:
        """Raises `DataError` for more levels than are kept, no frames, or codes outside their codebook."""
        return self.stream().whole(codes)

    def stream(self) -> media.SampleStream:
        """Decodes a span in blocks of frames; samples are less than two blocks behind."""
        network, dtype = self._network, networks.dtype(self.options.dtype)
        decoder = networks.seanet.SeanetDecoder(network, network.decoder.model, self._device, dtype)
        return media.SampleStream(decoder, self.rate, self._checked)

    def _checked(self, codes: CodeGrid) -> CodeGrid:
        return self.options.sounds.checked_codes(codes, self.options.codebooks, CODES)

    def save(self, media: tuple[Floats, int], stem: Path) -> Path:
        return self.options.sounds.write(media, stem)
