"""Feed-forward networks: SwiGLU, and the sparse mixture of them of Mixtral (Jiang et al., 2024, arXiv:2401.04088)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.core.contract.backbone import TransformerConfig
from mio.core.model.attention import Selection, complete, select

if TYPE_CHECKING:
    from mio.core.model.expert_parallel import ExpertExchange

# A matrix product of few or odd numbers of rows may take another kernel, whose sums differ in the last bit. With the
# rows of an expert padded to this multiple, what a token gets does not depend on who shares its expert.
_ROWS = 16


class SwiGLU(nn.Module):
    """Gated feed-forward network (Shazeer, 2020, arXiv:2002.05202)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.ffn_size, bias=False)
        self.up = nn.Linear(config.width, config.ffn_size, bias=False)
        self.down = nn.Linear(config.ffn_size, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Sequential):
    """The experts of a layer, by number. A unit of sharding where they are split over devices."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(*(SwiGLU(config) for _ in range(config.experts)))
        self.held = range(config.experts)
        """Those that this device has."""

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:  # type: ignore[override]
        """[N, D] -> [N, D]; the first `sizes[0]` rows are for the first of those that are held, and so on, in turn."""
        # an expert without rows is called too: its parameters get a gradient of 0, as on one device
        parts = [self[self.held[i % len(self.held)]](part) for i, part in enumerate(x.split(list(sizes)))]
        return torch.cat(parts)


class SparseExperts(nn.Module):
    """Each token goes through its `experts_per_token` best experts, mixed by the softmax over those."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.chosen = config.experts_per_token
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.experts = Experts(config)
        self.exchange: ExpertExchange | None = None
        """What takes tokens to the devices of their experts; None where all experts are here."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: [B, L, D].
            valid: bool [B, L]; tokens where it is False do not count in the balance. None: all count.

        Returns:
            [B, L, D], and the balance float32 [2, experts]: per expert, tokens that chose it and its mean probability,
            both per token.
        """
        tokens = x.reshape(-1, x.shape[-1])
        probabilities = self.router(tokens).float().softmax(-1)
        weights, experts = probabilities.topk(self.chosen, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)

        multiple = _ROWS if self.exchange is None else 1  # what travels is padded where it arrives
        sizes, selection = group_by_expert(experts, len(self.experts), multiple)
        copies = tokens[:, None].expand(-1, self.chosen, -1).reshape(-1, x.shape[-1])
        grouped = select(copies, selection)
        mixed = self.experts(grouped, sizes) if self.exchange is None else self.exchange(self.experts, grouped, sizes)
        outs = select(mixed, selection.reversed()).view(-1, self.chosen, x.shape[-1])
        out = (outs * weights.to(outs.dtype).unsqueeze(-1)).sum(1)
        return out.view_as(x), _balance(probabilities, experts, valid)


def group_by_expert(chosen: Tensor, count: int, multiple: int = _ROWS) -> tuple[list[int], Selection]:
    """Rows of each of `count` experts, padded to a multiple, and how the copies of tokens are taken into these rows;
    `chosen` is int64 [tokens, experts_per_token]."""
    counts = torch.bincount(chosen.view(-1), minlength=count)
    sizes = (counts + multiple - 1) // multiple * multiple
    # Slot -> (token, choice), grouped by expert, each group padded at its end.
    order = chosen.view(-1).argsort(stable=True)
    expert = torch.arange(count, device=chosen.device).repeat_interleave(sizes)
    offset = torch.arange(len(expert), device=chosen.device) - (sizes.cumsum(0) - sizes)[expert]
    real = offset < counts[expert]
    source = order[((counts.cumsum(0) - counts)[expert] + offset).clamp_(max=len(order) - 1)]
    return sizes.tolist(), complete(source, real, len(order), chosen.device)


def _balance(probabilities: Tensor, experts: Tensor, valid: Tensor | None) -> Tensor:
    share = torch.full_like(probabilities[:, :1], 1 / len(probabilities))
    if valid is not None:
        share = valid.reshape(-1, 1) / valid.sum().clamp(min=1)
    load = torch.zeros_like(probabilities).scatter_(1, experts, 1.0)
    return torch.stack(((load * share).sum(0), (probabilities * share).sum(0)))


def balance_loss(balances: list[Tensor]) -> Tensor:
    """Load-balancing loss of Switch Transformers (arXiv:2101.03961, eq. 4) over the tokens of all layers, as Mixtral's.

    Args:
        balances: one float32 [2, experts] per layer.

    Returns:
        float32 scalar, `experts_per_token` when the load is perfectly even.
    """
    load, probability = torch.stack(balances).mean(0)
    return len(load) * (load * probability).sum()
