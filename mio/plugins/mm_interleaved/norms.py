"""Norms that take what they are given in the type of their weights: a copy that decodes has them in bfloat16, and maps
and hidden states may be in another type."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class RMSNorm(nn.RMSNorm):
    """RMSNorm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.weight is None else x.to(self.weight.dtype))


class ChannelNorm(LayerNorm):
    """Layer norm over the channels of `[B, C, H, W]`, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        normed = functional.layer_norm(x.float().movedim(1, -1), self.normalized_shape, weight, bias, self.eps)
        return normed.movedim(-1, 1).to(x.dtype)
