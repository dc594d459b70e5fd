"""Which device a run takes."""

import pytest
import torch

from mio.core.distributed.devices import device_type
from mio.core.errors import UserError


@pytest.fixture(autouse=True)
def apple(monkeypatch):
    """A machine with a GPU of Apple's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_apple_gpus_answer_and_do_not_train():
    assert [device_type(asked) for asked in ("auto", "gpu", "mps", "cpu")] == ["mps", "mps", "mps", "cpu"]
    assert [device_type(asked, trains=True) for asked in ("auto", "cpu")] == ["cpu", "cpu"]
    for asked in ("gpu", "mps"):
        with pytest.raises(UserError, match=f"`accelerator: {asked}`: training needs float64"):
            device_type(asked, trains=True)
    with pytest.raises(UserError, match="`--device cuda` is not here"):
        device_type("cuda", "`--device cuda`")
