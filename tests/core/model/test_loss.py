"""The chunked cross-entropy against torch's own."""

import os
import subprocess
import sys
import textwrap
from itertools import product

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from mio.core.model import loss as loss_module
from mio.core.model.loss import SoftTargets, linear_cross_entropy

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@pytest.fixture(params=[1, 40, 10**6])
def chunk(request, monkeypatch):
    """Logits alive at once, and of them in one softmax: one token, a few tokens, all tokens."""
    monkeypatch.setattr(loss_module, "_CPU_LOGITS", 16 * request.param)
    monkeypatch.setattr(loss_module, "_PIECE", request.param)


def inputs(dtype=torch.float64, *, size=17, scale=1.0):
    tokens, width, rows = 23, 8, 17
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(tokens, width, generator=generator, dtype=torch.float64) * scale).to(dtype)
    weight = torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(size, (tokens,), generator=generator)
    weights = torch.rand(tokens, generator=generator) * (torch.rand(tokens, generator=generator) > 0.3)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, weights


def bias_of(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(17, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def naive(hidden, weight, targets, weights, size=None, bias=None):
    scores = F.linear(hidden, weight[:size], None if bias is None else bias[:size])
    nll = F.cross_entropy(scores.to(torch.promote_types(hidden.dtype, torch.float32)), targets, reduction="none")
    return (nll * weights).sum(), nll * (weights != 0)


def check(got, want, *leaves, scale=2.5, **tolerance):
    torch.testing.assert_close(got[0], want[0].to(got[0].dtype), **tolerance)
    torch.testing.assert_close(got[1], want[1].to(got[1].dtype), **tolerance)
    assert not got[1].requires_grad
    expected = torch.autograd.grad(want[0] * scale, leaves)
    for grad, wanted, leaf in zip(torch.autograd.grad(got[0] * scale, leaves), expected, leaves, strict=True):
        assert grad.dtype == leaf.dtype
        torch.testing.assert_close(grad, wanted, **tolerance)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_naive(dtype, size):
    arguments = inputs(dtype, size=size or 17)
    check(linear_cross_entropy(*arguments, size=size), naive(*arguments, size=size), *arguments[:2])


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_with_a_bias_equals_naive(dtype, size):
    arguments, bias = inputs(dtype, size=size or 17), bias_of(dtype)
    got = linear_cross_entropy(*arguments, size=size, bias=bias)
    check(got, naive(*arguments, size=size, bias=bias), *arguments[:2], bias)
    if size is not None:
        assert not torch.autograd.grad(linear_cross_entropy(*arguments, size=size, bias=bias)[0], bias)[0][size:].any()


def test_a_bias_of_a_head_some_of_whose_rows_are_replaced():
    hidden, weight, targets, weights = inputs()
    bias, rows, ranges = bias_of(), torch.randn(5, 8, dtype=torch.float64, requires_grad=True), ((2, 4), (9, 12))
    whole = torch.cat([weight[:2], rows[:2], weight[4:9], rows[2:], weight[12:]])
    got = linear_cross_entropy(hidden, weight, targets, weights, replaced=(rows, ranges), bias=bias)
    check(got, naive(hidden, whole, targets, weights, bias=bias), hidden, weight, rows, bias)


@pytest.mark.usefixtures("chunk")
def test_bfloat16_hidden_and_float32_weight(monkeypatch):
    monkeypatch.setattr(loss_module, "_SLICE", 5)
    hidden, weight, targets, weights = inputs(torch.float32)
    low = hidden.detach().bfloat16().requires_grad_()
    loss, nll = linear_cross_entropy(low, weight, targets, weights)
    wanted, wanted_nll = naive(hidden, weight, targets, weights)
    assert loss.dtype == nll.dtype == torch.float32
    torch.testing.assert_close(nll, wanted_nll, atol=0.08, rtol=0.02)
    grads, expected = torch.autograd.grad(loss, (low, weight)), torch.autograd.grad(wanted, (hidden, weight))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    for grad, want in zip(grads, expected, strict=True):
        assert (grad.float() - want).norm() < 0.02 * want.norm()


def test_autocast_computes_as_bfloat16():
    hidden, weight, targets, weights = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        _, nll = linear_cross_entropy(hidden, weight, targets, weights)
    _, expected = linear_cross_entropy(hidden.detach().bfloat16(), weight, targets, weights)
    assert torch.equal(nll, expected)


def test_extreme_logits_stay_finite():
    arguments = inputs(torch.float32, scale=300.0)
    got, want = linear_cross_entropy(*arguments), naive(*arguments)
    assert want[1].max() > 200
    check(got, want, *arguments[:2], atol=1e-3, rtol=1e-5)


def test_nothing_to_learn_is_zero():
    hidden, weight, targets, weights = inputs()
    loss, nll = linear_cross_entropy(hidden, weight, targets, torch.zeros_like(weights))
    loss.backward()
    assert loss == 0
    assert not nll.any()
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_frozen_head_and_evaluation():
    hidden, weight, targets, weights = inputs()
    want = torch.autograd.grad(naive(hidden, weight, targets, weights)[0], hidden)[0]
    loss, _ = linear_cross_entropy(hidden, weight.detach(), targets, weights)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden)[0], want)
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets, weights)[0].requires_grad


def test_second_backward_is_refused():
    loss, _ = linear_cross_entropy(*inputs())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


def soft_of(dtype=torch.float64, *, share=0.7, part=slice(None), known=11):
    """Soft targets of every third token, by a model of width 5 that knows some of the ids."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(8, 5, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(17, 5, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(17, generator=generator, dtype=torch.float64).to(dtype)
    place = torch.full((23,), -1, dtype=torch.int32)
    place[::3] = torch.randperm(8, generator=generator).int()
    return SoftTargets(hidden, weight[part], bias[part], known, place, share)


def naive_soft(hidden, weight, targets, weights, soft, size=None):
    """Each token by itself: the cross-entropy of two distributions, as it is written."""
    scores, losses, own = F.linear(hidden, weight[:size]), [], []
    for token, target in enumerate(targets.tolist()):
        said = scores[token].log_softmax(-1)
        own.append(-said[target])
        place = int(soft.place[token])
        if place < 0 or target >= soft.size:
            losses.append(own[-1])
            continue
        known = soft.weight[: soft.size] @ soft.hidden[place] + soft.bias[: soft.size]
        divergence = -sum(p * q for p, q in zip(known.softmax(-1), said, strict=False))
        losses.append(soft.share * divergence + (1 - soft.share) * own[-1])
    return (torch.stack(losses) * weights).sum(), torch.stack(own) * (weights != 0)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_soft_targets_are_the_cross_entropy_of_two_distributions(share):
    arguments, soft = inputs(size=15), soft_of(share=share)
    assert 0 < sum(soft.place[token] >= 0 and target < 11 for token, target in enumerate(arguments[2].tolist())) < 8
    got = linear_cross_entropy(*arguments, size=15, soft=soft)
    check(got, naive_soft(*arguments, soft, size=15), *arguments[:2])


def test_who_says_what_the_teacher_says_has_nothing_to_learn():
    hidden, weight, targets, weights = inputs()
    same = SoftTargets(hidden.detach(), weight.detach(), None, 17, torch.arange(23, dtype=torch.int32), 1.0)
    linear_cross_entropy(hidden, weight, targets, weights, soft=same)[0].backward()
    assert hidden.grad.abs().max() < 1e-14
    assert weight.grad.abs().max() < 1e-14


SHARDS = {"even": (17, 9), "padding in the last": (12, 9), "padding alone": (9, 9), "uneven": (17, 13), "one": (7, 17)}
"""Ids that can be predicted, and rows of the first of two ranks' shards, of 17."""


def sharded(kind, dtype, part, known):
    """What comes beside the head's rows, of a part of them."""
    if kind == "bias":
        return {"bias": bias_of(dtype)[part].detach().requires_grad_()}
    return {"soft": soft_of(dtype, part=part, known=known)} if kind == "soft" else {}


def on_rank(rank, folder):
    """Loss and gradients of this rank's rows of the head, for every case and dtype."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    loss_module._CPU_LOGITS = 300  # a few tokens at a time
    results = {}
    for (name, (size, first)), dtype in product(SHARDS.items(), DTYPES):
        hidden, weight, targets, weights = inputs(dtype, size=size)
        offset = first if rank else 0
        part = slice(first, None) if rank else slice(first)
        for kind in ("plain", "bias", "soft"):
            rows, hidden.grad = weight[part].detach().requires_grad_(), None
            more = sharded(kind, dtype, part, min(size, 11))
            where = {"size": size, "group": dist.group.WORLD, "offset": offset}
            total, nll = linear_cross_entropy(hidden, rows, targets, weights, **where, **more)
            (total * 2.5).backward()
            of_bias = (more["bias"].grad,) if "bias" in more else ()
            results[name, dtype, kind] = total.detach(), nll, hidden.grad, rows.grad, *of_bias
    torch.save(results, f"{folder}/{rank}")
    dist.destroy_process_group()
    os._exit(0)  # a thread of gloo that wakes up while the interpreter is taken down would abort the process


def test_sharded_head_equals_whole(tmp_path):
    torch.multiprocessing.spawn(on_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    for (name, dtype, kind), (total, nll, by_hidden, *by_parts) in ranks[0].items():
        other = ranks[1][name, dtype, kind]
        assert torch.equal(total, other[0])
        assert torch.equal(nll, other[1])
        assert torch.equal(by_hidden, other[2])
        size, _ = SHARDS[name]
        arguments = inputs(dtype, size=size)
        more = sharded(kind, dtype, slice(None), min(size, 11))
        want = linear_cross_entropy(*arguments, size=size, **more)
        grads = torch.autograd.grad(want[0] * 2.5, (*arguments[:2], *([more["bias"]] if "bias" in more else [])))
        tolerance = {"atol": 0.05, "rtol": 0.05} if dtype == torch.bfloat16 else {}
        got = (total, nll, by_hidden, *(torch.cat(parts) for parts in zip(by_parts, other[3:], strict=True)))
        for mine, theirs in zip(got, (want[0].detach(), want[1], *grads), strict=True):
            torch.testing.assert_close(mine, theirs, **tolerance)


def test_a_shard_needs_the_size():
    with pytest.raises(ValueError, match="`size`"):
        linear_cross_entropy(*inputs(), group=object())


def test_peak_memory_at_full_size():
    """4,096 tokens, width 512 and 76,294 ids in float32: all logits are 1,192 MiB, the gradient of the head 149."""
    script = """
        import resource, torch
        from mio.core.model.loss import linear_cross_entropy

        def step(tokens, width, rows):
            hidden = torch.randn(tokens, width, requires_grad=True)
            weight = torch.empty(rows, width).normal_(0, width**-0.5).requires_grad_()
            targets, weights = torch.randint(rows, (tokens,)), torch.ones(tokens)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            linear_cross_entropy(hidden, weight, targets, weights)[0].mul(0.5).backward()
            assert weight.grad is not None
            return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

        step(8, 512, 128)
        print(step(4096, 512, 76294))
    """
    # Linux hands a process's peak on to the program it executes, so this big process may not start the measured one.
    between = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    command = [sys.executable, "-c", between, textwrap.dedent(script)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    extra = float(output)
    assert 149 < extra < 250
