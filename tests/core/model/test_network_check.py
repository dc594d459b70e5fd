"""Mistakes of heads and adapters are one line before training, which names plugin and record."""

import pytest
import tiles
import torch
from torch import nn

from mio import PluginError
from mio.core.model.network_check import check_networks_run

pytestmark = pytest.mark.usefixtures("tiles_world")


def checked(data, width):
    data.preflight()
    check_networks_run(data.codecs, width)


def changed(made, **methods):
    """A plugin's `module` with other methods of the network that it makes; None takes one away."""

    def module(width):
        network = made(width)
        for name, method in methods.items():
            setattr(network, name, method and (lambda *given, method=method: method(network, *given)))
        return network

    return module


@pytest.mark.parametrize("own", [False, True])
def test_networks_are_run_without_computing(own, monkeypatch):
    data, width = tiles.opened(f"plugins.tiles={{own: {own}}}")
    data.preflight()
    devices, state = [], torch.get_rng_state()
    head = data.codecs.makers["tile"].head
    made = head.module

    def module(width):
        network = made(width)
        network.register_forward_pre_hook(lambda _, given: devices.append(given[1].arrays["tile"].device.type))
        return network

    monkeypatch.setattr(head, "module", module)
    check_networks_run(data.codecs, width)
    assert devices == ["meta", "meta"]  # its dummy, and the one shape that tiles have
    assert data.codecs.makers["tile"].seen == {}
    assert torch.equal(torch.get_rng_state(), state)


def test_a_head_that_looks_at_values_runs_for_real():
    data, width = tiles.opened()
    head = data.codecs.makers["tile"].head
    head.module = changed(
        head.module, forward=lambda net, *given: type(net).forward(net, *given) * given[1].dropped.sum().item()
    )
    checked(data, width)


HEAD_MISTAKES = [
    (False, {"forward": lambda *_: torch.zeros(())}, r"gives \[\] as the losses of 1 items; it must be a tensor of"),
    (False, {"forward": lambda *_: 0.5}, r"gives a float as the losses of 1 items"),
    (False, {"forward": lambda *_: torch.zeros(1, dtype=torch.int64)}, r"gives \[1\] as the losses of 1 items"),
    (False, {"sample": None}, "has a network without `sample`"),
    (True, {"inputs": None}, "has a network without `inputs`, which that of a head that has positions of its own"),
    (True, {"inputs": lambda *_: (torch.zeros(3, 32), None)}, r"gives \[3, 32\] by `inputs`, of which `positions` had"),
    (False, {"forward": lambda net, *_: net.missing}, "cannot be run on what it prepared: 'Network' object has no"),
]


@pytest.mark.parametrize(("own", "methods", "words"), HEAD_MISTAKES)
def test_a_mistake_of_a_heads_network(own, methods, words):
    data, width = tiles.opened(f"plugins.tiles={{own: {own}}}")
    head = data.codecs.makers["tile"].head
    head.module = changed(head.module, **methods)
    with pytest.raises(PluginError, match=words) as raised:
        checked(data, width)
    assert "the head of `tile`, which plugin `tiles` supplies, " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_network_that_cannot_be_made():
    data, width = tiles.opened()
    data.codecs.makers["tile"].head.module = lambda width: nn.Linear(width, 1, nonsense=True)
    with pytest.raises(
        PluginError, match="the head of `tile`, which plugin `tiles` supplies, has no network: TypeError"
    ):
        checked(data, width)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("positions", lambda media: media.sum() / 7, r"takes .* positions; it must be a whole number, 0 or more"),
        (
            "target",
            lambda media: {"tile": media[None] / 10 if media.any() else media[None].astype("float32")},
            r"has the target `tile` float64 \[n, 4\] of .* its `target` of its `example` has `tile` float32",
        ),
        ("noise", lambda target, _: {"tile": target["tile"]}, "draws `tile`, which its target has too"),
        ("target", lambda _: {}, "has a `target` of its `example` that is no mapping of names to arrays"),
    ],
)
def test_a_mistake_in_what_a_head_says_of_items(attribute, value, words):
    data, width = tiles.opened()
    setattr(data.codecs.makers["tile"].head, attribute, value)
    with pytest.raises(PluginError, match=words) as raised:
        checked(data, width)
    assert "the head of `tile`, which plugin `tiles` supplies" in str(raised.value)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (
            {"forward": lambda _, hidden, *__: hidden[:, :1]},
            r"gives \[2, 1, 32\] of hidden states \[2, 5, 32\] and maps",
        ),
        ({"forward": lambda _, hidden, *__: hidden + 1}, "a network does not begin as 0, so that the model would not"),
        ({"forward": lambda *_: None}, "a network gives a NoneType of hidden states"),
        ({"forward": lambda *_: 1 / 0}, r"a network cannot be run on maps \[4, 3\]: division by zero"),
    ],
)
def test_a_mistake_of_an_adapter(methods, words):
    data, width = tiles.opened()
    adapter = data.codecs.networks.adapters["tiles"]
    adapter.module = changed(adapter.module, **methods)
    with pytest.raises(PluginError, match=f"the adapters of plugin `tiles`: .*{words}"):
        checked(data, width)


def test_pretrained_adapters_need_not_begin_as_nothing():
    data, width = tiles.opened()
    adapter = data.codecs.networks.adapters["tiles"]
    adapter.module = changed(adapter.module, forward=lambda _, hidden, *__: hidden + 1)
    adapter.weights = dict
    checked(data, width)
