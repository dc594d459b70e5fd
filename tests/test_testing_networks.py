"""The conformance suite finds each defect put into encoders, heads and adapters that conform."""

from __future__ import annotations

import numpy as np
import pytest
from conforming import DATA, Written, changed, failed, outcomes

from mio import (
    Modality,
    hookimpl,
)


class Blocks:
    """An encoder of curves that conforms: one position for every two values."""

    fingerprint = "blocks"

    def positions(self, item):
        return -(-len(item) // 2)

    def prepare(self, item):
        padded = np.zeros(2 * self.positions(item), np.float32)
        padded[: len(item)] = item
        return {"blocks": padded.reshape(-1, 2)}

    def dummy(self):
        return {"blocks": np.zeros((1, 2), np.float32)}

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, width)

            def forward(self, items):
                return self.layer(items.arrays["blocks"])

        return Network()


def read_by(made=Blocks, **members):
    encoder = type("Changed", (made,), members)
    return changed(mio_encoder=hookimpl(lambda _: encoder()))


def network(function):
    """An encoder whose network gives `function(its layer, blocks [S, 2])`."""

    def module(self, width):
        made = Blocks.module(self, width)
        made.forward = lambda items: function(made.layer, items.arrays["blocks"])
        return made

    return module


def counting(self, item):
    self.calls = getattr(self, "calls", 0) + 1
    return {"blocks": np.full((self.positions(item), 2), self.calls, np.float32)}


def normalised(layer, blocks):
    return layer((blocks - blocks.mean(0)) / (blocks.std(0, correction=0) + 1))


def drawn(self, width):
    made = Blocks.module(self, width)
    made.layer.weight.data = made.layer.weight.data + float(np.random.default_rng().random())
    return made


ENCODER_DEFECTS = [
    ({"fingerprint": ""}, "the encoder foretells positions", "`fingerprint` is empty"),
    ({"positions": lambda _, item: len(item) / 2}, "the encoder foretells positions", "`positions` says 1.0"),
    ({"prepare": counting}, "the encoder prepares the same arrays again", "differs at the second time"),
    ({"prepare": lambda *_: {"blocks": [1, 2]}}, "the encoder prepares the same arrays again", "gives list"),
    ({"dummy": lambda _: {"blocks": np.zeros((1, 2))}}, "the encoder's dummy is like an item", "float64"),
    ({"dummy": lambda _: {}}, "the encoder's dummy is like an item", "`dummy` gives nothing"),
    ({"module": drawn}, "the network is made without memory, and the same again", "other initial values"),
    ({"module": network(lambda layer, x: layer(x)[1:])}, "the network gives as many embeddings as foretold", "[3, 32]"),
    ({"module": network(normalised)}, "an item's embeddings do not depend on other items", "when item 1 is another"),
    ({"module": network(lambda layer, x: x @ layer.weight.T)}, "gradients are finite, and reach every parameter",
     "no gradient reaches `layer.bias`"),
    ({"module": network(lambda layer, x: (layer(x) * 0 - 1).log())}, "gradients are finite, and reach every parameter",
     "the gradients of `layer.weight` are NaN"),
    ({"weights": lambda _: {"layer.bias": np.zeros(3)}}, "the network is made without memory, and the same again",
     "`weights` has `layer.bias` as [3], the network as [32]"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), ENCODER_DEFECTS)
def test_defects_of_an_encoder_are_found(members, check, detail):
    found = outcomes(read_by(**members))[f"curve: {check}"]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_an_encoder_that_conforms_does():
    assert failed(read_by()) == set()
    alone = outcomes(changed(modality=Modality(name="curve")))  # which nothing reads
    assert "no plugin supplies an encoder" in alone["curve: the encoder foretells positions"].detail


class Shades:
    """A head of curves of two values that conforms: it makes them of the hidden states before them."""

    fingerprint, context, maps, drop, writes = "shades", 3, {}, 0.1, 0

    def positions(self, item):  # noqa: ARG002
        return self.writes

    def target(self, item):
        return {"pair": np.resize(np.asarray(item, np.float32), (1, 2))}

    def noise(self, target, random):  # noqa: ARG002
        return {"noise": random.standard_normal((1, 2), np.float32)}

    def example(self):
        return np.zeros(2, np.float32)

    def save(self, media, stem):
        return Written().save(media, stem)

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(width, 2)
                self.empty = torch.nn.Parameter(torch.zeros(width))

            def told(self, condition):
                known = condition.context_mask[..., None]
                return (condition.context * known).sum(1) / known.sum(1)

            def forward(self, condition, items, kept):  # noqa: ARG002
                told = torch.where(items.dropped[:, None], self.empty, self.told(condition))
                return (self.layer(told) - items.arrays["pair"] - items.arrays["noise"]).square().mean(1)

            def sample(self, condition, sampling, run):  # noqa: ARG002
                draws = [torch.randn(2, generator=torch.Generator().manual_seed(seed)) for seed in sampling.seeds]
                return list((self.layer(self.told(condition)) - torch.stack(draws)).numpy())

        return Network()


def makes(**members):
    head = type("Changed", (Shades,), members)
    return changed(mio_head=hookimpl(lambda _: head()))


def of_network(made, **methods):
    """A class's `module` with other methods of its network."""

    def module(self, width):
        network = made.module(self, width)
        for name, method in methods.items():
            setattr(network, name, lambda *given, method=method: method(network, *given))
        return network

    return module


def forwards(function):
    """A head whose losses are `function(losses, condition, items)`."""
    return of_network(
        Shades,
        forward=lambda net, condition, items, kept: function(
            type(net).forward(net, condition, items, kept), condition, items
        ),
    )


def samples(function):
    return of_network(
        Shades,
        sample=lambda net, condition, sampling, run: function(
            type(net).sample(net, condition, sampling, run), condition, sampling
        ),
    )


def counted(self, _):
    self.calls = getattr(self, "calls", 0) + 1
    return {"pair": np.full((1, 2), self.calls, np.float32)}


def unseeded(media, condition, sampling):  # noqa: ARG001
    import torch

    return [one + torch.randn(2).numpy() for one in media]


HEAD_DEFECTS = [
    ({"fingerprint": ""}, "the head foretells its own positions", "`fingerprint` is empty"),
    ({"positions": lambda *_: -1}, "the head foretells its own positions", "`positions` says -1"),
    ({"target": counted}, "the head learns the same of an item again", "differs at the second time"),
    ({"target": lambda *_: {"pair": np.full((1, 2), np.nan)}},
     "the head learns the same of an item again", "holds NaN"),
    ({"noise": lambda *_: {"noise": np.random.default_rng().random((1, 2), np.float32)}},
     "what the head draws follows from its generator", "differs with an equal generator"),
    ({"example": lambda _: np.full(2, np.nan, np.float32)}, "the head's example is like an item", "NaN"),
    ({"weights": lambda _: {"layer.bias": np.zeros(3)}},
     "the head's network is made without memory, and the same again", "as [3], the network as [2]"),
    ({"module": forwards(lambda losses, *_: losses.mean())}, "the head gives a loss for each item", "gives losses []"),
    ({"module": forwards(lambda losses, *_: losses.double())}, "the head gives a loss for each item", "torch.float64"),
    ({"module": forwards(lambda losses, *_: losses + losses.mean())}, "an item's loss depends on nothing but its own",
     "other losses when item 1 is another"),
    ({"module": forwards(lambda losses, condition, _: losses + condition.context.square().mean((1, 2)))},
     "an item's loss depends on nothing but its own", "more room for context"),
    ({"module": forwards(lambda losses, condition, _: losses + condition.context[:, 0, 0].abs())},
     "an item that is dropped does not know its context", "the context changes the loss"),
    ({"module": forwards(lambda losses, *_: losses.detach())},
     "gradients of the losses are finite, and reach every parameter", "has no gradients"),
    ({"module": samples(unseeded)}, "media follow from their seeds, alone or together", "at the second time"),
    ({"module": samples(lambda media, *_: [one + sum(media) for one in media])},
     "media follow from their seeds, alone or together", "when it is alone"),
    ({"save": lambda *given: given[2]}, "media that are made are saved, and learnt like others", "which is no file"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), HEAD_DEFECTS)
def test_defects_of_a_head_are_found(members, check, detail):
    found = outcomes(makes(**members), samples={"curve": DATA})[f"curve: {check}"]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_a_head_that_conforms_does():
    assert failed(makes(), samples={"curve": DATA}) == set()


class Glance:
    """Adapters that conform: a position adds the mean of the maps that it sees."""

    fingerprint, reads = "glance", "curve"

    def layers(self, count):
        return range(0, count, 2)

    def module(self, width):
        import torch

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.gate = torch.nn.Linear(3, width), torch.nn.Parameter(torch.zeros(1))

            def forward(self, hidden, maps, visible):  # noqa: ARG002
                seen = visible.to(maps.dtype)
                return self.gate * self.layer(seen @ maps.mean(2) / (1 + seen.sum(-1, keepdim=True)))

        return Network()


class Mapped(Blocks):
    """An encoder with maps."""

    maps = (4, 3)

    def module(self, width):
        import torch

        network = super().module(width)
        network.forward = lambda items: (
            network.layer(items.arrays["blocks"]),
            torch.ones(len(items.positions), 4, 3),
        )
        return network


def adapts(**members):
    adapter = type("Changed", (Glance,), members)
    return changed(mio_encoder=hookimpl(lambda _: Mapped()), mio_adapters=hookimpl(lambda _: adapter()))


def passes(function):
    """Adapters that give `function(result, hidden, maps, visible)`."""
    return {"module": of_network(Glance, forward=lambda net, *given: function(type(net).forward(net, *given), *given))}


def softmaxed(found, hidden, maps, visible):  # noqa: ARG001
    """The classic: where nothing is seen, the softmax of nothing but -inf."""
    import torch

    weights = torch.where(visible, maps.sum((2, 3))[:, None], -torch.inf).softmax(-1)
    return found * weights.sum(-1, keepdim=True)


FINITE = "adapters: gradients are finite, whatever is seen, and reach every parameter"
ADAPTER_DEFECTS = [
    ({"fingerprint": ""}, "adapters are in layers that are there", "`fingerprint` is empty"),
    ({"layers": lambda _, count: range(1, count + 1)}, "adapters are in layers that are there", "gave [1, 2] of 2"),
    ({"weights": lambda _: {"gate": np.zeros(1)}}, "adapters: the network is made without memory, and the same again",
     "`weights` has `gate`, which is no `LAYER.NAME`"),
    (passes(lambda found, hidden, *_: found + hidden), "adapters change nothing at the beginning", "is not 0"),
    (passes(lambda found, hidden, *_: found + found.abs() * hidden.mean(1, keepdim=True)),
     "adapters: a position's result is its own", "depends on another position"),
    (passes(lambda found, *given: found + found.abs() * given[1].mean((1, 2))[:, :1, None]),
     "adapters: what a position does not see changes nothing", "of positions not seeing it"),
    (passes(lambda found, *given: found * given[1].shape[1]),
     "adapters: what a position does not see changes nothing", "where a row has more items"),
    (passes(softmaxed), "adapters: what a position does not see changes nothing", "NaN or infinities"),
    (passes(lambda found, *_: found.detach()), FINITE, "does not require grad"),
    (passes(softmaxed), FINITE, "gradients are NaN"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "detail"), ADAPTER_DEFECTS)
def test_defects_of_adapters_are_found(members, check, detail):
    found = outcomes(adapts(**members))[check]
    assert (found.outcome, detail in found.detail) == ("failed", True), found


def test_adapters_that_conform_do():
    assert failed(adapts()) == set()
    alone = outcomes(changed(mio_adapters=hookimpl(lambda _: Glance())))
    assert alone["adapters change nothing at the beginning"].outcome == "skipped"
    assert "no plugin here reads `curve`" in alone["adapters change nothing at the beginning"].detail
