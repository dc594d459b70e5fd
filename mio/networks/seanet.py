"""Decoders of the SEANet family (EnCodec, arXiv 2210.13438; SpeechTokenizer, arXiv 2308.16692), run piece by piece.

Shapes: Q codebooks, f frames, t samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mio.core.contract.values import CodeArray
from mio.networks import exact
from mio.networks.streams import Blocks, Convolution, Pointwise, Recurrent, Residual, Stage, Steps, Upsampling

FIRST, LARGEST = 4, 32
"""Frames that are decoded together, of the first block and at most (see `Blocks`)."""


def stages(layers: Iterable[nn.Module]) -> list[Stage]:
    """Stages (see `streams.py`) of the layers of a decoder, as the packages encodec, transformers and speechtokenizer
    make them: their weight normalisation folded in, their recurrent layers reading forwards."""
    return [_stage(layer) for layer in layers]


def _stage(layer: nn.Module) -> Stage:
    if hasattr(layer, "block"):
        plain = isinstance(layer.shortcut, nn.Identity)
        return Residual([] if plain else stages([layer.shortcut]), stages(layer.block))  # type: ignore[list-item, arg-type]
    if hasattr(layer, "lstm"):
        return Recurrent(layer.lstm, getattr(layer, "skip", True))  # type: ignore[arg-type]
    found = [one for one in layer.modules() if isinstance(one, nn.Conv1d | nn.ConvTranspose1d)]
    if not found:
        return Pointwise(layer)
    [convolution] = found
    kernel, stride, dilation = (
        sizes[0] for sizes in (convolution.kernel_size, convolution.stride, convolution.dilation)
    )
    options: Any = layer
    if isinstance(convolution, nn.ConvTranspose1d):
        padding = kernel - stride
        right = math.ceil(padding * options.trim_right_ratio) if options.causal else padding // 2
        return Upsampling(convolution, padding - right, right)
    padding = (kernel - 1) * dilation
    right = 0 if options.causal else padding // 2
    return Convolution(convolution, padding - right, right, options.pad_mode)


class SeanetDecoder:
    """Decodes one span (see `mio.media.SampleDecoder`).

    Args:
        network: has a `quantizer`, whose `decode` makes features of codes `[Q, 1, f]`, and a `decoder`.
        layers: of the decoder.
        dtype: of the decoder's weights.
    """

    def __init__(self, network: Any, layers: Iterable[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        self._quantizer, self._device, self._dtype = network.quantizer, device, dtype
        self._blocks = Blocks(stages(layers), FIRST, LARGEST)

    def push(self, codes: CodeArray) -> npt.NDArray[np.float32]:
        """Samples float32 `[t]` in [-1, 1]."""
        with exact(self._device):
            features = self._quantizer.decode(torch.from_numpy(codes).to(self._device)[:, None])
            return self._samples(self._blocks.push(features.to(self._dtype)))

    def finish(self) -> npt.NDArray[np.float32]:
        """The samples that are left."""
        with exact(self._device):
            return self._samples(self._blocks.finish())

    def _samples(self, made: Steps) -> npt.NDArray[np.float32]:
        if made is None:
            return np.zeros(0, np.float32)
        samples: npt.NDArray[np.float32] = made[0, 0].float().clamp(-1, 1).cpu().numpy()
        return samples
