"""Rows of a vocabulary whose tokens no training has told apart.

Where a token never is the next one, softmax pushes its row of the head as it pushes all such rows, so that in time they
are one vector: under-trained tokens are told by that (Land and Bartolo 2024, arXiv 2405.05417). A model writes one of
them by a hair, if at all, and reads it like any other where embedding and head are tied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALIKE = 0.999
"""Least cosine to the vector that they are. In the demo's head those of 296 rows of text are 0.9999 and more; of what
has been trained the nearest neighbour is at 0.4 to 0.98."""

_SAMPLE, _AT_ONCE = 4096, 256
"""Rows that others are compared with, evenly spaced where there are more, and of them those in one matrix product."""


@torch.no_grad()
def untrained_rows(head: Tensor, known: int) -> Tensor:
    """Which of the first `known` rows of a head `[>= known, D]` are one vector: bool `[known]`, on its device.

    Of several vectors it is that of most rows. Nothing here waits for a device, or depends on values in its shapes.
    """
    rows = F.normalize(head[:known].float(), dim=1)
    if known < 2:
        return torch.zeros(known, dtype=torch.bool, device=head.device)
    picked = torch.linspace(0, known - 1, min(known, _SAMPLE), device=head.device).round().long()
    like = torch.cat([(rows @ rows[some].T > ALIKE).sum(0) for some in picked.split(_AT_ONCE)])
    most = like.argmax(keepdim=True)
    alike = rows @ rows[picked[most]].T > ALIKE
    return alike[:, 0] & (like[most] > 1)
