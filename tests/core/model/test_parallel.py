"""Adapters and heads on several devices, recomputed and compiled: the same losses and gradients, however it is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mio.core.data.document_mask import DocumentMask
from mio.core.model.attention import prepare
from mio.core.model.layers import Shared
from mio.core.model.networks import units
from mio.core.model.parallel import compile_blocks, recompute
from mio.core.model.rope import tables

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import adapters as benchmark
from encoders import differences, fresh, isolated, packed, rows_of


@pytest.fixture
def traced(monkeypatch):
    """Compilation without kernels: graphs are traced and differentiated as ever, and run operation by operation."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: compiled(module, backend="aot_eager", **how))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(module, batch):
    module.zero_grad()
    module.loss_sum(batch)[0].backward()
    return {name: parameter.grad for name, parameter in module.transformer.named_parameters()}


def passes(given, media=(True, False, True)):
    return [packed(rows_of(number, there, given), given, [1, 2]) for number, there in enumerate(media)]


@pytest.mark.parametrize(
    ("how", "kind"),
    [("full", "own"), ("full", "context"), ("selective", "own"), ("selective", "context"), ("compiled", "own")],
)
@pytest.mark.usefixtures("traced")
def test_recomputed_and_compiled_layers_have_the_same_gradients(how, kind):
    """Those of the encoder, to which gradients come through maps, among them."""
    given = benchmark.networks(kind, together=kind == "own")
    plain, other = fresh(given), fresh(given)
    assert list(units(other.transformer.heads["image"]))
    if how == "compiled":
        compile_blocks(other.transformer, "cpu")
    else:
        recompute(other.transformer, how)
    for batch in passes(given):
        due, found = gradients(plain, batch), gradients(other, batch)
        assert due.keys() == found.keys()
        for name, gradient in due.items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=1e-5 if how == "compiled" else 0, msg=name
            )


@pytest.mark.usefixtures("traced")
def test_compiled_layers_with_adapters_are_compiled_once_for_any_number_of_items():
    transformer = fresh(benchmark.networks("own")).transformer
    compile_blocks(transformer, "cuda")  # of constant shapes
    positions = torch.arange(96).expand(2, -1)
    cos, sin = tables(positions, transformer._frequencies, torch.float32)

    def layer(items):
        x = torch.randn(2, 96, 64, requires_grad=True)
        read = torch.randn(2, items, 4, 6), torch.ones(2, 96, items, dtype=torch.bool)
        mask = DocumentMask.from_lengths([[96], [96]], 96)
        prepare(mask, transformer.config.heads, transformer.config.kv_heads, transformer.windows)
        shared = Shared(cos, sin, mask, None)
        transformer.layers[0](x, shared, {"image": read})[0].sum().backward()

    layer(1)
    with torch.compiler.set_stance("fail_on_recompile"):
        layer(2)
        layer(5)


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_a_pass_reaches_every_parameter_and_without_items_changes_nothing_else(kind):
    given = benchmark.networks(kind)
    module = fresh(given)
    networks = ("encoders.", "heads.", ".adapters.")
    for media, batch in zip((True, False), passes(given, (True, False)), strict=True):
        found = gradients(module, batch)
        assert all(gradient is not None for gradient in found.values())
        for name, gradient in found.items():
            if any(part in name for part in networks):
                assert media or not gradient.any(), name
    items = {name: one for name, one in batch.items.items() if not one.dummy}
    alone = module.transformer(batch.tokens, batch.positions, batch.mask, items=items).hidden
    beside = module.transformer(batch.tokens, batch.positions, batch.mask, items=batch.items, made=batch.made).hidden
    assert torch.equal(alone, beside)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_documents_losses_and_gradients_do_not_depend_on_the_media_of_others(kind, together):
    given = benchmark.networks(kind, 2, together)
    assert isolated(given)
    assert benchmark.moved(given) < 1e-5


def test_two_processes_train_what_one_does():
    chosen = ("own/muon/media-on-one", "own/recomputed", "context/frozen/parts", "context/split-experts")
    chosen += ("own/tensor-parallel",)
    found = differences(3, [case for case in benchmark.cases() if case.name in chosen])
    assert set(found) == set(chosen)
    assert max(found.values()) < 1e-5
