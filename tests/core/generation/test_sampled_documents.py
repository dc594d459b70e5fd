"""Answers drawn at a high temperature from random weights: each parses and decodes. `benchmarks/sampled_documents.py`
draws ten thousand, also of trained runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from sampled_documents import RANDOM, models, sampled

MODELS = dict(models([], 0))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        (f"all layouts, {RANDOM}", {"text", "control", "flat", "major", "frames", "delayed", "square"}),
        (f"heads, {RANDOM}", {"text", "tile"}),
        (f"heads with positions, {RANDOM}", {"text", "tile"}),
    ],
)
def test_every_document_parses_and_decodes(name, kinds):
    found = sampled(MODELS[name], 120, 1.5, 0)
    assert found.failures == []
    assert (found.documents, sum(found.reasons.values())) == (120, 120)
    assert set(found.parts) == kinds
    assert min(found.parts.values()) > 10
    assert "failed" not in found.reasons


def test_a_document_that_does_not_decode_is_counted(monkeypatch):
    """What passes is looked at: with another grammar than its own, documents fail."""
    model = MODELS[f"all layouts, {RANDOM}"]
    monkeypatch.setattr(type(model.codecs.detokenizer("flat")), "decode", lambda *_: 1 / 0)
    found = sampled(model, 40, 1.5, 0)
    assert found.failures
    assert all("ZeroDivisionError" in one for one in found.failures)
