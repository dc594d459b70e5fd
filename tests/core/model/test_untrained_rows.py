from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mio.core.model.untrained_rows import untrained_rows


def test_rows_of_tokens_that_never_came_are_found_after_training() -> None:
    """Softmax regression by AdamW on targets drawn by a teacher, from rows that all differ."""
    torch.manual_seed(0)
    said, ids, width = 40, 100, 32
    truth, teacher = torch.randperm(ids)[:said], torch.randn(said, width)
    head = torch.nn.Parameter(torch.randn(ids, width) * 0.005)
    assert not untrained_rows(head, ids).any()
    optimizer = torch.optim.AdamW([head], lr=0.02, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 400)
    for _ in range(400):
        hidden = torch.randn(256, width) + 1
        drawn = torch.distributions.Categorical(logits=hidden @ teacher.T / 3).sample()
        optimizer.zero_grad()
        F.cross_entropy(hidden @ head.T, truth[drawn]).backward()
        optimizer.step()
        schedule.step()
    found = untrained_rows(head, ids)
    assert set(torch.nonzero(~found)[:, 0].tolist()) == set(truth.tolist())


@pytest.mark.parametrize("ids", [500, 9000])
def test_the_largest_group_of_like_rows_among_those_that_are_known(ids: int) -> None:
    torch.manual_seed(1)
    head = torch.randn(ids + 200, 24)
    like, fewer = torch.arange(3, ids, 5), torch.arange(0, ids, 50)
    head[fewer] = torch.randn(24)  # another group, of fewer
    head[like] = 3 * torch.randn(24) + 0.005 * torch.randn(len(like), 24)
    head[ids:] = head[3]  # behind what is known
    found = untrained_rows(head, ids)
    assert found.shape == (ids,)
    assert torch.equal(torch.nonzero(found)[:, 0], like)
    assert torch.equal(untrained_rows(head.bfloat16(), ids), found)


def test_nothing_is_untrained_where_every_row_is_its_own() -> None:
    head = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    for known in (0, 1, 2, 64):
        assert untrained_rows(head, known).tolist() == [False] * known
